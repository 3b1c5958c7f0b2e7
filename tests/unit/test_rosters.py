"""roster.toml: what it may say, and the sentence for each thing it may not."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pbx.core.call_events import Endpoint
from pbx.core.roster import Always, Rotation, Weekly
from pbx.core.schedule import on_duty
from pbx.rosters import RosterError, gap_problems, load_rosters

pytestmark = pytest.mark.unit

SHIPPED = Path(__file__).parents[2] / "dialplans" / "roster.toml"
BENCH = Path(__file__).parents[1] / "data" / "dialplans" / "roster.toml"

GOOD = """
[person.ada]
name = "Dr. Ada Reyes"
language = "es"
endpoints = [{ sip = "1001" }, { phone = "+13125550111" }]
[person.ben]
name = "Ben"
endpoints = [{ sip = "1002" }]
[roster.nights]
time_zone = "America/Chicago"
[[roster.nights.shift]]
kind = "weekly"
people = ["ada"]
days = ["mon", "tue"]
from = "19:00"
to = "24:00"
[[roster.nights.override]]
from = 2025-12-24T18:00:00
to = 2025-12-26T08:00:00
person = "ben"
"""


def read(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "roster.toml"
    path.write_text(text)
    with pytest.raises(RosterError) as caught:
        load_rosters(path)
    return [str(problem) for problem in caught.value.problems]


def test_shipped_rosters_have_no_gap() -> None:
    for path in (SHIPPED, BENCH):
        assert gap_problems(load_rosters(path), datetime(2025, 11, 1, tzinfo=UTC)) == []
    rosters = load_rosters(SHIPPED)
    assert isinstance(rosters.rosters["nights"].shifts[0], Rotation)
    monday = datetime(2025, 1, 6, 14, tzinfo=UTC)  # 08:00 in Chicago
    assert [person.id for person in on_duty(rosters, "nights", monday)] == ["ada", "grace", "marta"]


def test_values(tmp_path: Path) -> None:
    path = tmp_path / "roster.toml"
    path.write_text(GOOD + '[[roster.nights.shift]]\nkind = "always"\npeople = ["ben"]\n')
    rosters = load_rosters(path)
    ada = rosters.people["ada"]
    assert (ada.name, ada.language) == ("Dr. Ada Reyes", "es")
    assert ada.endpoints == (
        Endpoint(kind="sip", address="1001"),
        Endpoint(kind="phone", address="+13125550111"),
    )
    weekly, always = rosters.rosters["nights"].shifts
    assert isinstance(weekly, Weekly)
    assert (weekly.days, weekly.begins.hour, weekly.ends.hour) == (frozenset({0, 1}), 19, 0)
    assert always == Always(people=("ben",))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'sip = "1002"',
            "",
            'roster.toml: person.ben.endpoints.0: write either sip = "1001" or phone = "+12025550101".',
        ),
        (
            "+13125550111",
            "3125550111",
            'roster.toml: person.ada.endpoints.1.phone: "3125550111" is not a phone number: '
            "write it like +12025550101.",
        ),
        (
            "America/Chicago",
            "Chicago",
            'roster.toml: roster.nights.time_zone: "Chicago" is not an IANA time zone '
            'such as "America/Chicago".',
        ),
        (
            'people = ["ada"]',
            'people = ["aad"]',
            'roster.toml: roster.nights.shift.0.people: There is no person "aad". Did you mean "ada"?',
        ),
        (
            'person = "ben"',
            'person = "bne"',
            'roster.toml: roster.nights.override.0.person: There is no person "bne". Did you mean "ben"?',
        ),
        (
            'from = "19:00"',
            'from = "7pm"',
            'roster.toml: roster.nights.shift.0.weekly.from: "7pm" is not a time of day; '
            'write it like "19:00".',
        ),
        (
            "2025-12-26T08:00:00",
            "2025-12-24T08:00:00",
            "roster.toml: roster.nights.override.0: an override must end after it begins.",
        ),
        (
            "2025-12-26T08:00:00",
            "2025-12-26T08:00:00Z",
            "roster.toml: roster.nights.override.0.to: leave out the offset; "
            "the roster's own time zone applies.",
        ),
        (
            'language = "es"',
            'languages = "es"',
            'roster.toml: person.ada.languages: Unknown key "languages". Did you mean "language"?',
        ),
    ],
)
def test_faults(tmp_path: Path, old: str, new: str, expected: str) -> None:
    found = read(tmp_path, GOOD.replace(old, new, 1))
    assert found == [expected]


def test_unreadable(tmp_path: Path) -> None:
    assert read(tmp_path, "[") == [
        "roster.toml: This is not valid TOML: Invalid initial character for a key part (at end of document)."
    ]
    with pytest.raises(
        RosterError, match=r"^roster.toml: This file cannot be read: No such file or directory\.$"
    ):
        load_rosters(tmp_path / "none" / "roster.toml")


def test_a_gap_is_a_warning_with_a_last_resort_and_a_fault_without(tmp_path: Path) -> None:
    path = tmp_path / "roster.toml"
    shift = 'days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]\nfrom = "19:00"\nto = "18:00"'
    text = GOOD.replace('days = ["mon", "tue"]\nfrom = "19:00"\nto = "24:00"', shift)
    now = datetime(2025, 7, 1, 12, tzinfo=UTC)
    path.write_text(text)
    first = gap_problems(load_rosters(path), now)[0]
    assert str(first) == (
        "roster.toml: roster.nights: Nobody is on from Tue 2025-07-01 18:00 to Tue 2025-07-01 19:00; "
        'add a shift, a back-up or last_resort = "voicemail".'
    )
    path.write_text(text.replace("[roster.nights]", '[roster.nights]\nlast_resort = "voicemail"'))
    found = gap_problems(load_rosters(path), now)
    assert len(found) == 14
    assert str(found[0]) == (
        "roster.toml: roster.nights: warning: Nobody is on from Tue 2025-07-01 18:00 to Tue 2025-07-01 19:00"
        "; callers get voicemail."
    )
