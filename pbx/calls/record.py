"""What is kept of one call while it runs: its heading and its timeline, told as it grows and closed once."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from ivr.flow import Dialplans
from pbx.calls.ports import CallSettings, Timeline
from pbx.core.causes import Cause
from pbx.core.legs import Incoming
from pbx.core.timeline import Entry, Heading, facts

WITHHELD = ("anonymous", "unknown", "restricted")  # user parts that are no number (RFC 3323 4.1.1.3)


class CallRecord:
    """The record of one call."""

    def __init__(
        self,
        *,
        call_id: UUID,
        incoming: Incoming,
        dialplans: Dialplans,
        language: str,
        timeline: Timeline,
        settings: CallSettings,
    ) -> None:
        line = dialplans.line_for(incoming.to_user)
        entry = dialplans.lines[line]
        self.call_id = call_id
        self.closed = False
        self._clock: Callable[[], datetime] = settings.clock
        self._timeline = timeline
        self._entries: list[Entry] = []
        self._incoming = incoming
        self.heading = Heading(
            call_id=str(call_id),
            site=f"{settings.site}, {entry.site}" if entry.site else settings.site,
            time_zone=settings.time_zone,
            line=line,
            language=language,
            dialled=incoming.to_user,
            caller="" if incoming.from_user.lower() in WITHHELD else incoming.from_user,
            started_at=settings.clock(),
        )

    def begin(self) -> None:
        """The call exists from now on."""
        heading = self.heading
        self._timeline.started(
            call_id=self.call_id,
            line=heading.line,
            dialled=heading.dialled,
            caller=heading.caller,
            sip_call_id=self._incoming.sip_call_id,
            at=heading.started_at,
            heading={
                "site": heading.site,
                "time_zone": heading.time_zone,
                "language": heading.language,
                "source": self._incoming.headers.get("x-hotline-src", ""),
            },
        )

    def add(self, kind: str, detail: Mapping[str, Any]) -> None:
        """One thing that happened now."""
        entry = Entry(seq=len(self._entries) + 1, at=self._clock(), kind=kind, detail=detail)
        self._entries.append(entry)
        self._timeline.entry(call_id=self.call_id, seq=entry.seq, at=entry.at, kind=kind, detail=detail)

    def close(self, cause: Cause, disposition: str, answered_by: str) -> None:
        """The call's end with its facts; closing again changes nothing."""
        if self.closed:
            return
        self.closed = True
        now = self._clock()
        self._timeline.ended(
            call_id=self.call_id,
            at=now,
            cause=str(cause),
            disposition=disposition,
            answered_by=answered_by,
            facts=facts(self.heading, self._entries, ended_at=now, cause=str(cause), disposition=disposition),
        )
