"""Causes from SIP status codes and Q.850 values, the Reason header we send, words for people."""

import re

import pytest

from pbx.core import causes
from pbx.core.causes import Cause

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "ringing", "cause"),
    [
        (403, False, Cause.REJECTED),
        (404, False, Cause.NOT_FOUND),
        (408, False, Cause.UNREACHABLE),
        (408, True, Cause.NO_ANSWER),
        (410, False, Cause.NOT_FOUND),
        (415, False, Cause.INCOMPATIBLE),
        (480, False, Cause.NOT_REGISTERED),
        (480, True, Cause.NO_ANSWER),
        (484, False, Cause.NOT_FOUND),
        (486, True, Cause.BUSY),
        (487, True, Cause.CANCELLED),
        (488, False, Cause.INCOMPATIBLE),
        (500, False, Cause.ERROR),
        (502, False, Cause.UNREACHABLE),
        (503, True, Cause.UNREACHABLE),
        (504, False, Cause.UNREACHABLE),
        (600, True, Cause.BUSY),
        (603, True, Cause.REJECTED),
        (604, False, Cause.NOT_FOUND),
        (606, False, Cause.INCOMPATIBLE),
        (607, True, Cause.REJECTED),
        (699, False, Cause.ERROR),
    ],
)
def test_status_of_an_invite(code: int, ringing: bool, cause: Cause) -> None:
    assert causes.of_status(code, ringing=ringing) is cause


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (1, Cause.NOT_FOUND),
        (16, Cause.NORMAL),
        (17, Cause.BUSY),
        (18, Cause.NO_ANSWER),
        (19, Cause.NO_ANSWER),
        (20, Cause.NOT_REGISTERED),
        (21, Cause.REJECTED),
        (27, Cause.UNREACHABLE),
        (28, Cause.NOT_FOUND),
        (38, Cause.UNREACHABLE),
        (41, Cause.UNREACHABLE),
        (42, Cause.OVERLOAD),
        (65, Cause.INCOMPATIBLE),
        (79, Cause.INCOMPATIBLE),
        (88, Cause.INCOMPATIBLE),
        (99, None),
        (0, None),
    ],
)
def test_q850_value(value: int, cause: Cause | None) -> None:
    assert causes.of_q850(value) is cause


def test_the_networks_own_value_wins_over_the_status() -> None:
    assert causes.of_response(503, 17) is Cause.BUSY
    assert causes.of_response(480, 1, ringing=True) is Cause.NOT_FOUND


def test_a_normal_or_unknown_value_says_nothing_about_a_call_that_was_not_set_up() -> None:
    assert causes.of_response(486, 16, ringing=True) is Cause.BUSY
    assert causes.of_response(404, 99) is Cause.NOT_FOUND
    assert causes.of_response(404, None) is Cause.NOT_FOUND


def test_bye() -> None:
    assert causes.of_bye(None) is Cause.NORMAL
    assert causes.of_bye(16) is Cause.NORMAL
    assert causes.of_bye(99) is Cause.NORMAL
    assert causes.of_bye(41) is Cause.UNREACHABLE


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_words_and_a_reason_header(cause: Cause) -> None:
    assert re.fullmatch(r'Q\.850;cause=\d{1,3};text="[A-Za-z ,]+"', causes.reason_header(cause))
    assert causes.words(cause)
    assert not causes.words(cause).endswith(".")


@pytest.mark.parametrize(
    "cause", [Cause.BUSY, Cause.NO_ANSWER, Cause.REJECTED, Cause.NOT_FOUND, Cause.OVERLOAD]
)
def test_what_we_send_is_read_back_as_the_same_cause(cause: Cause) -> None:
    value = int(causes.reason_header(cause).partition("cause=")[2].partition(";")[0])
    assert causes.of_q850(value) is cause
