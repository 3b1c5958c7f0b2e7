"""Test rig: the engine in a process of its own, driven from a test over a pipe.

A crash of the library (segmentation fault, abort) becomes a failed assertion here, not the end of pytest.
`rig()` is the context manager tests use: it checks at its end that the process left in good order.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

from pbx.core.legs import Ended, LegEvent, LegId, PlayId
from pbx.sip.engine import Engine, EngineSettings

E = TypeVar("E", bound=LegEvent)
RTP_FIRST, RTP_PORTS = 44000, 3900
CLEAN_EXIT = 0


def free_port() -> int:
    """A UDP port of the loopback that nobody has just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(folder: Path, **changes: Any) -> EngineSettings:
    """Settings for a test; the hold music is 350 Hz."""
    from tests.peers import (
        tones,  # not at the top: the engine's process imports this module and needs no scipy
    )

    music = folder / "hold-music.wav"
    if not music.exists():
        tones.write_wav(music, tones.tone(350, 2000))
    chosen: dict[str, Any] = {
        "address": "127.0.0.1",
        "sip_port": free_port(),
        "rtp_first": RTP_FIRST,
        "rtp_ports": RTP_PORTS,
        "hold_music": music,
    }
    return EngineSettings(**(chosen | changes))


class RemoteEngine:
    """The engine of another process. Commands have the names and arguments of `Engine`."""

    def __init__(self, chosen: EngineSettings) -> None:
        self.settings = chosen
        self.events: list[LegEvent] = []
        self.expected_callback_errors = 0
        self.on_event: Callable[[LegEvent], None] = lambda event: None
        self._arrived = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._seen: set[int] = set()
        self._loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe: Connection = ours
        self.process = context.Process(target=_serve, args=(theirs, chosen), daemon=True)
        self.process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def at(self) -> tuple[str, int]:
        """Where its SIP socket is."""
        return self.settings.address, self.settings.sip_port

    # --- commands ------------------------------------------------------------------------------

    def do(self, name: str, *arguments: Any, **named: Any) -> None:
        """Give a command and do not wait for its return value."""
        self._pipe.send((0, name, arguments, named))

    async def ask(self, name: str, *arguments: Any, within_s: float = 15.0, **named: Any) -> Any:
        """Give a command and return what it returned."""
        self._number += 1
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._answers[self._number] = answer
        self._pipe.send((self._number, name, arguments, named))
        async with asyncio.timeout(within_s):
            return await answer

    async def dial(self, uri: str, **named: Any) -> LegId:
        """Engine.dial."""
        named.setdefault("caller_user", "line")
        return cast(LegId, await self.ask("dial", uri, **named))

    async def play(self, leg: LegId, files: Sequence[Path], *, loop: bool = False) -> PlayId:
        """Engine.play."""
        return cast(PlayId, await self.ask("play", leg, files, loop=loop))

    async def counters(self) -> Mapping[str, int]:
        """Engine.counters."""
        return cast(Mapping[str, int], await self.ask("counters"))

    # --- events --------------------------------------------------------------------------------

    async def expect(self, kind: type[E], within_s: float = 5.0, **wanted: Any) -> E:
        """The next event of this kind with these fields that no earlier `expect` returned."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    for index, event in enumerate(self.events):
                        if index in self._seen or not isinstance(event, kind):
                            continue
                        if all(getattr(event, name) == value for name, value in wanted.items()):
                            self._seen.add(index)
                            return event
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            told = "\n  ".join(str(event) for event in self.events[-30:])
            raise AssertionError(
                f"no {kind.__name__} {wanted} within {within_s} s; exit code {self.process.exitcode}; "
                f"events:\n  {told}"
            ) from None

    def of(self, leg: LegId) -> list[LegEvent]:
        """All events of a leg."""
        return [event for event in self.events if event.leg == leg]

    def count(self, kind: type[LegEvent]) -> int:
        """How many events of a kind came."""
        return sum(isinstance(event, kind) for event in self.events)

    def _read(self) -> None:
        while True:
            try:
                number, value = self._pipe.recv()
            except (EOFError, OSError):
                break
            self._loop.call_soon_threadsafe(self._take, number, value)

    def _take(self, number: int, value: Any) -> None:
        if number:
            answer = self._answers.pop(number)
            if not answer.done():
                answer.set_result(value)
            return
        for event in value:
            self.events.append(event)
            self.on_event(event)
        self._arrived.set()

    # --- end -----------------------------------------------------------------------------------

    async def stop(self, within_s: float = 10.0) -> int | None:
        """Engine.stop, then the exit code of the process; negative is the signal that killed it."""
        with contextlib.suppress(TimeoutError, OSError):
            await self.ask("stop", 3.0, within_s=within_s)
        await asyncio.to_thread(self.process.join, within_s)
        return self.process.exitcode

    def kill(self) -> None:
        """End the process whatever it does."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join(5)
        self._pipe.close()


@contextlib.asynccontextmanager
async def rig(folder: Path, **changes: Any) -> AsyncIterator[RemoteEngine]:
    """A running engine that must end with exit code 0, without errors, every leg Ended exactly once."""
    engine = RemoteEngine(settings(folder, **changes))
    try:
        await engine.ask("ready", within_s=30)
        yield engine
        assert engine.process.exitcode is None, f"the engine died with {engine.process.exitcode}"
        counted = await engine.counters()
        code = await engine.stop()
        assert code == CLEAN_EXIT, f"the engine ended with {code}"
        assert counted["callback_errors"] == engine.expected_callback_errors
        assert counted["command_errors"] == 0
        assert counted["sink_errors"] == 0
        check_ends(engine.events)
    finally:
        engine.kill()


def check_ends(events: Sequence[LegEvent]) -> None:
    """Every leg that was heard of ends with exactly one Ended, its last event."""
    over: set[LegId] = set()
    for event in events:
        assert event.leg not in over, f"an event after Ended: {event}"
        if isinstance(event, Ended):
            over.add(event.leg)
    open_legs = {event.leg for event in events} - over
    assert not open_legs, f"legs without Ended: {open_legs}"


async def until(condition: Callable[[], bool], within_s: float = 5.0, what: str = "the condition") -> None:
    """Wait for a condition. Raises AssertionError when it does not come true."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true within {within_s} s"
        await asyncio.sleep(0.01)


# --- the other process -----------------------------------------------------------------------------


def _serve(pipe: Connection, chosen: EngineSettings) -> None:
    logging.basicConfig(level=logging.WARNING, format="engine: %(levelname)s %(message)s")
    asyncio.run(_main(pipe, chosen))
    os._exit(CLEAN_EXIT)


async def _main(pipe: Connection, chosen: EngineSettings) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    sending = threading.Lock()

    def send(number: int, value: Any) -> None:
        with sending:
            pipe.send((number, value))

    engine = Engine(chosen, lambda event: send(0, [event]))
    await engine.start()

    async def stop(number: int, within_s: float) -> None:
        await engine.stop(within_s)
        if number:
            send(number, None)
        ended.set()

    def read() -> None:
        while True:
            try:
                number, name, arguments, named = pipe.recv()
            except (EOFError, OSError):
                loop.call_soon_threadsafe(ended.set)
                return
            if name == "ready":
                value = None
            elif name == "stop":
                asyncio.run_coroutine_threadsafe(stop(number, *arguments), loop)
                continue
            elif name == "break":  # a test's own function, run in this thread with the engine
                value = arguments[0](engine, *arguments[1:])
            else:
                value = getattr(engine, name)(*arguments, **named)
            if number:
                send(number, value)

    threading.Thread(target=read, daemon=True).start()
    await ended.wait()
