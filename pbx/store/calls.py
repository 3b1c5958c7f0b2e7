"""Reading calls. Numbers in these values are PHI: for the screens and notes of people who may see them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pbx.store.db import Database
from pbx.store.records import CallEvent
from pbx.store.sql import queries

_LAST_UUID = UUID(int=2**128 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One row of table call; times are aware UTC."""

    id: UUID
    line: str  # name of the hotline
    dialled: str  # number as dialled
    caller: str  # number shown; never an identity
    sip_call_id: str  # Call-ID of the caller's leg
    worker: str  # name of the worker that carries or carried it
    started_at: datetime
    answered_at: datetime | None  # a clinician and the caller could talk
    ended_at: datetime | None
    cause: str | None  # what the network said; set exactly when ended
    disposition: str | None  # how it went in our words
    answered_by: str | None  # who took it


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveCall:
    """A call that has not ended."""

    call: Call
    lease_until: datetime | None  # of its worker; None or past: nobody carries this call any more


async def one(database: Database, call_id: UUID) -> tuple[Call, tuple[CallEvent, ...]] | None:
    """A call with its events in order, or None."""
    sql = queries("calls")
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql["one"], call_id)
        if row is None:
            return None
        events = await connection.fetch(sql["events"], [call_id])
    return to_call(row), tuple(_event(event) for event in events)


async def events(database: Database, call_ids: Sequence[UUID]) -> Mapping[UUID, tuple[CallEvent, ...]]:
    """The events of several calls in order; a call without events has an empty tuple."""
    found: dict[UUID, list[CallEvent]] = {call_id: [] for call_id in call_ids}
    for row in await database.fetch(queries("calls")["events"], list(call_ids)):
        found[row["call_id"]].append(_event(row))
    return {call_id: tuple(its) for call_id, its in found.items()}


async def live(database: Database) -> list[LiveCall]:
    """Calls that have not ended, oldest first."""
    rows = await database.fetch(queries("calls")["live"])
    return [LiveCall(call=to_call(row), lease_until=row["lease_until"]) for row in rows]


async def latest(database: Database, limit: int, before: Call | None = None) -> list[Call]:
    """The newest calls, newest first; with `before`, those older than the last call of the page seen.

    Raises ValueError unless `limit` is 1 to 1000.
    """
    if not 1 <= limit <= 1000:
        raise ValueError(f"A page has 1 to 1000 calls, not {limit}.")
    place = (before.started_at, before.id) if before else (_END_OF_TIME, _LAST_UUID)
    return [to_call(row) for row in await database.fetch(queries("calls")["latest"], *place, limit)]


_END_OF_TIME = datetime.fromisoformat("9999-01-01T00:00:00+00:00")


def to_call(row: Any) -> Call:
    """The value of one row of table call."""
    return Call(**{name: row[name] for name in Call.__slots__})


def _event(row: Any) -> CallEvent:
    return CallEvent(
        call_id=row["call_id"],
        seq=row["seq"],
        at=row["at"],
        kind=row["kind"],
        detail=json.loads(row["detail"]),
    )
