"""Reading calls, and workers with their leases: no call stays live after its worker died."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from pbx.store import calls, workers
from pbx.store.db import Database
from pbx.store.journal import CallEnded, CallEvent, CallStarted, Journal
from pbx.store.sql import queries

pytestmark = pytest.mark.integration

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=10)


def started(worker: str, at: datetime, call_id: UUID | None = None) -> CallStarted:
    return CallStarted(
        call_id=call_id or uuid4(),
        line="main",
        dialled="100",
        caller="200",
        sip_call_id="x@test",
        worker=worker,
        at=at,
    )


def ended(call_id: UUID, at: datetime, cause: str = "normal") -> CallEnded:
    return CallEnded(
        call_id=call_id, at=at, cause=cause, disposition="answered", answered_by="ada", facts=None
    )


async def register(database: Database, name: str, at: datetime) -> None:
    await workers.register(
        database, name=name, sip_address="127.0.0.1:48071", pid=1, host="h", at=at, lease=LEASE
    )


async def bury(
    database: Database, at: datetime, watching_since: datetime = AT
) -> tuple[list[str], set[UUID]]:
    async with database.transaction() as connection:
        names, lost = await workers.bury(connection, at=at, watching_since=watching_since, lease=LEASE)
    return names, {call.id for call in lost}


async def test_a_call_is_read_with_its_own_events_in_order(database: Database, tmp_path: Path) -> None:
    one, other = started("w1", AT), started("w1", AT + timedelta(seconds=1))
    async with Journal(database, tmp_path) as journal:
        journal.write(one)
        journal.write(other)
        for seq in (2, 1):
            for call_id in (one.call_id, other.call_id):
                journal.write(
                    CallEvent(call_id=call_id, seq=seq, at=AT, kind="step", detail={"of": str(call_id)})
                )
        assert await journal.flush(5)
        journal.write(ended(one.call_id, AT + timedelta(minutes=1)))
        assert await journal.flush(5)
    found = await calls.one(database, one.call_id)
    assert found is not None
    call, events = found
    assert (call.id, call.caller, call.cause, call.answered_by) == (one.call_id, "200", "normal", "ada")
    assert [(event.seq, event.detail) for event in events] == [
        (1, {"of": str(one.call_id)}),
        (2, {"of": str(one.call_id)}),
    ]
    assert await calls.one(database, uuid4()) is None
    assert [live.call.id for live in await calls.live(database)] == [other.call_id]
    several = await calls.events(database, [one.call_id, other.call_id])
    assert [len(several[call_id]) for call_id in (one.call_id, other.call_id)] == [2, 2]


async def test_pages_of_the_latest_calls_meet_without_gap_or_repeat(
    database: Database, tmp_path: Path
) -> None:
    given = [started("w1", AT + timedelta(seconds=n // 2)) for n in range(9)]  # pairs share their time
    async with Journal(database, tmp_path) as journal:
        for start in given:
            journal.write(start)
        assert await journal.flush(5)
    seen: list[calls.Call] = []
    while page := await calls.latest(database, 4, seen[-1] if seen else None):
        seen += page
    assert len(seen) == 9
    assert {call.id for call in seen} == {start.call_id for start in given}
    assert [call.started_at for call in seen] == sorted((s.at for s in given), reverse=True)
    with pytest.raises(ValueError, match="1 to 1000"):
        await calls.latest(database, 0)


async def test_only_calls_of_the_dead_worker_end(database: Database, tmp_path: Path) -> None:
    await register(database, "w1", AT)
    await register(database, "w2", AT)
    lost, kept = started("w1", AT), started("w2", AT)
    async with Journal(database, tmp_path) as journal:
        journal.write(lost)
        journal.write(kept)
        assert await journal.flush(5)
        later = AT + timedelta(seconds=15)
        assert await workers.heartbeat(database, name="w2", started_at=AT, at=later, lease=LEASE)
        assert await bury(database, later, watching_since=later - LEASE / 2) == ([], set()), (
            "an outage was just over"
        )
        assert await bury(database, later) == (["w1"], {lost.call_id})
        assert await bury(database, later) == ([], set())
        assert [live.call.id for live in await calls.live(database)] == [kept.call_id]
        found = await calls.one(database, lost.call_id)
        assert found is not None
        assert (found[0].cause, found[0].ended_at) == ("worker-lost", later)
        assert not await workers.heartbeat(database, name="w1", started_at=AT, at=later, lease=LEASE)
        # It was alive after all, or its end was in the spool: the real end counts, and only once.
        journal.write(ended(lost.call_id, AT + timedelta(seconds=5)))
        journal.write(ended(kept.call_id, AT + timedelta(seconds=5)))
        assert await journal.flush(5)
        journal.write(ended(lost.call_id, AT + timedelta(seconds=9), cause="busy"))
        assert await journal.flush(5)
    found = await calls.one(database, lost.call_id)
    assert found is not None
    assert (found[0].cause, found[0].ended_at) == ("normal", AT + timedelta(seconds=5))


async def test_a_restarted_worker_does_not_inherit_ghosts(database: Database, tmp_path: Path) -> None:
    await register(database, "w1", AT)
    ghost = started("w1", AT + timedelta(seconds=1))
    restart = AT + timedelta(seconds=5)
    await register(database, "w1", restart)
    fresh = started("w1", restart + timedelta(seconds=1))
    async with Journal(database, tmp_path) as journal:
        journal.write(ghost)
        journal.write(fresh)
        assert await journal.flush(5)
    assert not await workers.heartbeat(database, name="w1", started_at=AT, at=restart, lease=LEASE)
    leases = {live.call.id: live.lease_until for live in await calls.live(database)}
    assert leases == {ghost.call_id: None, fresh.call_id: restart + LEASE}
    assert await bury(database, AT + LEASE) == ([], {ghost.call_id})
    assert [live.call.id for live in await calls.live(database)] == [fresh.call_id]


async def test_two_undertakers_end_each_call_once(database: Database, tmp_path: Path) -> None:
    given = [started(f"w{n}", AT) for n in range(20)]
    async with Journal(database, tmp_path) as journal:
        for start in given:
            await register(database, start.worker, AT)
            journal.write(start)
        assert await journal.flush(5)
    done = await asyncio.gather(*(bury(database, AT + 2 * LEASE) for _ in range(4)))
    done.append(await bury(database, AT + 2 * LEASE))
    assert sorted(name for names, _ in done for name in names) == sorted(start.worker for start in given)
    ended_ids = [call_id for _, ids in done for call_id in ids]
    assert len(ended_ids) == 20
    assert set(ended_ids) == {start.call_id for start in given}


async def test_draining_and_a_clean_end(database: Database) -> None:
    await register(database, "w1", AT)
    await register(database, "w2", AT)
    assert await workers.drain(database, "w1")
    assert not await workers.drain(database, "w9")
    assert [(worker.name, worker.draining) for worker in await workers.everyone(database)] == [
        ("w1", True),
        ("w2", False),
    ]
    await workers.forget(database, name="w1", started_at=AT)
    assert [worker.name for worker in await workers.everyone(database)] == ["w2"]


async def test_lists_of_calls_use_their_indexes(database: Database) -> None:
    """Among many ended calls, the live ones and the newest ones are found without reading all."""
    await database.execute(
        "INSERT INTO call (id, line, dialled, caller, sip_call_id, worker, started_at, ended_at, cause) "
        "SELECT gen_random_uuid(), 'main', '1', '2', 'x', 'w' || n % 4, "
        "$1::timestamptz + n * interval '1 s', $1::timestamptz + n * interval '2 s', 'normal' "
        "FROM generate_series(1, 5000) AS n",
        AT,
    )
    await database.execute("ANALYZE call")
    for name, arguments in (("live", ()), ("latest", (AT + timedelta(hours=1), uuid4(), 50))):
        rows = await database.fetch("EXPLAIN " + queries("calls")[name], *arguments)
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan on call" not in plan, plan
        assert "call_live" in plan or "call_started" in plan, plan
