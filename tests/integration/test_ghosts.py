"""Calls of dead workers: ended, told, noted once; and corrected when the worker's own account comes late."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from pbx.app import ghosts
from pbx.app.story import Story, notes_of
from pbx.store import workers
from pbx.store.db import Database
from pbx.store.journal import Journal

pytestmark = pytest.mark.integration

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
LEASE = timedelta(seconds=15)
LATER = AT + timedelta(minutes=2)
HEADING = {"site": "Test Clinic", "time_zone": "UTC", "language": "en"}


def begin(story: Story, call_id: UUID) -> None:
    """A call that arrived, was offered to Ada and connected."""
    story.started(
        call_id=call_id, line="hotline", dialled="700", caller="+12025550123", sip_call_id="x", at=AT,
        heading=HEADING,
    )  # fmt: skip
    offer = {"offer": 1, "person": "ada", "name": "Dr. Ada", "endpoint": "sip"}
    story.entry(call_id=call_id, seq=1, at=AT, kind="offer", detail=offer)
    answered = AT + timedelta(seconds=5)
    story.entry(call_id=call_id, seq=2, at=answered, kind="answered", detail=offer)


async def two_workers(database: Database) -> None:
    """One whose lease is over, one that lives."""
    for name, seen in (("dead", AT), ("alive", LATER)):
        await workers.register(
            database, name=name, sip_address="127.0.0.1:1", pid=1, host="h", at=seen, lease=LEASE
        )


async def notes(database: Database, call_id: UUID) -> list[dict[str, Any]]:
    """The facts of every version of a call's note, oldest first."""
    rows = await database.fetch(
        "SELECT v.facts FROM note_version v JOIN note n ON n.id = v.note_id WHERE n.call_id = $1"
        " ORDER BY v.version",
        call_id,
    )
    return [json.loads(row["facts"]) for row in rows]


async def test_the_call_of_a_dead_worker_is_told_and_that_of_a_living_one_left_alone(
    database: Database, tmp_path: Path
) -> None:
    await two_workers(database)
    lost, going_on = uuid4(), uuid4()
    async with Journal(database, tmp_path, notes_of(["emr"], lambda: LATER)) as journal:
        begin(Story(journal, "dead"), lost)
        begin(Story(journal, "alive"), going_on)
        assert await journal.flush(5)
    await database.execute("UPDATE call SET started_at = $1 WHERE id = $2", LATER, going_on)
    ended = await ghosts.bury(database, ["emr"], LATER, AT, LEASE)
    assert [call.id for call in ended] == [lost]
    (told,) = await notes(database, lost)
    assert told["cause"] == "worker-lost"
    assert told["answered_by"] == "ada"
    assert told["talk_s"] == 115.0
    assert await notes(database, going_on) == []
    assert await ghosts.bury(database, ["emr"], LATER, AT, LEASE) == []
    assert len(await notes(database, lost)) == 1
    assert await database.fetchval("SELECT count(*) FROM outbox") == 1


async def test_the_workers_own_account_that_comes_late_replaces_the_note(
    database: Database, tmp_path: Path
) -> None:
    await two_workers(database)
    call_id = uuid4()
    async with Journal(database, tmp_path, notes_of(["emr"], lambda: LATER)) as journal:
        story = Story(journal, "dead")
        begin(story, call_id)
        assert await journal.flush(5)
        await ghosts.bury(database, ["emr"], LATER, AT, LEASE)
        (told,) = await notes(database, call_id)
        story.ended(
            call_id=call_id, at=AT + timedelta(seconds=60), cause="normal", disposition="connected",
            answered_by="ada", facts={**told, "cause": "normal", "disposition": "connected"},
        )  # fmt: skip
        assert await journal.flush(5)
    both = await notes(database, call_id)
    assert [(facts["version"], facts["cause"]) for facts in both] == [(1, "worker-lost"), (2, "normal")]
    assert await database.fetchval("SELECT count(*) FROM outbox") == 2


async def test_nothing_is_buried_right_after_an_outage(database: Database) -> None:
    await two_workers(database)
    assert await ghosts.bury(database, ["emr"], LATER, LATER - timedelta(seconds=5), LEASE) == []
    assert [worker.name for worker in await workers.everyone(database)] == ["alive", "dead"]
