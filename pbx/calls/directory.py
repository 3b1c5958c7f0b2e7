"""All calls of a worker: which leg belongs to which call, admission, and letting them go in order."""

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID, uuid4

from ivr.flow import Dialplans
from pbx.calls.ports import CallSettings, Prompts, RosterBook, Telephony, Timeline
from pbx.calls.runner import CallRunner
from pbx.core.legs import Incoming, LegEvent, LegId, Replaced, TransferAsked

log = logging.getLogger("careline.calls")


class Calls:
    """Starts a runner for every incoming call and hands each leg's events to its call, in order."""

    def __init__(
        self,
        *,
        telephony: Telephony,
        dialplans: Callable[[], Dialplans],
        prompts: Callable[[], Prompts],
        roster: Callable[[], RosterBook],
        timeline: Timeline,
        settings: CallSettings,
    ) -> None:
        self._telephony = telephony
        self._dialplans = dialplans
        self._prompts = prompts
        self._roster = roster
        self._timeline = timeline
        self._settings = settings
        self._by_leg: dict[LegId, CallRunner] = {}
        self._running: dict[UUID, CallRunner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failures = 0  # calls whose runner raised; each is in the log

    def __len__(self) -> int:
        return len(self._running)

    def on_leg_event(self, event: LegEvent) -> None:
        """The engine's sink: runs on the loop, returns at once."""
        if isinstance(event, Incoming):
            self._begin(event)
            return
        runner = self._by_leg.get(event.leg)
        if runner is None:
            if isinstance(event, TransferAsked | Replaced):  # a leg nobody owns must not stay up
                self._telephony.hangup(event.new_leg)
            return
        if isinstance(event, TransferAsked | Replaced):  # its events follow at once and must find their call
            self._by_leg[event.new_leg] = runner
        runner.inbox.put_nowait(event)

    async def drain(self, within_s: float) -> bool:
        """Wait until every running call has ended by itself. False when some were hung up after the bound.

        New calls are refused by the engine's admission, not here.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
            return True
        except TimeoutError:
            log.warning("calls hung up after the drain bound", extra={"action": "drain", "calls": len(self)})
        for runner in list(self._running.values()):
            runner.shut_down()
        try:
            async with asyncio.timeout(self._settings.limits.message_close_s + 2.0):
                await self._idle.wait()
        except TimeoutError:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return False

    def _begin(self, event: Incoming) -> None:
        runner = CallRunner(
            call_id=uuid4(),
            incoming=event,
            telephony=self._telephony,
            dialplans=self._dialplans(),
            prompts=self._prompts(),
            roster=self._roster(),
            timeline=self._timeline,
            settings=self._settings,
            own=self._own,
        )
        self._by_leg[event.leg] = runner
        self._running[runner.call_id] = runner
        self._idle.clear()
        task = asyncio.get_running_loop().create_task(runner.run())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._over(runner, done))

    def _own(self, leg: LegId, runner: CallRunner | None) -> None:
        if runner is None:
            self._by_leg.pop(leg, None)
        else:
            self._by_leg[leg] = runner

    def _over(self, runner: CallRunner, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running.pop(runner.call_id, None)
        for leg in runner.legs():
            self._by_leg.pop(leg, None)
        if not self._running:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures += 1
            log.error(
                "call ended by a fault",
                exc_info=error,
                extra={"action": "fault", "call": str(runner.call_id)},
            )
