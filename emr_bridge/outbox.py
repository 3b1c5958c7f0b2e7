"""The outbox: notes on their way to an EMR, one row a (connector, call, version), in PostgreSQL.

The only module of the bridge that speaks to the database. It stores and hands out; what to send and what a
failure means is decided elsewhere. Invariants: a row is one courier's alone until its claim ends, and a
courier whose claim ended can no longer mark it; a version is handed out only when every earlier one of its
call is finished.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from emr_bridge import note
from emr_bridge.facts import CallFacts
from emr_bridge.failure import Failure

log = logging.getLogger("careline.outbox")

CHANNEL = "careline_outbox"
_SQL = {
    block[0]: block[1]
    for block in re.findall(
        r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)",
        (Path(__file__).parent / "queries" / "outbox.sql").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
}
# SQLSTATE classes that say "not now" about the server (PostgreSQL documentation, Appendix A): connection,
# resources, operator intervention, system error; and single states: read-only, serialization, deadlock, lock.
_AWAY = re.compile(r"08|53|57|58|25006|40001|40P01|55P03")
_LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class DatabaseAway(Exception):
    """PostgreSQL is out of reach now; the same call may work later."""


class Refused(Exception):
    """A person's wish about an outbox row cannot be followed; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """One outbox row that this courier has until its claim ends, with the note to send."""

    id: int
    connector: str
    call_id: UUID
    version: int
    attempts: int  # with `courier`, the token that a courier whose claim ended no longer has
    courier: str
    read_backs: int  # times it was looked for after its acceptance and not found
    unsure: bool  # it may be at the EMR already
    accepted: bool  # the EMR accepted it; only the read-back is left
    taken_over: bool  # the courier that had it before did not report back
    created_at: datetime  # aware UTC, the outbox row
    written_at: datetime  # aware UTC, the note version
    facts: Mapping[str, Any]  # as CallFacts.to_json gave them
    text: str  # the note itself
    remote_encounter: str | None
    remote_document: str | None
    replaces: str | None  # reference of the previous version at this EMR


@dataclass(frozen=True, kw_only=True, slots=True)
class Lag:
    """How much of one connector's outbox is unfinished."""

    connector: str
    waiting: int  # not accepted yet
    unread: int  # accepted, not read back yet
    held: int  # wait for a person
    dead: int  # refused for good
    oldest_s: float  # age of the oldest note the EMR has not accepted; 0 when there is none


async def enqueue(
    connection: Any, finished: Sequence[CallFacts], connectors: Sequence[str], now: datetime
) -> None:
    """Store the notes of ended calls and one outbox row a connector, in the caller's own transaction.

    Renders the note text itself. A replay of the same (call, version) changes nothing. `connectors` are
    names; with none, the notes are stored and wait for nobody. `now` is aware UTC. `connection` is an asyncpg
    connection, or one from a pool; it is one statement whatever the number. Raises asyncpg's errors.
    """
    if not finished:
        return
    await connection.execute(
        _SQL["enqueue"],
        [facts.call_id for facts in finished],
        [facts.version for facts in finished],
        [_encode(facts.to_json()) for facts in finished],
        [note.render(facts) for facts in finished],
        list(dict.fromkeys(connectors)),
        now,
    )


async def versions_with_cause(connection: Any, call_ids: Sequence[UUID], cause: str) -> dict[UUID, int]:
    """The current note versions of those calls whose note tells this cause."""
    rows = await connection.fetch(_SQL["versions_with_cause"], list(call_ids), cause)
    return {row["call_id"]: row["current_version"] for row in rows}


async def claim(
    connection: Any, *, connector: str, now: datetime, courier: str, limit: int, lease_s: float
) -> list[Claimed]:
    """Take up to `limit` due rows of one connector for `lease_s` seconds from `now` (aware UTC)."""
    rows = await connection.fetch(
        _SQL["claim"], connector, now, limit, courier, now + timedelta(seconds=lease_s)
    )
    return [
        Claimed(
            id=row["id"],
            connector=row["connector"],
            call_id=row["call_id"],
            version=row["version"],
            attempts=row["attempts"],
            courier=courier,
            read_backs=row["read_backs"],
            unsure=row["unsure"],
            accepted=row["was"] == "delivered",
            taken_over=row["was"] == "sending",
            created_at=row["created_at"],
            written_at=row["written_at"],
            facts=json.loads(row["facts"]),
            text=row["text"],
            remote_encounter=row["remote_encounter"],
            remote_document=row["remote_document"],
            replaces=row["replaces"],
        )
        for row in rows
    ]


async def mark_delivered(
    connection: Any, row: Claimed, now: datetime, *, encounter: str | None, document: str, http_status: int
) -> bool:
    """The EMR accepted it under these references; the claim goes on. False: claim lost, nothing changed."""
    return await _mark(connection, "delivered", row, now, encounter, document, http_status)


async def mark_filed(connection: Any, row: Claimed, now: datetime) -> bool:
    """It was read back: finished. False: the claim was lost, nothing changed."""
    return await _mark(connection, "filed", row, now)


async def mark_failed(
    connection: Any, row: Claimed, failure: Failure, now: datetime, *, retry_at: datetime, step: str = "send"
) -> bool:
    """Give it back for another attempt at `retry_at`. `step` is "send" or "read-back". False: claim lost."""
    state = "queued" if step == "send" else "delivered"
    return await _end(connection, row, failure, now, state, retry_at, step)


async def mark_resend(connection: Any, row: Claimed, failure: Failure, now: datetime) -> bool:
    """An accepted note is not at the EMR: send it again. False: the claim was lost, nothing changed."""
    return await _end(connection, row, failure, now, "queued", now, "read-back")


async def mark_dead(
    connection: Any, row: Claimed, failure: Failure, now: datetime, *, step: str = "send"
) -> bool:
    """The EMR refused it for good; kept for a person. False: the claim was lost, nothing changed."""
    return await _end(connection, row, failure, now, "dead", now, step)


async def mark_held(
    connection: Any, row: Claimed, failure: Failure, now: datetime, *, step: str = "send"
) -> bool:
    """Only a person may say whether it is sent again. False: the claim was lost, nothing changed."""
    return await _end(connection, row, failure, now, "held", now, step)


async def release(connection: Any, row: Claimed, now: datetime) -> bool:
    """Give back a claim of which nothing was sent. False: the claim was lost, nothing changed."""
    return await _mark(connection, "release", row, now)


async def reclaim(
    connection: Any, *, connector: str, courier: str, under_way: Collection[int], now: datetime
) -> None:
    """End the claims under this courier's name that it has not `under_way`, instead of waiting them out.

    They are its dead predecessor's, or the answer to its claim was lost. Not for an EMR that cannot tell a
    repeat: there the predecessor must surely be gone.
    """
    await connection.execute(_SQL["reclaim"], connector, courier, list(under_way), now)


async def wake(connection: Any, connector: str, now: datetime, *, unsure_too: bool) -> None:
    """The EMR answers again: what waits out a failed attempt is due now; `unsure_too` where that is safe."""
    await connection.execute(_SQL["wake"], connector, now, unsure_too)


async def next_due(connection: Any, connector: str) -> datetime | None:
    """When the next row of a connector is due (aware UTC), None when nothing is unfinished."""
    found: datetime | None = await connection.fetchval(_SQL["next_due"], connector)
    return found


async def redeliver(connection: Any, outbox_id: int, now: datetime) -> None:
    """A person decided that a held or dead note is sent again, and knows that it is not at the EMR yet.

    Raises Refused when it is neither held nor dead, or when a newer version of the note exists.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_SQL["lock_for_person"], outbox_id)
        if row is None:
            raise Refused(f"There is no outbox row {outbox_id}; list them to find its number.")
        if row["state"] not in ("held", "dead"):
            raise Refused(
                f"Outbox row {outbox_id} is {row['state']}; only held and dead ones are redelivered."
            )
        if row["has_newer"] and row["state"] == "dead":
            raise Refused(f"Outbox row {outbox_id} has a newer version; redeliver that one instead.")
        await connection.execute(_SQL["redeliver"], outbox_id, now)
        await connection.execute(_SQL["notify"])


async def hold(connection: Any, outbox_id: int, reason: str) -> None:
    """A person decided that a queued or dead note is not sent for now; `reason` is kept with it.

    Raises Refused when it is being sent, was accepted already, or does not exist.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_SQL["lock_for_person"], outbox_id)
        if row is None:
            raise Refused(f"There is no outbox row {outbox_id}; list them to find its number.")
        if row["state"] not in ("queued", "dead"):
            raise Refused(f"Outbox row {outbox_id} is {row['state']}; only queued and dead ones can be held.")
        await connection.execute(_SQL["hold"], outbox_id, reason)


async def settle(connection: Any, outbox_id: int, document: str | None, now: datetime) -> None:
    """A person found a held note at the EMR (under `document` when known): it counts as filed.

    Raises Refused when it is not held or does not exist.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_SQL["lock_for_person"], outbox_id)
        if row is None:
            raise Refused(f"There is no outbox row {outbox_id}; list them to find its number.")
        if row["state"] != "held":
            raise Refused(f"Outbox row {outbox_id} is {row['state']}; only held ones are settled by hand.")
        await connection.execute(_SQL["settle"], outbox_id, document, now)
        await connection.execute(_SQL["notify"])


async def lag(connection: Any, now: datetime) -> list[Lag]:
    """What is unfinished, one element a connector that has any; ages are against `now` (aware UTC)."""
    return [
        Lag(
            connector=row["connector"],
            waiting=row["waiting"],
            unread=row["unread"],
            held=row["held"],
            dead=row["dead"],
            oldest_s=max(0.0, (now - row["oldest"]).total_seconds()) if row["oldest"] else 0.0,
        )
        for row in await connection.fetch(_SQL["lag"])
    ]


class OutboxDatabase:
    """A courier's connections: a small pool, and one that listens for new rows. Used on one event loop."""

    def __init__(self, dsn: str, *, application_name: str = "careline courier", max_size: int = 4) -> None:
        """`dsn` is postgresql://…; opens nothing yet."""
        self._dsn = dsn
        self._settings = {"application_name": application_name, "timezone": "UTC"}
        self._max_size = max_size
        self._pool: Any = None

    async def __aenter__(self) -> "OutboxDatabase":
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._max_size,
            timeout=5,
            command_timeout=15,
            server_settings=self._settings,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        pool, self._pool = self._pool, None
        try:
            await asyncio.wait_for(pool.close(), 5)
        except _LOST:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend one connection. Raises DatabaseAway when there is none to be had in 5 s, or it is lost."""
        try:
            async with self._pool.acquire(timeout=5) as connection:
                try:
                    yield connection
                except (
                    asyncpg.InternalClientError
                ):  # what asyncpg says when its server dies between two messages
                    connection.terminate()
                    raise
        except (*_LOST, asyncpg.InternalClientError) as error:
            if _is_away(error):
                raise DatabaseAway("PostgreSQL is out of reach; is it running?") from error
            raise

    async def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` for every batch of new rows, until the connection is lost.

        Raises DatabaseAway then, or when there is no connection to be had; never returns. Calls `wake` once
        at the start, for what came before.
        """
        lost = asyncio.Event()
        try:
            connection = await asyncpg.connect(self._dsn, timeout=5, server_settings=self._settings)
        except _LOST as error:
            if _is_away(error):
                raise DatabaseAway("PostgreSQL is out of reach; is it running?") from error
            raise
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *_: wake())
            wake()
            await lost.wait()
        except _LOST as error:
            raise DatabaseAway("PostgreSQL closed the listening connection.") from error
        finally:
            connection.terminate()
        raise DatabaseAway("PostgreSQL closed the listening connection.")


def _is_away(error: BaseException) -> bool:
    """Whether PostgreSQL was out of reach or busy, so that the same statement may work later."""
    if isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError):
        return True
    if isinstance(error, asyncpg.PostgresError):
        return bool(_AWAY.match(str(getattr(error, "sqlstate", "") or "")))
    return isinstance(error, asyncpg.InterfaceError) and not isinstance(error, asyncpg.DataError)


async def _mark(connection: Any, query: str, row: Claimed, now: datetime, *more: object) -> bool:
    return bool(await connection.fetchval(_SQL[query], row.id, row.attempts, row.courier, now, *more))


async def _end(
    connection: Any,
    row: Claimed,
    failure: Failure,
    now: datetime,
    state: str,
    next_attempt_at: datetime,
    step: str,
) -> bool:
    return await _mark(
        connection,
        "failed",
        row,
        now,
        state,
        next_attempt_at,
        str(failure.error_class),
        failure.sentence,
        failure.http_status,
        step,
        failure.error_class == "ambiguous" or failure.partial,
        failure.missing,
    )
