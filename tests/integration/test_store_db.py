"""The pool: transactions, and coming back after PostgreSQL was killed."""

import asyncpg
import pytest

from pbx.store.db import Database

pytestmark = pytest.mark.integration


async def test_a_transaction_is_undone_when_its_block_raises(database: Database) -> None:
    await database.execute("CREATE TABLE thing (n integer)")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await _insert_and_fail(database)
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO thing VALUES (2)")
    assert [row["n"] for row in await database.fetch("SELECT n FROM thing")] == [2]
    assert await database.fetchval("SELECT n FROM thing") == 2


async def _insert_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO thing VALUES (1)")
        await connection.execute("SELECT 1/0")
