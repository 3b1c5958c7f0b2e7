"""Running couriers against the real FHIR server, and what can be asked afterwards."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from emr_bridge import fhir, note, outbox
from emr_bridge.courier import Courier
from emr_bridge.facts import CallFacts
from emr_bridge.lane import Pace
from emr_bridge.transport import ConnectorSettings
from pbx.store.db import Database
from tests.peers.fhir_server import FhirServer, text_of

QUICK = Pace(tick_s=0.5, first_retry_s=0.05, longest_retry_s=0.3, stop_within_s=5.0)


def clock() -> datetime:
    """Real time: these tests watch real programs."""
    return datetime.now(UTC)


def emr(server: FhirServer, **changes: Any) -> ConnectorSettings:
    """The server as connector "emr", impatient."""
    values: dict[str, Any] = {"name": "emr", "base_url": server.base_url, "timeout_s": 2.0}
    return ConnectorSettings(**(values | changes))


async def put(database: Database, calls: Sequence[CallFacts]) -> None:
    """The calls' notes into the outbox."""
    async with database.transaction() as connection:
        await outbox.enqueue(connection, calls, ["emr"], clock())


@asynccontextmanager
async def courier(
    dsn: str,
    *connectors: ConnectorSettings,
    name: str = "c1",
    now: Callable[[], datetime] = clock,
    pace: Pace = QUICK,
) -> AsyncIterator[Courier]:
    """A courier at work in this process; stopped cleanly at the end, within 10 s."""
    stop = asyncio.Event()
    working = Courier(dsn, connectors, name, clock=now, pace=pace)
    task = asyncio.create_task(working.run(stop))
    try:
        yield working
        if task.done():
            task.result()
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def states(database: Database) -> Counter[str]:
    """How many outbox rows are in each state."""
    return Counter(
        {
            r["state"]: r["n"]
            for r in await database.fetch("SELECT state, count(*) AS n FROM outbox GROUP BY 1")
        }
    )


async def until(
    database: Database, state: str, count: int, within_s: float = 30.0, working: Courier | None = None
) -> None:
    """Wait until `count` rows are in `state`; fails with what is there instead."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while (seen := await states(database))[state] < count:
        if loop.time() > deadline:
            errors = await database.fetch("SELECT last_error, count(*) FROM outbox GROUP BY 1")
            counts = working.counters() if working else {}
            raise AssertionError(f"{dict(seen)} instead of {count} {state}: {errors} {counts}")
        await asyncio.sleep(0.03)


async def attempts(database: Database) -> Counter[tuple[str, int | None]]:
    """How often each class and HTTP status was recorded for a send."""
    rows = await database.fetch("SELECT class, http_status FROM delivery_attempt WHERE step = 'send'")
    return Counter((row["class"], row["http_status"]) for row in rows)


async def assert_filed_once(server: FhirServer, calls: Sequence[CallFacts], token: str = "") -> None:
    """Each call has one Encounter, each version one DocumentReference with its text; nothing more."""
    encounters = await server.find("Encounter", token=token)
    documents = await server.find("DocumentReference", token=token)
    by_call = Counter(e["identifier"][0]["value"] for e in encounters)
    assert by_call == Counter({str(call.call_id): 1 for call in calls})
    by_note = Counter(d["masterIdentifier"]["value"] for d in documents)
    assert by_note == Counter({f"{call.call_id}/v{call.version}": 1 for call in calls})
    ids = {e["identifier"][0]["value"]: f"Encounter/{e['id']}" for e in encounters}
    for call in calls:
        value = fhir.note_identifier(call.call_id, call.version).partition("|")[2]
        (document,) = (d for d in documents if d["masterIdentifier"]["value"] == value)
        assert text_of(document) == note.render(call)
        assert document["context"]["encounter"] == [{"reference": ids[str(call.call_id)]}]
    assert await server.find("Patient", token=token) == []
