"""The rosters as calls ask for them: candidates in the order they are tried."""

import logging
from datetime import datetime

from pbx.core.call_events import Candidate
from pbx.core.roster import Person, Rosters
from pbx.core.schedule import on_duty

log = logging.getLogger("careline.roster")


class Duty:
    """Who is on duty, from one reading of roster.toml."""

    def __init__(self, rosters: Rosters) -> None:
        self._rosters = rosters
        self._by_address = {
            endpoint.address: person for person in rosters.people.values() for endpoint in person.endpoints
        }

    def on_duty(self, roster: str, at: datetime) -> tuple[Candidate, ...]:
        """The people to try in order; empty, and logged, when the roster is unknown."""
        try:
            return tuple(_candidate(person) for person in on_duty(self._rosters, roster, at))
        except KeyError:
            log.error("unknown roster", extra={"action": "roster", "roster": roster})
            return ()

    def person_at(self, address: str) -> Candidate | None:
        """The person one of whose endpoints has this address."""
        person = self._by_address.get(address)
        return _candidate(person) if person else None

    def language_of(self, person: str) -> str:
        """The language a person is spoken to in; empty when they are unknown."""
        known = self._rosters.people.get(person)
        return known.language if known else ""


def _candidate(person: Person) -> Candidate:
    return Candidate(person=person.id, name=person.name, endpoints=person.endpoints)
