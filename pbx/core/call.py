"""One call as a pure machine: greet, run the flow, find a clinician, connect, or take a message; always end.

`step(state, event, now)` returns the next state and the commands the runner carries out. It knows neither legs' SIP
nor the flow's nodes: the runner reports what they did and starts them when told.

Rules on top of the table:
- Every wait has a timer, and the last step of a hunt is the flow's own way out (voicemail or advice).
- A pick-up is not a clinician: only the accepting key connects; any wrong key repeats the question, never drops.
- Other ringing legs are let go only after the bridge is up.
- The caller's end ends everything; the clinician's abnormal end does not end the caller.
- A late event of something already over is listed in `_LATE`; any other unlisted event raises `CallProtocolError`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from pbx.core.call_events import (
    AnswerCaller,
    Bridge,
    CallerDigit,
    CallerEnded,
    CallerReady,
    CallEvent,
    Candidate,
    ClearTimer,
    Close,
    Command,
    Dial,
    EndAsked,
    HangUpCaller,
    HangUpOffer,
    HuntAsked,
    Limits,
    Log,
    MessageAsked,
    MessageRecorded,
    Music,
    OfferAnswered,
    OfferDigit,
    OfferEnded,
    OfferHeld,
    OfferRinging,
    RecordMessage,
    ReturnToFlow,
    SayEnded,
    SayToCaller,
    SayToOffer,
    SetTimer,
    StartFlow,
    StopMessage,
    TimerFired,
    TransferAsked,
)
from pbx.core.causes import Cause

ACCEPT, DECLINE = "1", "2"


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
    message_taken: bool = False
    caller_gone: Cause | None = None  # the caller hung up while the message's file is being closed
    repairs: int = 0  # how often a lost clinician was called again


class CallProtocolError(Exception):
    """The runner reported an event that cannot happen in this phase: a fault of ours."""


Step = tuple[CallState, tuple[Command, ...]]


def start(limits: Limits) -> Step:
    """The state of a call whose INVITE was just admitted."""
    return CallState(limits=limits), (AnswerCaller(), SetTimer(key="arrive", seconds=limits.arrive_s))


def step(state: CallState, event: CallEvent, now: datetime) -> Step:
    """One event in, the next state and what to do out. Raises CallProtocolError for an impossible event."""
    if state.phase is Phase.ENDED:
        return state, ()
    if isinstance(event, CallerEnded):
        return _caller_ended(state, event, now)
    handler = _TABLE.get((state.phase, type(event)))
    if handler is not None:
        return handler(state, event, now)
    if (state.phase, type(event)) in _LATE or isinstance(event, TimerFired | SayEnded | CallerDigit):
        return state, ()
    raise CallProtocolError(f"can't handle {type(event).__name__} in phase {state.phase}")


# --- arriving and the flow ---------------------------------------------------------------------------------------


def _caller_ready(state: CallState, event: CallerReady, now: datetime) -> Step:
    return replace(state, phase=Phase.FLOW), (
        ClearTimer(key="arrive"),
        SetTimer(key="call", seconds=state.limits.max_call_s),
        Log(kind="answered"),
        StartFlow(),
    )


def _never_arrived(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key != "arrive":
        return state, ()
    return _close(state, Cause.TIMEOUT, now, hang_up=True)


def _hunt_asked(state: CallState, event: HuntAsked, now: datetime) -> Step:
    begun = replace(state, phase=Phase.HUNTING, plan=event.candidates, place=-1, round=1)
    log = Log(kind="hunt", detail={"roster": event.roster, "people": [c.person for c in event.candidates]})
    if not event.candidates:
        return _nobody(begun, now, (log,))
    after, commands = _next_candidate(begun, now)
    say = SayToCaller(prompt="calling_clinician")
    return after, (
        log,
        say,
        Music(on=True),
        SetTimer(key="announce", seconds=state.limits.announce_s),
        *commands,
    )


def _message_asked(state: CallState, event: MessageAsked, now: datetime) -> Step:
    return replace(state, phase=Phase.MESSAGE), (
        Log(kind="message-started", detail={"owner": event.owner}),
        RecordMessage(owner=event.owner),
        SetTimer(key="message", seconds=min(event.max_s, state.limits.message_s)),
    )


def _end_asked(state: CallState, event: EndAsked, now: datetime) -> Step:
    return _close(state, Cause.NORMAL, now, hang_up=True, advice=event.advice)


# --- the hunt ----------------------------------------------------------------------------------------------------


def _next_candidate(state: CallState, now: datetime) -> Step:
    """Dial the next person's endpoints all at once, or begin the next round, or give up."""
    place, rounds = state.place + 1, state.round
    if place >= len(state.plan):
        place, rounds = 0, rounds + 1
    if rounds > state.limits.rounds or not state.plan:
        return _nobody(state, now, ())
    candidate = state.plan[place]
    offers = tuple(
        Offer(
            number=state.next_offer + i,
            candidate=candidate,
            endpoint=i,
            phase=OfferPhase.DIALLED,
            since=now,
        )
        for i in range(len(candidate.endpoints))
    )
    dials: list[Command] = []
    for offer in offers:
        endpoint = candidate.endpoints[offer.endpoint]
        dials.append(Dial(offer=offer.number, endpoint=endpoint, person=candidate.person))
        dials.append(
            Log(
                kind="offer",
                detail={
                    "offer": offer.number,
                    "person": candidate.person,
                    "name": candidate.name,
                    "endpoint": endpoint.kind,
                },
            )
        )
    return replace(
        state,
        place=place,
        round=rounds,
        offers=state.offers + offers,
        next_offer=state.next_offer + len(offers),
    ), (*dials, SetTimer(key="ring", seconds=state.limits.ring_s))


def _nobody(state: CallState, now: datetime, first: tuple[Command, ...]) -> Step:
    return replace(state, phase=Phase.FLOW, place=-1, plan=()), (
        *first,
        *_quiet_hunt(),
        Log(kind="nobody"),
        ReturnToFlow(outcome="nobody"),
    )


def _quiet_hunt() -> tuple[Command, ...]:
    return Music(on=False), ClearTimer(key="ring"), ClearTimer(key="announce")


def _offer_ringing(state: CallState, event: OfferRinging, now: datetime) -> Step:
    offer = _offer(state, event.offer)
    if offer is None or offer.phase is not OfferPhase.DIALLED:
        return state, ()
    return _with_offer(state, replace(offer, phase=OfferPhase.RINGING)), ()


def _offer_answered(state: CallState, event: OfferAnswered, now: datetime) -> Step:
    offer = _offer(state, event.offer)
    if offer is None or offer.phase in (OfferPhase.SCREENING, OfferPhase.CONNECTED):
        return state, ()
    if offer.transfer_of is not None:
        return _connect(state, offer, now)
    screening = _with_offer(state, replace(offer, phase=OfferPhase.SCREENING))
    return screening, (
        Log(kind="picked-up", detail={"offer": offer.number, "person": offer.candidate.person}),
        SayToOffer(offer=offer.number, prompt="screen"),
        SetTimer(key=f"accept-{offer.number}", seconds=state.limits.accept_s),
    )


def _offer_digit(state: CallState, event: OfferDigit, now: datetime) -> Step:
    offer = _offer(state, event.offer)
    if offer is None or offer.phase is not OfferPhase.SCREENING:
        return state, ()
    if event.digit == ACCEPT:
        return _connect(state, offer, now)
    if event.digit == DECLINE:
        return _drop_offer(state, offer, now, "declined", hang_up=True)
    return state, (SayToOffer(offer=offer.number, prompt="screen_wrong_key"),)


def _offer_ended(state: CallState, event: OfferEnded, now: datetime) -> Step:
    offer = _offer(state, event.offer)
    if offer is None:
        return state, ()
    if offer.phase is OfferPhase.SCREENING:
        outcome = "declined" if event.by_peer else "unreachable"
    else:
        outcome = _OUTCOMES.get(event.cause, "unreachable")
    return _drop_offer(state, offer, now, outcome, hang_up=False)


def _hunt_timer(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key == "announce":
        return state, (
            SayToCaller(prompt="still_trying"),
            SetTimer(key="announce", seconds=state.limits.announce_s),
        )
    if event.key == "call":
        return _close(state, Cause.TIMEOUT, now, hang_up=True)
    waiting: list[Offer] = []
    if event.key == "ring":
        waiting = [o for o in state.offers if o.phase in (OfferPhase.DIALLED, OfferPhase.RINGING)]
    elif event.key.startswith("accept-"):
        waiting = [o for o in state.offers if f"accept-{o.number}" == event.key]
    commands: tuple[Command, ...] = ()
    for offer in waiting:
        outcome = "no-key" if offer.phase is OfferPhase.SCREENING else "no-answer"
        state, more = _drop_offer(state, offer, now, outcome, hang_up=True)
        commands += more
    return state, commands


def _drop_offer(state: CallState, offer: Offer, now: datetime, outcome: str, *, hang_up: bool) -> Step:
    """An offer is over without a connection; when it was the last of its person, the next one is tried."""
    state = replace(state, offers=tuple(o for o in state.offers if o.number != offer.number))
    commands: tuple[Command, ...] = (
        ClearTimer(key=f"accept-{offer.number}"),
        _offer_log(offer, outcome, now),
        *((HangUpOffer(offer=offer.number),) if hang_up else ()),
    )
    if outcome == "declined":  # the person said no: their other devices need not go on ringing
        for other in [o for o in state.offers if o.candidate.person == offer.candidate.person]:
            state = replace(state, offers=tuple(o for o in state.offers if o.number != other.number))
            commands += (
                ClearTimer(key=f"accept-{other.number}"),
                HangUpOffer(offer=other.number),
                _offer_log(other, "cancelled", now),
            )
    if state.offers or state.phase is not Phase.HUNTING:
        return state, commands
    after, more = _next_candidate(state, now)
    return after, (*commands, *more)


# --- connected ---------------------------------------------------------------------------------------------------


def _connect(state: CallState, offer: Offer, now: datetime) -> Step:
    """The bridge first; every other leg is let go after it."""
    others = [o for o in state.offers if o.number != offer.number]
    person = offer.candidate
    commands: list[Command] = [
        *_quiet_hunt(),
        ClearTimer(key=f"accept-{offer.number}"),
        SayToOffer(offer=offer.number, prompt=""),
        SayToCaller(prompt=""),
        Bridge(offer=offer.number),
        _offer_log(offer, "accepted", now),
        Log(kind="connected", detail={"offer": offer.number, "person": person.person, "name": person.name}),
    ]
    for other in others:
        commands += [ClearTimer(key=f"accept-{other.number}"), HangUpOffer(offer=other.number)]
        if other.phase is not OfferPhase.CONNECTED:
            commands.append(_offer_log(other, "cancelled", now))
    return replace(
        state,
        phase=Phase.CONNECTED,
        offers=(replace(offer, phase=OfferPhase.CONNECTED),),
        clinician=offer.number,
        answered_by=person.person,
        ever_connected=True,
    ), tuple(commands)


def _connected_offer_ended(state: CallState, event: OfferEnded, now: datetime) -> Step:
    offer = _offer(state, event.offer)
    if offer is None:
        return state, ()
    if offer.number != state.clinician:  # a transfer target that did not come up: the two go on talking
        rest = tuple(o for o in state.offers if o.number != offer.number)
        outcome = _OUTCOMES.get(event.cause, "unreachable")
        return replace(state, offers=rest), (_offer_log(offer, outcome, now),)
    pending = [o for o in state.offers if o.transfer_of == offer.number]
    if pending:  # a blind transfer: the referrer may hang up at once, the caller waits for the target
        return replace(
            state,
            phase=Phase.HUNTING,
            clinician=None,
            offers=tuple(pending),
            plan=(offer.candidate,),
            place=0,
            round=1,
        ), (
            Log(kind="transferring", detail={"person": offer.candidate.person}),
            Music(on=True),
            SetTimer(key="ring", seconds=state.limits.ring_s),
            SetTimer(key="announce", seconds=state.limits.announce_s),
        )
    if event.cause is Cause.NORMAL or state.repairs >= state.limits.repairs:
        return _close(state, event.cause, now, hang_up=True)
    again = replace(
        state,
        phase=Phase.HUNTING,
        clinician=None,
        offers=(),
        plan=(offer.candidate, *(c for c in state.plan if c.person != offer.candidate.person)),
        place=-1,
        round=1,
        repairs=state.repairs + 1,
    )
    after, commands = _next_candidate(again, now)
    return after, (
        Log(kind="clinician-lost", detail={"person": offer.candidate.person, "cause": str(event.cause)}),
        SayToCaller(prompt="clinician_lost"),
        Music(on=True),
        SetTimer(key="announce", seconds=state.limits.announce_s),
        *commands,
    )


def _transfer_asked(state: CallState, event: TransferAsked, now: datetime) -> Step:
    if event.offer != state.clinician:
        return state, (HangUpOffer(offer=event.new_offer),)
    target = Offer(
        number=event.new_offer,
        candidate=event.candidate,
        endpoint=0,
        phase=OfferPhase.DIALLED,
        since=now,
        transfer_of=event.offer,
    )
    return replace(
        state, offers=(*state.offers, target), next_offer=max(state.next_offer, event.new_offer + 1)
    ), (
        Log(kind="transfer", detail={"offer": event.new_offer, "person": event.candidate.person}),
        SetTimer(key="ring", seconds=state.limits.ring_s),
    )


def _late_transfer(state: CallState, event: TransferAsked, now: datetime) -> Step:
    return state, (HangUpOffer(offer=event.new_offer),)


def _offer_held(state: CallState, event: OfferHeld, now: datetime) -> Step:
    if event.offer != state.clinician:
        return state, ()
    return state, (Log(kind="held" if event.held else "resumed"), Music(on=event.held))


def _connected_timer(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key == "call":
        return _close(state, Cause.TIMEOUT, now, hang_up=True)
    if event.key != "ring":
        return state, ()
    pending = [o for o in state.offers if o.transfer_of is not None and o.number != state.clinician]
    rest = tuple(o for o in state.offers if o not in pending)
    commands: list[Command] = []
    for offer in pending:
        commands += [HangUpOffer(offer=offer.number), _offer_log(offer, "no-answer", now)]
    return replace(state, offers=rest), tuple(commands)


# --- message and end ---------------------------------------------------------------------------------------------


def _message_digit(state: CallState, event: CallerDigit, now: datetime) -> Step:
    if event.digit != "#":
        return state, ()
    return state, (StopMessage(), SetTimer(key="message-close", seconds=state.limits.message_close_s))


def _message_timer(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key == "message":
        return state, (StopMessage(), SetTimer(key="message-close", seconds=state.limits.message_close_s))
    if (
        event.key == "message-close"
    ):  # the file never closed: say so and go on, the caller is not kept waiting
        return _message_over(state, Log(kind="message-unsaved"), taken=False, now=now)
    if event.key == "call":
        return _close(state, Cause.TIMEOUT, now, hang_up=True)
    return state, ()


def _message_recorded(state: CallState, event: MessageRecorded, now: datetime) -> Step:
    log = Log(kind="message-taken", detail={"message": event.message, "duration_s": event.duration_s})
    taken = event.duration_s >= state.limits.shortest_message_s
    return _message_over(state, log, taken=taken, now=now)


def _message_over(state: CallState, log: Log, *, taken: bool, now: datetime) -> Step:
    first = (ClearTimer(key="message"), ClearTimer(key="message-close"), log)
    state = replace(state, phase=Phase.FLOW, message_taken=state.message_taken or taken)
    if state.caller_gone is not None:
        after, commands = _close(state, state.caller_gone, now, hang_up=False, by_caller=True)
        return after, (*first, *commands)
    return state, (*first, ReturnToFlow(outcome="taken" if taken else "empty"))


def _caller_ended(state: CallState, event: CallerEnded, now: datetime) -> Step:
    if state.phase is Phase.MESSAGE:  # the call closes when the file is complete
        return replace(state, caller_gone=event.cause), (
            StopMessage(),
            SetTimer(key="message-close", seconds=state.limits.message_close_s),
        )
    return _close(state, event.cause, now, hang_up=False, by_caller=True)


def _close(
    state: CallState, cause: Cause, now: datetime, *, hang_up: bool, advice: str = "", by_caller: bool = False
) -> Step:
    """Let every leg go and state how the call came out."""
    commands: list[Command] = []
    for offer in state.offers:
        commands.append(HangUpOffer(offer=offer.number))
        if offer.phase is not OfferPhase.CONNECTED:
            commands.append(_offer_log(offer, "cancelled", now))
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


def _offer(state: CallState, number: int) -> Offer | None:
    return next((o for o in state.offers if o.number == number), None)


def _with_offer(state: CallState, offer: Offer) -> CallState:
    return replace(state, offers=tuple(offer if o.number == offer.number else o for o in state.offers))


def _offer_log(offer: Offer, outcome: str, now: datetime) -> Log:
    return Log(
        kind="offer-ended",
        detail={
            "offer": offer.number,
            "person": offer.candidate.person,
            "outcome": outcome,
            "rang_s": round((now - offer.since).total_seconds(), 1),
        },
    )


_OUTCOMES = {
    Cause.BUSY: "busy",
    Cause.NO_ANSWER: "no-answer",
    Cause.REJECTED: "declined",
    Cause.NOT_FOUND: "not-registered",
    Cause.NOT_REGISTERED: "not-registered",
    Cause.CANCELLED: "cancelled",
}

_Handler = Callable[[CallState, Any, datetime], Step]
_TABLE: dict[tuple[Phase, type], _Handler] = {
    (Phase.ARRIVING, CallerReady): _caller_ready,
    (Phase.ARRIVING, TimerFired): _never_arrived,
    (Phase.FLOW, HuntAsked): _hunt_asked,
    (Phase.FLOW, MessageAsked): _message_asked,
    (Phase.FLOW, EndAsked): _end_asked,
    (Phase.FLOW, TimerFired): _hunt_timer,
    (Phase.HUNTING, OfferRinging): _offer_ringing,
    (Phase.HUNTING, OfferAnswered): _offer_answered,
    (Phase.HUNTING, OfferDigit): _offer_digit,
    (Phase.HUNTING, OfferEnded): _offer_ended,
    (Phase.HUNTING, TimerFired): _hunt_timer,
    (Phase.CONNECTED, OfferRinging): _offer_ringing,
    (Phase.CONNECTED, OfferAnswered): _offer_answered,
    (Phase.CONNECTED, OfferEnded): _connected_offer_ended,
    (Phase.CONNECTED, OfferHeld): _offer_held,
    (Phase.CONNECTED, TransferAsked): _transfer_asked,
    (Phase.CONNECTED, TimerFired): _connected_timer,
    (Phase.MESSAGE, CallerDigit): _message_digit,
    (Phase.MESSAGE, TimerFired): _message_timer,
    (Phase.MESSAGE, MessageRecorded): _message_recorded,
    (Phase.FLOW, TransferAsked): _late_transfer,
    (Phase.HUNTING, TransferAsked): _late_transfer,
    (Phase.MESSAGE, TransferAsked): _late_transfer,
}

# Events that may still be on their way when the phase has changed; nothing is left to do for them.
_LATE: frozenset[tuple[Phase, type]] = frozenset(
    [
        (phase, event)
        for phase in (Phase.FLOW, Phase.MESSAGE)
        for event in (OfferRinging, OfferAnswered, OfferDigit, OfferEnded, OfferHeld, MessageRecorded)
    ]
    + [
        (Phase.CONNECTED, OfferDigit),
        (Phase.CONNECTED, CallerReady),
        (Phase.CONNECTED, MessageRecorded),
        (Phase.HUNTING, CallerReady),
        (Phase.HUNTING, OfferHeld),
        (Phase.HUNTING, MessageRecorded),
        (Phase.FLOW, CallerReady),
        (Phase.MESSAGE, CallerReady),
    ]
)
