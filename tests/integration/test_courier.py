"""Couriers against a real FHIR server in good times and bad: nothing lost, nothing doubled, reasons kept."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from emr_bridge import outbox
from emr_bridge.courier import Courier
from emr_bridge.transport import ConnectorSettings
from pbx.store.db import Database
from tests.emr_calls import abandoned_call, answered_call
from tests.integration.couriers import (
    assert_filed_once,
    attempts,
    clock,
    courier,
    emr,
    put,
    states,
    until,
)
from tests.peers.fhir_server import FhirServer, running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FhirServer]:
    started = FhirServer()
    asyncio.run(started.start())
    yield started
    asyncio.run(started.stop())


@pytest.fixture
async def server(shared_server: FhirServer) -> FhirServer:
    """An empty server without faults."""
    await shared_server.reset()
    return shared_server


async def test_a_note_is_delivered_and_read_back(
    server: FhirServer, database: Database, database_url: str
) -> None:
    calls = [answered_call(), abandoned_call()]
    async with courier(database_url, emr(server)) as working:
        await put(database, calls)
        await until(database, "filed", 2, working=working)
        assert dict(working.counters()["emr"]) | {"claimed": 2} == {
            "claimed": 2,
            "taken_over": 0,
            "delivered": 2,
            "repeats": 0,
            "filed": 2,
        }
    await assert_filed_once(server, calls)
    rows = await database.fetch("SELECT * FROM outbox")
    for row in rows:
        assert row["remote_encounter"].startswith("Encounter/")
        assert row["remote_document"].startswith("DocumentReference/")
        assert row["created_at"] <= row["delivered_at"] <= row["filed_at"]
        assert (row["last_error"], row["claimed_by"], row["attempts"]) == (None, None, 1)
    assert await attempts(database) == {("ok", 201): 2}


async def test_fifty_notes_and_two_couriers_make_fifty_documents(
    server: FhirServer, database: Database, database_url: str
) -> None:
    calls = [answered_call() for _ in range(50)]
    async with (
        courier(database_url, emr(server, timeout_s=5), name="c1") as first,
        courier(database_url, emr(server, timeout_s=5), name="c2") as second,
    ):
        await asyncio.gather(*(put(database, calls[n : n + 5]) for n in range(0, 50, 5)))
        await until(database, "filed", 50)
        work = [c.counters()["emr"]["filed"] for c in (first, second)]
    assert sum(work) == 50
    assert min(work) > 0
    await assert_filed_once(server, calls)


async def test_replaying_a_call_delivers_it_no_second_time(
    server: FhirServer, database: Database, database_url: str
) -> None:
    call = answered_call()
    async with courier(database_url, emr(server)):
        await put(database, [call])
        await until(database, "filed", 1)
        await put(database, [call])
        await asyncio.sleep(0.3)
    assert (await server.counts())["writes"] == 1


@pytest.mark.parametrize(
    ("mode", "recorded"),
    [
        ("500", ("ambiguous", 500)),
        ("502", ("ambiguous", 502)),
        ("503", ("transient", 503)),
        ("429", ("transient", 429)),
        ("drop", ("ambiguous", None)),
        ("timeout", ("ambiguous", None)),
        ("commit-then-drop", ("ambiguous", None)),
        ("commit-then-timeout", ("ambiguous", None)),
        ("commit-then-500", ("ambiguous", 500)),
        ("garbage", ("ambiguous", 200)),
    ],
)
async def test_a_fault_is_recorded_and_outlived(
    server: FhirServer,
    database: Database,
    database_url: str,
    mode: str,
    recorded: tuple[str, int | None],
) -> None:
    calls = [answered_call() for _ in range(4)]
    await server.fault(mode, count=3, retry_after=0)
    async with courier(database_url, emr(server)) as working:
        await put(database, calls)
        await until(database, "filed", 4, working=working)
        counts = working.counters()["emr"]
    await assert_filed_once(server, calls)
    seen = await attempts(database)
    assert seen[recorded] == 3
    assert seen[("ok", 200)] + seen[("ok", 201)] == 4
    assert (
        counts["repeats"] == seen[("ok", 200)] == (3 if mode.startswith("commit") or mode == "garbage" else 0)
    )


async def test_a_slow_server_is_waited_for(server: FhirServer, database: Database, database_url: str) -> None:
    calls = [answered_call() for _ in range(3)]
    await server.fault("slow", delay_ms=300, on="all")
    async with courier(database_url, emr(server)):
        await put(database, calls)
        await until(database, "filed", 3)
    assert await attempts(database) == {("ok", 201): 3}


async def test_the_servers_wish_to_be_left_alone_is_heeded(
    server: FhirServer, database: Database, database_url: str
) -> None:
    await server.fault("503", count=1, retry_after=2)
    async with courier(database_url, emr(server)):
        started = asyncio.get_running_loop().time()
        await put(database, [answered_call()])
        await until(database, "filed", 1)
        assert asyncio.get_running_loop().time() - started >= 2
    assert (await server.counts())["writes"] == 2


@pytest.mark.parametrize("mode", ["422", "412", "403"])
async def test_a_refused_note_is_a_dead_letter_with_the_reason_until_a_person_redelivers_it(
    server: FhirServer, database: Database, database_url: str, mode: str
) -> None:
    call, other = answered_call(), answered_call()
    await server.fault(mode, count=1)
    async with courier(database_url, emr(server)) as working:
        await put(database, [call])
        await until(database, "dead", 1)
        await put(database, [other])  # the next one is not held up
        await until(database, "filed", 1)
        row = await database.fetchrow("SELECT * FROM outbox WHERE state = 'dead'")
        assert row["last_error_class"] == "permanent"
        assert f"Asked to fail with {mode}." in row["last_error"]
        assert row["attempts"] == 1
        async with database.connection() as connection:
            await outbox.redeliver(connection, row["id"], clock())
        await until(database, "filed", 2)
        assert working.counters()["emr"]["dead"] == 1
    await assert_filed_once(server, [call, other])


async def test_thirty_in_a_hundred_requests_fail_and_every_note_is_filed_once(
    server: FhirServer, database: Database, database_url: str
) -> None:
    calls = [answered_call() for _ in range(60)]
    modes = ["500", "503", "drop", "commit-then-drop", "commit-then-timeout", "commit-then-500", "garbage"]
    await server.fault(modes, chance=0.3, on="all", retry_after=0)
    async with (
        courier(database_url, emr(server), name="c1"),
        courier(database_url, emr(server), name="c2"),
    ):
        await asyncio.gather(*(put(database, calls[n : n + 6]) for n in range(0, 60, 6)))
        await until(database, "filed", 60, 60)
    assert (await server.counts())["faults"] > 20
    await server.fault("none")
    await assert_filed_once(server, calls)


@pytest.mark.parametrize(
    "without", [["transaction"], ["transaction", "metadata"], ["metadata"]], ids=lambda w: " ".join(w)
)
async def test_a_server_without_transactions_gets_one_resource_after_the_other(
    database: Database, database_url: str, without: list[str]
) -> None:
    calls = [answered_call() for _ in range(4)]
    async with running(without=without) as server, courier(database_url, emr(server)) as working:
        await server.fault("commit-then-drop", count=4)
        await put(database, calls)
        await until(database, "filed", 4, working=working)
        await server.fault("none")
        await assert_filed_once(server, calls)


async def test_a_server_that_cannot_tell_a_repeat_is_searched_before_sending_again(
    database: Database, database_url: str
) -> None:
    calls = [answered_call() for _ in range(4)]
    async with (
        running(without=["conditional"]) as server,
        courier(database_url, emr(server, conditional_create=False)) as working,
    ):
        await server.fault(["commit-then-drop", "drop"], count=4)
        await put(database, calls)
        await until(database, "filed", 4, working=working)
        assert (await attempts(database))[("ambiguous", None)] == 4
        await assert_filed_once(server, calls)


async def test_half_a_note_is_completed_not_repeated_where_a_repeat_cannot_be_told(
    database: Database, database_url: str
) -> None:
    """Without transactions the Encounter may be there when the document is refused for now."""
    async with running(without=["conditional", "transaction"]) as server:
        async with courier(database_url, emr(server, conditional_create=False)) as working:
            await server.fault("503", chance=0.4, count=8, retry_after=0)
            for _ in range(6):
                await put(database, [answered_call()])
            await until(database, "filed", 6, working=working)
        await server.fault("none")
        assert len(await server.find("Encounter")) == 6
        assert len(await server.find("DocumentReference")) == 6


@pytest.mark.parametrize("search_identifier", [True, False])
async def test_a_server_that_can_neither_tell_nor_search_gets_nothing_twice(
    database: Database, database_url: str, search_identifier: bool
) -> None:
    sure, unsure = answered_call(), answered_call()
    async with running(without=["conditional", "search"]) as server:
        settings = emr(server, conditional_create=False, search_identifier=search_identifier)
        async with courier(database_url, settings):
            await put(database, [sure])
            await until(database, "filed", 1)
            await server.fault("commit-then-drop", count=1)
            await put(database, [unsure])
            await until(database, "held", 1)
        assert (await server.counts())["writes"] == 2
        row = await database.fetchrow("SELECT * FROM outbox WHERE state = 'held'")
        assert row["call_id"] == unsure.call_id
        assert row["last_error_class"] == "ambiguous"


async def test_an_amended_note_replaces_the_one_before(
    server: FhirServer, database: Database, database_url: str
) -> None:
    call = answered_call()
    second = answered_call(call_id=call.call_id, version=2, disposition="callback")
    async with courier(database_url, emr(server)):
        await put(database, [call, second])
        await until(database, "filed", 2)
    documents = {d["masterIdentifier"]["value"][-2:]: d for d in await server.find("DocumentReference")}
    assert documents["v2"]["relatesTo"] == [
        {"code": "replaces", "target": {"reference": f"DocumentReference/{documents['v1']['id']}"}}
    ]
    assert documents["v1"]["context"]["encounter"] == documents["v2"]["context"]["encounter"]
    assert len(await server.find("Encounter")) == 1


async def test_a_new_token_is_read_when_the_old_one_is_refused(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    calls = [answered_call() for _ in range(3)]
    async with (
        running(token="first") as server,
        courier(database_url, emr(server, token_file=file)) as working,
    ):
        await put(database, calls[:1])
        await until(database, "filed", 1)
        await server.set_token("second")
        await put(database, calls[1:2])
        await until(database, "queued", 1)
        await asyncio.sleep(0.3)
        row = await database.fetchrow("SELECT * FROM outbox WHERE state <> 'filed'")
        assert row["last_error_class"] == "transient"
        assert "put a valid token in its file" in row["last_error"]
        file.write_text("second\n")
        await until(database, "filed", 2, working=working)
        await server.set_token("third")
        file.write_text("third\n")
        await put(database, calls[2:])
        await until(database, "filed", 3)
        assert (await attempts(database))[("ok", 201)] == 3
        await assert_filed_once(server, calls, token="third")


async def test_a_missing_token_file_stops_nothing_for_good(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    async with running(token="t") as server, courier(database_url, emr(server, token_file=file)):
        await put(database, [answered_call()])
        await until(database, "queued", 1)
        await asyncio.sleep(0.3)
        assert "token file of connector emr cannot be read" in await database.fetchval(
            "SELECT last_error FROM outbox"
        )
        file.write_text("t")
        await until(database, "filed", 1)


async def test_what_is_not_valid_fhir_never_leaves(
    server: FhirServer, database: Database, database_url: str
) -> None:
    async with courier(database_url, emr(server, doc_status="draft")):
        await put(database, [answered_call()])
        await until(database, "dead", 1)
    assert (await server.counts())["writes"] == 0
    assert "DocumentReference.docStatus: not a code" in await database.fetchval(
        "SELECT last_error FROM outbox"
    )


async def test_facts_of_another_program_version_are_a_dead_letter(
    server: FhirServer, database: Database, database_url: str
) -> None:
    good = answered_call()
    await put(database, [answered_call()])
    await database.execute("UPDATE note_version SET facts = facts - 'caller'")
    await put(database, [good])
    async with courier(database_url, emr(server)):
        await until(database, "dead", 1)
        await until(database, "filed", 1)
    assert 'the key "caller"' in await database.fetchval("SELECT last_error FROM outbox WHERE state = 'dead'")
    await assert_filed_once(server, [good])


async def test_a_dead_connector_does_not_hold_up_another(
    server: FhirServer, database: Database, database_url: str
) -> None:
    nowhere = ConnectorSettings(name="down", base_url="http://127.0.0.1:9/fhir", timeout_s=0.5)
    calls = [answered_call() for _ in range(10)]
    async with courier(database_url, emr(server), nowhere) as working:
        async with database.transaction() as connection:
            await outbox.enqueue(connection, calls, ["emr", "down"], clock())
        await until(database, "filed", 10)
        await asyncio.sleep(1)
        down = working.counters()["down"]
        assert down["breaker_opened"] == 1
        assert down["claimed"] < 15  # the breaker lets probes pass only
    await assert_filed_once(server, calls)
    assert (await states(database))["queued"] == 10
    row = await database.fetchrow("SELECT * FROM outbox WHERE connector = 'down' AND last_error IS NOT NULL")
    assert row["last_error_class"] == "transient"
    assert "No connection to the EMR" in row["last_error"]


async def test_no_log_line_tells_who_called(
    server: FhirServer, database: Database, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await server.fault(["422", "503", "drop"], count=4, retry_after=0)
    async with courier(database_url, emr(server)) as working:
        await put(database, [answered_call() for _ in range(6)])
        await until_idle(database, working)
    ours = [record for record in caplog.records if record.name.startswith("careline")]
    assert len(ours) > 6
    told = "\n".join(str(record.__dict__) for record in ours)
    for secret in ("2025550143", "Dr. Bo", "Dr. Ana", "Riverside", "signed by", "Asked to fail"):
        assert secret not in told


async def until_idle(database: Database, working: Courier) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 20
    while (seen := await states(database))["queued"] + seen["sending"] + seen["delivered"]:
        assert loop.time() < deadline, (seen, working.counters())
        await asyncio.sleep(0.05)


async def test_lag_is_watched(server: FhirServer, database: Database, database_url: str) -> None:
    await server.fault("503")
    await put(database, [answered_call()])
    async with courier(database_url, emr(server)) as working:
        await asyncio.sleep(0.5)
        (one,) = working.lag()
    assert (one.connector, one.waiting) == ("emr", 1)
