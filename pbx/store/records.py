"""What a worker records about a call: frozen values, and their form as one line of JSON. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]

ANSWERED = "answered"  # the kind of event that sets call.answered_at: a clinician and the caller can talk
WORKER_LOST = "worker-lost"  # the cause of calls whose worker died; a real end that arrives later replaces it

to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, kw_only=True, slots=True)
class CallStarted:
    """A call exists: the first record of every call."""

    call_id: UUID  # made by the worker (uuid4)
    line: str  # name of the hotline dialled
    dialled: str  # number as dialled
    caller: str  # number shown, "" when withheld; never an identity
    sip_call_id: str  # Call-ID of the caller's leg (RFC 3261 20.8)
    worker: str  # the name this worker registered under
    at: datetime  # aware UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class CallEvent:
    """Something happened in a call."""

    call_id: UUID
    seq: int  # 1, 2, 3 … within the call; (call_id, seq) is stored once
    at: datetime  # aware UTC
    kind: str  # short word; "answered" also sets call.answered_at
    detail: Mapping[str, JSON]


@dataclass(frozen=True, kw_only=True, slots=True)
class CallEnded:
    """A call is over: its last record."""

    call_id: UUID
    at: datetime  # aware UTC
    cause: str  # what the network said (pbx.core.causes)
    disposition: str  # how the call went in our words
    answered_by: str | None  # who took the call
    facts: Mapping[str, JSON] | None  # what the note is rendered from; None: no note


Record = CallStarted | CallEvent | CallEnded

_TAGS: Mapping[str, type[CallStarted] | type[CallEvent] | type[CallEnded]] = {
    "start": CallStarted,
    "event": CallEvent,
    "end": CallEnded,
}
_TAG_OF = {kind: tag for tag, kind in _TAGS.items()}


def to_line(record: Record) -> str:
    """One line of JSON without its line end. Raises TypeError or ValueError for what is not JSON."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in record.__slots__}
    fields["call_id"] = str(record.call_id)
    fields["at"] = record.at.isoformat()
    return to_json({"record": _TAG_OF[type(record)], **fields})


def from_line(line: str | bytes) -> Record:
    """The record of one line. Raises ValueError for a torn line or one of another version."""
    try:
        fields = json.loads(line)
        kind = _TAGS[fields.pop("record")]
        fields["call_id"] = UUID(fields["call_id"])
        fields["at"] = datetime.fromisoformat(fields["at"])
        return kind(**fields)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"This line is no record of a call ({type(error).__name__}).") from error
