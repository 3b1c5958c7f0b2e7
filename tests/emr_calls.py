"""Facts of calls for tests of notes and their delivery."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from emr_bridge.facts import Attempt, CallFacts, Consent, PathStep, Recording

START = datetime(
    2025, 3, 9, 7, 58, 3, tzinfo=UTC
)  # 01:58:03 in Chicago, two minutes before its clocks go forward


def after(seconds: float) -> datetime:
    """A time of the call, in seconds from its start."""
    return START + timedelta(seconds=seconds)


def answered_call(**changes: Any) -> CallFacts:
    """The first clinician did not answer, the second did; the call spans the change to summer time."""
    values: dict[str, Any] = {
        "call_id": uuid4(),
        "site": "Riverside Clinic",
        "line": "nurse line",
        "language": "es",
        "caller": "+12025550143",
        "dialled": "+12025550100",
        "started_at": START,
        "answered_at": after(70),
        "ended_at": after(250.4),
        "time_zone": "America/Chicago",
        "path": (
            PathStep(at=after(1), node="greeting", kind="say"),
            PathStep(at=after(9), node="main", kind="menu", choice="nurse"),
            PathStep(at=after(15), node="find", kind="hunt"),
        ),
        "attempts": (
            Attempt(
                at=after(20),
                person="ana",
                person_name="Dr. Ana",
                endpoint_kind="sip",
                outcome="no-answer",
                rang_s=25.0,
            ),
            Attempt(
                at=after(46),
                person="bo",
                person_name="Dr. Bo",
                endpoint_kind="phone",
                outcome="accepted",
                rang_s=24.0,
            ),
        ),
        "answered_by": "bo",
        "answered_by_name": "Dr. Bo",
        "talk_s": 180.4,
        "cause": "normal",
        "disposition": "connected",
        "consents": (Consent(kind="recording", given=True, at=after(12)),),
        "recording": Recording(id="rec-1", duration_s=180.4),
    }
    return CallFacts(**(values | changes))


def abandoned_call(**changes: Any) -> CallFacts:
    """The caller withheld the number and hung up in the menu."""
    nothing: dict[str, Any] = {
        "caller": "",
        "answered_at": None,
        "ended_at": after(11),
        "path": (PathStep(at=after(1), node="greeting", kind="say"),),
        "attempts": (),
        "answered_by": None,
        "answered_by_name": "",
        "talk_s": 0.0,
        "cause": "cancelled",
        "disposition": "abandoned",
        "consents": (),
        "recording": None,
    }
    return answered_call(**(nothing | changes))
