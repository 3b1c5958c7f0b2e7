"""Runs rtpload (rtpload.c): builds it once, drives it through its stdin, and parses what it reports."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.machine import LOAD_CORE, pinned

SOURCE = Path(__file__).with_name("rtpload.c")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Legs that behave alike."""

    name: str  # at most 15 characters
    first_port: int
    count: int
    address: str = "127.0.0.1"
    step: int = 2  # between ports
    first_tone: int = -1  # leg i sends tone pair first_tone + i (of 900); -1: silence
    digit_after_ms: int = -1  # key 1 so long after the first audible packet; -1: never
    event_payload_type: int = 101
    quiet_stop_ms: int = 2000  # a latched leg that hears nothing for so long stops sending
    latch: bool = True  # peer learnt from the first packet; else from `peer`

    def argument(self) -> str:
        """As rtpload's command line wants it."""
        return (
            f"{self.name},{self.address},{self.first_port},{self.step},{self.count},{self.first_tone},"
            f"{self.digit_after_ms},{self.event_payload_type},{self.quiet_stop_ms},{int(self.latch)}"
        )

    def port(self, index: int) -> int:
        """Media port of leg `index`."""
        return self.first_port + self.step * index


@dataclass(frozen=True)
class LegReport:
    """What rtpload says about one leg; names as in rtpload.c."""

    group: str
    port: int
    ended: bool
    sent: int
    received: int
    lost: int
    duplicates: int
    jitter_ms: float
    max_gap_ms: float
    ssrc_changes: int
    audible_ms: float
    first_audible_ms: float
    digit_start_ns: int  # CLOCK_REALTIME; 0: not sent
    digit_end_ns: int
    pair_port: int  # whose tone is heard; -1: nobody's yet
    own: int
    foreign: int
    foreign_pair: int
    dirty: int
    silent: int
    in_window: bool
    win_received: int
    win_lost: int
    win_own: int
    win_foreign: int
    win_dirty: int
    win_silent: int
    win_jitter_ms: float
    win_max_gap_ms: float
    marks_sent: int
    delay_ms: list[float]


@dataclass(frozen=True)
class Health:
    """How well the generator itself kept time."""

    late_max_ms: float
    late_ticks: int
    win_late_max_ms: float
    win_late_ticks: int
    send_errors: int
    packets_in: int
    packets_out: int
    cpu_s: float


def build(cache: Path) -> Path:
    """Compile rtpload.c into `cache`, once a version. Raises RuntimeError when there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("make bench needs a C compiler for its RTP load: apt-get install build-essential")
    program = cache / f"rtpload-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")
        flags = ["-O3", "-march=native", "-ffast-math", "-Wall", "-Wextra", "-Wno-format-truncation"]
        subprocess.run([compiler, *flags, "-o", str(fresh), str(SOURCE), "-lm"], check=True)
        fresh.replace(program)
    return program


@dataclass
class RtpLoad:
    """One running rtpload. Use as an async context manager."""

    program: Path
    groups: Sequence[Group]
    longest_s: int = 900  # it ends by itself then
    core: str = LOAD_CORE
    ended: list[LegReport] = field(default_factory=list)  # legs that are over, oldest first
    _process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _active: list[LegReport] = field(default_factory=list)
    _health: Health | None = None
    _reported: asyncio.Event = field(default_factory=asyncio.Event)
    _ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> "RtpLoad":
        argv = [str(self.program), str(self.longest_s), *(g.argument() for g in self.groups)]
        self._process = await asyncio.create_subprocess_exec(
            *pinned(self.core, *argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait_for(self._ready.wait(), 10)
        except TimeoutError:
            await self.__aexit__()
            raise RuntimeError("rtpload did not start within 10 s") from None
        if self._reader.done():
            await self.__aexit__()
            raise RuntimeError(
                "rtpload could not start (is another benchmark running?); its message is above"
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
        if process.returncode is None:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            record = json.loads(line)
            kind = record.pop("kind")
            if kind == "leg":
                leg = LegReport(**record)
                (self.ended if leg.ended else self._active).append(leg)
            elif kind == "health":
                self._health = Health(**record)
            elif kind == "reported":
                self._reported.set()
            else:
                self._ready.set()
        self._ready.set()
        self._reported.set()

    def tell(self, line: str) -> None:
        """Send one command (head of rtpload.c). Raises RuntimeError when rtpload has gone."""
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None:
            raise RuntimeError("rtpload is not running; its message is above")
        process.stdin.write(line.encode() + b"\n")

    def save(self, path: Path) -> None:
        """Write every ended leg as a JSON line: when a figure surprises, these tell why."""
        path.write_text("".join(json.dumps(asdict(leg)) + "\n" for leg in self.ended))

    async def report(self) -> tuple[list[LegReport], Health]:
        """Every active leg now, and the generator's health."""
        self._active = []
        self._reported.clear()
        self.tell("report")
        await asyncio.wait_for(self._reported.wait(), 10)
        if self._health is None:
            raise RuntimeError("rtpload ended before it could report; its message is above")
        return self._active, self._health
