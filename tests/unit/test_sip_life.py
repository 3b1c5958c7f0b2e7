import pytest

from pbx.sip.life import FIRST_GAP_S, LONGEST_GAP_S, Life

pytestmark = pytest.mark.unit
AFTER_S = 4.0


def offers(life: Life, times_s: range, *, packets: int = 0, reports_every_s: int = 0) -> list[int]:
    """When a re-INVITE was due, looking once a second; packets as they were, RTCP now and then."""
    due = []
    for now_s in times_s:
        life.look(now_s, packets=packets, reports=now_s // reports_every_s if reports_every_s else 0)
        if life.is_reanchor_due(now_s, AFTER_S):
            due.append(now_s)
    return due


def test_a_leg_that_hears_nothing_is_offered_again_at_4_10_and_22_seconds() -> None:
    assert offers(Life(), range(31)) == [4, 10, 22]


def test_audio_is_life() -> None:
    life = Life()
    for now_s in range(60):
        life.look(now_s, packets=50 * now_s, reports=0)
        assert not life.is_reanchor_due(now_s, AFTER_S)
        assert life.silent_s(now_s) == 0


def test_a_new_stream_without_packets_is_no_life() -> None:
    life = Life()
    life.look(0, packets=0, reports=0)
    life.look(1, packets=50, reports=1)
    life.look(2, packets=0, reports=0)
    assert life.silent_s(2) == 1
    life.look(3, packets=7, reports=0)
    assert life.silent_s(3) == 0


def test_on_hold_nothing_is_missed() -> None:
    life = Life()
    life.look(0, packets=10, reports=0)
    for now_s in range(1, 60):
        life.idle(now_s)
        assert not life.is_reanchor_due(now_s, AFTER_S)
    assert life.silent_s(63) == 4


def test_a_muted_phone_that_only_reports_is_bothered_ever_less() -> None:
    due = offers(Life(), range(3600), reports_every_s=5)
    assert len(due) < 20
    assert due[-1] - due[-2] >= LONGEST_GAP_S


def test_after_audio_the_next_silence_is_answered_at_once_again() -> None:
    life = Life()
    offers(life, range(600), reports_every_s=5)
    for now_s in range(600, 1000):
        life.look(now_s, packets=50 * (now_s - 599), reports=0)
    (first, second, third) = offers(life, range(1000, 1025), packets=20_000)
    assert (second - first, third - second) == (FIRST_GAP_S, 2 * FIRST_GAP_S)
