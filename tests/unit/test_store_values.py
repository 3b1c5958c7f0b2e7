"""Records as lines, and named SQL."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbx.store.records import CallEnded, CallEvent, CallStarted, Record, from_line, to_line
from pbx.store.sql import QUERIES, parse, queries

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))
text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
times = st.datetimes(timezones=st.just(UTC))
records = st.one_of(
    st.builds(
        CallStarted,
        call_id=st.uuids(),
        line=text,
        dialled=text,
        caller=text,
        sip_call_id=text,
        worker=text,
        at=times,
    ),
    st.builds(
        CallEvent,
        call_id=st.uuids(),
        seq=st.integers(),
        at=times,
        kind=text,
        detail=st.dictionaries(text, json_values, max_size=3),
    ),
    st.builds(
        CallEnded,
        call_id=st.uuids(),
        at=times,
        cause=text,
        disposition=text,
        answered_by=st.none() | text,
        facts=st.none() | st.dictionaries(text, json_values, max_size=3),
    ),
)


@given(records)
def test_a_record_survives_its_line(record: Record) -> None:
    line = to_line(record)
    assert "\n" not in line
    assert from_line(line.encode()) == record


def test_a_time_keeps_its_instant_and_its_microseconds() -> None:
    record = CallEvent(call_id=uuid4(), seq=1, at=AT, kind="step", detail={})
    again = from_line(to_line(record))
    assert again.at == AT
    assert again.at.utcoffset() is not None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"record":"event"}',
        b'{"record":"other","call_id":"x"}',
        b'{"record":"event","call_id":"no uuid","at":"2026-01-01T00:00:00+00:00"}',
        b'{"record":"event","call_id":"12345678-1234-4234-8234-123456789012","at":"soon"}',
        b'{"record":"event","call_id":"12345678-1234-4234-8234-123456789012","at":"2026-01-01T00:00:00+00:00"}',
    ],
)
def test_a_torn_or_foreign_line_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_line(line)


def test_blocks_are_split_by_name_and_keep_their_comments() -> None:
    blocks = parse("-- about the file\n\n-- name: one\n-- why\nSELECT 1;\n\n-- name: two\nSELECT 2;\n")
    assert dict(blocks) == {"one": "-- why\nSELECT 1;", "two": "SELECT 2;"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("SELECT 1;", 'x.sql has SQL before its first "-- name:" line; give the statement a name.'),
        (
            "-- name: A b\nSELECT 1",
            'x.sql has SQL before its first "-- name:" line; give the statement a name.',
        ),
        ("-- name: One\nSELECT 1", 'x.sql has the query name "One"; use lower-case letters, digits and "_".'),
        (
            "-- name: a\nSELECT 1\n-- name: a\nSELECT 2",
            'x.sql has two queries named "a"; give each its own name.',
        ),
        (
            "-- name: a\n-- nothing\n-- name: b\nSELECT 1",
            'x.sql has no SQL under the name "a"; write the statement or remove the name.',
        ),
    ],
)
def test_bad_files_are_refused_with_a_sentence(given: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refused:
        parse(given, "x.sql")
    assert str(refused.value) == sentence


def test_every_shipped_file_loads() -> None:
    nouns = sorted(path.stem for path in QUERIES.glob("*.sql"))
    assert {"calls", "journal", "schema_version", "workers"} <= set(nouns)
    for noun in nouns:
        assert queries(noun)
