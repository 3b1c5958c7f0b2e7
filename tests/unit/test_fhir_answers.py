"""What an EMR's answers mean, and when its breaker opens."""

from datetime import timedelta
from typing import Any

import pytest

from emr_bridge.answers import Answer, classify, entry_answers, reference, retry_after_s, stated_interactions
from emr_bridge.breaker import FAILURES_TO_OPEN, Breaker
from tests.emr_calls import START

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, "transient"),
        (400, "permanent"),
        (401, "transient"),
        (403, "permanent"),
        (404, "permanent"),
        (408, "transient"),
        (409, "permanent"),
        (412, "permanent"),
        (413, "permanent"),
        (422, "permanent"),
        (429, "transient"),
        (500, "ambiguous"),
        (501, "permanent"),
        (502, "ambiguous"),
        (503, "transient"),
        (504, "ambiguous"),
        (200, "ambiguous"),
        (202, "ambiguous"),
    ],
)
def test_each_status_has_its_class(status: int, kind: str) -> None:
    failure = classify(status, None, {})
    assert failure.error_class == kind
    assert failure.http_status == status


def test_the_emrs_reason_is_part_of_the_sentence() -> None:
    body = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "invalid"}]}
    assert classify(422, body, {}).sentence == "The EMR refused the note (HTTP 422). The EMR says: invalid"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "99999999"}, 3600.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 40}, None),
        ({"Retry-After": "Wed, 01 Jan 2025 00:01:00 GMT", "Date": "Wed, 01 Jan 2025 00:00:00 GMT"}, 60.0),
        ({"Retry-After": "Wed, 01 Jan 2025 00:00:00 GMT", "Date": "Wed, 01 Jan 2025 00:01:00 GMT"}, 0.0),
        ({"Retry-After": "Wed, 01 Jan 2025 00:01:00 GMT"}, None),
    ],
)
def test_retry_after_in_both_forms(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers) == wait_s


@pytest.mark.parametrize(
    ("body", "stated"),
    [
        (None, None),
        ({"resourceType": "CapabilityStatement"}, None),
        ({"resourceType": "CapabilityStatement", "rest": 3}, None),
        (
            {
                "resourceType": "CapabilityStatement",
                "rest": [{"mode": "server", "interaction": [{"code": "batch"}]}],
            },
            {"batch"},
        ),
        (
            {
                "resourceType": "CapabilityStatement",
                "rest": [{"mode": "client", "interaction": [{"code": "batch"}]}],
            },
            None,
        ),
    ],
)
def test_capabilities_that_say_nothing_are_unknown(body: Any, stated: set[str] | None) -> None:
    assert stated_interactions(body) == stated


@pytest.mark.parametrize(
    "body", [None, [], {}, {"resourceType": "Bundle", "entry": 1}, {"resourceType": "Bundle"}]
)
def test_odd_transaction_answers_have_no_entries(body: Any) -> None:
    assert entry_answers(body) == []


def test_transaction_answers_keep_their_order_and_references() -> None:
    first, second = entry_answers(
        {
            "resourceType": "Bundle",
            "entry": [
                {"response": {"status": "201 Created", "location": "Encounter/1/_history/1"}},
                {
                    "response": {"status": "200"},
                    "resource": {"resourceType": "DocumentReference", "id": "d"},
                },
            ],
        }
    )
    assert (first.status, reference(first, "Encounter")) == (201, "Encounter/1")
    assert (second.status, reference(second, "DocumentReference")) == (200, "DocumentReference/d")
    assert (
        reference(
            Answer(status=200, headers={}, body={"resourceType": "Encounter", "id": "../x"}), "Encounter"
        )
        is None
    )


def test_the_breaker_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            assert not breaker.failed(START)
        assert not breaker.succeeded()
    assert breaker.allowance(START, 8) == 8


def test_an_open_breaker_lets_one_probe_pass_and_doubles_its_pause() -> None:
    breaker, now = Breaker(), START
    assert [breaker.failed(now) for _ in range(FAILURES_TO_OPEN)] == [False] * (FAILURES_TO_OPEN - 1) + [True]
    pauses = []
    for _ in range(9):
        assert breaker.allowance(now, 8) == 0
        until = breaker.open_until
        assert until is not None
        pauses.append((until - now).total_seconds())
        now = until
        assert breaker.allowance(now, 8) == 1
        breaker.started()
        assert breaker.allowance(now, 8) == 0
        assert not breaker.failed(now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert breaker.succeeded()
    assert breaker.allowance(now, 8) == 8
    assert not breaker.is_open


def test_the_pause_is_never_shorter_than_the_servers_wish() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(START, retry_after_s=30)
    assert breaker.open_until == START + timedelta(seconds=30)


def test_late_failures_of_one_burst_do_not_lengthen_the_pause() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN + 10):
        breaker.failed(START)
    assert breaker.open_until == START + timedelta(seconds=1)


def test_an_abandoned_probe_makes_room_for_the_next() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(START)
    later = START + timedelta(seconds=2)
    breaker.started()
    assert breaker.allowance(later, 8) == 0
    breaker.abandoned()
    assert breaker.allowance(later, 8) == 1
