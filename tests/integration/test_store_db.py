"""The pool: transactions, bounds, and coming back after PostgreSQL was killed."""

import asyncio
import shutil
import time

import asyncpg
import pytest

from pbx.store.db import Database, DatabaseAway, is_away
from tests.integration.pgrig import RunningPostgres, free_port, short_folder

pytestmark = pytest.mark.integration


async def _insert_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO thing VALUES (1)")
        await connection.execute("SELECT 1/0")


async def test_a_transaction_is_undone_when_its_block_raises(database: Database) -> None:
    await database.execute("CREATE TABLE thing (n integer)")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await _insert_and_fail(database)
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO thing VALUES (2)")
    assert [row["n"] for row in await database.fetch("SELECT n FROM thing")] == [2]
    assert await database.fetchval("SELECT n FROM thing") == 2
    row = await database.fetchrow("SELECT n FROM thing")
    assert row["n"] == 2


async def test_an_exhausted_pool_answers_within_its_bound(database_url: str) -> None:
    async with Database(database_url, max_size=1, acquire_within_s=0.2) as small, small.connection():
        began = time.monotonic()
        with pytest.raises(DatabaseAway, match="TimeoutError"):
            await small.fetchval("SELECT 1")
        assert time.monotonic() - began < 1.0


async def test_a_statement_is_bounded(database_url: str) -> None:
    async with Database(database_url, statement_within_s=0.2) as database:
        with pytest.raises(DatabaseAway):
            await database.fetchval("SELECT pg_sleep(5)")
        assert await database.fetchval("SELECT 1") == 1


async def test_the_pool_comes_back_after_postgres_was_killed() -> None:
    folder = short_folder()
    running = RunningPostgres(folder)
    await asyncio.to_thread(running.start)
    try:
        async with Database(running.server.url(), acquire_within_s=1.0) as database:
            await database.execute("CREATE TABLE thing (n integer)")
            await database.execute("INSERT INTO thing VALUES (1)")
            slow = asyncio.create_task(database.fetchval("SELECT pg_sleep(30)"))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(running.kill)
            with pytest.raises(DatabaseAway):
                await slow
            with pytest.raises(DatabaseAway):
                await database.fetchval("SELECT 1")
            with pytest.raises(DatabaseAway):
                await database.wait(0.3)
            await asyncio.to_thread(running.start)
            await database.wait(10)
            assert await database.fetchval("SELECT n FROM thing") == 1
    finally:
        await asyncio.to_thread(running.stop)
        shutil.rmtree(folder)


async def test_a_server_that_is_not_there_or_not_ours_is_told_apart(
    postgres: RunningPostgres, database_url: str
) -> None:
    nobody = Database(f"postgresql://careline:x@127.0.0.1:{free_port()}/careline")
    with pytest.raises(DatabaseAway, match="is it running"):
        await nobody.open(within_s=0.3)
    wrong = Database(f"postgresql://careline:wrong@127.0.0.1:{postgres.server.port}/careline")
    with pytest.raises(asyncpg.InvalidPasswordError) as refused:
        await wrong.open(within_s=5)
    assert not is_away(refused.value)
    with pytest.raises(RuntimeError, match="not open"):
        await wrong.fetchval("SELECT 1")


async def test_an_unopened_database_can_wait_for_its_server(database_url: str) -> None:
    database = Database(database_url)
    await database.open(within_s=0)
    try:
        assert await database.fetchval("SELECT current_setting('timezone')") == "UTC"
        with pytest.raises(RuntimeError, match="open already"):
            await database.open()
    finally:
        await database.close()


async def test_closing_cuts_connections_still_busy(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    busy = asyncio.create_task(database.fetchval("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await database.close(within_s=0.2)
    assert time.monotonic() - began < 2
    with pytest.raises(DatabaseAway):
        await busy
