"""Who is on duty at an instant. Pure; the only place that turns local times into instants.

Daylight saving: a shift lasts as long as the clock on the clinic's wall says. A local time that is skipped in
spring means the same moment with the offset before the change (02:30 is 03:30 by the new clock); one that
occurs twice in autumn means the first. Both ends of neighbouring shifts are turned into instants alike, so
they always meet exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from pbx.core.roster import Always, Person, Roster, Rosters, Rotation, Shift, Weekly


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A stretch of time in which nobody is on."""

    begins: datetime  # aware, UTC
    ends: datetime  # aware, UTC; not included


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """The UTC instant of a naive local time; skipped and repeated times as the module says."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def on_duty(rosters: Rosters, name: str, at: datetime) -> tuple[Person, ...]:
    """Whom to try for roster `name` at the aware instant `at`, in order, each once. Empty: nobody.

    An override in force outranks all shifts; back-ups come last. Raises KeyError for an unknown roster and
    ValueError for a naive time.
    """
    if at.tzinfo is None:
        raise ValueError("on_duty needs a time with a zone; give it in UTC")
    roster = rosters.rosters[name]
    return tuple(rosters.people[person] for person in _ids(roster, at))


def gaps(roster: Roster, start: datetime, end: datetime) -> tuple[Gap, ...]:
    """Stretches between two aware instants in which nobody is on, not even a back-up."""
    if roster.backups:
        return ()
    found: list[Gap] = []
    marks = sorted({start, end, *(at for at in _changes(roster, start, end) if start < at < end)})
    for begins, ends in pairwise(marks):
        if _ids(roster, begins):
            continue
        if found and found[-1].ends == begins:
            begins = found.pop().begins
        found.append(Gap(begins=begins, ends=ends))
    return tuple(found)


def _ids(roster: Roster, at: datetime) -> tuple[str, ...]:
    instead = [
        override.person
        for override in roster.overrides
        if instant(override.begins, roster.zone) <= at < instant(override.ends, roster.zone)
    ]
    on = instead or [person for shift in roster.shifts for person in _on_shift(shift, roster.zone, at)]
    return tuple(dict.fromkeys([*on, *roster.backups]))


def _on_shift(shift: Shift, zone: ZoneInfo, at: datetime) -> tuple[str, ...]:
    match shift:
        case Always():
            return shift.people
        case Weekly():
            today = at.astimezone(zone).date()
            for day in (today - timedelta(days=1), today):
                if day.weekday() in shift.days:
                    begins, ends = _hours(shift, day, zone)
                    if begins <= at < ends:
                        return shift.people
            return ()
        case Rotation():
            turn = _turn(shift, zone, at)
            return () if turn < 0 else (shift.people[turn % len(shift.people)],)


def _hours(shift: Weekly, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    last = day if shift.ends > shift.begins else day + timedelta(days=1)
    begins = instant(datetime.combine(day, shift.begins), zone)
    return begins, instant(datetime.combine(last, shift.ends), zone)


def _turn(shift: Rotation, zone: ZoneInfo, at: datetime) -> int:
    """How many hand-overs after the first `at` lies; negative before it."""
    turn = (at.astimezone(zone).date() - shift.start).days // shift.period_days
    return turn if at >= _handover(shift, zone, turn) else turn - 1


def _handover(shift: Rotation, zone: ZoneInfo, turn: int) -> datetime:
    day = shift.start + timedelta(days=turn * shift.period_days)
    return instant(datetime.combine(day, shift.handover), zone)


def _changes(roster: Roster, start: datetime, end: datetime) -> Iterator[datetime]:
    """Instants at which the people on duty may change, some outside the range."""
    zone = roster.zone
    for override in roster.overrides:
        yield instant(override.begins, zone)
        yield instant(override.ends, zone)
    day = start.astimezone(zone).date() - timedelta(days=1)
    last = end.astimezone(zone).date()
    while day <= last:
        for shift in roster.shifts:
            if isinstance(shift, Weekly):
                yield from _hours(shift, day, zone)
        day += timedelta(days=1)
    for shift in roster.shifts:
        if isinstance(shift, Rotation):
            yield _handover(shift, zone, 0)
