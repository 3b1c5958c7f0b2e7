"""The words between `ivr.interpreter` and its runner: position, events in, actions out. Frozen values.

A runner imports them from `ivr.interpreter`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from ivr.flow import PromptRef

Phase = Literal["new", "asking", "waiting", "finding", "talking", "recording", "leaving", "ended"]
"""asking: a prompt plays. waiting: for a key. finding: a clinician is looked for (prompts and music
alternate). leaving: the last prompt plays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a caller is in a flow; plain values, so another worker can go on from it."""

    line: str  # name in numbers.toml
    flow: str  # name of the flow
    node: str  # name of the node
    language: str  # ISO 639-1
    phase: Phase = "new"
    token: int = 0  # of the prompt or timer that runs
    failures: int = 0  # silences and wrong keys at this node
    inputs: int = 0  # keys and silences in this call
    repairs: int = 0  # clinicians' lines that dropped in this call
    keys_ahead: str = ""  # pressed during a say, for the menu that follows
    emergency_said: bool = False  # the emergency sentence was played to its end

    def to_json(self) -> dict[str, Any]:
        """The position as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The position that `to_json` wrote. Raises TypeError for keys it does not know."""
        return cls(**stored)


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The caller can hear us."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptsEnded:
    """The prompts of a Play are over: all heard, or one could not be played."""

    token: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitPressed:
    """The caller pressed a key."""

    digit: str  # 0-9 * # A-D


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedOut:
    """The time of a StartTimer is over."""

    token: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """What became of a FindClinician or TakeMessage.

    FindClinician: "answered" (both talk; the flow rests), "nobody", and after "answered": "dropped" (the
    clinician's line broke while the caller is still there), "done" (the clinician hung up). TakeMessage:
    "taken", "empty" (nothing was said), "failed" (nothing could be recorded).
    """

    outcome: str


Event = Started | PromptsEnded | DigitPressed | TimedOut | Returned


@dataclass(frozen=True, kw_only=True, slots=True)
class Play:
    """Play prompts in order, in place of what plays now; report PromptsEnded(token) after the last."""

    prompts: tuple[PromptRef, ...]  # at least one
    token: int
    interruptible: bool  # a key will stop it (by StopPlay or another Play); the runner need not act on it


@dataclass(frozen=True, kw_only=True, slots=True)
class StopPlay:
    """Stop the prompt that plays; its PromptsEnded is ignored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldMusic:
    """Start or stop the hold music towards the caller."""

    on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StartTimer:
    """Report TimedOut(token) after that time. One timer runs at most: a new one replaces it."""

    token: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FindClinician:
    """Look for the clinician on duty; report Returned("answered" or "nobody") within a bound."""

    roster: str
    line: str  # for Dialplans.offer, together with the caller's language
    language: str
    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeMessage:
    """Record a message (the beep was played); report Returned("taken", "empty" or "failed")."""

    owner: str  # roster that is paged
    max_s: float
    node: str
    end_key: str = "#"  # ends the message


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordConsent:
    """The caller's answer to a consent question."""

    kind: str  # "recording"
    given: bool
    answered: bool  # by a key; otherwise silence or wrong keys, which mean no


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """One entry of the call's path, for its note.

    Kinds: node (node, type, prompt), choice (node, key, next), repeat (node), wrong_key (node), silence
    (node), human (node: why the flow's human was chosen), outcome (node, outcome).
    """

    kind: str
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class HangUp:
    """Hang up on the caller. Nothing follows."""

    reason: str  # "completed" or "emergency-advice" (the emergency sentence was the last thing said)


Action = (
    Play | StopPlay | HoldMusic | StartTimer | FindClinician | TakeMessage | RecordConsent | Note | HangUp
)
