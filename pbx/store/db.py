"""The pool of connections to PostgreSQL: bounded waits, and coming back after the server was restarted.

Connections are plain asyncpg ones without type codecs of ours: jsonb goes in and comes out as text, so that
code outside pbx (emr_bridge) works the same on a connection it is lent and on one it opened itself.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

log = logging.getLogger("careline.store")

# SQLSTATE classes and codes that say "not now" about the server and nothing about the statement
# (PostgreSQL documentation, Appendix A).
_AWAY_CLASSES = frozenset(
    {"08", "53", "57", "58"}
)  # connection, resources, operator intervention, system error
_AWAY_STATES = frozenset(
    {"25006", "40001", "40P01", "55P03"}
)  # read-only, serialization, deadlock, lock timeout


class DatabaseAway(Exception):
    """PostgreSQL is out of reach now. A transaction under way may or may not have been committed."""


def is_away(error: BaseException) -> bool:
    """Whether PostgreSQL was out of reach or busy, so that the same statement may work later."""
    # InternalClientError: what asyncpg says when the server dies between two messages of one statement.
    if isinstance(error, DatabaseAway | OSError | TimeoutError | asyncpg.InternalClientError):
        return True
    if isinstance(error, asyncpg.PostgresError):
        state = str(getattr(error, "sqlstate", "") or "")
        return state[:2] in _AWAY_CLASSES or state in _AWAY_STATES
    # A connection lost between two statements is an InterfaceError; wrong arguments are a DataError.
    return isinstance(error, asyncpg.InterfaceError) and not isinstance(error, asyncpg.DataError)


class Database:
    """A pool of connections to one PostgreSQL database. One a process; used on one event loop."""

    def __init__(
        self,
        url: str,
        *,
        max_size: int = 10,
        acquire_within_s: float = 5.0,
        statement_within_s: float = 30.0,
        application_name: str = "careline",
    ) -> None:
        """`url` is postgresql://…; `max_size` counts connections. Opens nothing yet."""
        self._url = url
        self._max_size = max_size
        self._acquire_within_s = acquire_within_s
        self._statement_within_s = statement_within_s
        self._application_name = application_name
        self._pool: Any = None

    async def open(self, within_s: float = 30.0) -> None:
        """Make the pool and wait until PostgreSQL answers; with `within_s=0` do not wait for it.

        Raises DatabaseAway when the time is over; at once what will not heal, such as a wrong password.
        """
        if self._pool is not None:
            raise RuntimeError("This Database is open already; close it first.")
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._max_size,
            timeout=self._acquire_within_s,
            command_timeout=self._statement_within_s,
            server_settings={"application_name": self._application_name, "timezone": "UTC"},
        )
        try:
            if within_s > 0:
                await self.wait(within_s)
        except BaseException:
            await self.close(within_s=1.0)
            raise

    async def wait(self, within_s: float) -> None:
        """Wait until PostgreSQL answers a query. Raises DatabaseAway when `within_s` is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while True:
            try:
                await self.fetchval("SELECT 1")
            except DatabaseAway:
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def close(self, within_s: float = 5.0) -> None:
        """Give back every connection; those still busy after `within_s` are cut."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), within_s)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            log.warning("database connections were cut", extra={"action": "database_close"})
            pool.terminate()

    async def __aenter__(self) -> "Database":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend one asyncpg connection. Raises DatabaseAway when none is free in time or it is lost.

        Faults of the statement itself (wrong data, a constraint) come as asyncpg.PostgresError.
        """
        if self._pool is None:
            raise RuntimeError("This Database is not open; call open() first.")
        try:
            async with self._pool.acquire(timeout=self._acquire_within_s) as connection:
                try:
                    yield connection
                except asyncpg.InternalClientError:
                    connection.terminate()  # its state is lost; the pool must not lend it again
                    raise
        except (
            OSError,
            TimeoutError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ) as error:
            if not is_away(error):
                raise
            reason = getattr(error, "sqlstate", None) or type(error).__name__
            raise DatabaseAway(
                f"PostgreSQL is out of reach ({reason}); is it running and database.url right?"
            ) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Lend a connection inside a transaction: committed at the end, undone when an exception leaves."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, sql: str, *args: object) -> list[Any]:
        """All rows of one statement."""
        async with self.connection() as connection:
            return list(await connection.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: object) -> Any:
        """The first row, or None."""
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first column of the first row, or None."""
        async with self.connection() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: object) -> str:
        """Run one statement; returns PostgreSQL's command tag, such as "UPDATE 1"."""
        async with self.connection() as connection:
            return str(await connection.execute(sql, *args))
