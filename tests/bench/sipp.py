"""Runs SIPp: a foreign, strict SIP program that places the callers' calls and counts what went wrong."""

import asyncio
import contextlib
import csv
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import LOAD_CORE, pinned

SCENARIOS = Path(__file__).parent.parent / "scenarios"
_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class SippResult:
    """One run's outcome."""

    calls: int  # that were started
    succeeded: int
    failed: int  # asked for and not succeeded
    retransmissions: int  # requests SIPp had to send again
    answer_ms: Sequence[float]  # INVITE to 200, one a call


@dataclass(frozen=True, kw_only=True)
class Callers:
    """A bounded run of callers."""

    scenario: str  # file of tests/scenarios without .xml
    target: str  # address:port
    service: str  # number dialled
    calls: int
    rate: float  # calls a second
    ports: Sequence[int]  # media port of call 1, 2, …; begins anew at its end
    sip_port: int  # SIPp's own
    media_port: int  # SIPp binds this and 2 more, and never uses them; keep them away from `ports`
    folder: Path
    talk_ms: int = 0  # of bench_patient
    longest_s: int = 120  # SIPp starts no call after that; 5 s later it is ended
    first_caller: int = 0  # callers are 7 digits counted from here
    address: str = "127.0.0.1"


async def place_calls(callers: Callers) -> SippResult:
    """Run SIPp to its end. Raises RuntimeError when it could not even start."""
    program = shutil.which("sipp")
    if program is None:
        raise RuntimeError("make bench needs SIPp: apt-get install sip-tester")
    number = next(_numbers)
    folder = callers.folder / f"sipp-{number}"
    folder.mkdir(parents=True)
    rows = [f"{5550000 + callers.first_caller + i};{port}" for i, port in enumerate(callers.ports)]
    (folder / "calls.csv").write_text("SEQUENTIAL\n" + "\n".join(rows) + "\n")
    argv = [
        program, callers.target, "-sf", str(SCENARIOS / f"{callers.scenario}.xml"), "-inf", "calls.csv",
        "-s", callers.service, "-i", callers.address, "-p", str(callers.sip_port),
        "-mp", str(callers.media_port),
        "-m", str(callers.calls), "-r", f"{callers.rate:g}", "-l", "3000", "-d", str(callers.talk_ms),
        "-timeout", str(callers.longest_s), "-timer_resol", "2", "-nostdin", "-buff_size", "4194304",
        "-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_rtt", "-rtt_freq", "1", "-trace_err",
        "-error_file", "errors.log",
    ]  # fmt: skip
    with (folder / "output.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *pinned(LOAD_CORE, *argv),
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        with contextlib.suppress(TimeoutError):  # what has not succeeded by then counts as failed
            await asyncio.wait_for(process.wait(), callers.longest_s + 5)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _read(folder, process.returncode, callers.calls)


def _read(folder: Path, code: int | None, asked: int) -> SippResult:
    stat = folder / "stat.csv"
    if not stat.exists():
        raise RuntimeError(f"SIPp ended with {code} before it wrote figures; see {folder}/errors.log")
    with stat.open(newline="") as file:
        *_, last = csv.DictReader(file, delimiter=";")
    answers: list[float] = []
    for path in folder.glob("*_rtt.csv"):
        with path.open(newline="") as file:
            rows = list(csv.reader(file, delimiter=";"))[1:]
        answers += [float(row[1]) for row in rows if len(row) > 1]
    succeeded = int(last["SuccessfulCall(C)"])
    return SippResult(
        calls=int(last["TotalCallCreated"]),
        succeeded=succeeded,
        failed=asked - succeeded,
        retransmissions=int(last["Retransmissions(C)"]),
        answer_ms=answers,
    )
