"""Fifty conversations at once through the edge: each side hears its partner's tone and nobody else's."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.systemrig import MOBILE, paired_clinic, system
from tests.peers import tones
from tests.peers.phones import Call, Phone

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PAIRS = 50
FIRST_HZ, STEP_HZ = 400, 25  # 100 tones, told apart in windows of 80 ms


def patient_hz(n: int) -> int:
    """The tone of patient `n`."""
    return FIRST_HZ + STEP_HZ * 2 * n


def clinician_hz(n: int) -> int:
    """The tone of clinician `n`."""
    return FIRST_HZ + STEP_HZ * (2 * n + 1)


async def test_fifty_pairs_never_mix(tmp_path: Path) -> None:
    clinic, numbers = paired_clinic(tmp_path, PAIRS)
    async with system(clinic) as hotline, AsyncExitStack() as stack:
        network = await hotline.patient(stack, tmp_path / "network", max_calls=2 * PAIRS + 10)

        async def talk(n: int) -> tuple[Call, Call]:
            await asyncio.sleep(n * 0.15)
            call = await hotline.call(network, f"+1202555{2000 + n}", patient_hz(n), numbers[n])
            theirs = await rung(network, MOBILE.format(n))
            await theirs.answer()
            await theirs.play_tone(clinician_hz(n))
            await theirs.answered(20)
            await asyncio.sleep(1.0)
            await theirs.press("1")
            return call, theirs

        pairs = await asyncio.gather(*(talk(n) for n in range(PAIRS)))
        await asyncio.sleep(2)
        starts = [(call.position_ms(), theirs.position_ms()) for call, theirs in pairs]
        await asyncio.sleep(5)
        heard = [
            (f"patient {n}", call.audio()[at * 8 :], clinician_hz(n))
            for n, ((call, _), (at, _)) in enumerate(zip(pairs, starts, strict=True))
        ] + [
            (f"clinician {n}", theirs.audio()[at * 8 :], patient_hz(n))
            for n, ((_, theirs), (_, at)) in enumerate(zip(pairs, starts, strict=True))
        ]
        for call, _ in pairs:
            await call.hangup()
        faults = [fault for who, audio, hz in heard for fault in strangers(who, audio, hz)]
        assert not faults, faults


async def rung(network: Phone, number: str) -> Call:
    """The call that rings at a mobile number."""

    def find() -> Call | None:
        return next((c for c in network.calls if c.direction == "in" and f"sip:{number}@" in c.to_uri), None)

    return await network.until(find, 60, f"a call to the mobile {number}")


def strangers(who: str, audio: tones.Audio, hz: int) -> list[str]:
    """What one side heard that it should not, or did not hear that it should."""
    own = tones.heard(audio, hz)
    found = [] if own.longest_ms >= 1500 else [f"{who} heard its partner for {own.longest_ms} ms only"]
    for n in range(PAIRS):
        for other in (patient_hz(n), clinician_hz(n)):
            if abs(other - hz) > STEP_HZ and tones.heard(audio, other, min_share=0.2).longest_ms > 100:
                found.append(f"{who} heard {other} Hz of somebody else")
    return found


def test_a_stranger_would_be_found() -> None:
    partner, stranger = tones.tone(patient_hz(3), 3000), tones.tone(patient_hz(9), 3000)
    mixed = (partner // 2 + stranger // 2).astype(partner.dtype)
    assert strangers("x", partner, patient_hz(3)) == []
    assert strangers("x", mixed, patient_hz(3)) == [f"x heard {patient_hz(9)} Hz of somebody else"]
    assert strangers("x", stranger, patient_hz(3)) != []
