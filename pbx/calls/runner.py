"""One call: leg events become events of the two pure machines (call and flow), their commands become deeds.

Everything of one call happens in one task, in the order of its inbox. A fault of ours while handling an event
does not leave the caller in silence: they are told, the legs are let go and the note says so.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from ivr import interpreter as flow
from ivr.flow import Dialplans, PromptRef
from pbx.calls.ports import CallSettings, Prompts, RosterBook, Telephony, Timeline
from pbx.calls.record import CallRecord
from pbx.core import call_events as ce
from pbx.core.call import start, step
from pbx.core.call_state import CallState, Phase
from pbx.core.causes import Cause
from pbx.core.legs import (
    Answered,
    Digit,
    Ended,
    Held,
    Incoming,
    LegEvent,
    LegId,
    MediaReady,
    PlayEnded,
    PlayId,
    Progress,
    RecordingEnded,
    Replaced,
    TransferAsked,
)

log = logging.getLogger("careline.calls")

FLOW_TIMER = "flow"
FAULT_S = 15.0  # longest apology after a fault of ours
LEGS_OVER_S = 60.0  # from the close of a call to the end of its last leg; the engine's own bounds are shorter


class _FlowTimer:
    """The flow's own timer ran out."""

    def __init__(self, token: int) -> None:
        self.token = token


class _ShutDown:
    """The worker stops: let the call go now."""


class CallRunner:
    """The runner of one call; `run` returns when every leg of it is over."""

    def __init__(
        self,
        *,
        call_id: UUID,
        incoming: Incoming,
        telephony: Telephony,
        dialplans: Dialplans,
        prompts: Prompts,
        roster: RosterBook,
        timeline: Timeline,
        settings: CallSettings,
        own: "Callable[[LegId, CallRunner | None], None]",
    ) -> None:
        self.call_id = call_id
        self.inbox: asyncio.Queue[LegEvent | ce.CallEvent | _FlowTimer | _ShutDown] = asyncio.Queue()
        self._incoming = incoming
        self._telephony = telephony
        self._dialplans = dialplans
        self._prompts = prompts
        self._roster = roster
        self._settings = settings
        self._own = own
        self._clock = settings.clock
        self._caller = incoming.leg
        self._caller_up = True
        self._offers: dict[int, LegId] = {}  # offer number to leg
        self._numbers: dict[LegId, int] = {}  # leg to offer number
        self._half: dict[LegId, set[type]] = {}  # Answered and MediaReady seen of a dialled leg
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._plays: dict[PlayId, int] = {}  # the flow's play to its token
        self._pending: deque[ce.CallEvent] = deque()
        self._message: tuple[str, Any] | None = None  # id and path of the message being recorded
        self._state: CallState
        self._position = flow.start(dialplans, dialplans.line_for(incoming.to_user))
        self._record = CallRecord(
            call_id=call_id,
            incoming=incoming,
            dialplans=dialplans,
            language=self._position.language,
            timeline=timeline,
            settings=settings,
        )

    def legs(self) -> tuple[LegId, ...]:
        """Every leg this call still owns."""
        return (self._caller, *self._numbers)

    def shut_down(self) -> None:
        """Let the call go now: the worker stops."""
        self.inbox.put_nowait(_ShutDown())

    async def run(self) -> None:
        """Handle the inbox until every leg is over. Raises the fault that ended the call."""
        self._record.begin()
        self._state, commands = start(self._settings.limits)
        try:
            async with asyncio.timeout(None) as bound:
                self._carry_out(commands)
                while not (self._record.closed and not self._caller_up and not self._numbers):
                    self._take(await self.inbox.get())
                    if self._record.closed and bound.when() is None:
                        bound.reschedule(asyncio.get_running_loop().time() + LEGS_OVER_S)
        except TimeoutError:
            log.error("legs did not end in time", extra={"action": "ghost", "call": str(self.call_id)})
        except Exception:
            await self._apologise()
            raise
        finally:
            for timer in self._timers.values():
                timer.cancel()

    # --- events ----------------------------------------------------------------------------------

    def _take(self, event: object) -> None:
        match event:
            case LegEvent(leg=leg) if leg == self._caller:
                self._from_caller(event)
            case LegEvent(leg=leg) if leg in self._numbers:
                self._from_offer(event, self._numbers[leg])
            case ce.CallEvent():
                self._step(event)
            case _FlowTimer(token=token):
                self._flow(flow.TimedOut(token=token))
            case _ShutDown():
                self._step(ce.CallerEnded(cause=Cause.SHUTDOWN))
                self._telephony.hangup(self._caller)
            case _:
                pass  # a leg that is no longer ours
        while self._pending:
            self._step(self._pending.popleft())

    def _from_caller(self, event: LegEvent) -> None:
        match event:
            case MediaReady():
                if self._state.phase is Phase.ARRIVING:
                    self._step(ce.CallerReady())
            case Digit(digit=digit):
                self._step(ce.CallerDigit(digit=digit))
                if self._state.phase is Phase.FLOW:
                    self._flow(flow.DigitPressed(digit=digit))
            case PlayEnded(play=play):
                token = self._plays.pop(play, None)
                if token is not None:
                    if event.error:
                        self._say_fault("prompt not played", event.error)
                    self._flow(flow.PromptsEnded(token=token))
            case RecordingEnded(duration_ms=duration_ms):
                if self._message is not None:
                    message, self._message = self._message, None
                    self._step(ce.MessageRecorded(message=message[0], duration_s=duration_ms / 1000))
            case Replaced(new_leg=new_leg):
                self._own(self._caller, None)
                self._own(new_leg, self)
                self._caller = new_leg
                if self._state.clinician is not None:
                    self._telephony.bridge(new_leg, self._offers[self._state.clinician])
            case Ended(cause=cause):
                self._caller_up = False
                self._own(self._caller, None)
                self._step(ce.CallerEnded(cause=cause))
            case _:
                pass

    def _from_offer(self, event: LegEvent, offer: int) -> None:
        match event:
            case Progress():
                self._step(ce.OfferRinging(offer=offer))
            case Answered() | MediaReady():
                seen = self._half.setdefault(event.leg, set())
                seen.add(type(event))
                if len(seen) == 2:
                    self._step(ce.OfferAnswered(offer=offer))
            case Digit(digit=digit):
                self._step(ce.OfferDigit(offer=offer, digit=digit))
            case Held(held=held):
                self._step(ce.OfferHeld(offer=offer, held=held))
            case TransferAsked(new_leg=new_leg, target=target):
                number = self._state.next_offer
                self._offers[number], self._numbers[new_leg] = new_leg, number
                self._step(
                    ce.TransferAsked(offer=offer, new_offer=number, candidate=self._transfer_target(target))
                )
            case Replaced(new_leg=new_leg):
                self._own(event.leg, None)
                self._own(new_leg, self)
                self._numbers[new_leg] = self._numbers.pop(event.leg)
                self._offers[offer] = new_leg
                if self._state.clinician == offer:
                    self._telephony.bridge(self._caller, new_leg)
            case Ended(cause=cause, by_peer=by_peer):
                del self._numbers[event.leg]
                self._half.pop(event.leg, None)
                self._own(event.leg, None)
                self._step(ce.OfferEnded(offer=offer, cause=cause, by_peer=by_peer))
            case _:
                pass

    def _transfer_target(self, target: str) -> ce.Candidate:
        address = target.removeprefix("sips:").removeprefix("sip:").partition("@")[0]
        known = self._roster.person_at(address)
        endpoint = ce.Endpoint(kind="phone" if address.startswith("+") else "sip", address=address)
        name = known.name if known else "someone outside the roster"
        return ce.Candidate(person=known.person if known else "", name=name, endpoints=(endpoint,))

    def _step(self, event: ce.CallEvent) -> None:
        self._state, commands = step(self._state, event, self._clock())
        self._carry_out(commands)

    # --- the call's commands ---------------------------------------------------------------------

    def _carry_out(self, commands: tuple[ce.Command, ...]) -> None:
        for command in commands:
            self._do(command)

    def _do(self, command: ce.Command) -> None:
        telephony = self._telephony
        match command:
            case ce.Log(kind=kind, detail=detail):
                self._record.add(kind, detail)
            case ce.SetTimer(key=key, seconds=seconds):
                self._set_timer(key, seconds, ce.TimerFired(key=key))
            case ce.ClearTimer(key=key):
                self._clear_timer(key)
            case ce.AnswerCaller():
                telephony.answer(self._caller)
            case ce.StartFlow():
                self._flow(flow.Started())
            case ce.ReturnToFlow(outcome=outcome):
                self._flow(flow.Returned(outcome=outcome))
            case ce.Dial():
                self._dial(command)
            case ce.HangUpOffer(offer=offer):
                if offer in self._offers:
                    telephony.hangup(self._offers[offer])
            case ce.HangUpCaller():
                telephony.hangup(self._caller)
            case ce.Bridge(offer=offer):
                telephony.bridge(self._caller, self._offers[offer])
            case ce.Music(on=on):
                telephony.music(self._caller, on)
            case ce.SayToOffer():
                self._say_to_offer(command)
            case ce.RecordMessage():
                message = str(uuid4())
                path = self._settings.message_dir / f"{message}.wav"
                self._message = (message, path)
                telephony.record(path, (self._caller,))
            case ce.StopMessage():
                if self._message is not None:
                    telephony.stop_record(self._message[1])
            case ce.Close(cause=cause, disposition=disposition):
                self._close(cause, disposition)
            case _:
                raise TypeError(f"no deed for {type(command).__name__}")

    def _dial(self, command: ce.Dial) -> None:
        incoming, endpoint = self._incoming, command.endpoint
        # A trunk accepts only numbers of ours as the caller; our own phones show who is really calling.
        shown = incoming.to_user if endpoint.kind == "phone" else (self._record.heading.caller or "anonymous")
        leg = self._telephony.dial(
            f"sip:{endpoint.address}@{self._settings.edge}",
            caller_user=shown,
            caller_display=self._line_name(),
            headers={"X-Hotline-Call": str(self.call_id)},
        )
        self._offers[command.offer], self._numbers[leg] = leg, command.offer
        self._own(leg, self)

    def _line_name(self) -> str:
        names = self._dialplans.lines[self._record.heading.line].name
        return names.get(self._position.language) or next(iter(names.values()))

    def _say_to_offer(self, command: ce.SayToOffer) -> None:
        leg = self._offers[command.offer]
        if not command.prompt:
            self._telephony.stop_play(leg)
            return
        offer = next((o for o in self._state.offers if o.number == command.offer), None)
        person = offer.candidate.person if offer else ""
        prompt = self._dialplans.offer(
            self._record.heading.line, self._position.language, self._roster.language_of(person)
        )
        words = [prompt]
        if command.prompt == "screen_wrong_key":
            words.insert(0, PromptRef(id="wrong_key", language=prompt.language))
        files = [path for word in words for path in self._prompts.paths(word)]
        # Said again until a key is pressed or the bound is over: a phone is often lifted a moment late.
        self._telephony.play(leg, files, loop=True)

    def _close(self, cause: Cause, disposition: str) -> None:
        for key in list(self._timers):
            self._clear_timer(key)
        self._record.close(cause, disposition, self._state.answered_by)

    # --- the flow --------------------------------------------------------------------------------

    def _flow(self, event: flow.Event) -> None:
        if self._record.closed:
            return
        self._position, actions = flow.step(self._dialplans, self._position, event)
        for action in actions:
            self._act(action)

    def _act(self, action: flow.Action) -> None:
        match action:
            case flow.Play(prompts=prompts, token=token):
                files = [path for prompt in prompts for path in self._prompts.paths(prompt)]
                self._plays[self._telephony.play(self._caller, files)] = token
            case flow.StopPlay():
                self._telephony.stop_play(self._caller)
            case flow.HoldMusic(on=on):
                self._telephony.music(self._caller, on)
            case flow.StartTimer(token=token, seconds=seconds):
                self._set_timer(FLOW_TIMER, seconds, _FlowTimer(token))
            case flow.FindClinician(roster=roster):
                people = self._roster.on_duty(roster, self._clock())
                self._pending.append(ce.HuntAsked(roster=roster, candidates=people))
            case flow.TakeMessage(owner=owner, max_s=max_s):
                self._pending.append(ce.MessageAsked(owner=owner, max_s=max_s))
            case flow.RecordConsent(kind=kind, given=given, answered=answered):
                self._record.add("consent", {"kind": kind, "given": given, "answered": answered})
            case flow.Note(kind=kind, detail=detail):
                self._note(kind, detail)
            case flow.HangUp(reason=reason):
                advised = "emergency-advice" if reason == "emergency-advice" else ""
                self._pending.append(ce.EndAsked(advice=advised))

    def _note(self, kind: str, detail: Mapping[str, str]) -> None:
        match kind:
            case "node":
                self._record.add("node", {"node": detail["node"], "kind": detail["type"]})
            case "choice":
                self._record.add("choice", {"node": detail["node"], "choice": detail["next"]})
            case _:
                self._record.add(f"flow-{kind}", detail)

    # --- the smallest parts ----------------------------------------------------------------------

    def _set_timer(self, key: str, seconds: float, event: ce.CallEvent | _FlowTimer | _ShutDown) -> None:
        self._clear_timer(key)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(seconds, self.inbox.put_nowait, event)

    def _clear_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _say_fault(self, what: str, why: str) -> None:
        log.error(what, extra={"action": "prompt", "call": str(self.call_id), "reason": why})

    async def _apologise(self) -> None:
        """After a fault of ours: say so with the emergency sentence, write the note, let every leg go."""
        self._close(Cause.ERROR, "failed")
        for leg in list(self._numbers):
            self._telephony.hangup(leg)
        words = (
            self._dialplans.prompt(self._record.heading.line, self._position.language, name)
            for name in ("fault", "emergency")
        )
        files = [path for word in words for path in self._prompts.paths(word)]
        play = self._telephony.play(self._caller, files) if self._caller_up else None
        try:
            async with asyncio.timeout(FAULT_S):
                while play is not None:
                    event = await self.inbox.get()
                    if isinstance(event, Ended) and event.leg == self._caller:
                        break
                    if isinstance(event, PlayEnded) and event.play == play:
                        break
        except TimeoutError:
            pass
        finally:
            self._telephony.hangup(self._caller)
