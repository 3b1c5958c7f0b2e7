"""Two workers behind the edge: one is drained in a call, one is killed; callers hardly notice."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from pbx.app import control
from pbx.app.places import control_socket
from tests.e2e.systemrig import QUICK, System, quick_clinic, system

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    clinic = replace(quick_clinic(tmp_path_factory.mktemp("clinic")), workers=2, drain_s=60)
    async with system(clinic) as made:
        yield made


async def calls_of(hotline: System, number: int) -> int:
    """How many calls a worker has now."""
    status = await control.ask(control_socket(hotline.config, number), "status")
    return int(status["calls"])


async def busy_worker(hotline: System) -> int:
    """The number of the one worker that has a call."""
    (found,) = [number for number in (1, 2) if await calls_of(hotline, number)]
    return found


async def test_a_draining_worker_lets_its_call_end_and_new_calls_go_to_the_other(
    hotline: System, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        trunk = await hotline.patient(stack, tmp_path)
        clinician = await hotline.clinician(stack, "1001", tmp_path)
        await clinician.answer_calls(0.2, tone_hz=620)
        call = await hotline.call(trunk, "+12025550130", 440, QUICK)
        theirs = await hotline.accept(clinician)
        await call.hears(620, 8, for_ms=500)
        number = await busy_worker(hotline)
        pid = hotline.status(f"worker-{number}").pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(1.0)
        others = [await hotline.call(trunk, f"+1202555014{n}", 440, QUICK) for n in range(3)]
        assert await calls_of(hotline, 3 - number) == 3
        await asyncio.gather(call.hears(620, 5, for_ms=1000), theirs.hears(440, 5, for_ms=1000))
        await call.hangup()
        for other in others:
            await other.hangup()
        await hotline.is_back(f"worker-{number}", 1)
        assert (await hotline.facts("+12025550130")).disposition == "connected"


async def test_a_killed_worker_is_passed_over_at_once(hotline: System, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        trunk = await hotline.patient(stack, tmp_path)
        restarts = hotline.status("worker-2").restarts
        hotline.kill("worker-2")
        calls = [await hotline.call(trunk, f"+1202555015{n}", 440, QUICK) for n in range(4)]
        took_ms = [await call.answered(1) for call in calls]
        assert max(took_ms) < 5000, took_ms
        for call in calls:
            await call.hears_sound(5, from_ms=0)
            await call.hangup()
        await hotline.is_back("worker-2", restarts + 1)
