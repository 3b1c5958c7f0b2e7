"""Who is on duty, hour by hour, also on the days on which clocks change in the US and the EU."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbx.core.call_events import Endpoint
from pbx.core.roster import Always, Override, Person, Roster, Rosters, Rotation, Shift, Weekly
from pbx.core.schedule import Gap, gaps, instant, on_duty

pytestmark = pytest.mark.unit

CHICAGO, BERLIN = ZoneInfo("America/Chicago"), ZoneInfo("Europe/Berlin")
EVERY_DAY = frozenset(range(7))
PEOPLE = {
    name: Person(id=name, name=name.title(), endpoints=(Endpoint(kind="sip", address=name),))
    for name in ("ada", "ben", "cem", "dia")
}


def roster(
    *shifts: Shift,
    zone: ZoneInfo = CHICAGO,
    backups: tuple[str, ...] = (),
    overrides: tuple[Override, ...] = (),
) -> Roster:
    return Roster(name="r", zone=zone, shifts=shifts, backups=backups, overrides=overrides)


def on(one: Roster, at: datetime) -> str:
    """Who is on, as "ada ben"; a naive time is local."""
    instant_ = at.replace(tzinfo=one.zone) if at.tzinfo is None else at
    rosters = Rosters(people=PEOPLE, rosters={"r": one})
    return " ".join(person.id for person in on_duty(rosters, "r", instant_.astimezone(UTC)))


def local(*parts: int) -> datetime:
    """A naive local time."""
    year, month, day, hour, minute, second = (*parts, 0, 0, 0)[:6]
    return datetime.combine(date(year, month, day), time(hour, minute, second))


def utc(*parts: int) -> datetime:
    return local(*parts).replace(tzinfo=UTC)


def weekly(person: str, begins: str, ends: str, days: frozenset[int] = EVERY_DAY) -> Weekly:
    return Weekly(
        people=(person,), days=days, begins=time.fromisoformat(begins), ends=time.fromisoformat(ends)
    )


def test_order_is_shifts_then_backups_each_once() -> None:
    one = roster(Always(people=("ben", "ada")), weekly("cem", "00:00", "00:00"), backups=("ada", "dia"))
    assert on(one, local(2025, 7, 1, 12)) == "ben ada cem dia"


def test_nobody_is_on_an_empty_roster() -> None:
    assert on(roster(), local(2025, 7, 1)) == ""


def test_unknown_roster_and_naive_time() -> None:
    rosters = Rosters(people=PEOPLE, rosters={"r": roster()})
    with pytest.raises(KeyError):
        on_duty(rosters, "nights", utc(2025, 1, 1))
    with pytest.raises(ValueError, match=r"^on_duty needs a time with a zone; give it in UTC$"):
        on_duty(rosters, "r", local(2025, 1, 1))


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (local(2025, 7, 7, 18, 59, 59), ""),  # a Monday
        (local(2025, 7, 7, 19), "ada"),
        (local(2025, 7, 8, 6, 59, 59), "ada"),  # Tuesday morning belongs to Monday's shift
        (local(2025, 7, 8, 7), ""),
        (local(2025, 7, 8, 20), ""),  # no shift begins on a Tuesday
        (local(2025, 7, 7, 3), ""),  # nor did one on Sunday
    ],
)
def test_a_shift_across_midnight_belongs_to_the_day_it_begins(at: datetime, expected: str) -> None:
    assert on(roster(weekly("ada", "19:00", "07:00", frozenset({0}))), at) == expected


def test_to_midnight_and_whole_days() -> None:
    one = roster(
        weekly("ada", "12:00", "00:00", frozenset({0})), weekly("ben", "00:00", "00:00", frozenset({1}))
    )
    for at, expected in (
        (local(2025, 7, 7, 23, 59, 59), "ada"),
        (local(2025, 7, 8, 0), "ben"),
        (local(2025, 7, 8, 23, 59, 59), "ben"),
        (local(2025, 7, 9, 0), ""),
    ):
        assert on(one, at) == expected


# The clocks of Chicago: forward on 2025-03-09 at 08:00 UTC (02:00 to 03:00), back on 2025-11-02 at 07:00 UTC
# (02:00 to 01:00). Those of Berlin: forward on 2025-03-30 at 01:00 UTC, back on 2025-10-26 at 01:00 UTC.


@pytest.mark.parametrize(
    ("zone", "begins", "ends", "hours"),
    [
        (CHICAGO, utc(2025, 3, 9, 1), utc(2025, 3, 9, 12), 11),  # 19:00 CST to 07:00 CDT: an hour short
        (CHICAGO, utc(2025, 11, 2, 0), utc(2025, 11, 2, 13), 13),  # 19:00 CDT to 07:00 CST: an hour long
        (BERLIN, utc(2025, 3, 29, 18), utc(2025, 3, 30, 5), 11),
        (BERLIN, utc(2025, 10, 25, 17), utc(2025, 10, 26, 6), 13),
    ],
)
def test_a_night_shift_over_a_clock_change(
    zone: ZoneInfo, begins: datetime, ends: datetime, hours: int
) -> None:
    one = roster(weekly("ada", "19:00", "07:00"), zone=zone)
    assert ends - begins == timedelta(hours=hours)
    second = timedelta(seconds=1)
    assert [on(one, at) for at in (begins - second, begins, ends - second, ends)] == ["", "ada", "ada", ""]


@pytest.mark.parametrize(
    ("zone", "day", "change"),
    [
        (CHICAGO, date(2025, 3, 9), utc(2025, 3, 9, 8, 30)),
        (BERLIN, date(2025, 3, 30), utc(2025, 3, 30, 1, 30)),
    ],
)
def test_a_handover_in_the_skipped_hour_neither_overlaps_nor_leaves_a_gap(
    zone: ZoneInfo, day: date, change: datetime
) -> None:
    one = roster(weekly("ada", "12:00", "02:30"), weekly("ben", "02:30", "12:00"), zone=zone)
    assert instant(datetime.combine(day, time(2, 30)), zone) == change  # 03:30 by the new clock
    assert on(one, change - timedelta(seconds=1)) == "ada"
    assert on(one, change) == "ben"


@pytest.mark.parametrize(
    ("zone", "change"),
    [(CHICAGO, utc(2025, 11, 2, 6, 30)), (BERLIN, utc(2025, 10, 26, 0, 30))],
)
def test_a_handover_in_the_repeated_hour_happens_the_first_time(zone: ZoneInfo, change: datetime) -> None:
    hour = "01:30" if zone is CHICAGO else "02:30"
    one = roster(weekly("ada", "12:00", hour), weekly("ben", hour, "12:00"), zone=zone)
    assert on(one, change - timedelta(seconds=1)) == "ada"
    assert on(one, change) == "ben"
    assert on(one, change + timedelta(hours=1)) == "ben"  # the second 01:30 changes nothing


def test_rotation_by_the_week() -> None:
    one = roster(
        Rotation(people=("ada", "ben", "cem"), period_days=7, start=date(2025, 1, 6), handover=time(8))
    )
    for at, expected in (
        (local(2025, 1, 6, 7, 59, 59), ""),  # not begun
        (local(2025, 1, 6, 8), "ada"),
        (local(2025, 1, 13, 7, 59, 59), "ada"),
        (local(2025, 1, 13, 8), "ben"),
        (local(2025, 1, 20, 8), "cem"),
        (local(2025, 1, 27, 8), "ada"),
        (local(2025, 3, 10, 7, 59, 59), "cem"),  # the hand-over after the clock change is at 08:00 CDT
        (local(2025, 3, 10, 8), "ada"),
        (local(2025, 11, 3, 7, 59, 59), "ada"),
        (local(2025, 11, 3, 8), "ben"),
    ):
        assert on(one, at) == expected, at


def test_rotation_by_the_day_over_both_clock_changes() -> None:
    one = roster(
        Rotation(people=("ada", "ben"), period_days=1, start=date(2025, 3, 29), handover=time(2, 30)),
        zone=BERLIN,
    )
    spring = utc(2025, 3, 30, 1, 30)  # 02:30 is skipped
    assert [on(one, spring - timedelta(seconds=1)), on(one, spring)] == ["ada", "ben"]
    autumn = utc(2025, 10, 26, 0, 30)  # the first of two; 211 days after the start
    assert [
        on(one, autumn - timedelta(seconds=1)),
        on(one, autumn),
        on(one, autumn + timedelta(hours=1)),
    ] == [
        "ada",
        "ben",
        "ben",
    ]


def test_override_outranks_shifts_and_keeps_backups() -> None:
    one = roster(
        Always(people=("ada",)),
        backups=("ben",),
        overrides=(Override(begins=local(2025, 12, 24, 18), ends=local(2025, 12, 26, 8), person="cem"),),
    )
    assert on(one, local(2025, 12, 24, 17, 59)) == "ada ben"
    assert on(one, local(2025, 12, 25, 3)) == "cem ben"
    assert on(one, local(2025, 12, 26, 8)) == "ada ben"


def test_gaps_are_named_with_their_ends() -> None:
    one = roster(weekly("ada", "19:00", "07:00"), zone=BERLIN)
    found = gaps(one, utc(2025, 3, 29, 0), utc(2025, 3, 31, 0))
    assert found == (
        Gap(begins=utc(2025, 3, 29, 6), ends=utc(2025, 3, 29, 18)),
        Gap(begins=utc(2025, 3, 30, 5), ends=utc(2025, 3, 30, 17)),
    )


def test_neighbouring_gaps_are_one_and_backups_leave_none() -> None:
    late = Override(begins=local(2025, 7, 1, 10), ends=local(2025, 7, 1, 11), person="ada")
    one = roster(overrides=(late,), zone=BERLIN)
    assert gaps(one, utc(2025, 7, 1), utc(2025, 7, 2)) == (
        Gap(begins=utc(2025, 7, 1), ends=utc(2025, 7, 1, 8)),
        Gap(begins=utc(2025, 7, 1, 9), ends=utc(2025, 7, 2)),
    )
    assert gaps(roster(), utc(2025, 7, 1), utc(2025, 7, 9)) == (
        Gap(begins=utc(2025, 7, 1), ends=utc(2025, 7, 9)),
    )
    assert gaps(roster(backups=("ben",)), utc(2025, 7, 1), utc(2025, 7, 9)) == ()


@given(
    at=st.datetimes(local(2024, 1, 1), local(2027, 1, 1)),
    handover=st.times(),
    period=st.sampled_from([1, 7]),
    zone=st.sampled_from([CHICAGO, BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("UTC")]),
)
def test_a_rotation_always_has_exactly_one_person(
    at: datetime, handover: time, period: int, zone: ZoneInfo
) -> None:
    turns = Rotation(
        people=("ada", "ben", "cem"), period_days=period, start=date(2023, 12, 1), handover=handover
    )
    one = roster(turns, zone=zone)
    assert on(one, at.replace(tzinfo=UTC)) in ("ada", "ben", "cem")


@given(
    at=st.datetimes(local(2024, 1, 1), local(2027, 1, 1)),
    first=st.times(),
    second=st.times(),
    zone=st.sampled_from([CHICAGO, BERLIN, ZoneInfo("Australia/Lord_Howe")]),
)
def test_two_shifts_that_share_a_day_share_every_moment(
    at: datetime, first: time, second: time, zone: ZoneInfo
) -> None:
    first, second = first.replace(fold=0), second.replace(fold=0)
    if first == second:
        return
    one = roster(
        Weekly(people=("ada",), days=EVERY_DAY, begins=first, ends=second),
        Weekly(people=("ben",), days=EVERY_DAY, begins=second, ends=first),
        zone=zone,
    )
    assert on(one, at.replace(tzinfo=UTC)) in ("ada", "ben")
