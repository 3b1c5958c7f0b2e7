"""Facts of a call: to JSON and back, and what they refuse."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emr_bridge.facts import Attempt, CallFacts, Consent, PathStep, Recording, Voicemail
from tests.emr_calls import START, abandoned_call, answered_call

pytestmark = pytest.mark.unit

TIMES = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001  hypothesis adds the zone itself
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
TEXTS = st.text(max_size=300)
SECONDS = st.floats(min_value=-10, max_value=1e6, allow_nan=False)
FACTS = st.builds(
    CallFacts,
    call_id=st.uuids(),
    version=st.integers(1, 9),
    site=TEXTS,
    line=TEXTS,
    language=TEXTS,
    caller=TEXTS,
    dialled=TEXTS,
    started_at=TIMES,
    answered_at=st.none() | TIMES,
    ended_at=TIMES,
    time_zone=st.sampled_from(["America/Chicago", "Asia/Kolkata", "UTC", ""]) | TEXTS,
    path=st.lists(st.builds(PathStep, at=TIMES, node=TEXTS, kind=TEXTS, choice=TEXTS), max_size=3).map(tuple),
    attempts=st.lists(
        st.builds(
            Attempt,
            at=TIMES,
            person=TEXTS,
            person_name=TEXTS,
            endpoint_kind=TEXTS,
            outcome=TEXTS,
            rang_s=SECONDS,
        ),
        max_size=3,
    ).map(tuple),
    answered_by=st.none() | TEXTS,
    answered_by_name=TEXTS,
    talk_s=SECONDS,
    cause=TEXTS,
    disposition=TEXTS,
    consents=st.lists(st.builds(Consent, kind=TEXTS, given=st.booleans(), at=TIMES), max_size=3).map(tuple),
    voicemail=st.none() | st.builds(Voicemail, id=TEXTS, duration_s=SECONDS),
    recording=st.none() | st.builds(Recording, id=TEXTS, duration_s=SECONDS),
)


@pytest.mark.parametrize("facts", [answered_call(), abandoned_call(), answered_call(version=3)])
def test_facts_survive_json(facts: CallFacts) -> None:
    assert CallFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@given(FACTS)
def test_any_facts_become_json_that_postgresql_takes_and_come_back(facts: CallFacts) -> None:
    stored = json.dumps(facts.to_json(), ensure_ascii=False, allow_nan=False)
    assert "\\u0000" not in stored
    stored.encode()  # no lone surrogates
    again = CallFacts.from_json(json.loads(stored))
    assert again.to_json() == facts.to_json()
    assert again.call_id == facts.call_id
    assert again.started_at == facts.started_at


def test_what_postgresql_cannot_hold_becomes_a_replacement_character() -> None:
    facts = answered_call(caller="1\0002", site="a\ud800b")
    assert facts.to_json()["caller"] == "1\ufffd2"
    assert facts.to_json()["site"] == "a\ufffdb"


def test_times_of_other_zones_become_utc() -> None:
    tokyo = START.astimezone(timezone(timedelta(hours=9)))
    assert answered_call(started_at=tokyo).to_json()["started_at"] == "2025-03-09T07:58:03.000Z"


@pytest.mark.parametrize("name", ["started_at", "ended_at", "answered_at"])
def test_a_naive_time_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} has no time zone; give an aware UTC time$"):
        answered_call(**{name: datetime(2025, 1, 1)})  # noqa: DTZ001  the fault under test


def test_version_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^version of a call's facts starts at 1$"):
        answered_call(version=0)


def test_a_clock_that_was_set_back_is_not_refused() -> None:
    facts = answered_call(ended_at=START - timedelta(seconds=5))
    assert CallFacts.from_json(facts.to_json()) == facts


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("call_id", "no", 'the key "call_id" of a call\'s facts must be a UUID'),
        ("version", "1", 'the key "version" of a call\'s facts must be a whole number'),
        ("talk_s", True, 'the key "talk_s" of a call\'s facts must be a number'),
        ("caller", None, 'the key "caller" of a call\'s facts must be a text'),
        ("ended_at", "soon", 'the key "ended_at" of a call\'s facts must be an ISO 8601 time'),
        (
            "ended_at",
            "2025-01-01T00:00:00",
            'the key "ended_at" of a call\'s facts must be an ISO 8601 time with its offset',
        ),
        ("path", [1], 'the key "path" of a call\'s facts must be a list of objects'),
        ("voicemail", 3, 'the key "voicemail" of a call\'s facts must be an object or null'),
        ("consents", [{"kind": "x", "given": 1}], 'the key "given" of a call\'s facts must be true or false'),
    ],
)
def test_wrong_json_is_refused_by_key_without_its_value(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^the key") as caught:
        CallFacts.from_json(answered_call().to_json() | {key: value})
    assert str(caught.value) == sentence


def test_a_missing_key_is_named() -> None:
    stored = answered_call().to_json()
    del stored["attempts"]
    with pytest.raises(ValueError, match=r'^the key "attempts" of a call\'s facts is missing$'):
        CallFacts.from_json(stored)


def test_facts_cannot_be_changed() -> None:
    facts = answered_call()
    with pytest.raises(AttributeError):
        facts.caller = "x"  # type: ignore[misc]
    assert replace(facts, version=2, call_id=uuid4()) != facts
