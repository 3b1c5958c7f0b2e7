"""Migrations: applied once, in order, by one of many; changed files are refused; schema.sql is their sum."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from pbx.store import schema
from pbx.store.db import Database
from pbx.store.migrate import Migration, MigrationError, load, migrate
from tests.integration.pgrig import RunningPostgres, create_database, drop_database

pytestmark = pytest.mark.integration

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ONE = Migration(version=1, name="one", sql="CREATE TABLE thing (n integer); INSERT INTO thing VALUES (1);")
TWO = Migration(version=2, name="two", sql="UPDATE thing SET n = n + 1;")


@pytest.fixture
async def empty(postgres: RunningPostgres) -> AsyncIterator[Database]:
    """A database without any table."""
    name = f"e_{uuid.uuid4().hex[:12]}"
    await create_database(postgres.server, name, "template0")
    async with Database(postgres.server.url(database=name)) as database:
        yield database
    await drop_database(postgres.server, name)


async def test_each_file_is_applied_once_with_the_time_given(empty: Database) -> None:
    assert await migrate(empty, AT, [ONE]) == ["0001_one"]
    assert await migrate(empty, AT, [ONE, TWO]) == ["0002_two"]
    assert await migrate(empty, AT, [ONE, TWO]) == []
    assert await empty.fetchval("SELECT n FROM thing") == 2
    rows = await empty.fetch("SELECT version, name, applied_at FROM schema_version ORDER BY version")
    assert [tuple(row) for row in rows] == [(1, "one", AT), (2, "two", AT)]


async def test_many_processes_at_once_apply_each_file_once(empty: Database) -> None:
    done = await asyncio.gather(*(migrate(empty, AT, [ONE, TWO]) for _ in range(5)))
    assert sorted(name for names in done for name in names) == ["0001_one", "0002_two"]
    assert await empty.fetchval("SELECT n FROM thing") == 2


async def test_a_file_that_fails_leaves_nothing_and_keeps_the_earlier_ones(empty: Database) -> None:
    bad = Migration(version=2, name="bad", sql="UPDATE thing SET n = 9; SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty, AT, [ONE, bad])
    assert await empty.fetchval("SELECT n FROM thing") == 1
    assert await migrate(empty, AT, [ONE, TWO]) == ["0002_two"]


async def test_a_changed_file_is_refused(empty: Database) -> None:
    await migrate(empty, AT, [ONE, TWO])
    changed = Migration(version=1, name="one", sql=ONE.sql + " ")
    with pytest.raises(MigrationError) as refused:
        await migrate(empty, AT, [changed, TWO])
    assert str(refused.value) == (
        "Migration 0001_one.sql was changed after this database applied it; put the released file back and "
        "make the change in a new migration."
    )


async def test_a_database_newer_than_the_program_is_refused(empty: Database) -> None:
    await migrate(empty, AT, [ONE, TWO])
    with pytest.raises(
        MigrationError, match="The database is at version 2 and this careline knows only up to 1"
    ):
        await migrate(empty, AT, [ONE])


def test_gaps_repeats_and_strange_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("SELECT 1")
    (tmp_path / "0003_three.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="migration 0003 where 0002 must come"):
        load(tmp_path)
    (tmp_path / "0003_three.sql").rename(tmp_path / "0001_again.sql")
    with pytest.raises(MigrationError, match="migration 0001 where 0002 must come"):
        load(tmp_path)
    (tmp_path / "0001_again.sql").rename(tmp_path / "two.sql")
    with pytest.raises(MigrationError, match=r'two\.sql is not named like "0001_calls\.sql"'):
        load(tmp_path)


async def test_schema_sql_is_what_the_migrations_make(database_url: str) -> None:
    made = await asyncio.to_thread(schema.dump, database_url)
    kept = schema.SCHEMA.read_text(encoding="utf-8")
    assert made == kept, "schema.sql is out of date: run `python -m tests.integration.pgrig`"
