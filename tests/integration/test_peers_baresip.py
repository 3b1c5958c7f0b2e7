"""Baresip and our pjsua2 phone understand each other, so neither is wrong in a way the other one shares."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers import tones
from tests.peers.baresip import Baresip, BaresipError
from tests.peers.phones import Missed, Phone

pytestmark = pytest.mark.integration


@pytest.fixture
async def phone(tmp_path: Path) -> AsyncIterator[Phone]:
    async with Phone.start(folder=tmp_path, name="phone", transports=("udp", "tcp", "tls")) as made:
        yield made


async def test_both_directions_with_tones_keys_and_hold(phone: Phone, tmp_path: Path) -> None:
    async with Baresip.start(folder=tmp_path, name="desk", tone_hz=700) as desk:
        call = await phone.dial(desk.uri, tone_hz=440)
        theirs = await desk.incoming(5)
        await call.answered(5)
        await asyncio.gather(call.hears(700, 5), theirs.hears(440, 5))
        with pytest.raises(Missed, match="did not hear 500 Hz"):
            await theirs.hears(500, 0.5)
        await call.press("19#")
        await theirs.received_digits("19#", 5)
        await theirs.press("42")
        await call.received_digits("42", 5)
        await theirs.hold()
        await call.held(5)
        await theirs.hears_silence(500, 4)
        await theirs.unhold()
        await call.hears(700, 5)
        await asyncio.sleep(0.5)
        assert await theirs.packets_received() > 10
        await theirs.hangup()
        assert (await call.ended(5)).by_peer
        assert tones.heard(await theirs.recorded(), 440).longest_ms > 200

        await phone.answer_calls(tone_hz=900)
        back = await desk.dial(phone.uri)
        there = await phone.incoming(5)
        await back.answered(5)
        await asyncio.gather(back.hears(900, 5), there.hears(700, 5))
        await there.hangup()
        await back.ended(5)
        assert back.recording != theirs.recording


async def test_manual_answer_refusal_and_cancel(phone: Phone, tmp_path: Path) -> None:
    async with Baresip.start(folder=tmp_path, name="desk", answer="manual") as desk:
        call = await phone.dial(desk.uri)
        theirs = await desk.incoming(5)
        await call.ringing(5)
        await theirs.answer()
        await call.answered(5)
        await call.hangup()
        await theirs.ended(5)
        call = await phone.dial(desk.uri)
        theirs = await desk.incoming(5)
        await theirs.hangup()
        assert (await call.ended(5)).code >= 400
        await phone.ring_only()
        call_out = await desk.dial(phone.uri)
        await call_out.ringing(5)
        there = await phone.incoming(5)
        await call_out.hangup()
        assert not (await there.ended(5)).was_answered
        await phone.refuse_calls(486)
        busy = await desk.dial(phone.uri)
        with pytest.raises(Missed, match="was not answered: it ended with"):
            await busy.answered(5)


async def test_a_file_as_source_over_tls_with_srtp(tmp_path: Path) -> None:
    prompt = tones.write_wav(tmp_path / "prompt.wav", tones.speechlike(4000))
    async with (
        Phone.start(folder=tmp_path, name="phone", transports=("udp", "tls"), srtp="mandatory") as phone,
        Baresip.start(folder=tmp_path, name="desk", wav=prompt, srtp="mandatory") as desk,
    ):
        await phone.answer_calls(tone_hz=620)
        call = await desk.dial(phone.uri_by("tls"))
        there = await phone.incoming(5)
        assert "SIP/2.0/TLS" in there.headers["via"]
        await call.answered(5)
        assert (await there.hears_prompt(prompt, 9)).correlation > 0.9
        await call.hears(620, 5)
        assert (await there.stats())["srtp"]


async def test_blind_transfer_by_baresip(phone: Phone, tmp_path: Path) -> None:
    async with (
        Baresip.start(folder=tmp_path, name="desk") as desk,
        Phone.start(folder=tmp_path, name="third") as third,
    ):
        await third.answer_calls(tone_hz=800)
        call = await phone.dial(desk.uri)
        theirs = await desk.incoming(5)
        await call.answered(5)
        await theirs.refer(third.uri)
        new = await phone.referred(call, 5)
        await new.hears(800, 5)


async def test_wrong_settings_and_commands_are_said(tmp_path: Path) -> None:
    with pytest.raises(BaresipError, match="neither auto nor manual"):
        Baresip.start(folder=tmp_path, answer="sometimes")
    async with Baresip.start(folder=tmp_path) as desk:
        with pytest.raises(BaresipError, match="refused 'nonsense'"):
            await desk.do("nonsense")
        with pytest.raises(Missed, match="incoming call of baresip"):
            await desk.incoming(0.2)
