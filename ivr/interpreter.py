"""Walks a flow: `step(dialplans, position, event) -> (position, actions)`. Pure; the runner does the actions.

Rules:
- The emergency sentence cannot be skipped the first time in a call. Keys pressed during it are dropped,
  because the caller has not been asked anything yet; keys pressed after it, during a say, skip the say and
  are kept for the menu that follows. A consent is never answered by a key pressed before its question began.
- `*` says the current prompt again.
- Tokens grow; a PromptsEnded or TimedOut with an older token comes from a prompt or timer that is over:
  ignored.
- Bounded: after MAX_INPUTS keys and silences in one call the keys are no longer listened to and the caller
  goes to the flow's `human`. The checker proved that a silent caller always reaches an end, so every call
  does.
- Digits while a clinician is looked for or while a message is recorded change nothing (`#` ends a message:
  the runner that records it listens for the key named in TakeMessage).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from ivr.events import (
    Action,
    DigitPressed,
    Event,
    FindClinician,
    HangUp,
    HoldMusic,
    Note,
    Phase,
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
)
from ivr.flow import (
    REPEAT_KEY,
    Consent,
    Dialplans,
    Emergency,
    Flow,
    Menu,
    Node,
    OnCall,
    Say,
    Voicemail,
)
from ivr.flow import HangUp as Farewell

MAX_INPUTS = 50  # keys and silences in one call before nothing is asked any more
MAX_KEYS_AHEAD = 8  # keys kept for menus that follow
MAX_REPAIRS = 1  # times another clinician is looked for after one's line dropped


__all__ = [
    "MAX_INPUTS",
    "Action",
    "DigitPressed",
    "Event",
    "FindClinician",
    "HangUp",
    "HoldMusic",
    "Note",
    "Phase",
    "Play",
    "Position",
    "PromptsEnded",
    "RecordConsent",
    "Returned",
    "StartTimer",
    "Started",
    "StopPlay",
    "TakeMessage",
    "TimedOut",
    "start",
    "step",
]


def start(dialplans: Dialplans, line: str, language: str | None = None) -> Position:
    """The position of a caller who just reached a line; a `language` with prompts outranks the line's own.

    Give it Started next. Raises KeyError for an unknown line.
    """
    entry = dialplans.lines[line]
    chosen = language if language in dialplans.catalogs else entry.language
    return Position(
        line=line, flow=entry.flow, node=dialplans.flows[entry.flow].start, language=chosen or entry.language
    )


def step(dialplans: Dialplans, position: Position, event: Event) -> tuple[Position, tuple[Action, ...]]:
    """What follows from an event. An event that means nothing here changes nothing and asks for nothing."""
    walk = _Walk(dialplans, position)
    walk.take(event)
    return walk.position, tuple(walk.actions)


class _Walk:
    """One step in the making."""

    def __init__(self, dialplans: Dialplans, position: Position) -> None:
        self.dialplans = dialplans
        self.position = position
        self.actions: list[Action] = []
        self.flow: Flow = dialplans.flows[position.flow]

    @property
    def node(self) -> Node:
        return self.flow.node[self.position.node]

    @property
    def exhausted(self) -> bool:
        """The caller used up all inputs: nothing is asked any more."""
        return self.position.inputs >= MAX_INPUTS

    def take(self, event: Event) -> None:
        before = self.position
        current = getattr(event, "token", before.token) == before.token
        match event, before.phase:
            case Started(), "new":
                self._go(before.node)
            case PromptsEnded(), "asking" if current:
                self._heard()
            case PromptsEnded(), "leaving" if current:
                self._end(_parting(self.node))
            case PromptsEnded(), "finding" if current:
                self._music_again()
            case TimedOut(), "finding" if current:
                self._still_trying()
            case TimedOut(), "waiting" if current:
                self._failed("silence")
            case DigitPressed(digit=digit), "asking" | "waiting":
                self._key(digit)
            case Returned(outcome=outcome), "finding" | "talking" | "recording":
                self._returned(outcome)
            case _:
                return
        silent = not any(isinstance(action, Play) for action in self.actions)
        if before.phase == "asking" and isinstance(event, DigitPressed) and silent and self.actions:
            self.actions.insert(0, StopPlay())

    # moving

    def _go(self, node: str, *first: str) -> None:
        """Go on at `node`, with the prompts `first` before its own; menus with a key ahead are passed."""
        onward: _Onward = (node, first)
        while onward is not None:
            onward = self._enter(*onward)

    def _enter(self, name: str, first: tuple[str, ...]) -> "_Onward":
        self.position = replace(self.position, node=name, failures=0)
        node = self.node
        self._note("node", type=node.type, **({"prompt": said} if (said := _prompt_of(node)) else {}))
        if isinstance(node, Menu):
            return self._enter_menu(node, first)
        if not isinstance(node, Say):
            self.position = replace(self.position, keys_ahead="")
        if isinstance(node, Consent) and self.exhausted:
            return self._consented(node, given=False, answered=False)
        if isinstance(node, OnCall):
            self._find(node, *first, node.prompt)
        elif isinstance(node, Farewell):
            last = (node.prompt,) if node.prompt else ()
            words = (*first, *last, *(("emergency",) if node.emergency else ()))
            if words:
                self._play("leaving", words, interruptible=False)
            else:
                self._end("completed")
        else:
            self._ask(*first)
        return None

    def _enter_menu(self, node: Menu, first: tuple[str, ...]) -> "_Onward":
        key, rest = self.position.keys_ahead[:1], self.position.keys_ahead[1:]
        if key and key in node.choices:
            self.position = replace(self.position, keys_ahead=rest)
            return self._chosen(node, key)
        self.position = replace(self.position, keys_ahead="")
        if self.exhausted:
            return self._given_up(node.on_timeout)
        self._ask(*first)
        return None

    # asking

    def _ask(self, *first: str) -> None:
        """Say the prompt of this node, from its beginning."""
        node = self.node
        words = (*first, *((said,) if (said := _prompt_of(node)) else ()))
        if isinstance(node, Voicemail):
            words = (*words, "beep")
        self._play(
            "asking", words, interruptible=not isinstance(node, Emergency) or self.position.emergency_said
        )

    def _heard(self) -> None:
        match self.node:
            case Emergency(next=following):
                self.position = replace(self.position, emergency_said=True)
                self._go(following)
            case Say(next=following):
                self._go(following)
            case Menu(timeout_s=seconds) | Consent(timeout_s=seconds):
                self._timer("waiting", seconds)
            case Voicemail() as node:
                self.position = replace(self.position, phase="recording")
                owner = self._roster(node.owner)
                self.actions.append(TakeMessage(owner=owner, max_s=node.max_s, node=self.position.node))
            case OnCall() | Farewell():  # they never ask
                return

    def _key(self, digit: str) -> None:
        node = self.node
        if self.exhausted or (isinstance(node, Emergency) and not self.position.emergency_said):
            return
        if digit == REPEAT_KEY:
            self.position = replace(self.position, inputs=self.position.inputs + 1)
            self._note("repeat")
            self._ask()
            return
        match node:
            case Emergency(next=following) | Say(next=following):
                self.position = replace(
                    self.position,
                    inputs=self.position.inputs + 1,
                    keys_ahead=(self.position.keys_ahead + digit)[:MAX_KEYS_AHEAD],
                )
                self._go(following)
            case Menu(choices=choices) if digit in choices:
                self.position = replace(self.position, inputs=self.position.inputs + 1)
                self._onward(self._chosen(node, digit))
            case Consent(yes=yes, no=no) if digit in (yes, no):
                self.position = replace(self.position, inputs=self.position.inputs + 1)
                self._onward(self._consented(node, given=digit == yes, answered=True))
            case Menu() | Consent():
                self._failed("wrong_key")
            case Voicemail() if digit == "#":
                self.position = replace(self.position, inputs=self.position.inputs + 1)
                self._play("asking", ("beep",), interruptible=False)
            case _:
                return

    def _failed(self, kind: Literal["silence", "wrong_key"]) -> None:
        """Silence or a wrong key: ask again, or go on without an answer."""
        self.position = replace(
            self.position, failures=self.position.failures + 1, inputs=self.position.inputs + 1
        )
        self._note(kind)
        node = self.node
        if not isinstance(node, Menu | Consent):
            return
        if self.position.failures <= node.retries and not self.exhausted:
            self._ask("no_key" if kind == "silence" else "wrong_key")
        elif isinstance(node, Consent):
            self._onward(self._consented(node, given=False, answered=False))
        else:
            self._onward(self._given_up(node.on_timeout if kind == "silence" else node.on_invalid))

    def _onward(self, onward: "_Onward") -> None:
        if onward is not None:
            self._go(onward[0], *onward[1])

    def _chosen(self, node: Menu, key: str) -> "_Onward":
        self._note("choice", key=key, next=node.choices[key])
        return node.choices[key], ()

    def _consented(self, node: Consent, *, given: bool, answered: bool) -> "_Onward":
        self.actions.append(RecordConsent(kind=node.kind, given=given, answered=answered))
        return node.next if given else (node.on_no or node.next), ()

    def _given_up(self, target: str | None) -> "_Onward":
        if target is not None:
            return target, ()
        self._note("human")
        return self.flow.human, ("confused",)

    # finding a clinician, taking a message, leaving

    def _find(self, node: OnCall, *words: str) -> None:
        """Start the hunt before the words: a prompt never delays a connection."""
        self.actions.append(
            FindClinician(
                roster=self._roster(node.roster),
                line=self.position.line,
                language=self.position.language,
                node=self.position.node,
            )
        )
        self._play("finding", words, interruptible=False)

    def _music_again(self) -> None:
        if isinstance(self.node, OnCall):
            self.actions.append(HoldMusic(on=True))
            self._timer("finding", self.node.waiting_every_s)

    def _still_trying(self) -> None:
        if isinstance(self.node, OnCall):
            self.actions.append(HoldMusic(on=False))
            self._play("finding", (self.node.waiting,), interruptible=False)

    def _returned(self, outcome: str) -> None:
        position, node = self.position, self.node
        known = _OUTCOMES[position.phase]
        if outcome not in known:
            raise ValueError(
                f'"{outcome}" is no outcome while {position.phase}; one of {", ".join(known)} is'
            )
        self._note("outcome", outcome=outcome)
        if position.phase == "finding":
            self.actions += [StopPlay(), HoldMusic(on=False)]
        match outcome, node:
            case "answered", _:
                self.position = replace(position, phase="talking", token=position.token + 1)
            case "nobody", OnCall(on_nobody=following):
                self._go(following)
            case "dropped", OnCall() if position.repairs < MAX_REPAIRS:
                self.position = replace(position, repairs=position.repairs + 1)
                self._find(node, "clinician_dropped")
            case "dropped", OnCall(on_nobody=following):
                self._go(following, "clinician_dropped")
            case "done", _:
                self._end("completed")
            case (("taken" | "empty"), Voicemail(next=following)):
                self._go(following)
            case _:
                self._play("leaving", ("message_failed", "emergency"), interruptible=False)

    def _end(self, reason: str) -> None:
        self.position = replace(self.position, phase="ended", token=self.position.token + 1)
        self.actions.append(HangUp(reason=reason))

    # the smallest parts

    def _roster(self, named: str | None) -> str:
        roster = named or self.dialplans.lines[self.position.line].roster
        if roster is None:
            raise LookupError(
                f'line "{self.position.line}" has no roster; the checker should have refused it'
            )
        return roster

    def _play(self, phase: Phase, prompts: tuple[str, ...], *, interruptible: bool) -> None:
        position = self.position = replace(self.position, phase=phase, token=self.position.token + 1)
        refs = tuple(self.dialplans.prompt(position.line, position.language, prompt) for prompt in prompts)
        self.actions.append(Play(prompts=refs, token=position.token, interruptible=interruptible))

    def _timer(self, phase: Phase, seconds: float) -> None:
        self.position = replace(self.position, phase=phase, token=self.position.token + 1)
        self.actions.append(StartTimer(token=self.position.token, seconds=seconds))

    def _note(self, kind: str, **detail: str) -> None:
        self.actions.append(Note(kind=kind, detail={"node": self.position.node, **detail}))


_Onward = tuple[str, tuple[str, ...]] | None

_OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "finding": ("answered", "nobody"),
    "talking": ("dropped", "done"),
    "recording": ("taken", "empty", "failed"),
}


def _parting(node: Node) -> str:
    advised = isinstance(node, Voicemail) or (isinstance(node, Farewell) and node.emergency)
    return "emergency-advice" if advised else "completed"


def _prompt_of(node: Node) -> str | None:
    return node.greeting if isinstance(node, Voicemail) else node.prompt
