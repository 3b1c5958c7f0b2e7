"""What running a call needs from the rest, as narrow as it is used; `app` gives the real things."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from ivr.flow import PromptRef
from pbx.core.call_events import Candidate, Limits
from pbx.core.legs import LegId, PlayId


class Telephony(Protocol):
    """The engine's commands. Each returns at once; one for a leg that is over is ignored."""

    def answer(self, leg: LegId) -> None: ...

    def reject(self, leg: LegId, code: int, retry_after_s: int | None = None) -> None: ...

    def dial(
        self, target_uri: str, *, caller_user: str, caller_display: str = "", headers: Mapping[str, str] = ...
    ) -> LegId: ...

    def play(self, leg: LegId, files: Sequence[Path], *, loop: bool = False) -> PlayId: ...

    def stop_play(self, leg: LegId) -> None: ...

    def music(self, leg: LegId, on: bool) -> None: ...

    def bridge(self, a: LegId, b: LegId) -> None: ...

    def record(self, path: Path, legs: Sequence[LegId]) -> None: ...

    def stop_record(self, path: Path) -> None: ...

    def hangup(self, leg: LegId, code: int = 0) -> None: ...


class Prompts(Protocol):
    """Rendered prompts. No I/O: a prompt is a look-up."""

    def paths(self, prompt: PromptRef) -> tuple[Path, ...]: ...


class RosterBook(Protocol):
    """Who is on duty."""

    def on_duty(self, roster: str, at: datetime) -> tuple[Candidate, ...]:
        """The people to try in order; empty when nobody is on duty or the roster is unknown."""
        ...

    def person_at(self, address: str) -> Candidate | None:
        """The person one of whose endpoints has this address."""
        ...

    def language_of(self, person: str) -> str:
        """The language a person is spoken to in; empty when none is stated."""
        ...


class Timeline(Protocol):
    """Where a call's story is kept; never blocks, never raises, keeps the order."""

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
    ) -> None: ...

    def entry(
        self, *, call_id: UUID, seq: int, at: datetime, kind: str, detail: Mapping[str, Any]
    ) -> None: ...

    def ended(
        self,
        *,
        call_id: UUID,
        at: datetime,
        cause: str,
        disposition: str,
        answered_by: str,
        facts: Mapping[str, Any],
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class CallSettings:
    """What every call of a worker has in common."""

    site: str  # name of the hotline, for the note
    time_zone: str  # IANA zone of the site
    edge: str  # "address:port" of the edge that dials phones and trunks
    message_dir: Path  # folder of voicemail files
    clock: Callable[[], datetime]  # aware UTC
    limits: Limits = field(default_factory=Limits)
