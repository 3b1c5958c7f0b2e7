"""Cost of notes: CPU of writing them into the outbox, and how fast one courier files them. Prints JSON lines.

Run as `python -m tests.bench.notes`; needs the FHIR server's packages (`make setup`).
"""

import asyncio
import json
import shutil
import time
from datetime import UTC, datetime

from emr_bridge import fhir, note, outbox
from emr_bridge.courier import Courier
from emr_bridge.transport import ConnectorSettings
from pbx.store.db import Database
from tests.emr_calls import answered_call
from tests.integration.pgrig import RunningPostgres, _make_template, create_database, short_folder
from tests.peers.fhir_server import running


def _cpu_ms(times: int, work: object) -> float:
    assert callable(work)
    work()
    start = time.process_time()
    for _ in range(times):
        work()
    return round((time.process_time() - start) / times * 1e3, 4)


def _say(what: str, value: float, unit: str, **more: object) -> None:
    print(json.dumps({"what": what, "value": value, "unit": unit, **more}), flush=True)


async def _enqueue(dsn: str, batch: int, batches: int) -> None:
    """200 calls a second are 10 every 50 ms: the journal's batch."""
    async with Database(dsn, max_size=1) as database:
        work = [[answered_call() for _ in range(batch)] for _ in range(batches)]
        async with database.transaction() as connection:
            await outbox.enqueue(connection, [answered_call()], [], datetime.now(UTC))
        cpu, wall = time.process_time(), time.perf_counter()
        for calls in work:
            async with database.transaction() as connection:
                await outbox.enqueue(connection, calls, ["emr"], datetime.now(UTC))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        count = batch * batches
        _say("enqueue CPU a call", round(cpu / count * 1e3, 4), "ms", batch=batch)
        _say("enqueue a batch", round(wall / batches * 1e3, 2), "ms wall", batch=batch)


async def _deliver(dsn: str, count: int) -> None:
    async with running() as server, Database(dsn, max_size=2) as database:
        async with database.transaction() as connection:
            await outbox.enqueue(
                connection, [answered_call() for _ in range(count)], ["emr"], datetime.now(UTC)
            )
        stop = asyncio.Event()
        courier = Courier(dsn, [ConnectorSettings(name="emr", base_url=server.base_url)], "bench")
        start, cpu = time.perf_counter(), time.process_time()
        task = asyncio.create_task(courier.run(stop))
        while courier.counters().get("emr", {}).get("filed", 0) < count:  # noqa: ASYNC110  it only counts
            await asyncio.sleep(0.02)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        stop.set()
        await task
        _say("filed by one courier", round(count / wall, 1), "notes/s", notes=count)
        _say("courier CPU a note", round(cpu / count * 1e3, 3), "ms")
        assert len(await server.find("DocumentReference")) == count


def main() -> None:
    """Measure and print."""
    facts = answered_call()
    text, page = note.render(facts), note.render_xhtml(facts)
    _say("render text", _cpu_ms(5000, lambda: note.render(facts)), "ms CPU")
    _say("render XHTML", _cpu_ms(2000, lambda: note.render_xhtml(facts)), "ms CPU")
    _say("facts to JSON", _cpu_ms(5000, lambda: outbox._encode(facts.to_json())), "ms CPU")
    _say(
        "bundle, checked",
        _cpu_ms(500, lambda: fhir.bundle(facts, text, facts.ended_at, xhtml=page)),
        "ms CPU",
    )
    folder = short_folder()
    postgres = RunningPostgres(folder)
    try:
        postgres.start()
        asyncio.run(_make_template(postgres.server))
        for name in ("enqueue", "deliver"):
            asyncio.run(create_database(postgres.server, name, "template_careline"))
        dsn = postgres.server.url(database="enqueue")
        asyncio.run(_enqueue(dsn, 10, 200))
        asyncio.run(_enqueue(dsn, 1, 200))
        asyncio.run(_deliver(postgres.server.url(database="deliver"), 1000))
    finally:
        postgres.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
