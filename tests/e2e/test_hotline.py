"""The whole hotline, by telephone: the main job, and what callers notice when a part of it is killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.systemrig import QUICK, System, quick_clinic, system
from tests.peers.phones import Call, Phone

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with system(quick_clinic(tmp_path_factory.mktemp("clinic"))) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


class People:
    """One patient's trunk and two clinicians, of whom only the second answers."""

    def __init__(self, trunk: Phone, first: Phone, second: Phone) -> None:
        self.trunk, self.first, self.second = trunk, first, second


@pytest_asyncio.fixture(loop_scope="module")
async def people(hotline: System, stack: AsyncExitStack, tmp_path: Path) -> People:
    trunk = await hotline.patient(stack, tmp_path)
    first = await hotline.clinician(stack, "1001", tmp_path)
    second = await hotline.clinician(stack, "1002", tmp_path)
    for phone in (first, second):
        await phone.answer_calls(0.2, tone_hz=620)
    return People(trunk, first, second)


async def connected(hotline: System, people: People, caller: str, *, menu: bool = False) -> tuple[Call, Call]:
    """A patient and the clinician who took the call, in talk; through the whole menu, or the quick line."""
    call = await hotline.call(people.trunk, caller, 440, "" if menu else QUICK)
    if menu:
        await hotline.to_the_hunt(call)
    taken = [asyncio.create_task(hotline.accept(phone, 15)) for phone in (people.first, people.second)]
    done, rest = await asyncio.wait(taken, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    theirs = done.pop().result()
    await asyncio.gather(call.hears(620, 8, for_ms=500), theirs.hears(440, 8, for_ms=500))
    return call, theirs


async def test_the_main_job(hotline: System, people: People) -> None:
    call, theirs = await connected(hotline, people, "+12025550101", menu=True)
    await call.hangup()
    await theirs.ended(5)
    facts = await hotline.facts("+12025550101")
    text = await hotline.note(facts)
    assert facts.disposition == "connected"
    assert facts.answered_by_name in text


async def test_postgresql_killed_in_a_call(hotline: System, people: People) -> None:
    call, theirs = await connected(hotline, people, "+12025550102")
    restarts = hotline.status("postgres").restarts
    hotline.kill("postgres")
    await asyncio.gather(call.hears(620, 5, for_ms=1000), theirs.hears(440, 5, for_ms=1000))
    await call.hangup()
    await theirs.ended(5)
    await hotline.is_back("postgres", restarts + 1)
    facts = await hotline.facts("+12025550102", within_s=30)
    assert facts.disposition == "connected"
    assert "accepted" in {attempt.outcome for attempt in facts.attempts}
    await hotline.note(facts, within_s=40)


async def test_a_call_while_postgresql_is_away(hotline: System, people: People) -> None:
    restarts = hotline.status("postgres").restarts
    hotline.kill("postgres")
    call = await hotline.call(people.trunk, "+12025550103", 440)
    await call.hears_prompt(await hotline.prompt("emergency"), 15, min_correlation=0.6)
    await hotline.is_back("postgres", restarts + 1)
    await call.hangup()
    facts = await hotline.facts("+12025550103", within_s=30)
    assert facts.disposition == "abandoned"
    await hotline.note(facts, within_s=40)


async def test_kamailio_killed_in_a_call(hotline: System, people: People) -> None:
    call, theirs = await connected(hotline, people, "+12025550104")
    restarts = hotline.status("kamailio").restarts
    hotline.kill("kamailio")
    await asyncio.gather(call.hears(620, 5, for_ms=1000), theirs.hears(440, 5, for_ms=1000))
    await hotline.is_back("kamailio", restarts + 1)
    await asyncio.gather(call.hears(620, 5, for_ms=1000), theirs.hears(440, 5, for_ms=1000))
    await call.hangup()
    await theirs.ended(10)
    facts = await hotline.facts("+12025550104")
    assert facts.disposition == "connected"
    await hotline.note(facts)
    again, theirs = await connected(hotline, people, "+12025550105")  # contacts survive
    await again.hangup()
    await theirs.ended(5)


async def test_a_worker_killed_in_a_call(hotline: System, people: People) -> None:
    await connected(hotline, people, "+12025550106")
    restarts = hotline.status("worker-1").restarts
    hotline.kill("worker-1")
    await hotline.is_back("worker-1", restarts + 1)
    facts = await hotline.facts("+12025550106", within_s=40)
    assert facts.cause == "worker-lost"
    assert facts.answered_by
    text = await hotline.note(facts)
    assert "worker-lost" in text
    again, theirs = await connected(hotline, people, "+12025550107")
    await again.hangup()
    await theirs.ended(5)


async def test_rtpengine_killed_in_a_call(hotline: System, people: People) -> None:
    call, theirs = await connected(hotline, people, "+12025550108")
    restarts = hotline.status("rtpengine").restarts
    hotline.kill("rtpengine")
    await hotline.is_back("rtpengine", restarts + 1)
    again, others = await connected(hotline, people, "+12025550109")  # new calls have audio at once
    await again.hangup()
    await others.ended(5)
    # The worker offers the legs of the call that lost its relay again, and both hear each other.
    await asyncio.gather(call.hears(620, 15, for_ms=1000), theirs.hears(440, 15, for_ms=1000))
    await call.hangup()
    await theirs.ended(10)
    facts = await hotline.facts("+12025550108")
    assert facts.answered_by
    await hotline.note(facts)


@pytest.mark.parametrize(
    ("mode", "caller"),
    [("500", "+12025550120"), ("commit-then-drop", "+12025550121"), ("timeout", "+12025550122")],
)
async def test_the_emr_in_trouble(hotline: System, people: People, mode: str, caller: str) -> None:
    call = await hotline.call(people.trunk, caller, 440)
    await hotline.fhir.fault(mode, count=2)
    await call.hears_sound(5)
    await call.hangup()
    facts = await hotline.facts(caller)
    await hotline.note(facts, within_s=60)
