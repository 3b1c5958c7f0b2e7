"""The automatic note: what it says, in whose time, and what cannot get into it."""

import html
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given

from emr_bridge.facts import CallFacts, PathStep, Voicemail
from emr_bridge.note import TITLE, WARNING, plain, render, render_xhtml
from tests.emr_calls import START, abandoned_call, after, answered_call
from tests.unit.test_note_facts import FACTS

pytestmark = pytest.mark.unit

ANSWERED = """\
Automatic call note, not signed by a clinician
Caller ID is not identity; patient not matched

Site: Riverside Clinic
Line: nurse line, dialled +12025550100
Caller ID: +12025550143
Language: es
Call: 11111111-2222-4333-8444-555555555555
Note version: 1

Started: 2025-03-09 01:58:03 CST (UTC-06:00)
Connected: 2025-03-09 01:59:13 CST (UTC-06:00) with Dr. Bo
Ended: 2025-03-09 03:02:13 CDT (UTC-05:00)
Whole call: 4 min 10 s; talk time: 3 min 00 s
Outcome: connected; the line ended with: normal

Path through the menu:
- 01:58:04 greeting (say)
- 01:58:12 main (menu): nurse
- 01:58:18 find (hunt)

Who was tried:
1. 01:58:23 Dr. Ana, SIP phone: no answer after 25 s
2. 01:58:49 Dr. Bo, telephone: accepted the call after 24 s

Consent:
- 01:58:15 recording: given

Voicemail: none
Recording: 3 min 00 s, reference rec-1

Times are local to the site (America/Chicago).
"""


def test_the_note_of_an_answered_call() -> None:
    facts = answered_call(call_id="11111111-2222-4333-8444-555555555555")
    assert render(facts) == ANSWERED


def test_the_note_of_an_abandoned_call() -> None:
    text = render(abandoned_call())
    assert "Caller ID: withheld\n" in text
    assert "Connected" not in text
    assert "Outcome: abandoned; the line ended with: cancelled\n" in text
    assert "Who was tried:\n- nobody\n" in text
    assert "Consent:\n- none asked\n" in text
    assert text.startswith(f"{TITLE}\n{WARNING}\n")


def test_a_voicemail_is_referred_to() -> None:
    text = render(abandoned_call(voicemail=Voicemail(id="vm-7", duration_s=31.2), disposition="voicemail"))
    assert "Voicemail: 31 s, reference vm-7\n" in text


def test_a_later_version_says_what_it_replaces() -> None:
    assert "Note version: 2, replaces version 1\n" in render(answered_call(version=2))


def test_both_half_past_one_of_an_autumn_night_are_told_apart() -> None:
    early = datetime(2025, 11, 2, 6, 30, tzinfo=UTC)
    text = render(answered_call(started_at=early, ended_at=early + timedelta(hours=1)))
    assert "Started: 2025-11-02 01:30:00 CDT (UTC-05:00)\n" in text
    assert "Ended: 2025-11-02 01:30:00 CST (UTC-06:00)\n" in text


def test_a_step_on_the_next_day_tells_its_date() -> None:
    late = datetime(2025, 6, 1, 4, 59, 50, tzinfo=UTC)
    step = PathStep(at=late + timedelta(seconds=20), node="main", kind="menu")
    text = render(answered_call(started_at=late, path=(step,)))
    assert "- 2025-06-01 00:00:10 main (menu)\n" in text


def test_an_unknown_zone_is_said_to_be_unknown() -> None:
    text = render(answered_call(time_zone="../../etc/passwd"))
    assert "Started: 2025-03-09 07:58:03 UTC (UTC+00:00)\n" in text
    assert "Times are local to the site (UTC, because the site's zone is unknown).\n" in text


def test_a_clock_set_back_gives_no_negative_duration() -> None:
    assert "Whole call: 0 s;" in render(answered_call(ended_at=START - timedelta(hours=1)))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("+12025550143", "+12025550143"),
        ("a\nSigned by: Dr. Eve", "a\ufffdSigned by: Dr. Eve"),
        ("<script>alert(1)</script>", "\u2039script\u203aalert(1)\u2039/script\u203a"),
        ("a\u202egnp", "a\ufffdgnp"),
        ("a\u2028b\x00c\x1b[31m", "a\ufffdb\ufffdc\ufffd[31m"),
        ("nur\u200cse", "nur\u200cse"),
        ("a\u00a0b", "a b"),
        ("x" * 500, "x" * 200 + "\u2026"),
        ("{{ 7 * 7 }}{% for %}", "{{ 7 * 7 }}{% for %}"),
    ],
)
def test_values_from_outside_stay_one_plain_line(value: str, shown: str) -> None:
    assert plain(value) == shown
    assert f"Caller ID: {shown}\n" in render(answered_call(caller=value))


def test_markup_is_escaped_in_xhtml() -> None:
    page = render_xhtml(answered_call(line='"><b onclick=x>&', caller="</td><script>"))
    assert "<script" not in page
    assert "<b " not in page
    root = ElementTree.fromstring(page.split("\n", 2)[2])
    assert "\u2039/td\u203a\u2039script\u203a" in "".join(root.itertext())


@given(FACTS)
def test_any_facts_give_the_same_note_twice_and_valid_xml(facts: CallFacts) -> None:
    text = render(facts)
    assert text == render(facts)
    assert text.splitlines()[:2] == [TITLE, WARNING]
    assert "<" not in text
    assert ">" not in text
    # Every line is one the template made: values can add none.
    fixed = 25 + (facts.answered_at is not None)
    rows = max(1, len(facts.path)) + max(1, len(facts.attempts)) + max(1, len(facts.consents))
    assert len(re.split(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text)) == fixed + rows + 1
    root = ElementTree.fromstring(render_xhtml(facts).split("\n", 2)[2])
    assert root.tag == "{http://www.w3.org/1999/xhtml}html"


def test_text_and_xhtml_say_the_same() -> None:
    facts = answered_call()
    words = re.findall(r"[\w:+.-]+", render(facts))
    page = html.unescape(re.sub(r"<[^>]+>", " ", render_xhtml(facts)))
    assert (
        not {w.rstrip(":.") for w in words}
        - {w.rstrip(":.") for w in re.findall(r"[\w:+.-]+", page)}
        - {
            "1",
            "2",
            "-",
        }
    )
    assert after(0) == START
