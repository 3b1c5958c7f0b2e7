"""SIPp on both sides of the edge: every call is answered and ends, and nothing is left behind."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e.edgerig import EDGE, SIP_PORT, TRUNK_A, TRUNK_PORT, WORKER_PORT, WORKERS, running_edge
from tests.integration.pgrig import RunningPostgres, postgres

pytestmark = pytest.mark.e2e
__all__ = ["postgres"]

SCENARIOS = Path(__file__).parents[1] / "scenarios"
CALLS = 300


async def sipp(folder: Path, name: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start SIPp in the background of its own group."""
    with (folder / f"{name}.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *("/usr/bin/sipp", "-sf", str(SCENARIOS / f"{name}.xml"), "-nostdin", "-trace_err"),
            *("-error_file", str(folder / f"{name}.errors"), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            process_group=0,
            env={"TERM": "dumb", "PATH": os.environ["PATH"]},
        )


async def test_300_calls_at_50_a_second(postgres: RunningPostgres, tmp_path: Path) -> None:
    one = {"count": 1, "address": WORKERS, "first_port": WORKER_PORT}
    async with running_edge(postgres, workers=one) as edge:
        where = ("-i", WORKERS, "-mi", WORKERS, "-p", str(WORKER_PORT), "-mp", "49300")
        worker = await sipp(tmp_path, "edge_worker_answers", *where, "-aa")
        try:
            await edge.worker_states({1: "active"})
            where = ("-i", TRUNK_A, "-mi", TRUNK_A, "-p", str(TRUNK_PORT), "-mp", "49310")
            load = ("-r", "50", "-m", str(CALLS), "-l", "200", "-timeout", "60", f"{EDGE}:{SIP_PORT}")
            trunk = await sipp(tmp_path, "edge_trunk_calls", *where, *load)
            status = await asyncio.wait_for(trunk.wait(), 70)
            errors = tmp_path / "edge_trunk_calls.errors"
            assert status == 0, errors.read_text()[-2000:] if errors.exists() else status
            assert await edge.held_calls() == []
            group = [p for p in psutil.process_iter() if os.getpgid(p.pid) == edge_group(edge.run_dir)]
            assert 8 < len(group) < 25, "Kamailio's processes"
            assert sum(p.memory_full_info().pss for p in group) < 120e6
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            await worker.wait()


def edge_group(run_dir: Path) -> int:
    """Process group of the Kamailio of that run directory."""
    for process in psutil.process_iter(["cmdline"]):
        if str(run_dir / "kamailio.cfg") in (process.info["cmdline"] or []):
            return os.getpgid(process.pid)
    raise AssertionError("Kamailio is not running")
