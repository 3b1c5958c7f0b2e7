"""The judge of the benchmark through the edge notices missing, mixed and misled audio."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.bench.edge_judge import Leg, judge, tone_hz
from tests.peers import tones
from tests.peers.phones import Phone

pytestmark = pytest.mark.integration
WINDOW_S = 2.0


def sides(*heard: tones.Audio) -> tuple[list[Leg], list[Leg]]:
    """Two callers with tones 0 and 1, two clinicians with 2 and 3, and what each of the four heard."""
    legs = [
        Leg(name=name, hz=tone_hz(n), audio=audio)
        for n, (name, audio) in enumerate(
            zip(("caller 0", "caller 1", "clinician 0", "clinician 1"), heard, strict=True)
        )
    ]
    return legs[:2], legs[2:]


def sound(number: int, ms: int = 2000) -> tones.Audio:
    return tones.tone(tone_hz(number), ms)


def test_everybody_hears_the_partner() -> None:
    verdict = judge(*sides(sound(3), sound(2), sound(1), sound(0)), WINDOW_S)
    assert verdict.partners == {0: 1, 1: 0}
    assert verdict.clean


def test_a_silent_leg_is_a_fault() -> None:
    verdict = judge(*sides(sound(2), sound(3), tones.silence(2000), sound(1)), WINDOW_S)
    assert verdict.partners == {1: 1}
    assert verdict.faults == ("clinician 0 hears nobody",)


def test_a_gap_is_a_fault() -> None:
    gap = np.concatenate([sound(2, 900), tones.silence(200), sound(2, 900)])
    verdict = judge(*sides(gap, sound(3), sound(0), sound(1)), WINDOW_S)
    assert verdict.partners == {1: 1}
    assert "of the time only" in verdict.faults[0]


def test_a_skip_of_a_jitter_buffer_is_none() -> None:
    whole = sound(2, 2100)
    skipped = np.concatenate([whole[:8050], whole[8730:]])
    assert judge(*sides(skipped, sound(3), sound(0), sound(1)), WINDOW_S).clean


def test_a_recording_that_stopped_is_a_fault() -> None:
    verdict = judge(*sides(sound(2, 900), sound(3), sound(0), sound(1)), WINDOW_S)
    assert verdict.faults == ("caller 0 was sent 0.9 s of sound in 2 s",)


def test_a_stranger_is_a_fault() -> None:
    mixed = (sound(2) * 0.8 + sound(1) * 0.3).astype(np.int16)
    verdict = judge(*sides(mixed, sound(3), sound(0), sound(1)), WINDOW_S)
    assert verdict.faults == (f"caller 0 hears {tone_hz(1)} Hz of somebody else",)


def test_crossed_ways_are_a_fault() -> None:
    verdict = judge(*sides(sound(2), sound(3), sound(1), sound(0)), WINDOW_S)
    assert verdict.partners == {}
    assert len(verdict.faults) == 4


async def test_real_calls_one_of_them_without_audio(tmp_path: Path) -> None:
    """Two calls between two phones over TLS and SRTP; in the second one the callee says nothing."""
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(
                Phone.start(folder=tmp_path, name=name, transports=("udp", "tls"), srtp="mandatory")
            )
            for name in ("caller", "clinician")
        ]
        await other.answer_calls()
        callers = [await one.dial(other.uri_by("tls"), tone_hz=tone_hz(n)) for n in range(2)]
        clinicians = [await other.incoming(5) for _ in range(2)]
        for call in callers:
            await call.answered(5)
        for call in callers:
            assert (await call.stats())["srtp"]
        for call in clinicians:
            await call.event("media", 5)
        await clinicians[0].play_tone(tone_hz(2))
        await asyncio.sleep(WINDOW_S + 1.5)
        samples = round(WINDOW_S * tones.RATE_HZ)
        legs = [
            Leg(name=f"{call}", hz=tone_hz(n), audio=call.audio()[-samples:])
            for n, call in enumerate((*callers, *clinicians))
        ]
        verdict = judge(legs[:2], legs[2:], WINDOW_S)
    assert len(verdict.partners) == 1
    assert len(verdict.faults) == 1
    assert verdict.faults[0].endswith("hears nobody")
