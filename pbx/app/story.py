"""A call's story on its way into the journal, and the facts of ended calls on their way into the outbox."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from emr_bridge import outbox
from emr_bridge.facts import CallFacts
from pbx.store.journal import WORKER_LOST, CallEnded, CallEvent, CallStarted, Journal

ARRIVED = "arrived"  # the timeline's entry 0: what a later fold needs beside the call's row


class Story:
    """The timeline that calls write, kept by the journal."""

    def __init__(self, journal: Journal, worker: str) -> None:
        self._journal = journal
        self._worker = worker

    def started(
        self,
        *,
        call_id: UUID,
        line: str,
        dialled: str,
        caller: str,
        sip_call_id: str,
        at: datetime,
        heading: Mapping[str, Any],
    ) -> None:
        """The call exists from now on."""
        self._journal.write(
            CallStarted(
                call_id=call_id,
                line=line,
                dialled=dialled,
                caller=caller,
                sip_call_id=sip_call_id,
                worker=self._worker,
                at=at,
            )
        )
        self._journal.write(CallEvent(call_id=call_id, seq=0, at=at, kind=ARRIVED, detail=heading))

    def entry(self, *, call_id: UUID, seq: int, at: datetime, kind: str, detail: Mapping[str, Any]) -> None:
        """One thing that happened."""
        self._journal.write(CallEvent(call_id=call_id, seq=seq, at=at, kind=kind, detail=detail))

    def ended(
        self,
        *,
        call_id: UUID,
        at: datetime,
        cause: str,
        disposition: str,
        answered_by: str,
        facts: Mapping[str, Any],
    ) -> None:
        """The call is over; its note and outbox rows are written with this end, in one transaction."""
        self._journal.write(
            CallEnded(
                call_id=call_id,
                at=at,
                cause=cause,
                disposition=disposition,
                answered_by=answered_by or None,
                facts=facts,
            )
        )


def notes_of(
    connectors: Sequence[str], clock: Callable[[], datetime]
) -> Callable[[Any, Sequence[CallEnded]], Awaitable[None]]:
    """The journal's hook: notes of ended calls and their outbox rows, in the journal's transaction."""

    async def on_ended(connection: Any, ends: Sequence[CallEnded]) -> None:
        finished = [CallFacts.from_json(end.facts) for end in ends if end.facts is not None]
        if not finished:
            return
        # A worker that was taken for dead was alive after all, or its spool came late: its own account is a
        # new version of the note that was written for it, and replaces that one at the EMR.
        told = await outbox.versions_with_cause(connection, [one.call_id for one in finished], WORKER_LOST)
        corrected = [
            replace(one, version=told[one.call_id] + 1) if one.call_id in told else one for one in finished
        ]
        await outbox.enqueue(connection, corrected, connectors, clock())

    return on_ended
