"""The automatic note of a call, as plain text and as XHTML. Pure: the same facts give the same bytes.

It says what the switch saw, never what was said; it is unsigned and names no patient, because a caller ID is
no identity. Rendering is total: any facts give a note. Values that came from outside (numbers, names, node
names) can neither add lines nor markup: see `plain`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emr_bridge.facts import CallFacts, Recording, Voicemail

TITLE = "Automatic call note, not signed by a clinician"
WARNING = "Caller ID is not identity; patient not matched"

_LONGEST = 200  # characters of one value; a network can send more, no reader needs it
_JOINERS = "\u200c\u200d"  # format characters that Persian and Indic names are spelled with
_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a"})
_ENDPOINTS = {"sip": "SIP phone", "phone": "telephone"}
_OUTCOMES = {
    "accepted": "accepted the call",
    "declined": "declined",
    "no-answer": "no answer",
    "busy": "busy",
    "no-key": "picked up, but did not press the accepting key",
    "unreachable": "could not be reached",
    "not-registered": "had no phone online",
    "cancelled": "stopped ringing, no longer needed",
}


def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701  plain text: `plain` took the brackets out of every value
        trim_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )


_TEXT = _environment(autoescape=False).get_template("note.txt.j2")
_XHTML = _environment(autoescape=True).get_template("note.xhtml.j2")


def render(facts: CallFacts) -> str:
    """The note as plain text, lines ended by LF, times in the site's zone. Never fails."""
    return _TEXT.render(_view(facts))


def render_xhtml(facts: CallFacts) -> str:
    """The same note as one XHTML 1.0 Strict document, for EMRs that take nothing else. Never fails."""
    return _XHTML.render(_view(facts))


def plain(value: str) -> str:
    """`value` as one line without markup, at most 200 characters.

    Control characters, line separators, direction overrides and unassigned code points become U+FFFD; angle
    brackets become the quotation marks that look like them, for viewers that show text as HTML.
    """
    if len(value) > _LONGEST:
        value = value[:_LONGEST] + "\u2026"
    if not value.isprintable():
        value = "".join(
            c if c.isprintable() or c in _JOINERS else " " if c == "\u00a0" else "\ufffd" for c in value
        )
    return value.translate(_MARKUP) if "<" in value or ">" in value else value


def _view(facts: CallFacts) -> Mapping[str, Any]:
    """What the layouts show, every value already plain."""
    zone, zone_name = _zone(facts.time_zone)
    day = facts.started_at.astimezone(zone).isoformat()[:10]

    def clock(at: datetime) -> str:
        local = at.astimezone(zone).isoformat(" ", "seconds")
        return local[11:19] if local[:10] == day else local[:19]

    return {
        "title": TITLE,
        "warning": WARNING,
        "site": plain(facts.site),
        "line": plain(facts.line),
        "dialled": plain(facts.dialled) or "unknown",
        "caller": plain(facts.caller) or "withheld",
        "language": plain(facts.language),
        "call_id": str(facts.call_id),
        "version": facts.version,
        "replaces": f", replaces version {facts.version - 1}" if facts.version > 1 else "",
        "started": _full(facts.started_at, zone),
        "connected": facts.answered_at and _full(facts.answered_at, zone),
        "clinician": plain(facts.answered_by_name or facts.answered_by or "") or "an unnamed clinician",
        "ended": _full(facts.ended_at, zone),
        "whole": _duration((facts.ended_at - facts.started_at).total_seconds()),
        "talk": _duration(facts.talk_s),
        "disposition": plain(facts.disposition),
        "cause": plain(facts.cause),
        "zone": zone_name,
        "path": [
            {
                "time": clock(step.at),
                "node": plain(step.node),
                "kind": plain(step.kind),
                "choice": f": {plain(step.choice)}" if step.choice else "",
            }
            for step in facts.path
        ],
        "attempts": [
            {
                "time": clock(attempt.at),
                "name": plain(attempt.person_name or attempt.person),
                "endpoint": _ENDPOINTS.get(attempt.endpoint_kind) or plain(attempt.endpoint_kind),
                "outcome": _OUTCOMES.get(attempt.outcome) or plain(attempt.outcome),
                "rang": _duration(attempt.rang_s),
            }
            for attempt in facts.attempts
        ],
        "consents": [
            {"time": clock(c.at), "kind": plain(c.kind), "answer": "given" if c.given else "not given"}
            for c in facts.consents
        ],
        "voicemail": _reference(facts.voicemail),
        "recording": _reference(facts.recording),
    }


@lru_cache(maxsize=64)
def _zone(name: str) -> tuple[tzinfo, str]:
    """The zone and how to call it; UTC, said plainly, when the machine does not know the name."""
    try:
        return ZoneInfo(name), plain(name)
    except (
        ValueError,
        OSError,
        KeyError,
    ):  # ZoneInfoNotFoundError is a KeyError; a path-like name a ValueError
        return UTC, "UTC, because the site's zone is unknown"


def _full(at: datetime, zone: tzinfo) -> str:
    """Date, time, zone and offset: the offset tells apart the two 01:30 of an autumn night."""
    local = at.astimezone(zone)
    told = local.isoformat(" ", "seconds")
    return f"{told[:19]} {local.tzname()} (UTC{told[19:]})"


def _duration(seconds: float) -> str:
    """As "1 h 02 min 03 s"; never negative, for clocks that were set back during the call."""
    whole = round(max(0.0, seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min {rest:02d} s"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _reference(value: Voicemail | Recording | None) -> str:
    return "none" if value is None else f"{_duration(value.duration_s)}, reference {plain(value.id)}"
