"""Workers and their leases: who carries calls, who died, and the end of the calls nobody carries any more.

A worker registers before its first call, renews its lease by heartbeat, and forgets itself at a clean end.
All its calls share its lease: one row is renewed, not one a call.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pbx.store.calls import Call, to_call
from pbx.store.db import Database
from pbx.store.sql import queries


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """One row of table worker; times are aware UTC."""

    name: str  # one per place, such as "host-a/worker-1"
    sip_address: str  # "address:port" the edge sends calls to
    pid: int
    host: str
    started_at: datetime
    heartbeat_at: datetime
    lease_until: datetime  # dead after this
    draining: bool  # takes no new calls


async def register(
    database: Database, *, name: str, sip_address: str, pid: int, host: str, at: datetime, lease: timedelta
) -> None:
    """Announce a worker that starts at `at`, before it takes calls. Takes over the row of its predecessor."""
    await database.execute(queries("workers")["register"], name, sip_address, pid, host, at, at + lease)


async def heartbeat(
    database: Database, *, name: str, started_at: datetime, at: datetime, lease: timedelta
) -> bool:
    """Renew the lease. False: the row is gone or another incarnation's; this worker must register again."""
    done = await database.execute(queries("workers")["heartbeat"], name, started_at, at, at + lease)
    return done == "UPDATE 1"


async def drain(database: Database, name: str, draining: bool = True) -> bool:
    """Mark a worker as taking no new calls, or as taking them again. False: there is no such worker."""
    return await database.execute(queries("workers")["drain"], name, draining) == "UPDATE 1"


async def forget(database: Database, *, name: str, started_at: datetime) -> None:
    """Remove the row at a clean end, when the worker has no calls left."""
    await database.execute(queries("workers")["forget"], name, started_at)


async def everyone(database: Database) -> list[Worker]:
    """All registered workers by name, the dead ones too until they are buried."""
    rows = await database.fetch(queries("workers")["everyone"])
    return [Worker(**{name: row[name] for name in Worker.__slots__}) for row in rows]


async def bury(
    connection: Any, *, at: datetime, watching_since: datetime, lease: timedelta
) -> tuple[list[str], list[Call]]:
    """Remove workers whose lease is over and end the calls nobody carries, on a connection in a transaction.

    Returns the workers' names and the ended calls, whose cause is "worker-lost"; what must follow from that
    (a note, a rescue callback) belongs into the same transaction. When the worker was alive after all or
    left its end in the spool, the real end replaces this one.

    `watching_since`: since when this process reaches PostgreSQL without a gap. After an outage every lease
    is over although all live, so nothing is done until the others had one lease's time to renew theirs.
    """
    if at - watching_since < lease:
        return [], []
    sql = queries("workers")
    dead = [row["name"] for row in await connection.fetch(sql["dead"], at)]
    ended = await connection.fetch(sql["end_ghosts"], at, dead)
    if dead:
        await connection.execute(sql["bury"], dead)
    return dead, [to_call(row) for row in ended]
