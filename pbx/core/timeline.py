"""The timeline of one call and what it tells: the facts of a note, folded from its entries. Pure.

The entries are the only source: a live call folds its own, and after a crash another process folds the stored
ones, so that a call whose worker died still has its note. The result is plain JSON values in the shape that
the EMR bridge's CallFacts reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing that happened in a call."""

    seq: int  # counts from 1 within the call
    at: datetime  # aware UTC
    kind: str  # "arrived", "node", "offer", "answered", …
    detail: Mapping[str, Any] = field(default_factory=dict)  # JSON values


@dataclass(frozen=True, kw_only=True, slots=True)
class Heading:
    """What is known of a call from its first moment."""

    call_id: str
    site: str
    time_zone: str  # IANA zone of the site
    line: str  # name of the line that was dialled
    language: str
    dialled: str
    caller: str  # number shown by the network, "" when withheld
    started_at: datetime


def facts(
    heading: Heading, entries: Sequence[Entry], *, ended_at: datetime, cause: str, disposition: str
) -> dict[str, Any]:
    """The facts of an ended call as JSON values (times ISO 8601 in UTC); see emr_bridge.facts.CallFacts."""
    fold = _Fold(language=heading.language)
    for entry in entries:
        fold.add(entry)
    fold.stop_talking(ended_at)
    fold.close_offers(ended_at)
    return {
        "call_id": heading.call_id,
        "version": 1,
        "site": heading.site,
        "line": heading.line,
        "language": fold.language,
        "caller": heading.caller,
        "dialled": heading.dialled,
        "started_at": _iso(heading.started_at),
        "answered_at": _iso(fold.connected_at) if fold.connected_at else None,
        "ended_at": _iso(ended_at),
        "time_zone": heading.time_zone,
        "path": fold.path,
        "attempts": [fold.attempts[number] for number in sorted(fold.attempts)],
        "answered_by": fold.answered_by,
        "answered_by_name": fold.answered_by_name,
        "talk_s": round(fold.talk_s, 1),
        "cause": cause,
        "disposition": disposition,
        "consents": fold.consents,
        "voicemail": fold.voicemail,
        "recording": fold.recording,
    }


@dataclass(kw_only=True, slots=True)
class _Fold:
    language: str
    path: list[dict[str, Any]] = field(default_factory=list)
    attempts: dict[int, dict[str, Any]] = field(default_factory=dict)
    consents: list[dict[str, Any]] = field(default_factory=list)
    voicemail: dict[str, Any] | None = None
    recording: dict[str, Any] | None = None
    answered_by: str | None = None
    answered_by_name: str = ""
    connected_at: datetime | None = None  # the first time
    talking_since: datetime | None = None
    talk_s: float = 0.0
    _begun: dict[int, datetime] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        d, at = entry.detail, _iso(entry.at)
        match entry.kind:
            case "node":
                self.path.append(
                    {"at": at, "node": d["node"], "kind": d["kind"], "choice": d.get("choice", "")}
                )
            case "choice":
                if self.path and self.path[-1]["node"] == d["node"]:
                    self.path[-1]["choice"] = d["choice"]
            case "language":
                self.language = d["language"]
            case "consent":
                self.consents.append({"kind": d["kind"], "given": d["given"], "at": at})
            case "offer":
                self._begun[d["offer"]] = entry.at
                self.attempts[d["offer"]] = {
                    "at": at,
                    "person": d["person"],
                    "person_name": d["name"],
                    "endpoint_kind": d["endpoint"],
                    "outcome": "",
                    "rang_s": 0.0,
                }
            case "offer-ended":
                if d["offer"] in self.attempts:
                    self.attempts[d["offer"]] |= {"outcome": d["outcome"], "rang_s": d["rang_s"]}
            case "answered":
                self.answered_by, self.answered_by_name = d["person"], d["name"]
                self.connected_at = self.connected_at or entry.at
                self.talking_since = entry.at
            case "clinician-lost" | "transferring":
                self.stop_talking(entry.at)
            case "message-taken":
                self.voicemail = {"id": d["message"], "duration_s": d["duration_s"]}
            case "recorded":
                self.recording = {"id": d["recording"], "duration_s": d["duration_s"]}
            case _:
                pass  # entries that the note does not tell

    def stop_talking(self, at: datetime) -> None:
        if self.talking_since is not None:
            self.talk_s += (at - self.talking_since).total_seconds()
            self.talking_since = None

    def close_offers(self, at: datetime) -> None:
        """An offer that never ended in the timeline was cut off with its worker."""
        for number, attempt in self.attempts.items():
            if not attempt["outcome"]:
                attempt["outcome"] = "cancelled"
                attempt["rang_s"] = round((at - self._begun[number]).total_seconds(), 1)


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
