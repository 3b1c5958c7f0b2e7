"""The walk through a flow: what each key, silence and outcome leads to, and that every call ends."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivr.flow import Consent, Dialplans, Emergency, Flow, HangUp, Line, Menu, Node, OnCall, Say, Voicemail
from ivr.graph import check_flow
from ivr.interpreter import (
    MAX_INPUTS,
    Action,
    DigitPressed,
    Event,
    FindClinician,
    HoldMusic,
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
from ivr.interpreter import HangUp as HangUpCaller
from ivr.load import load_dialplans

pytestmark = pytest.mark.unit

SHIPPED = load_dialplans(Path(__file__).parents[2] / "dialplans")


@dataclass
class Caller:
    """One caller at a position of a flow."""

    position: Position
    actions: tuple[Action, ...] = ()
    dialplans: Dialplans = SHIPPED

    def __call__(self, event: Event) -> "Caller":
        position, actions = step(self.dialplans, self.position, event)
        return Caller(position, actions, self.dialplans)

    def press(self, digit: str) -> "Caller":
        return self(DigitPressed(digit=digit))

    def heard(self) -> "Caller":
        return self(PromptsEnded(token=self.position.token))

    def silent(self) -> "Caller":
        return self(TimedOut(token=self.position.token))

    @property
    def said(self) -> list[str]:
        return [prompt.id for action in self.actions if isinstance(action, Play) for prompt in action.prompts]

    @property
    def kinds(self) -> list[str]:
        return [type(action).__name__ for action in self.actions if type(action).__name__ != "Note"]


def called(line: str = "hotline", language: str | None = None) -> Caller:
    return Caller(start(SHIPPED, line, language))(Started())


def at_menu() -> Caller:
    return called().heard().heard()


def at_consent() -> Caller:
    return at_menu().press("1")


def test_emergency_sentence_is_first_and_no_key_skips_it() -> None:
    caller = called()
    assert caller.said == ["emergency"]
    (play,) = (action for action in caller.actions if isinstance(action, Play))
    assert not play.interruptible
    assert dict(play.prompts[0].values) == {"emergency": "911"}
    for key in "12*#0A":
        assert caller.press(key) == Caller(caller.position, ())


def test_keys_pressed_during_the_emergency_sentence_are_dropped() -> None:
    caller = called().press("2").heard()
    assert caller.said == ["welcome"]
    assert caller.heard().said == ["main_menu"]


def test_a_key_during_the_welcome_skips_it_and_is_the_choice_of_the_menu() -> None:
    caller = called().heard().press("1")
    assert caller.position.node == "consent"
    assert caller.said == ["consent_recording"]
    assert caller.position.keys_ahead == ""


def test_a_key_ahead_that_the_menu_does_not_know_is_forgotten() -> None:
    caller = called().heard().press("7")
    assert (caller.position.node, caller.said, caller.position.failures) == ("menu", ["main_menu"], 0)


def test_language_decides_prompts() -> None:
    def language(caller: Caller) -> list[str]:
        return [p.language for action in caller.actions if isinstance(action, Play) for p in action.prompts]

    assert language(called("hotline_es")) == ["es"]
    assert language(called(language="es")) == ["es"]
    assert language(called(language="fr")) == ["en"]  # no prompts in French: the line's own language


def test_a_choice_stops_the_prompt_by_the_next_one() -> None:
    assert at_menu().press("1").kinds == ["Play"]


def test_a_key_that_leads_to_silence_stops_the_prompt() -> None:
    flow = Flow(start="menu", human="m", node={"menu": _menu({"1": "bye"}), "m": _message(), "bye": _bye()})
    caller = Caller(start(_with(flow), "hotline"), (), _with(flow))(Started()).press("1")
    assert caller.kinds == ["StopPlay", "HangUp"]


def test_waiting_begins_after_the_prompt() -> None:
    caller = at_menu().heard()
    assert caller.actions == (StartTimer(token=caller.position.token, seconds=6.0),)
    assert caller.position.phase == "waiting"


def test_old_prompts_and_timers_change_nothing() -> None:
    caller = at_menu().heard()
    for event in (PromptsEnded(token=caller.position.token - 1), TimedOut(token=caller.position.token - 1)):
        assert caller(event) == Caller(caller.position, ())


def test_two_silences_lead_to_a_human() -> None:
    once = at_menu().heard().silent()
    assert once.said == ["no_key", "main_menu"]
    twice = once.heard().silent()
    assert twice.position.node == "clinician"
    assert twice.said == ["confused", "connecting"]
    assert twice.kinds == ["FindClinician", "Play"]  # the search does not wait for the words


def test_a_silence_and_a_wrong_key_lead_to_a_human() -> None:
    once = at_menu().press("9")
    assert once.said == ["wrong_key", "main_menu"]
    assert once.heard().silent().position.node == "clinician"


def test_star_repeats_and_is_no_failure() -> None:
    caller = at_menu()
    for _ in range(5):
        caller = caller.press("*")
        assert (caller.position.node, caller.said, caller.position.failures) == ("menu", ["main_menu"], 0)


@pytest.mark.parametrize(
    ("keys", "given_", "answered"),
    [("1", True, True), ("2", False, True), ("--", False, False), ("99", False, False)],
)
def test_consent_is_recorded_and_the_call_goes_on(keys: str, given_: bool, answered: bool) -> None:
    caller = at_consent()
    consents: list[Action] = []
    for key in keys:
        caller = caller.heard().silent() if key == "-" else caller.press(key)
        consents += [action for action in caller.actions if isinstance(action, RecordConsent)]
    assert consents == [RecordConsent(kind="recording", given=given_, answered=answered)]
    assert caller.position.phase == "finding"


def test_consent_is_not_answered_by_a_key_pressed_before_its_question() -> None:
    flow = Flow(
        start="hello",
        human="m",
        node={
            "hello": Say(type="say", prompt="welcome", next="ask"),
            "ask": _consent(),
            "m": _message(),
            "bye": _bye(),
        },
    )
    caller = Caller(start(_with(flow), "hotline"), (), _with(flow))(Started()).press("1")
    assert (caller.position.node, caller.position.phase) == ("ask", "asking")


def test_waiting_for_a_clinician_is_music_and_words_in_turn() -> None:
    caller = at_consent().press("1")
    assert [a for a in caller.actions if isinstance(a, FindClinician)] == [
        FindClinician(roster="nights", line="hotline", language="en", node="clinician")
    ]
    for _ in range(30):
        caller = caller.heard()
        assert caller.actions == (HoldMusic(on=True), StartTimer(token=caller.position.token, seconds=20.0))
        assert caller.press("1").actions == ()
        caller = caller.silent()
        assert caller.kinds == ["HoldMusic", "Play"]
        assert caller.said == ["still_trying"]
    answered = caller(Returned(outcome="answered"))
    assert answered.kinds == ["StopPlay", "HoldMusic"]
    assert answered.position.phase == "talking"
    assert caller.heard().position.token != answered.position.token - 1
    assert answered(TimedOut(token=caller.position.token)).actions == ()


def test_nobody_leads_to_voicemail_and_the_message_to_the_end() -> None:
    caller = at_consent().press("2").heard()(Returned(outcome="nobody"))
    assert caller.said == ["nobody_available", "beep"]
    assert StopPlay() in caller.actions
    caller = caller.heard()
    assert caller.actions == (TakeMessage(owner="nights", max_s=180.0, node="nobody", end_key="#"),)
    assert caller.press("#").actions == ()  # whoever records it listens for the key
    for outcome in ("taken", "empty"):
        end = caller(Returned(outcome=outcome))
        assert end.said == ["goodbye"]
        assert end.heard().actions == (HangUpCaller(reason="completed"),)
        assert end.press("1").actions == ()


def test_pound_skips_the_greeting_of_voicemail() -> None:
    caller = at_menu().press("2").press("#")
    assert caller.said == ["beep"]
    assert caller.heard().position.phase == "recording"


def test_a_message_that_cannot_be_recorded_ends_with_emergency_advice() -> None:
    caller = at_menu().press("2").heard()(Returned(outcome="failed"))
    assert caller.said == ["message_failed", "emergency"]
    assert caller.heard().actions == (HangUpCaller(reason="emergency-advice"),)


def test_a_dropped_line_is_repaired_once() -> None:
    caller = at_consent().press("1")(Returned(outcome="answered"))(Returned(outcome="dropped"))
    assert caller.kinds == ["FindClinician", "Play"]
    assert caller.said == ["clinician_dropped"]
    caller = caller(Returned(outcome="answered"))(Returned(outcome="dropped"))
    assert caller.said == ["clinician_dropped", "nobody_available", "beep"]


def test_the_clinician_hanging_up_ends_the_call() -> None:
    caller = at_consent().press("1")(Returned(outcome="answered"))(Returned(outcome="done"))
    assert caller.actions[-1] == HangUpCaller(reason="completed")
    assert caller.position.phase == "ended"


def test_an_impossible_outcome_is_a_fault_of_the_runner() -> None:
    with pytest.raises(
        ValueError, match=r'^"taken" is no outcome while finding; one of answered, nobody is$'
    ):
        at_consent().press("1")(Returned(outcome="taken"))


def test_a_hangup_with_advice_says_the_emergency_sentence_last() -> None:
    flow = Flow(
        start="menu",
        human="m",
        node={
            "menu": _menu({"1": "bye"}),
            "m": _message(),
            "bye": HangUp(type="hangup", prompt="goodbye", emergency=True),
        },
    )
    caller = Caller(start(_with(flow), "hotline"), (), _with(flow))(Started()).press("1")
    assert caller.said == ["goodbye", "emergency"]
    assert caller.heard().actions == (HangUpCaller(reason="emergency-advice"),)


def test_position_survives_json() -> None:
    for caller in (called(), at_menu(), at_consent().press("1")):
        stored = json.loads(json.dumps(caller.position.to_json()))
        assert Position.from_json(stored) == caller.position


def test_two_callers_do_not_know_each_other() -> None:
    one, two = at_menu(), at_menu()
    assert one.press("1").position.node == "consent"
    assert two.press("2").position.node == "leave_message"
    assert two.position.node == "menu"


# --- every call ends ---------------------------------------------------------------------------


def _menu(choices: dict[str, str], **more: str) -> Menu:
    return Menu.model_validate({"type": "menu", "prompt": "main_menu", "choices": choices, **more})


def _message() -> Voicemail:
    return Voicemail.model_validate({"type": "voicemail", "next": "bye"})


def _bye() -> HangUp:
    return HangUp.model_validate({"type": "hangup"})


def _consent() -> Consent:
    return Consent.model_validate({"type": "consent", "next": "m"})


def _with(flow: Flow) -> Dialplans:
    """The shipped dialplans with line hotline leading to `flow`."""
    line: Line = SHIPPED.lines["hotline"].model_copy(update={"flow": "made"})
    return Dialplans(
        folder=SHIPPED.folder,
        flows={"made": flow},
        lines={"hotline": line},
        by_number={},
        default_line="hotline",
        countries=SHIPPED.countries,
        catalogs=SHIPPED.catalogs,
        default_language="en",
        rosters=SHIPPED.rosters,
    )


NAMES = tuple(f"n{n}" for n in range(8))


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Flows of up to eight nodes that pass the checker, but for unreachable nodes."""
    targets = st.sampled_from((*NAMES, "human", "bye"))
    nodes: dict[str, Node] = {"human": _message(), "bye": _bye()}
    for name in NAMES:
        kind = draw(st.sampled_from(["say", "menu", "consent", "on_call", "voicemail", "emergency"]))
        match kind:
            case "menu":
                keys = draw(st.sets(st.sampled_from("123#"), min_size=1))
                lost = draw(st.sampled_from([{}, {"on_timeout": draw(targets), "on_invalid": draw(targets)}]))
                nodes[name] = _menu({key: draw(targets) for key in sorted(keys)}, **lost)
            case "consent":
                nodes[name] = Consent.model_validate(
                    {"type": "consent", "next": draw(targets), "on_no": draw(targets)}
                )
            case "on_call":
                nodes[name] = OnCall.model_validate({"type": "on_call", "on_nobody": draw(targets)})
            case "voicemail":
                nodes[name] = Voicemail.model_validate({"type": "voicemail", "next": draw(targets)})
            case "emergency":
                nodes[name] = Emergency.model_validate({"type": "emergency", "next": draw(targets)})
            case _:
                nodes[name] = Say.model_validate({"type": "say", "prompt": "welcome", "next": draw(targets)})
    return Flow(start="n0", human="human", node=nodes)


def safe(flow: Flow) -> bool:
    return not any("for ever" in problem.sentence for problem in check_flow("made.toml", flow, None))


def walk(dialplans: Dialplans, moves: list[str]) -> int:
    """Lead a caller who makes `moves`, then repeats them, to the end; returns how many events that took."""
    position = start(dialplans, "hotline")
    event: Event = Started()
    for count in range(10_000):
        position, _ = step(dialplans, position, event)
        assert position.node in dialplans.flows[position.flow].node
        move = moves[count % len(moves)]
        match position.phase:
            case "ended":
                return count
            case "asking" | "leaving":
                event = PromptsEnded(token=position.token) if move == "-" else DigitPressed(digit=move)
                if position.phase == "leaving" or step(dialplans, position, event)[1] == ():
                    event = PromptsEnded(token=position.token)  # an ignored key: time goes on
            case "waiting":
                event = TimedOut(token=position.token) if move == "-" else DigitPressed(digit=move)
                if step(dialplans, position, event)[1] == ():
                    event = TimedOut(token=position.token)
            case "finding":
                event = Returned(outcome="answered" if move == "#" else "nobody")
            case "talking":
                event = Returned(outcome="dropped")
            case "recording":
                event = Returned(outcome={"#": "empty", "*": "failed"}.get(move, "taken"))
    raise AssertionError("this call does not end")


@settings(max_examples=150, deadline=None)
@given(flow=flows().filter(safe), moves=st.lists(st.sampled_from("123456#*A-"), min_size=1, max_size=40))
def test_every_call_of_every_checked_flow_ends(flow: Flow, moves: list[str]) -> None:
    # Each input takes at most a prompt, a wait and a node on the way; each node a few events after that.
    assert walk(_with(flow), moves) <= 6 * (MAX_INPUTS + len(flow.node))


@settings(max_examples=200, deadline=None)
@given(moves=st.lists(st.sampled_from("0123456789#*ABCD-"), min_size=1, max_size=60))
def test_every_call_of_the_shipped_flow_ends(moves: list[str]) -> None:
    assert walk(SHIPPED, moves) <= 4 * MAX_INPUTS


def test_a_caller_who_only_asks_for_repeats_is_led_to_a_human() -> None:
    caller = at_menu()
    for _ in range(MAX_INPUTS):
        caller = caller.press("*")
    assert caller.press("*").actions == ()
    assert caller.press("1").actions == ()
    assert caller.heard().silent().position.node == "clinician"
