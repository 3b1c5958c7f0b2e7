"""The facts of a call, folded from its timeline: what the EMR bridge reads."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from emr_bridge.facts import CallFacts
from pbx.core.timeline import Entry, Heading, facts

pytestmark = pytest.mark.unit

AT = datetime(2026, 11, 1, 5, 59, tzinfo=UTC)
HEADING = Heading(
    call_id="6d0ee6b4-2b8a-4f0e-9d56-0f2f3f0f9c11",
    site="Lakeside Clinic",
    time_zone="America/Chicago",
    line="nurse_line",
    language="en",
    dialled="+12025550100",
    caller="+12025550123",
    started_at=AT,
)


def told(*story: tuple[float, str, dict[str, Any]], ended_s: float = 100.0) -> dict[str, Any]:
    entries = [
        Entry(seq=i, at=AT + timedelta(seconds=after_s), kind=kind, detail=detail)
        for i, (after_s, kind, detail) in enumerate(story, 1)
    ]
    return facts(
        HEADING, entries, ended_at=AT + timedelta(seconds=ended_s), cause="normal", disposition="connected"
    )


def offer(number: int, person: str) -> dict[str, Any]:
    return {"offer": number, "person": person, "name": person.title(), "endpoint": "sip"}


def test_who_was_tried_and_who_answered() -> None:
    found = told(
        (1, "node", {"node": "menu", "kind": "menu"}),
        (4, "choice", {"node": "menu", "choice": "find"}),
        (5, "offer", offer(1, "ana")),
        (30, "offer-ended", {"offer": 1, "person": "ana", "outcome": "no-answer", "rang_s": 25.0}),
        (30, "offer", offer(2, "ben")),
        (40, "offer-ended", {"offer": 2, "person": "ben", "outcome": "accepted", "rang_s": 10.0}),
        (40, "answered", {"offer": 2, "person": "ben", "name": "Ben"}),
    )
    assert [(a["person"], a["outcome"], a["rang_s"]) for a in found["attempts"]] == [
        ("ana", "no-answer", 25.0),
        ("ben", "accepted", 10.0),
    ]
    assert found["answered_by"] == "ben"
    assert found["talk_s"] == 60.0
    assert found["path"] == [{"at": found["path"][0]["at"], "node": "menu", "kind": "menu", "choice": "find"}]


def test_talk_time_leaves_out_a_lost_line() -> None:
    found = told(
        (10, "answered", {"offer": 1, "person": "ana", "name": "Ana"}),
        (20, "clinician-lost", {"person": "ana", "cause": "media-lost"}),
        (50, "answered", {"offer": 2, "person": "ana", "name": "Ana"}),
    )
    assert found["talk_s"] == 60.0
    assert found["answered_at"] == (AT + timedelta(seconds=10)).isoformat(timespec="milliseconds")


def test_a_timeline_cut_off_by_a_dead_worker_still_makes_facts() -> None:
    found = told((5, "offer", offer(1, "ana")), ended_s=12.0)
    assert found["attempts"][0]["outcome"] == "cancelled"
    assert found["attempts"][0]["rang_s"] == 7.0


def test_the_emr_bridge_reads_what_is_told() -> None:
    read = CallFacts.from_json(
        told(
            (2, "consent", {"kind": "recording", "given": False}),
            (3, "message-taken", {"message": "m1", "duration_s": 4.5}),
        )
    )
    assert read.started_at == AT
    assert read.voicemail is not None
    assert read.voicemail.duration_s == 4.5
    assert [c.given for c in read.consents] == [False]
