"""A whole call through the real engine: flow, hunt, acceptance, talk, message, and what is told of it."""

import asyncio
import wave
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pbx.core.call_events import Limits
from tests.integration.callrig import MUSIC_HZ, PROMPT_HZ, Rig, rig
from tests.peers.phones import Call, Phone

pytestmark = pytest.mark.integration


class Ward:
    """Two clinicians' phones, a patient's phone, and the switch between them."""

    def __init__(self, patient: Phone, ada: Phone, ben: Phone, switch: Rig) -> None:
        self.patient, self.ada, self.ben, self.switch = patient, ada, ben, switch

    async def to_the_hunt(self, caller: str = "+12025550123") -> Call:
        call = await self.patient.dial(self.switch.uri, from_uri=f"sip:{caller}@127.0.0.1", tone_hz=440)
        await call.answered(5)
        await call.hears(PROMPT_HZ["main_menu"], 8)
        await call.press("1")
        await call.hears(PROMPT_HZ["consent_recording"], 5)
        await call.press("2")
        return call


@pytest.fixture
async def ward(tmp_path: Path) -> AsyncIterator[Ward]:
    async with AsyncExitStack() as stack:
        patient, ada, ben = [
            await stack.enter_async_context(Phone.start(folder=tmp_path, name=name))
            for name in ("patient", "ada", "ben")
        ]
        switch = await stack.enter_async_context(
            rig(
                tmp_path,
                people={"ada": "1001", "ben": "1002"},
                routes={"1001": ada.uri, "1002": ben.uri, "1003": patient.uri},
                limits=Limits(ring_s=2.5, accept_s=4.0, rounds=1, message_s=10.0),
                media_loss_s=3.0,
            )
        )
        yield Ward(patient, ada, ben, switch)


async def test_the_second_clinician_answers_and_both_hear_only_each_other(ward: Ward) -> None:
    await ward.ben.answer_calls(0.2, tone_hz=620)
    call = await ward.to_the_hunt()
    assert (await ward.ada.incoming(5)).display == "the nurse hotline"
    await call.hears(MUSIC_HZ, 5)
    bens = await ward.ben.incoming(5)
    await bens.hears(PROMPT_HZ["screen"], 5)
    await bens.press("7")
    await bens.hears(PROMPT_HZ["wrong_key"], 5)
    await bens.press("1")
    await asyncio.gather(call.hears(620, 5, for_ms=1000), bens.hears(440, 5, for_ms=1000))
    await call.hangup()
    await bens.ended(5)
    ended = await ward.switch.closed("+12025550123")
    assert (ended["disposition"], ended["answered_by"], ended["cause"]) == ("connected", "ben", "normal")
    assert [(a["person"], a["outcome"]) for a in ended["facts"]["attempts"]] == [
        ("ada", "no-answer"),
        ("ben", "accepted"),
    ]
    assert [c["given"] for c in ended["facts"]["consents"]] == [False]


async def test_the_emergency_sentence_is_first_whole_and_not_skipped_by_keys(ward: Ward) -> None:
    call = await ward.patient.dial(ward.switch.uri, from_uri="sip:+12025550124@127.0.0.1")
    await call.answered(5)
    await call.press("1")
    heard = await call.hears(PROMPT_HZ["emergency"], 5, for_ms=370, from_ms=0)
    assert heard.longest_ms >= 370  # the prompt is 400 ms long: its first syllable is there
    await call.hears(PROMPT_HZ["welcome"], 5, from_ms=0)
    await call.hangup()
    assert (await ward.switch.closed("+12025550124"))["disposition"] == "abandoned"


async def test_nobody_answers_and_the_caller_leaves_a_message(ward: Ward, tmp_path: Path) -> None:
    call = await ward.to_the_hunt()
    await call.hears(PROMPT_HZ["nobody_available"], 12)
    await call.hears(PROMPT_HZ["beep"], 5)
    await asyncio.sleep(2.0)
    await call.hangup()
    ended = await ward.switch.closed("+12025550123")
    assert ended["disposition"] == "voicemail"
    message = ended["facts"]["voicemail"]
    assert message["duration_s"] == pytest.approx(2.0, abs=0.8)
    with wave.open(str(tmp_path / f"{message['id']}.wav")) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(message["duration_s"], abs=0.3)


async def test_a_clinician_whose_phone_vanishes_is_called_again(ward: Ward) -> None:
    await ward.ada.answer_calls(0.1, tone_hz=620)
    call = await ward.to_the_hunt()
    adas = await ward.ada.incoming(5)
    await adas.hears(PROMPT_HZ["screen"], 5)
    await adas.press("1")
    await call.hears(620, 5)
    await ward.ben.answer_calls(0.1, tone_hz=740)
    await ward.ada.vanish()
    await call.hears(PROMPT_HZ["clinician_dropped"], 10)
    bens = await ward.ben.incoming(15)
    await bens.hears(PROMPT_HZ["screen"], 5)
    await bens.press("1")
    await call.hears(740, 5)
    await bens.hangup()
    await call.ended(5)
    ended = await ward.switch.closed("+12025550123")
    assert ended["answered_by"] == "ben"
    assert "clinician-lost" in ward.switch.told.kinds("+12025550123")


async def test_a_blind_transfer_moves_the_caller_to_the_colleague(ward: Ward) -> None:
    await ward.ada.answer_calls(0.1, tone_hz=620)
    await ward.ben.answer_calls(0.1, tone_hz=740)
    call = await ward.to_the_hunt()
    adas = await ward.ada.incoming(5)
    await adas.hears(PROMPT_HZ["screen"], 5)
    await adas.press("1")
    await call.hears(620, 5)
    await adas.refer(ward.ben.uri)
    bens = await ward.ben.incoming(5)
    await asyncio.gather(call.hears(740, 5), bens.hears(440, 5))
    await adas.ended(5)
    await call.hangup()
    await bens.ended(5)
    assert (await ward.switch.closed("+12025550123"))["disposition"] == "connected"


async def test_an_attended_transfer_joins_the_caller_and_the_colleague(ward: Ward) -> None:
    await ward.ada.answer_calls(0.1, tone_hz=620)
    await ward.ben.answer_calls(0.1, tone_hz=740)
    call = await ward.to_the_hunt()
    adas = await ward.ada.incoming(5)
    await adas.hears(PROMPT_HZ["screen"], 5)
    await adas.press("1")
    await call.hears(620, 5)
    consultation = await ward.ada.dial(ward.ben.uri, tone_hz=620)
    await consultation.answered(5)
    asked = await ward.ben.incoming(5)
    await adas.refer_to(consultation)
    bens = await ward.ben.replaced(asked, 8)
    await bens.play_tone(860)
    await asyncio.gather(call.hears(860, 5), bens.hears(440, 5))
    await adas.ended(5)
    await call.hangup()
    await bens.ended(5)
    assert (await ward.switch.closed("+12025550123"))["disposition"] == "connected"


async def test_a_clinician_who_holds_lets_the_caller_hear_music(ward: Ward) -> None:
    await ward.ada.answer_calls(0.1, tone_hz=620)
    call = await ward.to_the_hunt()
    adas = await ward.ada.incoming(5)
    await adas.hears(PROMPT_HZ["screen"], 5)
    await adas.press("1")
    await call.hears(620, 5)
    await adas.hold()
    await call.hears(MUSIC_HZ, 5, for_ms=1000)
    await adas.unhold()
    await call.hears(620, 5, for_ms=1000)
    await call.hears_silence(500, 5, hz=MUSIC_HZ)
    await call.hangup()
    await ward.switch.closed("+12025550123")
    kinds = ward.switch.told.kinds("+12025550123")
    assert kinds.index("held") < kinds.index("resumed")


async def test_a_caller_who_gives_up_while_a_clinician_is_asked(ward: Ward) -> None:
    await ward.ada.answer_calls(0.1, tone_hz=620)
    call = await ward.to_the_hunt()
    adas = await ward.ada.incoming(5)
    await adas.hears(PROMPT_HZ["screen"], 5)
    await call.hangup()
    await adas.ended(5)
    assert (await ward.switch.closed("+12025550123"))["disposition"] == "abandoned"


async def test_two_calls_at_once_do_not_know_each_other(ward: Ward) -> None:
    await ward.ben.answer_calls(0.1, tone_hz=740)
    first = await ward.to_the_hunt("+12025550125")
    await ward.ada.incoming(5)
    second = await ward.to_the_hunt("+12025550126")
    await second.hangup()
    bens = await ward.ben.incoming(8)
    await bens.hears(PROMPT_HZ["screen"], 5)
    await bens.press("1")
    await first.hears(740, 5)
    await first.hangup()
    assert (await ward.switch.closed("+12025550126"))["disposition"] == "abandoned"
    assert (await ward.switch.closed("+12025550125"))["disposition"] == "connected"
