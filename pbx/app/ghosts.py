"""Calls whose worker died: they are ended and get their note, so that none stays open or silent."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from emr_bridge import outbox
from emr_bridge.facts import CallFacts
from pbx.app.story import ARRIVED
from pbx.core.timeline import Entry, Heading, facts
from pbx.store import calls, workers
from pbx.store.calls import Call
from pbx.store.db import Database, DatabaseAway
from pbx.store.records import WORKER_LOST, CallEvent

log = logging.getLogger("careline.ghosts")

LEASE = timedelta(seconds=15)  # a worker that was not heard of for so long is dead
LOOK_EVERY_S = 3.0


async def watch(
    database: Database, connectors: Sequence[str], clock: Callable[[], datetime], *, lease: timedelta = LEASE
) -> None:
    """Look for dead workers until cancelled. Any number of processes may do so at once."""
    watching_since: datetime | None = None
    while True:
        now = clock()
        try:
            watching_since = watching_since or now
            await bury(database, connectors, now, watching_since, lease)
        except DatabaseAway:
            watching_since = None  # while PostgreSQL was away every lease ran out, yet the workers live
        except Exception:  # a call whose story cannot be told must not end the watch over all others
            log.exception("looking for dead workers failed", extra={"action": "bury"})
        await asyncio.sleep(LOOK_EVERY_S)


async def bury(
    database: Database, connectors: Sequence[str], now: datetime, watching_since: datetime, lease: timedelta
) -> list[Call]:
    """End what nobody carries any more, with its notes, in one transaction. Raises DatabaseAway."""
    async with database.transaction() as connection:
        dead, ended = await workers.bury(connection, at=now, watching_since=watching_since, lease=lease)
        if ended:
            stories = await calls.events(database, [call.id for call in ended])
            told = [told_of(call, stories[call.id]) for call in ended]
            await outbox.enqueue(connection, told, connectors, now)
    for name in dead:
        log.error("worker lost", extra={"action": "worker_lost", "worker": name})
    for call in ended:
        log.error("call lost with its worker", extra={"action": "call_lost", "call": str(call.id)})
    return ended


def told_of(call: Call, events: Sequence[CallEvent]) -> CallFacts:
    """The facts of a stored call that ended, from its timeline."""
    heading = next((event.detail for event in events if event.kind == ARRIVED), {})
    entries = [
        Entry(seq=event.seq, at=event.at, kind=event.kind, detail=event.detail)
        for event in events
        if event.kind != ARRIVED
    ]
    ended_at = call.ended_at or (entries[-1].at if entries else call.started_at)
    return CallFacts.from_json(
        facts(
            Heading(
                call_id=str(call.id),
                site=str(heading.get("site", "")),
                time_zone=str(heading.get("time_zone", "UTC")),
                line=call.line,
                language=str(heading.get("language", "")),
                dialled=call.dialled,
                caller=call.caller,
                started_at=call.started_at,
            ),
            entries,
            ended_at=ended_at,
            cause=call.cause or WORKER_LOST,
            disposition=call.disposition or "lost",
        )
    )
