"""The pure call: who is rung when, what the caller hears, and that every call ends."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbx.core.call import CallProtocolError, start, step
from pbx.core.call_events import (
    AnswerCaller,
    Bridge,
    CallerDigit,
    CallerEnded,
    CallerReady,
    CallEvent,
    Candidate,
    Close,
    Command,
    Dial,
    EndAsked,
    Endpoint,
    HangUpCaller,
    HangUpOffer,
    HuntAsked,
    Limits,
    Log,
    MessageAsked,
    MessageRecorded,
    Music,
    OfferAnswered,
    OfferDigit,
    OfferEnded,
    OfferHeld,
    OfferRinging,
    ReturnToFlow,
    SayToOffer,
    SetTimer,
    StartFlow,
    StopMessage,
    TimerFired,
    TransferAsked,
)
from pbx.core.call_state import CallState, Phase
from pbx.core.causes import Cause

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 8, 3, 0, tzinfo=UTC)
ANA = Candidate(person="ana", name="Dr. Ana", endpoints=(Endpoint(kind="sip", address="1001"),))
BEN = Candidate(
    person="ben",
    name="Dr. Ben",
    endpoints=(Endpoint(kind="sip", address="1002"), Endpoint(kind="phone", address="+12025550102")),
)


class Run:
    """A call driven by hand; `out` holds the commands of the last event, `all` those of the whole call."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.state, self.out = start(limits or Limits())
        self.all: list[Command] = list(self.out)
        self.at = AT

    def __call__(self, *events: CallEvent, after_s: float = 1.0) -> tuple[Command, ...]:
        for event in events:
            self.at += timedelta(seconds=after_s)
            self.state, self.out = step(self.state, event, self.at)
            self.all += self.out
        return self.out

    def hunting(self, *people: Candidate) -> "Run":
        self(CallerReady(), HuntAsked(roster="on_call", candidates=people))
        return self

    def logs(self, kind: str) -> list[dict[str, object]]:
        return [dict(c.detail) for c in self.all if isinstance(c, Log) and c.kind == kind]

    @property
    def closed(self) -> Close:
        (close,) = [c for c in self.all if isinstance(c, Close)]
        return close


def of(commands: Sequence[Command], kind: type) -> list[Command]:
    return [c for c in commands if isinstance(c, kind)]


def test_an_arriving_call_is_answered_and_its_flow_starts_with_audio() -> None:
    run = Run()
    assert of(run.out, AnswerCaller)
    assert of(run(CallerReady()), StartFlow)
    assert run.state.phase is Phase.FLOW


def test_a_call_without_audio_is_let_go() -> None:
    run = Run()
    assert of(run(TimerFired(key="arrive")), HangUpCaller)
    assert run.closed.cause is Cause.TIMEOUT


def test_the_first_person_is_dialled_at_once() -> None:
    run = Run().hunting(ANA, BEN)
    assert of(run.out, Dial) == [Dial(offer=1, endpoint=ANA.endpoints[0], person="ana")]


def test_no_answer_tries_the_next_person_on_all_their_devices() -> None:
    run = Run().hunting(ANA, BEN)
    out = run(OfferRinging(offer=1), TimerFired(key="ring"), after_s=25)
    assert HangUpOffer(offer=1) in out
    assert [c.endpoint.address for c in out if isinstance(c, Dial)] == ["1002", "+12025550102"]
    assert run.logs("offer-ended") == [{"offer": 1, "person": "ana", "outcome": "no-answer", "rang_s": 50.0}]


def test_a_pick_up_is_asked_for_the_key_and_only_the_key_connects() -> None:
    run = Run().hunting(ANA)
    assert SayToOffer(offer=1, prompt="screen") in run(OfferRinging(offer=1), OfferAnswered(offer=1))
    assert not of(run.all, Bridge)
    assert of(run(OfferDigit(offer=1, digit="1")), Bridge) == [Bridge(offer=1)]
    assert run.state.phase is Phase.CONNECTED


def test_a_wrong_key_repeats_the_question_and_never_drops() -> None:
    run = Run().hunting(ANA)
    run(OfferAnswered(offer=1))
    for digit in "3450*#9":
        assert run(OfferDigit(offer=1, digit=digit)) == (SayToOffer(offer=1, prompt="screen_wrong_key"),)
    assert of(run(OfferDigit(offer=1, digit="1")), Bridge)


def test_declining_tries_the_next_person_at_once_and_silences_the_other_devices() -> None:
    run = Run().hunting(BEN, ANA)
    out = run(OfferAnswered(offer=1), OfferDigit(offer=1, digit="2"))
    assert of(out, HangUpOffer) == [HangUpOffer(offer=1), HangUpOffer(offer=2)]
    assert [c.person for c in out if isinstance(c, Dial)] == ["ana"]


def test_a_voicemail_that_picks_up_never_gets_the_caller() -> None:
    run = Run().hunting(ANA, BEN)
    out = run(OfferAnswered(offer=1), TimerFired(key="accept-1"), after_s=15)
    assert HangUpOffer(offer=1) in out
    assert of(out, Dial)
    assert not of(run.all, Bridge)
    assert run.logs("offer-ended")[0]["outcome"] == "no-key"


def test_the_other_ringing_legs_are_let_go_only_after_the_bridge() -> None:
    run = Run().hunting(BEN)
    out = run(
        OfferRinging(offer=1), OfferRinging(offer=2), OfferAnswered(offer=2), OfferDigit(offer=2, digit="1")
    )
    assert out.index(Bridge(offer=2)) < out.index(HangUpOffer(offer=1))


def test_everyone_is_tried_so_many_rounds_and_then_the_flow_goes_on() -> None:
    run = Run(Limits(rounds=2)).hunting(ANA, BEN)
    for _ in range(4):
        assert run.state.phase is Phase.HUNTING
        run(TimerFired(key="ring"), after_s=25)
    assert ReturnToFlow(outcome="nobody") in run.out
    assert [e["person"] for e in run.logs("offer")] == ["ana", "ben", "ben", "ana", "ben", "ben"]


def test_an_empty_roster_cannot_ring_for_ever() -> None:
    run = Run().hunting()
    assert ReturnToFlow(outcome="nobody") in run.out


def test_a_caller_who_hangs_up_while_waiting_cancels_every_leg() -> None:
    run = Run().hunting(BEN)
    out = run(CallerEnded(cause=Cause.NORMAL))
    assert of(out, HangUpOffer) == [HangUpOffer(offer=1), HangUpOffer(offer=2)]
    assert run.closed.disposition == "abandoned"
    assert {e["outcome"] for e in run.logs("offer-ended")} == {"cancelled"}


def test_hanging_up_on_either_side_ends_a_connected_call() -> None:
    for ending in (CallerEnded(cause=Cause.NORMAL), OfferEnded(offer=1, cause=Cause.NORMAL, by_peer=True)):
        run = Run().hunting(ANA)
        run(OfferAnswered(offer=1), OfferDigit(offer=1, digit="1"))
        assert ReturnToFlow(outcome="answered") in run.out
        run(ending)
        if isinstance(ending, OfferEnded):
            assert ReturnToFlow(outcome="done") in run.out
            run(EndAsked())
        assert run.closed == Close(cause=Cause.NORMAL, disposition="connected")


def test_a_clinician_whose_line_drops_is_tried_first_in_the_next_hunt() -> None:
    run = Run().hunting(ANA, BEN)
    run(TimerFired(key="ring"), OfferAnswered(offer=2), OfferDigit(offer=2, digit="1"))
    out = run(OfferEnded(offer=2, cause=Cause.MEDIA_LOST, by_peer=False))
    assert ReturnToFlow(outcome="dropped") in out
    assert not of(out, HangUpCaller)
    out = run(HuntAsked(roster="on_call", candidates=(ANA, BEN)))
    assert [c.person for c in out if isinstance(c, Dial)] == ["ben", "ben"]
    run(OfferAnswered(offer=4), OfferDigit(offer=4, digit="1"), CallerEnded(cause=Cause.NORMAL))
    assert run.closed.disposition == "connected"


def test_a_blind_transfer_keeps_the_caller_until_the_target_is_up() -> None:
    run = Run().hunting(ANA)
    run(OfferAnswered(offer=1), OfferDigit(offer=1, digit="1"))
    run(TransferAsked(offer=1, new_offer=2, candidate=BEN))
    out = run(OfferEnded(offer=1, cause=Cause.NORMAL, by_peer=True))
    assert Music(on=True) in out
    out = run(OfferAnswered(offer=2))
    assert of(out, Bridge) == [Bridge(offer=2)]
    assert not of(out, ReturnToFlow)  # for the flow the talk just goes on
    assert run.state.answered_by == "ben"


def test_a_transfer_target_that_fails_leaves_the_two_talking() -> None:
    run = Run().hunting(ANA)
    run(OfferAnswered(offer=1), OfferDigit(offer=1, digit="1"))
    run(TransferAsked(offer=1, new_offer=2, candidate=BEN))
    assert not of(run(OfferEnded(offer=2, cause=Cause.BUSY, by_peer=True)), HangUpCaller)
    assert run.state.phase is Phase.CONNECTED


def test_a_target_that_fails_after_the_referrer_left_recalls_the_referrer() -> None:
    run = Run().hunting(ANA)
    run(OfferAnswered(offer=1), OfferDigit(offer=1, digit="1"))
    run(
        TransferAsked(offer=1, new_offer=2, candidate=BEN),
        OfferEnded(offer=1, cause=Cause.NORMAL, by_peer=True),
    )
    out = run(OfferEnded(offer=2, cause=Cause.BUSY, by_peer=True))
    assert [c.person for c in out if isinstance(c, Dial)] == ["ana"]


def test_a_transfer_that_comes_too_late_leaves_no_leg_behind() -> None:
    run = Run().hunting(ANA)
    assert run(TransferAsked(offer=9, new_offer=2, candidate=BEN)) == (HangUpOffer(offer=2),)


def test_hold_by_the_clinician_plays_music_to_the_caller() -> None:
    run = Run().hunting(ANA)
    run(OfferAnswered(offer=1), OfferDigit(offer=1, digit="1"))
    assert Music(on=True) in run(OfferHeld(offer=1, held=True))
    assert Music(on=False) in run(OfferHeld(offer=1, held=False))


def test_a_message_ends_by_key_time_or_hang_up_and_closes_after_its_file_is_complete() -> None:
    for ending in (CallerDigit(digit="#"), TimerFired(key="message"), CallerEnded(cause=Cause.NORMAL)):
        run = Run()
        run(CallerReady(), MessageAsked(owner="on_call", max_s=60))
        assert of(run(ending), StopMessage)
        assert not of(run.all, Close)
        run(MessageRecorded(message="m1", duration_s=8.0))
        if not isinstance(ending, CallerEnded):
            assert ReturnToFlow(outcome="taken") in run.out
            run(EndAsked())
        assert run.closed.disposition == "voicemail"


def test_a_message_whose_file_never_closes_does_not_keep_the_call() -> None:
    run = Run()
    run(CallerReady(), MessageAsked(owner="on_call", max_s=60), CallerEnded(cause=Cause.NORMAL))
    run(TimerFired(key="message-close"))
    assert run.closed.disposition == "abandoned"
    assert run.logs("message-unsaved") == [{}]


def test_silence_is_no_message() -> None:
    run = Run()
    run(CallerReady(), MessageAsked(owner="on_call", max_s=60), CallerDigit(digit="#"))
    run(MessageRecorded(message="m1", duration_s=0.4))
    assert ReturnToFlow(outcome="empty") in run.out


def test_an_impossible_event_is_a_fault_with_its_name() -> None:
    state, _ = start(Limits())
    with pytest.raises(CallProtocolError, match="can't handle HuntAsked in phase arriving"):
        step(state, HuntAsked(roster="r", candidates=()), AT)


EVENTS = st.one_of(
    st.just(CallerReady()),
    st.builds(CallerDigit, digit=st.sampled_from("12#*0")),
    st.builds(CallerEnded, cause=st.sampled_from([Cause.NORMAL, Cause.MEDIA_LOST])),
    st.builds(HuntAsked, roster=st.just("r"), candidates=st.sampled_from([(), (ANA,), (ANA, BEN)])),
    st.builds(MessageAsked, owner=st.just("r"), max_s=st.just(5.0)),
    st.builds(EndAsked),
    st.builds(OfferRinging, offer=st.integers(1, 5)),
    st.builds(OfferAnswered, offer=st.integers(1, 5)),
    st.builds(OfferDigit, offer=st.integers(1, 5), digit=st.sampled_from("129")),
    st.builds(OfferHeld, offer=st.integers(1, 5), held=st.booleans()),
    st.builds(OfferEnded, offer=st.integers(1, 5), cause=st.sampled_from(list(Cause)), by_peer=st.booleans()),
    st.builds(TransferAsked, offer=st.integers(1, 5), new_offer=st.integers(6, 9), candidate=st.just(BEN)),
    st.builds(MessageRecorded, message=st.just("m"), duration_s=st.floats(0, 60)),
    st.just(None),  # the oldest running timer fires
)


READY = CallerReady()
HUNT = HuntAsked(roster="r", candidates=(ANA, BEN))
ACCEPTED = [OfferAnswered(offer=1), OfferDigit(offer=1, digit="1")]
OPENINGS: list[list[CallEvent]] = [
    [],
    [READY, HUNT],
    [READY, HUNT, *ACCEPTED],
    [READY, HUNT, *ACCEPTED, TransferAsked(offer=1, new_offer=6, candidate=BEN)],
    [READY, MessageAsked(owner="r", max_s=5.0)],
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(OPENINGS), st.lists(EVENTS, max_size=30))
def test_any_history_ends_with_one_close_and_leaves_no_leg_up(
    opening: list[CallEvent], history: list[CallEvent | None]
) -> None:
    run, timers, up = Run(), ["arrive"], set[int]()
    state: CallState = run.state

    def apply(event: CallEvent) -> None:
        nonlocal state
        before = set(up)
        if isinstance(event, TransferAsked):
            up.add(event.new_offer)
        if isinstance(event, OfferEnded):
            up.discard(event.offer)
        try:
            out = run(event)
        except CallProtocolError:
            up.clear()
            up.update(before)
            return
        state = run.state
        for command in out:
            match command:
                case Dial(offer=offer):
                    up.add(offer)
                case HangUpOffer(offer=offer):
                    up.discard(offer)
                case SetTimer(key=key):
                    timers.append(key)
                case _:
                    pass

    for event in [*opening, *history]:
        if state.phase is Phase.ENDED:
            break
        if event is None:
            if timers:
                apply(TimerFired(key=timers.pop(0)))
        else:
            apply(event)
    if state.phase is not Phase.ENDED:
        apply(CallerEnded(cause=Cause.NORMAL))
    if state.phase is Phase.MESSAGE:
        apply(TimerFired(key="message-close"))
    assert state.phase is Phase.ENDED
    assert len(of(run.all, Close)) == 1
    assert not up


@given(st.lists(st.sampled_from([ANA, BEN]), max_size=3), st.integers(1, 3))
def test_a_hunt_that_nobody_answers_ends_within_its_bound(people: list[Candidate], rounds: int) -> None:
    run = Run(Limits(rounds=rounds)).hunting(*people)
    for _ in range(rounds * len(people) + 1):
        if run.state.phase is not Phase.HUNTING:
            break
        run(TimerFired(key="ring"), after_s=25)
    assert run.state.phase is Phase.FLOW
    assert ReturnToFlow(outcome="nobody") in run.all
