"""The words between `core.call` and its runner: events in, commands out. Frozen values, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pbx.core.causes import Cause


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One way to reach a person."""

    kind: str  # "sip": an account of our registrar; "phone": a number over a trunk
    address: str  # user part of the URI that is dialled: "1001" or "+12025550101"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A person who may take the call; all endpoints ring at once."""

    person: str  # id in the roster
    name: str  # as staff know them
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of every wait in a call, in seconds unless counted."""

    arrive_s: float = 10.0  # from the answer to audio being there
    ring_s: float = 25.0  # a person's phones ring
    accept_s: float = 15.0  # from pick-up to the accepting key
    message_s: float = 180.0  # longest message
    message_close_s: float = 5.0  # from the end of a message to its file being complete
    shortest_message_s: float = 1.0  # less is nothing said
    max_call_s: float = 7200.0  # the whole call
    rounds: int = 2  # times the whole plan is tried


# --- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class CallEvent:
    """Something the runner reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerReady(CallEvent):
    """The caller's leg is answered and has audio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerDigit(CallEvent):
    """The caller pressed a key."""

    digit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerEnded(CallEvent):
    """The caller's leg is over."""

    cause: Cause


@dataclass(frozen=True, kw_only=True, slots=True)
class HuntAsked(CallEvent):
    """The flow wants a clinician."""

    roster: str
    candidates: tuple[Candidate, ...]  # in the order they are tried


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageAsked(CallEvent):
    """The flow wants the caller's message."""

    owner: str  # roster or person who owns it
    max_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EndAsked(CallEvent):
    """The flow has come to its end."""

    advice: str = ""  # disposition the flow states, such as "emergency-advice"


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferRinging(CallEvent):
    """A dialled leg rings."""

    offer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferAnswered(CallEvent):
    """A dialled leg was picked up and has audio; by whom is not known yet."""

    offer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferDigit(CallEvent):
    """A key was pressed on a dialled leg."""

    offer: int
    digit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferHeld(CallEvent):
    """A dialled leg put us on hold, or took us back."""

    offer: int
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferEnded(CallEvent):
    """A dialled leg is over."""

    offer: int
    cause: Cause
    by_peer: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferAsked(CallEvent):
    """A clinician's phone sent REFER; the target is being dialled as `new_offer`."""

    offer: int
    new_offer: int
    candidate: Candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageRecorded(CallEvent):
    """The message's file is complete."""

    message: str  # id of the stored message
    duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TimerFired(CallEvent):
    """A timer set by SetTimer ran out."""

    key: str


# --- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Something the runner carries out, in the order given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerCaller(Command):
    """Answer the caller's INVITE with audio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartFlow(Command):
    """Begin the dialplan of the line that was dialled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReturnToFlow(Command):
    """Go on in the dialplan: what it asked for came out as `outcome`."""

    outcome: str  # of a hunt: answered, nobody, dropped, done; of a message: taken, empty, failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Dial(Command):
    """Dial one endpoint as offer number `offer`."""

    offer: int
    endpoint: Endpoint
    person: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HangUpOffer(Command):
    """End a dialled leg: CANCEL while it rings, BYE after."""

    offer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HangUpCaller(Command):
    """End the caller's leg."""

    cause: Cause


@dataclass(frozen=True, kw_only=True, slots=True)
class Bridge(Command):
    """Let the caller and this offer hear each other."""

    offer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Music(Command):
    """Start or stop hold music for a caller who was put on hold or is being transferred."""

    on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SayToOffer(Command):
    """Play a prompt to a dialled leg; an empty name stops what is playing."""

    offer: int
    prompt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetTimer(Command):
    """Report TimerFired(key) after so many seconds; setting a key again replaces it."""

    key: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClearTimer(Command):
    """Forget a timer; unknown keys are fine."""

    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordMessage(Command):
    """Record what the caller says until StopMessage."""

    owner: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StopMessage(Command):
    """Close the message's file; MessageRecorded follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Log(Command):
    """Add an entry to the call's timeline."""

    kind: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Close(Command):
    """Write the call's end; nothing follows."""

    cause: Cause
    disposition: str  # connected, voicemail, abandoned, emergency-advice, ended or failed
