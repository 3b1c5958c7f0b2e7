"""The FHIR server, a courier or PostgreSQL is killed in mid-flight: nothing is lost and nothing doubled."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pbx.store.db import Database
from tests.emr_calls import answered_call
from tests.integration.couriers import (
    QUICK,
    assert_filed_once,
    attempts,
    clock,
    courier,
    emr,
    put,
    states,
    until,
)
from tests.integration.pgrig import RunningPostgres, _make_template, create_database, short_folder
from tests.peers.fhir_server import FhirServer, running

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def in_an_hour() -> datetime:
    """The clock of a courier to whom every claim of now has ended."""
    return clock() + timedelta(hours=1)


@asynccontextmanager
async def courier_process(dsn: str, server: FhirServer) -> AsyncIterator[asyncio.subprocess.Process]:
    """A courier in a process group of its own; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.peers.courier_process",
        dsn,
        server.base_url,
        "killed",
        "20",
        cwd=ROOT,
        process_group=0,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait_for(process.wait(), 10)


async def test_a_server_that_is_down_gets_everything_when_it_is_back(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    calls = [answered_call() for _ in range(30)]
    server = FhirServer(file=tmp_path / "fhir.jsonl")
    await server.start()
    try:
        async with courier(database_url, emr(server)) as working:
            await put(database, calls[:10])
            await until(database, "filed", 10)
            await server.kill()
            await put(database, calls[10:])
            await asyncio.sleep(1.5)
            assert (await states(database))["filed"] == 10
            assert working.counters()["emr"]["breaker_opened"] == 1
            await server.start()
            await until(database, "filed", 30, working=working)
        assert (await attempts(database))[("transient", None)] >= 5
        await assert_filed_once(server, calls)
    finally:
        await server.stop()


async def test_a_server_killed_while_it_works_has_every_note_once(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    calls = [answered_call() for _ in range(60)]
    server = FhirServer(file=tmp_path / "fhir.jsonl")
    await server.start()
    try:
        async with courier(database_url, emr(server)) as working:
            for wave in range(3):
                await put(database, calls[wave * 20 : wave * 20 + 20])
                await until(database, "filed", wave * 20 + 5)
                await server.kill()
                await server.start()
            await until(database, "filed", 60, working=working)
        await assert_filed_once(server, calls)
    finally:
        await server.stop()


async def test_a_server_that_forgot_what_it_accepted_gets_it_again(
    database: Database, database_url: str
) -> None:
    """A restore from a backup: the answer was 201, and the document is not there."""
    calls = [answered_call() for _ in range(3)]
    server = FhirServer()
    await server.start()
    try:
        async with courier(database_url, emr(server)) as working:
            await server.fault("503", on="read", retry_after=0)
            await put(database, calls)
            await until(database, "delivered", 3)
            await server.kill()
            await server.start()
            await until(database, "filed", 3, working=working)
            assert working.counters()["emr"]["resent"] == 3
        await assert_filed_once(server, calls)
    finally:
        await server.stop()


@pytest.mark.parametrize("mode", ["timeout", "commit-then-timeout"])
async def test_a_courier_killed_in_mid_flight_is_taken_over_when_its_claim_ends(
    database: Database, database_url: str, mode: str
) -> None:
    calls = [answered_call() for _ in range(4)]
    async with running() as server:
        await server.fault(mode, count=4)
        await put(database, calls)
        async with courier_process(database_url, server) as process:
            await until(database, "sending", 4)
            while (await server.counts())["writes"] < 4:  # noqa: ASYNC110  another process counts
                await asyncio.sleep(0.02)
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        async with courier(database_url, emr(server), name="second"):
            await asyncio.sleep(1)
            assert (await states(database))["sending"] == 4  # their claims still run
        async with courier(database_url, emr(server), name="third", now=in_an_hour) as working:
            await until(database, "filed", 4, working=working)
            counts = working.counters()["emr"]
        assert counts["taken_over"] == 4
        assert counts["repeats"] == (4 if mode.startswith("commit") else 0)
        await assert_filed_once(server, calls)
        rows = await database.fetch("SELECT sentence FROM delivery_attempt WHERE class = 'ambiguous'")
        assert [r["sentence"] for r in rows] == [
            "The courier that had taken this note did not report back, so it may have been accepted."
        ] * 4


async def test_couriers_killed_at_any_moment_lose_and_double_nothing(
    database: Database, database_url: str
) -> None:
    """Killed after a longer time in each round, so that the kill meets every step of a delivery.

    Each one has the name of the one before and takes over what it left, without waiting for its claims.
    """
    calls = [answered_call() for _ in range(48)]
    async with running() as server:
        await server.fault("slow", delay_ms=15, on="all")
        await put(database, calls)
        for round_ in range(8):
            async with courier_process(database_url, server) as process:
                before = (await states(database))["filed"]
                wanted = min(48, before + 1)
                await until(database, "filed", wanted)
                await asyncio.sleep(round_ * 0.007)
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        await server.fault("none")
        async with courier(database_url, emr(server), name="killed") as working:
            await until(database, "filed", 48, 15, working)
        await assert_filed_once(server, calls)


async def test_a_clean_stop_ends_what_is_under_way_and_gives_back_the_rest(
    database: Database, database_url: str
) -> None:
    calls = [answered_call() for _ in range(12)]
    async with running() as server:
        await server.fault("slow", delay_ms=400)
        await put(database, calls)
        async with courier(database_url, emr(server, concurrency=4)):
            await until(database, "sending", 4)
        seen = await states(database)
        assert seen["sending"] == 0
        assert seen["filed"] >= 4
        assert await database.fetchval("SELECT count(*) FROM outbox WHERE claimed_by IS NOT NULL") == 0
        await server.fault("none")
        async with courier(database_url, emr(server)):
            await until(database, "filed", 12)
        await assert_filed_once(server, calls)


async def test_a_stop_that_takes_too_long_cuts_and_says_that_it_may_have_arrived(
    database: Database, database_url: str
) -> None:
    call = answered_call()
    async with running() as server:
        await server.fault("commit-then-timeout", count=1)
        await put(database, [call])
        pace = replace(QUICK, stop_within_s=0.3)
        async with courier(database_url, emr(server, timeout_s=20), pace=pace):
            await until(database, "sending", 1)
            while (await server.counts())["writes"] < 1:  # noqa: ASYNC110  another process counts
                await asyncio.sleep(0.02)
        row = await database.fetchrow("SELECT * FROM outbox")
        assert (row["state"], row["last_error_class"], row["unsure"]) == ("queued", "ambiguous", True)
        async with courier(database_url, emr(server)):
            await until(database, "filed", 1)
        await assert_filed_once(server, [call])


async def test_postgresql_killed_and_restarted_in_mid_flight() -> None:
    folder = short_folder()
    postgres = RunningPostgres(folder)
    try:
        await asyncio.to_thread(postgres.start)
        await _make_template(postgres.server)
        await create_database(postgres.server, "kills", "template_careline")
        dsn = postgres.server.url(database="kills")
        calls = [answered_call() for _ in range(40)]
        async with running() as server:
            async with courier(dsn, emr(server, timeout_s=5)) as working:
                for wave in range(2):
                    async with Database(dsn) as database:
                        await put(database, calls[wave * 20 : wave * 20 + 20])
                        await until(database, "filed", wave * 20 + 4)
                    await asyncio.to_thread(postgres.kill)
                    await asyncio.sleep(0.5)
                    await asyncio.to_thread(postgres.start)
                async with Database(dsn) as database:
                    await until(database, "filed", 40, 12, working)
                    late = answered_call()
                    await put(database, [late])  # it listens again
                    await until(database, "filed", 41, 3)
                assert working.counters()["emr"]["database_away"] > 0
            await assert_filed_once(server, [*calls, late])
    finally:
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(folder)
