"""Who may be called: people, the shifts they take, and the rosters made of them. Pure values.

Who is on at an instant is `pbx.core.schedule`; reading roster.toml is `pbx.rosters`. Shifts are written in
the local time of their roster, never in UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Literal
from zoneinfo import ZoneInfo

from pbx.core.call_events import Endpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody who takes calls."""

    id: str  # key in roster.toml; what logs and notes refer to
    name: str  # as staff know them
    endpoints: tuple[Endpoint, ...]  # all ring at once
    language: str = "en"  # ISO 639-1, of what they hear on pick-up


@dataclass(frozen=True, kw_only=True, slots=True)
class Always:
    """People who are on at every hour."""

    people: tuple[str, ...]  # ids, in the order they are tried


@dataclass(frozen=True, kw_only=True, slots=True)
class Weekly:
    """The same hours on the same days of every week."""

    people: tuple[str, ...]  # ids, in the order they are tried
    days: frozenset[int]  # days on which it begins; Monday is 0
    begins: time  # local
    ends: time  # local; at or before `begins`: on the next day


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """People take turns, each for a period, the first of them from the start."""

    people: tuple[str, ...]  # ids, in the order of turns
    period_days: int  # 1 or 7
    start: date  # day of the first hand-over
    handover: time  # local


Shift = Always | Weekly | Rotation


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """One person in place of whoever the shifts name."""

    begins: datetime  # local, naive: the roster's zone applies
    ends: datetime  # local, naive; not included
    person: str  # id


@dataclass(frozen=True, kw_only=True, slots=True)
class Roster:
    """Who answers for a line, in which order."""

    name: str  # key in roster.toml
    zone: ZoneInfo  # of every time in it
    shifts: tuple[Shift, ...]
    overrides: tuple[Override, ...] = ()
    backups: tuple[str, ...] = ()  # ids, tried after the people on the shift
    last_resort: Literal["voicemail"] | None = None  # what callers get when nobody is on or answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Rosters:
    """roster.toml as a whole; every id in it is a person of it."""

    people: Mapping[str, Person]  # by id
    rosters: Mapping[str, Roster]  # by name
