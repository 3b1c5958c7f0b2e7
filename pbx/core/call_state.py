"""What a call remembers, and the two things every phase may do with it: name an offer, and close. Pure."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from pbx.core.call_events import Candidate, Close, Command, HangUpCaller, HangUpOffer, Limits, Log
from pbx.core.causes import Cause


class Phase(StrEnum):
    """Where the call stands."""

    ARRIVING = "arriving"  # INVITE admitted, audio not yet there
    FLOW = "flow"  # the dialplan speaks with the caller
    HUNTING = "hunting"  # clinicians are being rung, the caller hears music and announcements
    CONNECTED = "connected"  # caller and clinician talk
    MESSAGE = "message"  # the caller leaves a message
    ENDED = "ended"  # over; nothing more is done


class OfferPhase(StrEnum):
    """Where one dialled leg stands."""

    DIALLED = "dialled"
    RINGING = "ringing"
    SCREENING = "screening"  # picked up, asked for the accepting key
    CONNECTED = "connected"


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One leg that was dialled for this call."""

    number: int  # counts from 1 within the call
    candidate: Candidate
    endpoint: int  # index into candidate.endpoints
    phase: OfferPhase
    since: datetime  # when it was dialled
    transfer_of: int | None = None  # the offer whose phone asked for it by REFER


@dataclass(frozen=True, kw_only=True, slots=True)
class CallState:
    """Everything a call remembers between two events."""

    phase: Phase = Phase.ARRIVING
    limits: Limits = field(default_factory=Limits)
    plan: tuple[Candidate, ...] = ()  # who is tried, in order
    place: int = -1  # index into plan of the one being tried
    round: int = 1  # how often the plan was begun
    offers: tuple[Offer, ...] = ()  # legs dialled and not yet over
    next_offer: int = 1
    clinician: int | None = None  # the offer that talks with the caller
    answered_by: str = ""  # person who accepted last
    ever_connected: bool = False
    flow_rests: bool = False  # the flow waits for the talk to end; it is not told of a transfer within it
    message_taken: bool = False
    caller_gone: Cause | None = None  # the caller hung up while the message's file is being closed
    lost: Candidate | None = None  # the clinician whose line dropped; tried first in the next hunt


Step = tuple[CallState, tuple[Command, ...]]


def close(
    state: CallState, cause: Cause, now: datetime, *, hang_up: bool, advice: str = "", by_caller: bool = False
) -> Step:
    """Let every leg go and state how the call came out."""
    commands: list[Command] = []
    for offer in state.offers:
        commands.append(HangUpOffer(offer=offer.number))
        if offer.phase is not OfferPhase.CONNECTED:
            commands.append(offer_log(offer, "cancelled", now))
    if hang_up:
        commands.append(HangUpCaller(cause=cause))
    disposition = _disposition(state, cause, advice=advice, by_caller=by_caller)
    return replace(state, phase=Phase.ENDED, offers=(), clinician=None), (
        *commands,
        Close(cause=cause, disposition=disposition),
    )


def _disposition(state: CallState, cause: Cause, *, advice: str, by_caller: bool) -> str:
    """How the call came out, as far as the machine can know it."""
    if state.ever_connected and state.phase is Phase.CONNECTED:
        return "connected"
    if state.message_taken:
        return "voicemail"
    if advice:
        return advice
    if by_caller:
        return "abandoned"
    if state.ever_connected:
        return "connected"
    return "ended" if cause is Cause.NORMAL else "failed"


def offer_by(state: CallState, number: int) -> Offer | None:
    return next((o for o in state.offers if o.number == number), None)


def with_offer(state: CallState, offer: Offer) -> CallState:
    return replace(state, offers=tuple(offer if o.number == offer.number else o for o in state.offers))


def offer_log(offer: Offer, outcome: str, now: datetime) -> Log:
    return Log(
        kind="offer-ended",
        detail={
            "offer": offer.number,
            "person": offer.candidate.person,
            "outcome": outcome,
            "rang_s": round((now - offer.since).total_seconds(), 1),
        },
    )


OUTCOMES = {
    Cause.BUSY: "busy",
    Cause.NO_ANSWER: "no-answer",
    Cause.REJECTED: "declined",
    Cause.NOT_FOUND: "not-registered",
    Cause.NOT_REGISTERED: "not-registered",
    Cause.CANCELLED: "cancelled",
}
