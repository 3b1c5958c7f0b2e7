"""The outbox in a real PostgreSQL: entry without doubles, claims of one alone, order of versions, marks."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from emr_bridge import outbox
from emr_bridge.facts import CallFacts
from emr_bridge.failure import ErrorClass, Failure
from emr_bridge.outbox import Claimed
from pbx.store.db import Database
from tests.emr_calls import abandoned_call, after, answered_call

pytestmark = pytest.mark.integration

NOW = after(300)
LATER = NOW + timedelta(seconds=60)
BUSY = Failure(error_class=ErrorClass.TRANSIENT, sentence="The EMR is busy.", http_status=503)
LOST = Failure(error_class=ErrorClass.AMBIGUOUS, sentence="No answer.")
REFUSED = Failure(error_class=ErrorClass.PERMANENT, sentence="Refused.", http_status=422)


async def put(database: Database, *calls: CallFacts, connectors: tuple[str, ...] = ("emr",)) -> None:
    async with database.transaction() as connection:
        await outbox.enqueue(connection, calls, connectors, NOW)


async def take(
    database: Database, at: Any = NOW, *, courier: str = "c1", limit: int = 10, connector: str = "emr"
) -> list[Claimed]:
    async with database.connection() as connection:
        return await outbox.claim(
            connection, connector=connector, now=at, courier=courier, limit=limit, lease_s=30
        )


async def row_of(database: Database, outbox_id: int) -> Any:
    return await database.fetchrow("SELECT * FROM outbox WHERE id = $1", outbox_id)


async def file(database: Database, row: Claimed, document: str = "DocumentReference/1") -> None:
    async with database.connection() as connection:
        assert await outbox.mark_delivered(
            connection, row, NOW, encounter="Encounter/1", document=document, http_status=201
        )
        assert await outbox.mark_filed(connection, row, NOW)


async def test_notes_and_rows_are_written_once_however_often_they_are_replayed(database: Database) -> None:
    calls = [answered_call(), abandoned_call()]
    for _ in range(3):
        await put(database, *calls, connectors=("emr", "archive", "emr"))
    assert await database.fetchval("SELECT count(*) FROM note") == 2
    assert await database.fetchval("SELECT count(*) FROM outbox") == 4
    stored = await database.fetch(
        "SELECT n.call_id, v.* FROM note_version v JOIN note n ON n.id = v.note_id ORDER BY n.id"
    )
    assert {row["call_id"] for row in stored} == {call.call_id for call in calls}
    for row in stored:
        call = next(c for c in calls if c.call_id == row["call_id"])
        assert CallFacts.from_json(json.loads(row["facts"])) == call
        assert row["text"].startswith("Automatic call note, not signed by a clinician\n")
        assert (row["author"], row["state"], row["created_at"]) == ("careline", "automatic", NOW)


async def test_everything_goes_with_the_callers_transaction(database: Database) -> None:
    async def enqueue_and_fail() -> None:
        async with database.transaction() as connection:
            await outbox.enqueue(connection, [answered_call()], ["emr"], NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await enqueue_and_fail()
    assert await database.fetchval("SELECT count(*) FROM note") == 0
    assert await take(database) == []


async def test_without_connectors_the_note_is_kept(database: Database) -> None:
    await put(database, answered_call(), connectors=())
    await put(database)
    assert await database.fetchval("SELECT count(*) FROM note_version") == 1
    assert await database.fetchval("SELECT count(*) FROM outbox") == 0


async def test_names_no_database_can_hold_do_not_stop_the_batch(database: Database) -> None:
    odd = answered_call(caller="\x00", answered_by_name="\ud800", line="<&>\n'\"\\")
    await put(database, odd, answered_call())
    assert len(await take(database)) == 2


async def test_a_claim_carries_the_note_and_is_exclusive(database: Database) -> None:
    call = answered_call()
    await put(database, call)
    (row,) = await take(database)
    assert CallFacts.from_json(row.facts) == call
    assert (row.attempts, row.unsure, row.accepted, row.taken_over) == (1, False, False, False)
    assert (row.written_at, row.created_at, row.replaces) == (NOW, NOW, None)
    assert await take(database, courier="c2") == []


async def test_parallel_couriers_never_share_a_row(database: Database) -> None:
    await put(database, *(answered_call() for _ in range(60)))
    taken = await asyncio.gather(*(take(database, courier=f"c{n}", limit=7) for n in range(8)))
    rows = [row.id for rows in taken for row in rows]
    rows += [row.id for row in await take(database, limit=60)]
    assert len(rows) == len(set(rows)) == 60


async def test_a_row_is_due_at_its_time_and_oldest_first(database: Database) -> None:
    calls = [answered_call() for _ in range(3)]
    for call in calls:
        await put(database, call)
    first, *_ = await take(database, limit=1)
    async with database.connection() as connection:
        await outbox.mark_failed(connection, first, BUSY, NOW, retry_at=LATER)
        assert await outbox.next_due(connection, "emr") == NOW
    rest = await take(database)
    assert [str(row.facts["call_id"]) for row in rest] == [str(call.call_id) for call in calls[1:]]
    for row in rest:
        await file(database, row)
    assert await take(database, LATER - timedelta(seconds=1)) == []
    async with database.connection() as connection:
        assert await outbox.next_due(connection, "emr") == LATER
    (again,) = await take(database, LATER)
    assert (again.id, again.attempts, again.unsure) == (first.id, 2, False)


async def test_an_abandoned_claim_is_taken_over_as_unsure_and_said_so(database: Database) -> None:
    await put(database, answered_call())
    (row,) = await take(database)
    (again,) = await take(database, NOW + timedelta(seconds=31), courier="c2")
    assert (again.id, again.attempts, again.unsure, again.taken_over) == (row.id, 2, True, True)
    attempts = await database.fetch("SELECT * FROM delivery_attempt")
    assert [(a["n"], a["class"]) for a in attempts] == [(1, "ambiguous")]
    async with database.connection() as connection:  # the first courier comes back: too late
        assert not await outbox.mark_delivered(
            connection, row, NOW, encounter=None, document="DocumentReference/9", http_status=201
        )
        assert not await outbox.mark_failed(connection, row, BUSY, NOW, retry_at=NOW)
        assert not await outbox.mark_dead(connection, row, REFUSED, NOW)
        assert not await outbox.release(connection, row, NOW)
    found = await row_of(database, row.id)
    assert (found["state"], found["claimed_by"], found["remote_document"]) == ("sending", "c2", None)


async def test_the_versions_of_a_call_go_one_after_the_other(database: Database) -> None:
    call = answered_call()
    await put(database, call)
    await put(database, answered_call(call_id=call.call_id, version=2), answered_call())
    first, other = await take(database)
    assert (first.version, other.version) == (1, 1)
    assert await take(database) == []
    await file(database, first, "DocumentReference/41")
    (second,) = await take(database)
    assert (second.version, second.replaces) == (2, "DocumentReference/41")
    assert await database.fetchval("SELECT current_version FROM note WHERE call_id = $1", call.call_id) == 2


async def test_a_dead_version_lets_the_next_one_pass_and_a_held_one_does_not(database: Database) -> None:
    dead, held = answered_call(), answered_call()
    await put(database, dead, held)
    first, second = await take(database)
    assert str(first.facts["call_id"]) == str(dead.call_id)
    async with database.connection() as connection:
        assert await outbox.mark_dead(connection, first, REFUSED, NOW)
        assert await outbox.mark_held(connection, second, LOST, NOW)
    await put(
        database,
        answered_call(call_id=dead.call_id, version=2),
        answered_call(call_id=held.call_id, version=2),
    )
    (passed,) = await take(database)
    assert (str(passed.facts["call_id"]), passed.replaces) == (str(dead.call_id), None)


async def test_a_version_that_arrives_after_a_newer_one_is_not_sent(database: Database) -> None:
    call = answered_call()
    await put(database, answered_call(call_id=call.call_id, version=2))
    await put(database, call)
    assert await database.fetch("SELECT version, state FROM outbox ORDER BY version") == [
        (1, "superseded"),
        (2, "queued"),
    ]
    assert await database.fetchval("SELECT current_version FROM note") == 2
    both = answered_call()
    await put(database, both, answered_call(call_id=both.call_id, version=2))
    assert (
        await database.fetchval(
            "SELECT count(*) FROM outbox WHERE call_id = $1 AND state = 'queued'", both.call_id
        )
        == 2
    )


async def test_state_and_class_of_the_last_error_are_two_facts(database: Database) -> None:
    await put(database, *(answered_call() for _ in range(4)))
    busy, lost, refused, fine = await take(database)
    async with database.connection() as connection:
        assert await outbox.mark_failed(connection, busy, BUSY, NOW, retry_at=LATER)
        assert await outbox.mark_failed(connection, lost, LOST, NOW, retry_at=LATER)
        assert await outbox.mark_dead(connection, refused, REFUSED, NOW)
    await file(database, fine)
    rows = await database.fetch("SELECT state, last_error_class, unsure FROM outbox ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("queued", "transient", False),
        ("queued", "ambiguous", True),
        ("dead", "permanent", False),
        ("filed", None, False),
    ]
    attempts = await database.fetch(
        "SELECT step, class, http_status, sentence FROM delivery_attempt ORDER BY step, class"
    )
    assert [tuple(a) for a in attempts] == [
        ("read-back", "ok", 200, ""),
        ("send", "ambiguous", None, "No answer."),
        ("send", "ok", 201, ""),
        ("send", "permanent", 422, "Refused."),
        ("send", "transient", 503, "The EMR is busy."),
    ]


async def test_an_accepted_note_is_only_read_back_and_sent_anew_when_it_is_gone(database: Database) -> None:
    missing = Failure(error_class=ErrorClass.AMBIGUOUS, sentence="Gone.", http_status=404, missing=True)
    await put(database, answered_call())
    (row,) = await take(database)
    async with database.connection() as connection:
        assert await outbox.mark_delivered(
            connection, row, NOW, encounter=None, document="DocumentReference/1", http_status=201
        )
        assert await outbox.mark_failed(connection, row, missing, NOW, retry_at=LATER, step="read-back")
    (again,) = await take(database, LATER)
    assert (again.accepted, again.read_backs, again.remote_document) == (True, 1, "DocumentReference/1")
    async with database.connection() as connection:
        assert await outbox.mark_resend(connection, again, missing, LATER)
    (resent,) = await take(database, LATER)
    assert (resent.accepted, resent.read_backs, resent.unsure) == (False, 0, True)


async def test_marks_may_be_repeated_when_their_answer_was_lost(database: Database) -> None:
    await put(database, answered_call())
    (row,) = await take(database)
    await file(database, row)
    async with database.connection() as connection:
        assert await outbox.mark_filed(connection, row, LATER)
        assert not await outbox.mark_failed(connection, row, BUSY, LATER, retry_at=LATER)
    assert (await row_of(database, row.id))["filed_at"] == NOW


async def test_a_courier_ends_the_claims_under_its_name_that_it_knows_nothing_of(database: Database) -> None:
    await put(database, *(answered_call() for _ in range(3)))
    orphan, mine = await take(database, limit=2)
    (others,) = await take(database, courier="c2")
    async with database.connection() as connection:
        await outbox.reclaim(connection, connector="emr", courier="c1", under_way=[mine.id], now=NOW)
    (again,) = await take(database)
    assert (again.id, again.unsure, again.taken_over) == (orphan.id, True, True)
    assert (await row_of(database, others.id))["claimed_by"] == "c2"


async def test_a_released_claim_is_as_before(database: Database) -> None:
    await put(database, answered_call())
    (row,) = await take(database)
    async with database.connection() as connection:
        assert await outbox.release(connection, row, NOW)
        assert not await outbox.release(connection, row, NOW)
    (again,) = await take(database)
    assert (again.unsure, again.taken_over) == (False, False)


async def test_wake_makes_due_what_waits_after_a_failure(database: Database) -> None:
    await put(database, answered_call(), answered_call())
    busy, lost = await take(database)
    async with database.connection() as connection:
        await outbox.mark_failed(connection, busy, BUSY, NOW, retry_at=LATER)
        await outbox.mark_failed(connection, lost, LOST, NOW, retry_at=LATER)
        await outbox.wake(connection, "emr", NOW, unsure_too=False)
    assert [row.id for row in await take(database)] == [busy.id]
    async with database.connection() as connection:
        await outbox.wake(connection, "emr", NOW, unsure_too=True)
    assert [row.id for row in await take(database)] == [lost.id]


async def test_a_person_redelivers_holds_and_settles(database: Database) -> None:
    await put(database, *(answered_call() for _ in range(3)))
    dead, held, queued = await take(database)
    async with database.connection() as connection:
        await outbox.mark_dead(connection, dead, REFUSED, NOW)
        await outbox.mark_held(connection, held, LOST, NOW)
        await outbox.mark_failed(connection, queued, BUSY, NOW, retry_at=LATER)
        await outbox.redeliver(connection, dead.id, NOW)
        await outbox.settle(connection, held.id, "DocumentReference/5", NOW)
        await outbox.hold(connection, queued.id, "Wait for the new server.")
    (again,) = await take(database)
    assert again.id == dead.id
    assert (await row_of(database, held.id))["state"] == "filed"
    assert (await row_of(database, held.id))["remote_document"] == "DocumentReference/5"
    assert (await row_of(database, queued.id))["last_error"] == "Wait for the new server."
    refusals = (
        (outbox.redeliver, (again.id, NOW), "is sending; only held and dead ones are redelivered"),
        (outbox.redeliver, (999, NOW), "There is no outbox row 999"),
        (outbox.hold, (held.id, "x"), "is filed; only queued and dead ones can be held"),
        (outbox.settle, (again.id, None, NOW), "is sending; only held ones are settled by hand"),
    )
    async with database.connection() as connection:
        for command, arguments, sentence in refusals:
            with pytest.raises(outbox.Refused, match=sentence):
                await command(connection, *arguments)


async def test_a_dead_version_with_a_newer_one_is_not_redelivered(database: Database) -> None:
    call = answered_call()
    await put(database, call)
    (row,) = await take(database)
    async with database.connection() as connection:
        await outbox.mark_dead(connection, row, REFUSED, NOW)
    await put(database, answered_call(call_id=call.call_id, version=2))
    async with database.connection() as connection:
        with pytest.raises(outbox.Refused, match="has a newer version"):
            await outbox.redeliver(connection, row.id, NOW)


async def test_lag_counts_what_is_unfinished(database: Database) -> None:
    await put(database, *(answered_call() for _ in range(5)))
    await put(database, answered_call(), connectors=("archive",))
    dead, held, filed, _ = await take(database, limit=4)
    async with database.connection() as connection:
        await outbox.mark_dead(connection, dead, REFUSED, NOW)
        await outbox.mark_held(connection, held, LOST, NOW)
    await file(database, filed)
    async with database.connection() as connection:
        archive, emr = await outbox.lag(connection, NOW + timedelta(minutes=5))
    assert (archive.connector, archive.waiting) == ("archive", 1)
    assert (emr.waiting, emr.unread, emr.held, emr.dead, emr.oldest_s) == (2, 0, 1, 1, 300.0)


async def test_new_rows_are_announced_and_replays_are_not(database: Database, database_url: str) -> None:
    heard: asyncio.Queue[None] = asyncio.Queue()
    async with outbox.OutboxDatabase(database_url) as door:
        listening = asyncio.create_task(door.listen(lambda: heard.put_nowait(None)))
        try:
            await asyncio.wait_for(heard.get(), 5)  # once at the start
            call = answered_call()
            await put(database, call)
            await asyncio.wait_for(heard.get(), 5)
            await put(database, call)
            await asyncio.sleep(0.2)
            assert heard.empty()
            await database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            )
            with pytest.raises(outbox.DatabaseAway):
                await asyncio.wait_for(listening, 5)
        finally:
            listening.cancel()


async def test_the_hot_queries_use_their_indexes(database: Database) -> None:
    """With 20,000 filed notes and 50 waiting ones, nothing reads the whole table."""
    await database.execute(
        """
        WITH n AS (
            INSERT INTO note (call_id, current_version, created_at)
            SELECT gen_random_uuid(), 1, $1 FROM generate_series(1, 20050)
            RETURNING call_id
        )
        INSERT INTO outbox (connector, call_id, version, state, next_attempt_at, created_at, filed_at)
        SELECT 'emr', call_id, 1, CASE WHEN row_number() OVER () <= 50 THEN 'queued' ELSE 'filed' END,
               $1, $1, $1
        FROM n
        """,
        NOW,
    )
    connection = await asyncpg.connect(database._url)
    try:
        await connection.execute("ANALYZE outbox")
        for query, arguments in (
            ("claim", ("emr", NOW, 8, "c1", LATER)),
            ("next_due", ("emr",)),
            ("lag", ()),
        ):
            plan = await connection.fetch(f"EXPLAIN {outbox._SQL[query]}", *arguments)
            lines = [row[0] for row in plan]
            assert not [line for line in lines if "Seq Scan on outbox" in line], "\n".join(lines)
    finally:
        await connection.close()
