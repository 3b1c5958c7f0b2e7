"""Walks a flow in text: what a caller who presses these keys hears, and where they end. Pure.

Keys are given one by one: a key ("1", "#") is pressed when the flow waits for one, "-" is silence until the
timeout, "!1" is pressed while the prompt plays. "answered", "nobody", "dropped", "done", "taken", "empty" and
"failed" are outcomes of the next search for a clinician or message. When the keys run out the caller is
silent, clinicians answer and messages are taken.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ivr.flow import Dialplans, PromptRef
from ivr.interpreter import (
    Action,
    DigitPressed,
    Event,
    FindClinician,
    HangUp,
    HoldMusic,
    Note,
    Play,
    Position,
    PromptsEnded,
    RecordConsent,
    Returned,
    Started,
    StartTimer,
    StopPlay,
    TakeMessage,
    TimedOut,
    start,
    step,
)
from ivr.wording import spoken_text

POSSIBLE: Mapping[str, tuple[str, ...]] = {  # outcomes by phase; the first is what happens unless told
    "finding": ("answered", "nobody"),
    "talking": ("done", "dropped"),
    "recording": ("taken", "empty", "failed"),
}
OUTCOMES = tuple(outcome for outcomes in POSSIBLE.values() for outcome in outcomes)
SILENCE = "-"


def simulate(
    dialplans: Dialplans, line: str, keys: Sequence[str] = (), language: str | None = None
) -> tuple[str, ...]:
    """The transcript of one call to a line, one fact a line of text. Raises KeyError for an unknown line."""
    return _walk(dialplans, start(dialplans, line, language), keys)


def simulate_flow(
    dialplans: Dialplans, flow: str, keys: Sequence[str] = (), language: str | None = None
) -> tuple[str, ...]:
    """The transcript of a call that enters `flow`, as on the first line that leads there, else on the default
    line.

    Raises KeyError for an unknown flow.
    """
    first = dialplans.flows[flow].start
    line = next(
        (name for name, entry in dialplans.lines.items() if entry.flow == flow), dialplans.default_line
    )
    return _walk(dialplans, replace(start(dialplans, line, language), flow=flow, node=first), keys)


@dataclass
class _Transcript:
    dialplans: Dialplans
    lines: list[str] = field(default_factory=list)

    def actions(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Play(prompts=prompts):
                    self.lines += [f"  says: {self.words(prompt)}" for prompt in prompts]
                case FindClinician(roster=roster):
                    self.lines.append(f"  calls the clinician on duty: {roster}")
                case TakeMessage(owner=owner, max_s=max_s):
                    self.lines.append(f"  records a message for {owner}, up to {max_s:g} s")
                case RecordConsent(kind=kind, given=given, answered=answered):
                    how = "" if answered else " (no answer)"
                    self.lines.append(f"  consent to {kind}: {'yes' if given else 'no'}{how}")
                case HoldMusic(on=True):
                    self.lines.append("  plays music")
                case Note(kind="node", detail=detail):
                    self.lines.append(f"{detail['node']} ({detail['type']})")
                case HangUp(reason=reason):
                    self.lines.append(f"  hangs up: {reason}")
                case Note() | HoldMusic() | StartTimer() | StopPlay():
                    pass

    def words(self, prompt: PromptRef) -> str:
        catalog = self.dialplans.catalogs[prompt.language]
        text = catalog.prompts.get(prompt.id)
        return f"({prompt.id})" if text is None else spoken_text(catalog, text, dict(prompt.values))


def _walk(dialplans: Dialplans, position: Position, keys: Sequence[str]) -> tuple[str, ...]:
    transcript = _Transcript(dialplans)
    ahead = deque(keys)
    event: Event | None = Started()
    while event is not None:
        position, actions = step(dialplans, position, event)
        transcript.actions(actions)
        event = _next_event(position, ahead, transcript.lines)
    return tuple(transcript.lines)


def _next_event(position: Position, ahead: deque[str], lines: list[str]) -> Event | None:
    """What happens next to this caller; None when the call is over."""
    coming = ahead[0] if ahead else ""
    match position.phase:
        case "ended":
            return None
        case "asking" | "leaving" if coming.startswith("!"):
            lines.append(f"caller presses {coming[1:]} at once")
            return DigitPressed(digit=ahead.popleft()[1:])
        case "asking" | "leaving":
            return PromptsEnded(token=position.token)
        case "waiting" if coming and coming not in (*OUTCOMES, SILENCE):
            lines.append(f"caller presses {coming.removeprefix('!')}")
            return DigitPressed(digit=ahead.popleft().removeprefix("!"))
        case "waiting":
            if coming == SILENCE:
                ahead.popleft()
            lines.append("caller is silent")
            return TimedOut(token=position.token)
    possible = POSSIBLE.get(position.phase, ())
    while ahead and ahead[0] in OUTCOMES and ahead[0] not in possible:
        lines.append(f"(no place for the outcome {ahead.popleft()})")
    if ahead and ahead[0] in possible:
        outcome = ahead.popleft()
    elif position.phase == "talking":  # both talk, and nothing more is known
        return None
    else:
        outcome = possible[0]
    lines.append(f"outcome: {outcome}")
    return Returned(outcome=outcome)
