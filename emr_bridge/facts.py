"""What is known about one finished call: frozen values, to and from JSON. Pure.

Not the note (that is `note`) and not a FHIR resource (that is `fhir`): only what the switch saw and heard.
Facts never refuse a call because a clock stepped or a name is odd: a note that cannot be written is a lost
note. They refuse only what no reader could interpret: a naive time, a version below 1, a missing or mistyped
key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

# How one attempt to reach a person can end. A mobile that answers is no clinician until the key was pressed.
ATTEMPT_OUTCOMES = frozenset(
    {"accepted", "declined", "no-answer", "busy", "no-key", "unreachable", "not-registered", "cancelled"}
)
ENDPOINT_KINDS = frozenset({"sip", "phone"})


@dataclass(frozen=True, kw_only=True, slots=True)
class PathStep:
    """The caller reached one node of the flow."""

    at: datetime  # aware UTC
    node: str  # name of the node in the flow
    kind: str  # its type: "menu", "say", "consent", "hunt", "voicemail"…
    choice: str = ""  # name of the way taken out of it (never other digits); "" when there was none to take


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try to reach one person at one endpoint."""

    at: datetime  # aware UTC, when it began to be dialled
    person: str  # id in the roster
    person_name: str  # as staff know them
    endpoint_kind: str  # "sip" or "phone"
    outcome: str  # one of ATTEMPT_OUTCOMES
    rang_s: float  # seconds from dialling to the outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Consent:
    """The caller was asked and answered."""

    kind: str  # what for, for example "recording"
    given: bool
    at: datetime  # aware UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class Voicemail:
    """A message the caller left; the audio stays here, only the reference travels."""

    id: str
    duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A recording of the conversation; the audio stays here, only the reference travels."""

    id: str
    duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFacts:
    """Everything the note of one call is made from."""

    call_id: UUID
    version: int = 1  # 1 is the first note of the call; an amendment is the next number
    site: str  # name of the clinic's hotline
    line: str  # name of the line that was called
    language: str  # BCP 47 tag the caller was spoken to in
    caller: str  # number shown by the network, "" when withheld; never an identity
    dialled: str  # number that was dialled
    started_at: datetime  # aware UTC, the INVITE
    answered_at: datetime | None = None  # aware UTC, a clinician was connected
    ended_at: datetime  # aware UTC
    time_zone: str  # IANA zone of the site; the note's times are told in it
    path: tuple[PathStep, ...] = ()  # in order
    attempts: tuple[Attempt, ...] = ()  # in order
    answered_by: str | None = None  # person id
    answered_by_name: str = ""
    talk_s: float = 0.0  # seconds caller and clinician were connected
    cause: str  # why the caller's leg ended, one of pbx.core.causes
    disposition: str  # connected, voicemail, abandoned, emergency-advice, failed…
    consents: tuple[Consent, ...] = ()
    voicemail: Voicemail | None = None
    recording: Recording | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a naive time or a version below 1; it names the field, not the value."""
        if self.version < 1:
            raise ValueError("version of a call's facts starts at 1")
        for name in ("started_at", "ended_at", "answered_at"):
            _aware(getattr(self, name), name)
        for kind, times in (("path", self.path), ("attempts", self.attempts), ("consents", self.consents)):
            for one in times:
                _aware(one.at, f"{kind}.at")

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values that PostgreSQL's jsonb takes: times are ISO 8601 in UTC, no NUL bytes."""
        return {
            "call_id": str(self.call_id),
            "version": self.version,
            "site": _storable(self.site),
            "line": _storable(self.line),
            "language": _storable(self.language),
            "caller": _storable(self.caller),
            "dialled": _storable(self.dialled),
            "started_at": _iso(self.started_at),
            "answered_at": None if self.answered_at is None else _iso(self.answered_at),
            "ended_at": _iso(self.ended_at),
            "time_zone": _storable(self.time_zone),
            "path": [
                {
                    "at": _iso(step.at),
                    "node": _storable(step.node),
                    "kind": _storable(step.kind),
                    "choice": _storable(step.choice),
                }
                for step in self.path
            ],
            "attempts": [
                {
                    "at": _iso(attempt.at),
                    "person": _storable(attempt.person),
                    "person_name": _storable(attempt.person_name),
                    "endpoint_kind": _storable(attempt.endpoint_kind),
                    "outcome": _storable(attempt.outcome),
                    "rang_s": attempt.rang_s,
                }
                for attempt in self.attempts
            ],
            "answered_by": None if self.answered_by is None else _storable(self.answered_by),
            "answered_by_name": _storable(self.answered_by_name),
            "talk_s": self.talk_s,
            "cause": _storable(self.cause),
            "disposition": _storable(self.disposition),
            "consents": [
                {"kind": _storable(consent.kind), "given": consent.given, "at": _iso(consent.at)}
                for consent in self.consents
            ],
            "voicemail": _reference(self.voicemail),
            "recording": _reference(self.recording),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CallFacts":
        """The reverse of `to_json`. Raises ValueError naming the key that is missing or of the wrong type."""
        text, number, when = _Reader.text, _Reader.number, _Reader.when
        answered_by = value.get("answered_by")
        return cls(
            call_id=_Reader.uuid(value, "call_id"),
            version=_Reader.integer(value, "version"),
            site=text(value, "site"),
            line=text(value, "line"),
            language=text(value, "language"),
            caller=text(value, "caller"),
            dialled=text(value, "dialled"),
            started_at=when(value, "started_at"),
            answered_at=None if value.get("answered_at") is None else when(value, "answered_at"),
            ended_at=when(value, "ended_at"),
            time_zone=text(value, "time_zone"),
            path=tuple(
                PathStep(
                    at=when(s, "at"), node=text(s, "node"), kind=text(s, "kind"), choice=text(s, "choice")
                )
                for s in _Reader.rows(value, "path")
            ),
            attempts=tuple(
                Attempt(
                    at=when(a, "at"),
                    person=text(a, "person"),
                    person_name=text(a, "person_name"),
                    endpoint_kind=text(a, "endpoint_kind"),
                    outcome=text(a, "outcome"),
                    rang_s=number(a, "rang_s"),
                )
                for a in _Reader.rows(value, "attempts")
            ),
            answered_by=None if answered_by is None else text(value, "answered_by"),
            answered_by_name=text(value, "answered_by_name"),
            talk_s=number(value, "talk_s"),
            cause=text(value, "cause"),
            disposition=text(value, "disposition"),
            consents=tuple(
                Consent(kind=text(c, "kind"), given=_Reader.flag(c, "given"), at=when(c, "at"))
                for c in _Reader.rows(value, "consents")
            ),
            voicemail=None
            if (mail := _Reader.table(value, "voicemail")) is None
            else Voicemail(id=text(mail, "id"), duration_s=number(mail, "duration_s")),
            recording=None
            if (tape := _Reader.table(value, "recording")) is None
            else Recording(id=text(tape, "id"), duration_s=number(tape, "duration_s")),
        )


def _aware(value: datetime | None, name: str) -> None:
    if value is not None and value.tzinfo is None:
        raise ValueError(f"{name} has no time zone; give an aware UTC time")


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _storable(value: str) -> str:
    """`value` without what PostgreSQL's text cannot hold: NUL and lone surrogates become U+FFFD."""
    if value.isprintable():  # true for most; neither a NUL nor a surrogate is printable
        return value
    return value.replace("\0", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _reference(value: Voicemail | Recording | None) -> dict[str, Any] | None:
    return None if value is None else {"id": _storable(value.id), "duration_s": value.duration_s}


class _Reader:
    """Typed look-ups in a JSON object; each raises ValueError naming the key, never showing the value."""

    @staticmethod
    def _get(value: Mapping[str, Any], key: str) -> Any:
        try:
            return value[key]
        except (KeyError, TypeError) as error:
            raise ValueError(f'the key "{key}" of a call\'s facts is missing') from error

    @staticmethod
    def _wrong(key: str, kind: str) -> ValueError:
        return ValueError(f'the key "{key}" of a call\'s facts must be {kind}')

    @classmethod
    def text(cls, value: Mapping[str, Any], key: str) -> str:
        found = cls._get(value, key)
        if not isinstance(found, str):
            raise cls._wrong(key, "a text")
        return found

    @classmethod
    def number(cls, value: Mapping[str, Any], key: str) -> float:
        found = cls._get(value, key)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise cls._wrong(key, "a number")
        return float(found)

    @classmethod
    def integer(cls, value: Mapping[str, Any], key: str) -> int:
        found = cls._get(value, key)
        if isinstance(found, bool) or not isinstance(found, int):
            raise cls._wrong(key, "a whole number")
        return found

    @classmethod
    def flag(cls, value: Mapping[str, Any], key: str) -> bool:
        found = cls._get(value, key)
        if not isinstance(found, bool):
            raise cls._wrong(key, "true or false")
        return found

    @classmethod
    def when(cls, value: Mapping[str, Any], key: str) -> datetime:
        try:
            found = datetime.fromisoformat(cls.text(value, key))
        except ValueError as error:
            raise cls._wrong(key, "an ISO 8601 time") from error
        if found.tzinfo is None:
            raise cls._wrong(key, "an ISO 8601 time with its offset")
        return found.astimezone(UTC)

    @classmethod
    def uuid(cls, value: Mapping[str, Any], key: str) -> UUID:
        try:
            return UUID(cls.text(value, key))
        except ValueError as error:
            raise cls._wrong(key, "a UUID") from error

    @classmethod
    def rows(cls, value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        found = cls._get(value, key)
        if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
            raise cls._wrong(key, "a list of objects")
        return found

    @classmethod
    def table(cls, value: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
        found = cls._get(value, key)
        if found is not None and not isinstance(found, Mapping):
            raise cls._wrong(key, "an object or null")
        return found
