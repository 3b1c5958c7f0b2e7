"""What the engine tells the rest about a leg: frozen values, never a pjsua2 object.

A leg is one SIP dialog of a call. Only its `LegId` leaves the pj thread while it lives.
Every leg announced by `Incoming` or created by `dial` ends with exactly one `Ended`, its last event.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

from pbx.core.causes import Cause

LegId = NewType("LegId", int)
PlayId = NewType("PlayId", int)


@dataclass(frozen=True, kw_only=True, slots=True)
class LegEvent:
    """Something that happened to one leg."""

    leg: LegId


@dataclass(frozen=True, kw_only=True, slots=True)
class Incoming(LegEvent):
    """An INVITE was admitted; it waits for ring, progress, answer or reject."""

    to_user: str  # user part of the Request-URI: the DID, SIP name or extension that was dialled
    from_user: str  # user part of From, or "anonymous"
    from_display: str  # display name of From; shown, never trusted
    sip_call_id: str  # Call-ID header (RFC 3261 20.8)
    source: str  # "address:port" the INVITE came from (the edge)
    headers: Mapping[str, str] = field(
        default_factory=dict
    )  # lower-case X-Hotline-*, P-Asserted-Identity, Diversion


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress(LegEvent):
    """An outgoing leg received a provisional response (101-199)."""

    code: int
    early_media: bool  # it carried SDP: the far end's own tones can be heard


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered(LegEvent):
    """The dialog is confirmed: our 200 was ACKed, or theirs arrived."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaReady(LegEvent):
    """Audio of the leg is active; play, record and bridge asked for earlier take effect now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Digit(LegEvent):
    """One key, reported once however often the network repeated it."""

    digit: str  # 0-9 * # A-D
    via: str  # "rfc4733" or "info"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayEnded(LegEvent):
    """A play came to its end, was interrupted, or could not start."""

    play: PlayId
    completed: bool  # the last file was played to its end
    error: str = ""  # plain sentence when a file could not be played


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingEnded(LegEvent):
    """A recording was closed and its file is complete on disk."""

    path: Path
    duration_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Held(LegEvent):
    """The far end put us on hold or took us back (RFC 3264 8.4)."""

    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferAsked(LegEvent):
    """The far end sent REFER (RFC 3515) and the engine accepted it with 202 and dialled `new_leg`.

    `new_leg` has the life of any dialled leg; its progress is reported to the referrer by NOTIFY on its own.
    """

    target: str  # the Refer-To URI without Replaces
    new_leg: LegId
    replaces: LegId | None  # attended (RFC 3891): the leg of ours whose dialog the target shall replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced(LegEvent):
    """An INVITE with Replaces (RFC 3891) took this leg's place; `leg` ends, `new_leg` goes on."""

    new_leg: LegId


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferProgress(LegEvent):
    """NOTIFY about a REFER that we sent on this leg."""

    code: int
    final: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended(LegEvent):
    """The leg is over. Nothing follows."""

    cause: Cause
    code: int  # SIP status code, 0 when there was none
    by_peer: bool  # the far end ended it
    rx_packets: int = 0  # RTP packets received and sent over the life of the leg
    tx_packets: int = 0
    rx_lost: int = 0
