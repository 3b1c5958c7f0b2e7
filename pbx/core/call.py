"""One call as a pure machine: greet, run the flow, find a clinician, connect, or take a message.

`step(state, event, now)` returns the next state and the commands the runner carries out. It knows neither
SIP nor the flow's nodes: the runner reports what they did and starts them when told.

Rules on top of the table:
- Every wait has a timer, and the last step of a hunt is the flow's own way out (voicemail or advice).
- A pick-up is not a clinician: only the accepting key connects; any wrong key repeats the question.
- Other ringing legs are let go only after the bridge is up.
- The caller's end ends everything; the clinician's abnormal end does not end the caller.
- A late event of something already over is listed in `_LATE`; any other unlisted event raises.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from pbx.core import hunt, talk
from pbx.core.call_events import (
    AnswerCaller,
    CallerDigit,
    CallerEnded,
    CallerReady,
    CallEvent,
    ClearTimer,
    EndAsked,
    HuntAsked,
    Limits,
    Log,
    MessageAsked,
    MessageRecorded,
    OfferAnswered,
    OfferDigit,
    OfferEnded,
    OfferHeld,
    OfferRinging,
    RecordMessage,
    ReturnToFlow,
    SetTimer,
    StartFlow,
    StopMessage,
    TimerFired,
    TransferAsked,
)
from pbx.core.call_state import CallState, Phase, Step, close
from pbx.core.causes import Cause


class CallProtocolError(Exception):
    """The runner reported an event that cannot happen in this phase: a fault of ours."""


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
    if (state.phase, type(event)) in _LATE or isinstance(event, TimerFired | CallerDigit):
        return state, ()
    raise CallProtocolError(f"can't handle {type(event).__name__} in phase {state.phase}")


# --- arriving and the flow ---------------------------------------------------------------------


def _caller_ready(state: CallState, event: CallerReady, now: datetime) -> Step:
    return replace(state, phase=Phase.FLOW), (
        ClearTimer(key="arrive"),
        SetTimer(key="call", seconds=state.limits.max_call_s),
        Log(kind="greeted"),
        StartFlow(),
    )


def _never_arrived(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key != "arrive":
        return state, ()
    return close(state, Cause.TIMEOUT, now, hang_up=True)


def _message_asked(state: CallState, event: MessageAsked, now: datetime) -> Step:
    return replace(state, phase=Phase.MESSAGE), (
        Log(kind="message-started", detail={"owner": event.owner}),
        RecordMessage(owner=event.owner),
        SetTimer(key="message", seconds=min(event.max_s, state.limits.message_s)),
    )


def _end_asked(state: CallState, event: EndAsked, now: datetime) -> Step:
    return close(state, Cause.NORMAL, now, hang_up=True, advice=event.advice)


# --- message and end ---------------------------------------------------------------------------


def _message_digit(state: CallState, event: CallerDigit, now: datetime) -> Step:
    if event.digit != "#":
        return state, ()
    return state, (StopMessage(), SetTimer(key="message-close", seconds=state.limits.message_close_s))


def _message_timer(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key == "message":
        return state, (StopMessage(), SetTimer(key="message-close", seconds=state.limits.message_close_s))
    if event.key == "message-close":  # the file never closed: the caller is not kept waiting for it
        return _message_over(state, Log(kind="message-unsaved"), "failed", now)
    if event.key == "call":
        return close(state, Cause.TIMEOUT, now, hang_up=True)
    return state, ()


def _message_recorded(state: CallState, event: MessageRecorded, now: datetime) -> Step:
    log = Log(kind="message-taken", detail={"message": event.message, "duration_s": event.duration_s})
    taken = event.duration_s >= state.limits.shortest_message_s
    return _message_over(state, log, "taken" if taken else "empty", now)


def _message_over(state: CallState, log: Log, outcome: str, now: datetime) -> Step:
    first = (ClearTimer(key="message"), ClearTimer(key="message-close"), log)
    state = replace(state, phase=Phase.FLOW, message_taken=state.message_taken or outcome == "taken")
    if state.caller_gone is not None:
        after, commands = close(state, state.caller_gone, now, hang_up=False, by_caller=True)
        return after, (*first, *commands)
    return state, (*first, ReturnToFlow(outcome=outcome))


def _caller_ended(state: CallState, event: CallerEnded, now: datetime) -> Step:
    if state.phase is Phase.MESSAGE:  # the call closes when the file is complete
        return replace(state, caller_gone=event.cause), (
            StopMessage(),
            SetTimer(key="message-close", seconds=state.limits.message_close_s),
        )
    return close(state, event.cause, now, hang_up=False, by_caller=True)


_Handler = Callable[[CallState, Any, datetime], Step]
_TABLE: dict[tuple[Phase, type], _Handler] = {
    (Phase.ARRIVING, CallerReady): _caller_ready,
    (Phase.ARRIVING, TimerFired): _never_arrived,
    (Phase.FLOW, HuntAsked): hunt.hunt_asked,
    (Phase.FLOW, MessageAsked): _message_asked,
    (Phase.FLOW, EndAsked): _end_asked,
    (Phase.FLOW, TimerFired): hunt.hunt_timer,
    (Phase.HUNTING, OfferRinging): hunt.offer_ringing,
    (Phase.HUNTING, OfferAnswered): hunt.offer_answered,
    (Phase.HUNTING, OfferDigit): hunt.offer_digit,
    (Phase.HUNTING, OfferEnded): hunt.offer_ended,
    (Phase.HUNTING, TimerFired): hunt.hunt_timer,
    (Phase.CONNECTED, OfferRinging): hunt.offer_ringing,
    (Phase.CONNECTED, OfferAnswered): hunt.offer_answered,
    (Phase.CONNECTED, OfferEnded): talk.connected_offer_ended,
    (Phase.CONNECTED, OfferHeld): talk.offer_held,
    (Phase.CONNECTED, TransferAsked): talk.transfer_asked,
    (Phase.CONNECTED, TimerFired): talk.connected_timer,
    (Phase.MESSAGE, CallerDigit): _message_digit,
    (Phase.MESSAGE, TimerFired): _message_timer,
    (Phase.MESSAGE, MessageRecorded): _message_recorded,
    (Phase.FLOW, TransferAsked): talk.late_transfer,
    (Phase.HUNTING, TransferAsked): talk.late_transfer,
    (Phase.MESSAGE, TransferAsked): talk.late_transfer,
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
