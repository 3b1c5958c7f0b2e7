"""Reads roster.toml into `pbx.core.roster` values: strictly, all faults at once."""

import tomllib
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from ivr.flow import LanguageTag, Name, of_form
from ivr.problems import Problem, from_validation, nearest
from pbx.core.call_events import Endpoint
from pbx.core.roster import Always, Override, Person, Roster, Rosters, Rotation, Shift, Weekly
from pbx.core.schedule import gaps

AHEAD = timedelta(days=14)
"""How far `gap_problems` looks."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class RosterError(Exception):
    """roster.toml cannot be used; `problems` holds one sentence each."""

    def __init__(self, problems: Collection[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def _clock(value: object) -> object:
    if value == "24:00":
        return time(0)
    if isinstance(value, str):
        try:
            parsed = datetime.strptime(value, "%H:%M")  # noqa: DTZ007  # a time of day has no zone
        except ValueError as error:
            raise ValueError(f'"{value}" is not a time of day; write it like "19:00"') from error
        return parsed.time()
    if isinstance(value, time):
        return value
    raise ValueError('a time of day is written like "19:00"')


def _local(value: datetime) -> datetime:
    if value.tzinfo is not None:
        raise ValueError("leave out the offset; the roster's own time zone applies")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f'"{value}" is not an IANA time zone such as "America/Chicago"') from error
    return value


Clock = Annotated[time, BeforeValidator(_clock)]
Account = Annotated[
    str, of_form(r"[A-Za-z0-9._-]+", 'a phone account: use letters, digits, ".", "_" and "-"')
]
Number = Annotated[str, of_form(r"\+[1-9][0-9]{6,14}", "a phone number: write it like +12025550101")]
People = Annotated[tuple[Name, ...], Field(min_length=1)]


class Table(BaseModel):
    """A table of roster.toml: frozen, strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointTable(Table):
    """One way to reach a person: an account of ours or a number over a trunk."""

    sip: Account | None = Field(None, description="Phone account.")
    phone: Number | None = Field(None, description="Number in E.164, with the plus.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "EndpointTable":
        if (self.sip is None) == (self.phone is None):
            raise ValueError('write either sip = "1001" or phone = "+12025550101"')
        return self


class PersonTable(Table):
    """Somebody who takes calls."""

    name: str = Field(min_length=1, description="As staff know them.")
    language: LanguageTag = Field("en", description="Language of what they hear on pick-up.")
    endpoints: tuple[EndpointTable, ...] = Field(min_length=1, description="Their phones; all ring at once.")


class AlwaysTable(Table):
    """On at every hour."""

    kind: Literal["always"]
    people: People


class WeeklyTable(Table):
    """The same hours on the same days of every week."""

    kind: Literal["weekly"]
    people: People
    days: tuple[Day, ...] = Field(DAYS, min_length=1)
    begins: Clock = Field(alias="from", description="Local time.")
    ends: Clock = Field(
        alias="to", description='Local time; at or before `from` it is the next day. "24:00" is midnight.'
    )


class RotationTable(Table):
    """People take turns."""

    kind: Literal["rotation"]
    people: People
    every: Literal["day", "week"] = Field("week", description="How long one turn is.")
    start: date = Field(description="Day of the first hand-over.")
    handover: Clock = Field(description="Local time of the hand-over.")


class OverrideTable(Table):
    """One person in place of the shifts."""

    begins: Annotated[datetime, AfterValidator(_local)] = Field(alias="from", description="Local time.")
    ends: Annotated[datetime, AfterValidator(_local)] = Field(
        alias="to", description="Local time, not included."
    )
    person: Name

    @model_validator(mode="after")
    def _in_order(self) -> "OverrideTable":
        if self.ends <= self.begins:
            raise ValueError("an override must end after it begins")
        return self


class RosterTable(Table):
    """Who answers for a line."""

    time_zone: Annotated[str, AfterValidator(_zone)] = Field(description="IANA zone of all its times.")
    shift: tuple[Annotated[AlwaysTable | WeeklyTable | RotationTable, Field(discriminator="kind")], ...] = ()
    override: tuple[OverrideTable, ...] = ()
    backups: tuple[Name, ...] = ()
    last_resort: Literal["voicemail"] | None = Field(
        None, description="What callers get when nobody answers."
    )


class RosterFile(Table):
    """roster.toml."""

    person: Mapping[Name, PersonTable] = Field(min_length=1)
    roster: Mapping[Name, RosterTable] = Field(min_length=1)


def load_rosters(path: Path) -> Rosters:
    """Read roster.toml. Raises RosterError with every fault at once."""
    file = path.name
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        read = RosterFile.model_validate(raw)
    except OSError as error:
        sentence = f"This file cannot be read: {error.strerror}."
        raise RosterError([Problem(file=file, path="", sentence=sentence)]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RosterError(
            [Problem(file=file, path="", sentence=f"This is not valid TOML: {error}.")]
        ) from error
    except ValidationError as error:
        raise RosterError(from_validation(file, error, RosterFile)) from error
    problems = _unknown_people(file, read)
    if problems:
        raise RosterError(problems)
    people = {
        key: Person(
            id=key,
            name=person.name,
            language=person.language,
            endpoints=tuple(_endpoint(one) for one in person.endpoints),
        )
        for key, person in read.person.items()
    }
    return Rosters(people=people, rosters={name: _roster(name, table) for name, table in read.roster.items()})


def gap_problems(rosters: Rosters, now: datetime, file: str = "roster.toml") -> list[Problem]:
    """Stretches of the next 14 days with nobody on: a warning where voicemail catches them, else a fault."""
    problems = []
    for name, roster in rosters.rosters.items():
        for gap in gaps(roster, now.astimezone(UTC), now.astimezone(UTC) + AHEAD):
            begins, ends = (
                at.astimezone(roster.zone).strftime("%a %Y-%m-%d %H:%M") for at in (gap.begins, gap.ends)
            )
            caught = roster.last_resort is not None
            remedy = (
                "callers get voicemail" if caught else 'add a shift, a back-up or last_resort = "voicemail"'
            )
            problems.append(
                Problem(
                    file=file,
                    path=f"roster.{name}",
                    sentence=f"Nobody is on from {begins} to {ends}; {remedy}.",
                    warning=caught,
                )
            )
    return problems


def _endpoint(table: EndpointTable) -> Endpoint:
    if table.sip is not None:
        return Endpoint(kind="sip", address=table.sip)
    return Endpoint(kind="phone", address=table.phone or "")


def _unknown_people(file: str, read: RosterFile) -> list[Problem]:
    problems = []
    for name, roster in read.roster.items():
        named = [
            (f"shift.{n}.people", person) for n, shift in enumerate(roster.shift) for person in shift.people
        ]
        named += [(f"override.{n}.person", override.person) for n, override in enumerate(roster.override)]
        named += [("backups", person) for person in roster.backups]
        problems += [
            Problem(
                file=file,
                path=f"roster.{name}.{path}",
                sentence=f'There is no person "{person}".{nearest(person, read.person)}',
            )
            for path, person in named
            if person not in read.person
        ]
    return problems


def _roster(name: str, table: RosterTable) -> Roster:
    return Roster(
        name=name,
        zone=ZoneInfo(table.time_zone),
        shifts=tuple(_shift(shift) for shift in table.shift),
        overrides=tuple(Override(begins=o.begins, ends=o.ends, person=o.person) for o in table.override),
        backups=table.backups,
        last_resort=table.last_resort,
    )


def _shift(table: AlwaysTable | WeeklyTable | RotationTable) -> Shift:
    match table:
        case AlwaysTable():
            return Always(people=table.people)
        case WeeklyTable():
            days = frozenset(DAYS.index(day) for day in table.days)
            return Weekly(people=table.people, days=days, begins=table.begins, ends=table.ends)
        case RotationTable():
            days_each = 1 if table.every == "day" else 7
            return Rotation(
                people=table.people, period_days=days_each, start=table.start, handover=table.handover
            )
