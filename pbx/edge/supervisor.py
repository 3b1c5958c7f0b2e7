"""Starts the children in order, restarts what ends, and leaves nothing behind, whatever kills it.

Each child is its own process group and is restarted with backoff and jitter. A clean stop goes in reverse
order within each child's bound. When the supervisor itself is killed, its reaper process ends the children
(`reaper`). Which children there are and which signals stop the supervisor is `app`'s.
"""

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

from pbx.edge import reaper
from pbx.edge.child import ChildCannotStart, ChildSpec
from pbx.edge.process import Process, spawn

PROGRESS_EVERY_S = 2.0
FIRST_TRIES = 3  # a child that ends this often before it was ever ready fails the start


class ChildState(StrEnum):
    """Where a child stands."""

    WAITING = "waiting"  # not started yet
    STARTING = "starting"  # runs, not ready yet
    READY = "ready"
    BACKOFF = "backoff"  # ended; starts again after a pause
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildStatus:
    """One child for people and probes."""

    name: str
    state: ChildState
    pid: int | None  # while it runs
    restarts: int  # starts after the first
    last_exit: str  # "status 1", "signal SIGKILL", "not ready", "not alive" or a sentence; empty: never ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Pauses between restarts: first_s, doubled up to most_s, each 25 % more or less at random."""

    first_s: float = 1.0
    most_s: float = 30.0
    well_after_s: float = 30.0  # ready this long: the next pause is first_s again

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after `failures` ends in a row (1, 2 …)."""
        plain = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return plain * random.uniform(0.75, 1.25)  # noqa: S311 -- spreads restarts, guards nothing


class Supervisor:
    """The children of one process. `start`, then `stop`; or `run_until`. Not for reuse after `stop`."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        log: logging.Logger | None = None,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        """`specs` in the order of starting. Raises ValueError for a name used twice."""
        names = [spec.name for spec in specs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f'Two children are named "{twice[0]}"; give each its own name.')
        self._log = log or logging.getLogger("careline.supervisor")
        self._reaper = _Reaper(self._log)
        self._children = [_Child(spec, self._log, self._reaper, backoff or Backoff()) for spec in specs]

    def status(self) -> tuple[ChildStatus, ...]:
        """Every child, in the order of starting."""
        return tuple(child.status() for child in self._children)

    async def start(self) -> None:
        """Start the children one after the other, each when the one before is ready.

        Raises ChildCannotStart, with everything stopped again, when one of them does not become ready.
        """
        try:
            await self._reaper.start()
            for child in self._children:
                await child.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the children in reverse order, each within its bound. Safe to call again."""
        for child in reversed(self._children):
            await child.stop()
        await self._reaper.stop()

    async def run_until(self, stop: asyncio.Event) -> None:
        """Start, wait for `stop` (also during the start), stop. Raises ChildCannotStart like `start`."""
        starting = asyncio.create_task(self.start(), name="supervisor start")
        stopping = asyncio.create_task(stop.wait(), name="supervisor stop")
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            await self.stop()


class _Child:
    """One spec and the task that keeps it running."""

    def __init__(self, spec: ChildSpec, log: logging.Logger, reaper: "_Reaper", backoff: Backoff) -> None:
        self._spec = spec
        self._log = log
        self._reaper = reaper
        self._backoff = backoff
        self._state = ChildState.WAITING
        self._process: Process | None = None
        self._starts = 0
        self._last_exit = ""
        self._last_lines: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._first_ready: asyncio.Future[None] | None = None

    def status(self) -> ChildStatus:
        return ChildStatus(
            name=self._spec.name,
            state=self._state,
            pid=self._process.pid if self._process else None,
            restarts=max(0, self._starts - 1),
            last_exit=self._last_exit,
        )

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._first_ready = loop.create_future()
        self._task = asyncio.create_task(self._keep(), name=f"keep {self._spec.name}")
        while not self._first_ready.done():
            await asyncio.wait([self._first_ready], timeout=PROGRESS_EVERY_S)
            if not self._first_ready.done():
                self._say("waiting for child", "child_waiting", seconds=round(loop.time() - began))
        self._first_ready.result()
        self._say(
            "child is ready", "child_ready", seconds=round(loop.time() - began, 2), pid=self.status().pid
        )

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._end()
        self._state = ChildState.STOPPED
        self._say("child stopped", "child_stopped", exit=self._last_exit)

    async def _keep(self) -> None:
        """Run the child again and again until cancelled."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            ready_at: float | None = None
            try:
                await self._run_up()
                ready_at = loop.time()
                if self._first_ready is not None and not self._first_ready.done():
                    self._first_ready.set_result(None)
                elif self._starts > 1:
                    self._say("child is ready again", "child_ready", pid=self.status().pid)
                await self._until_it_ends()
            except _NotReady:
                pass  # how it ended is told below
            except ChildCannotStart as error:
                self._last_exit = str(error)
                self._last_lines = []
            except Exception as error:  # a probe or hook of the spec failed: treat it as the child's failure
                self._log.exception("child's probe failed", extra={"action": "child_failed", **self._who()})
                self._last_exit = f"its probe failed with {type(error).__name__}"
            await self._end()
            well = ready_at is not None and loop.time() - ready_at >= self._backoff.well_after_s
            failures = 1 if well else failures + 1
            if self._first_ready is not None and not self._first_ready.done() and self._gives_up(failures):
                return
            self._state = ChildState.BACKOFF
            pause_s = self._backoff.pause_s(failures)
            self._log.error(
                "child ended and is started again",
                extra={
                    "action": "child_ended",
                    **self._who(),
                    "exit": self._last_exit,
                    "pause_s": round(pause_s, 1),
                    "failures": failures,
                },
            )
            await asyncio.sleep(pause_s)

    def _gives_up(self, failures: int) -> bool:
        """Whether the first start has failed; then says so to `start`."""
        assert self._first_ready is not None
        sentence = self._last_exit if self._last_exit.endswith(".") else ""
        if not sentence and failures < FIRST_TRIES and self._last_exit != "not ready":
            return False
        self._first_ready.set_exception(ChildCannotStart(sentence or self._why()))
        return True

    def _why(self) -> str:
        ended = (
            f"did not become ready within {self._spec.ready_within_s:g} s"
            if self._last_exit == "not ready"
            else f"ended with {self._last_exit} before it was ready"
        )
        said = " | ".join(self._last_lines) or "nothing"
        return f"{self._spec.name} {ended}; its last lines: {said}."

    async def _run_up(self) -> None:
        """Start the process and wait until it is ready. Raises ChildCannotStart."""
        self._last_exit = ""
        self._state = ChildState.STARTING
        if self._spec.before is not None:
            await self._spec.before()
        self._starts += 1
        self._process = await spawn(self._spec, self._reaper.marks, self._started)
        try:
            async with asyncio.timeout(self._spec.ready_within_s):
                while self._spec.ready is not None and not await self._spec.ready():
                    if await _within(self._process.ended, 0.1):
                        break
        except TimeoutError:
            self._last_exit = "not ready"
            raise _NotReady from None
        if self._process.ended.is_set():
            raise _NotReady
        self._state = ChildState.READY

    def _started(self, pid: int) -> None:
        self._reaper.tell(f"+ {pid} {int(self._spec.stop_signal)}")

    async def _until_it_ends(self) -> None:
        """Wait for its end; a child that fails its liveness probe too often counts as ended."""
        assert self._process is not None
        bad = 0
        while not await _within(self._process.ended, self._spec.alive_every_s if self._spec.alive else None):
            assert self._spec.alive is not None
            try:
                alive = await asyncio.wait_for(self._spec.alive(), self._spec.alive_every_s)
            except TimeoutError:
                alive = False
            bad = 0 if alive else bad + 1
            if bad >= self._spec.alive_failures:
                self._last_exit = "not alive"
                return

    async def _end(self) -> None:
        """Make sure nothing of the process is left."""
        process = self._process
        if process is None:
            return
        if not await process.stop():
            self._log.warning(
                "child did not stop in time and was killed", extra={"action": "child_killed", **self._who()}
            )
        self._reaper.tell(f"- {process.pid}")
        self._last_exit = self._last_exit or process.exit
        self._last_lines = list(process.last_lines)
        self._process = None

    def _who(self) -> dict[str, str]:
        return {"child": self._spec.name}

    def _say(self, message: str, action: str, **fields: object) -> None:
        self._log.info(message, extra={"action": action, **self._who(), **fields})


class _NotReady(ChildCannotStart):
    """The child ended or ran out of time before it was ready."""


class _Reaper:
    """The process that outlives us if we are killed, and our end of its pipe."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._mark = uuid4().hex
        self._told: dict[str, str] = {}  # pid -> line, to tell a new reaper
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def marks(self) -> dict[str, str]:
        """What children carry in their environment."""
        return {reaper.MARK: self._mark}

    async def start(self) -> None:
        self._process = await self._spawn()
        self._watching = asyncio.create_task(self._watch(), name="reaper watch")

    def tell(self, line: str) -> None:
        sign, pid = line.split()[:2]
        if sign == "+":
            self._told[pid] = line
        else:
            self._told.pop(pid, None)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")

    async def stop(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), reaper.GRACE_S + 2)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        program = str(Path(reaper.__file__))
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            program,
            self._mark,
            stdin=asyncio.subprocess.PIPE,
            process_group=0,
            env={},
            cwd="/",
        )

    async def _watch(self) -> None:
        """Replace a reaper that was killed."""
        while self._process is not None:
            await self._process.wait()
            self._log.error("the reaper ended; starting another", extra={"action": "reaper_ended"})
            await asyncio.sleep(0.5)
            try:
                self._process = await self._spawn()
            except OSError:
                self._log.exception("no other reaper could be started", extra={"action": "reaper_failed"})
                continue
            assert self._process.stdin is not None
            for line in self._told.values():
                self._process.stdin.write(line.encode() + b"\n")


async def _within(event: asyncio.Event, seconds: float | None) -> bool:
    """Whether the event came within the time; None waits for ever."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
