"""The phones themselves, directly against each other: what they claim to hear, they hear."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.peers import tones
from tests.peers.phones import Missed, Phone, PhoneError

pytestmark = pytest.mark.integration


@pytest.fixture
async def alice(tmp_path: Path) -> AsyncIterator[Phone]:
    async with Phone.start(folder=tmp_path, name="alice", display="Alice A") as phone:
        yield phone


@pytest.fixture
async def bob(tmp_path: Path) -> AsyncIterator[Phone]:
    async with Phone.start(folder=tmp_path, name="bob") as phone:
        yield phone


@pytest.fixture
async def carol(tmp_path: Path) -> AsyncIterator[Phone]:
    async with Phone.start(folder=tmp_path, name="carol") as phone:
        yield phone


async def test_tones_both_ways_headers_and_the_report_at_the_end(alice: Phone, bob: Phone) -> None:
    await bob.answer_calls(0.3, tone_hz=620)
    call = await alice.dial(bob.uri, headers={"X-Case": "abc"}, tone_hz=440)
    theirs = await bob.incoming(5)
    assert theirs.headers["x-case"] == "abc"
    assert theirs.display == "Alice A"
    assert theirs.from_uri.startswith("sip:alice@")
    await call.ringing(5)
    assert 250 <= await call.answered(5) < 1500
    ours, heard_there = await asyncio.gather(call.hears(620, 5), theirs.hears(440, 5))
    assert ours.dbfs == pytest.approx(-15, abs=1.5)
    assert heard_there.dbfs == pytest.approx(-15, abs=1.5)
    with pytest.raises(Missed, match=r"did not hear 440 Hz for 200 ms.*620 Hz"):
        await call.hears(440, 0.7)
    assert (await call.stats())["rx_packets"] > 20
    await call.hangup()
    end, far_end = await call.ended(5), await theirs.ended(5)
    assert (end.by_peer, far_end.by_peer) == (False, True)
    await asyncio.gather(call.recorded(), theirs.recorded())
    assert {(span.kind, round(span.hz, -1)) for span in await call.report()} >= {("tone", 620)}
    assert tones.heard(theirs.recording, 440).fraction > 0.8


async def test_keys_by_all_three_ways(alice: Phone, bob: Phone) -> None:
    await bob.answer_calls()
    call = await alice.dial(bob.uri)
    theirs = await bob.incoming(5)
    await call.answered(5)
    await theirs.answered(5)
    await call.press("12#")
    await theirs.received_digits("12#", 5)
    await theirs.press("*0", via="info")
    await call.received_digits("*0", 5)
    assert [e.detail["via"] for e in theirs.events if e.kind == "digit"] == ["rfc4733"] * 3
    assert [e.detail["via"] for e in call.events if e.kind == "digit"] == ["info"] * 2
    await asyncio.sleep(0.5)  # the RFC 4733 event of the last key still takes the place of audio
    await call.press("59", via="inband")
    await theirs.hears(770, 3, for_ms=100)
    await asyncio.sleep(1.0)
    assert tones.dtmf_digits(theirs.audio()) == "59"
    with pytest.raises(PhoneError, match="not one of rfc4733, info, inband"):
        await call.press("1", via="voice")


async def test_hold_stops_the_tones_and_unhold_brings_them_back(alice: Phone, bob: Phone) -> None:
    await bob.answer_calls(tone_hz=620)
    call = await alice.dial(bob.uri, tone_hz=440)
    theirs = await bob.incoming(5)
    await theirs.hears(440, 5)
    await call.hold()
    await theirs.held(5)
    await asyncio.gather(theirs.hears_silence(600, 4), call.hears_silence(600, 4))
    await call.unhold()
    await asyncio.gather(theirs.hears(440, 4), call.hears(620, 4))


async def test_a_prompt_arrives_with_its_quality(alice: Phone, bob: Phone, tmp_path: Path) -> None:
    prompt = tones.write_wav(tmp_path / "prompt.wav", tones.speechlike(3000))
    await bob.answer_calls()
    call = await alice.dial(bob.uri)
    theirs = await bob.incoming(5)
    await theirs.answered(5)
    await theirs.play(prompt)
    match = await call.hears_prompt(prompt, 8)
    assert match.correlation > 0.9
    assert match.level_db == pytest.approx(0, abs=1)
    assert tones.pesq_nb(call.audio(), prompt) >= 3.5  # 4.5 when no packet is late


async def test_answer_policies(alice: Phone, bob: Phone) -> None:
    await bob.refuse_calls(486)
    assert (await (await alice.dial(bob.uri)).ended(5)).code == 486
    await bob.refuse_calls(603)
    call = await alice.dial(bob.uri)
    with pytest.raises(Missed, match="was not answered: it ended with 603"):
        await call.answered(5)
    await bob.ring_only()
    call = await alice.dial(bob.uri)
    await call.ringing(5)
    await call.cancel()
    assert (await call.ended(5)).code == 487
    await bob.leave_calls()
    call = await alice.dial(bob.uri)
    theirs = [await bob.incoming(5) for _ in range(4)][-1]
    await theirs.respond(183)
    await call.early(5)
    await theirs.play_tone(425)
    await call.hears(425, 4)
    await theirs.answer()
    await call.answered(5)
    await theirs.hangup()
    assert (await call.ended(5)).by_peer


async def test_blind_transfer(alice: Phone, bob: Phone, carol: Phone) -> None:
    await bob.answer_calls(tone_hz=620)
    await carol.answer_calls(tone_hz=900)
    call = await alice.dial(bob.uri, tone_hz=440)
    theirs = await bob.incoming(5)
    await theirs.hears(440, 5)
    await call.refer(carol.uri)
    assert await call.transferred(5) == 200
    await call.ended(5)
    new = await bob.referred(theirs, 5)
    at_carol = await carol.incoming(5)
    await new.hears(900, 5)
    await new.play_tone(700)
    await at_carol.hears(700, 5)


async def test_attended_transfer(alice: Phone, bob: Phone, carol: Phone) -> None:
    await bob.answer_calls()
    await carol.answer_calls()
    to_bob = await alice.dial(bob.uri)
    at_bob = await bob.incoming(5)
    await to_bob.answered(5)
    to_carol = await alice.dial(carol.uri)
    at_carol = await carol.incoming(5)
    await to_carol.answered(5)
    await to_bob.refer_to(to_carol)
    assert await to_bob.transferred(5) == 200
    new_at_bob = await bob.referred(at_bob, 5)
    new_at_carol = await carol.replaced(at_carol, 5)
    await new_at_bob.answered(5)
    await asyncio.gather(to_bob.ended(5), to_carol.ended(5))
    await new_at_bob.play_tone(500)
    await new_at_carol.hears(500, 5)


async def test_a_refused_refer(alice: Phone, bob: Phone) -> None:
    await bob.answer_calls()
    await bob.refuse_refer(603)
    call = await alice.dial(bob.uri)
    await call.answered(5)
    await call.refer("sip:nobody@127.0.0.1:9")
    assert await call.transferred(5) == 603
    assert not call.over


async def test_four_calls_at_once_do_not_mix(alice: Phone, bob: Phone) -> None:
    await bob.leave_calls()
    there_hz, back_hz = (400, 600, 800, 1000), (500, 700, 900, 1100)
    calls, theirs = [], []
    for hz in there_hz:
        calls.append(await alice.dial(bob.uri, tone_hz=hz))
        theirs.append(await bob.incoming(5))
    for call, hz in zip(theirs, back_hz, strict=True):
        await call.play_tone(hz)
        await call.answer()
    await asyncio.gather(*(call.hears(hz, 8) for call, hz in zip(theirs, there_hz, strict=True)))
    await asyncio.gather(*(call.hears(hz, 8) for call, hz in zip(calls, back_hz, strict=True)))
    await calls[2].press("7")
    await theirs[2].received_digits("7", 5)
    assert [call.digits for call in theirs] == ["", "", "7", ""]
    await asyncio.gather(*(call.hangup() for call in calls))
    await asyncio.gather(*(call.recorded() for call in calls + theirs))
    for call, own_hz, others in [
        *((c, hz, there_hz) for c, hz in zip(theirs, there_hz, strict=True)),
        *((c, hz, back_hz) for c, hz in zip(calls, back_hz, strict=True)),
    ]:
        for hz in others:
            longest = tones.heard(call.recording, hz, min_share=0.05).longest_ms
            assert (longest >= 200) == (hz == own_hz), f"{call} has {longest} ms of {hz} Hz"


async def test_a_vanished_phone_says_nothing_and_a_closed_stdin_says_bye(
    alice: Phone, tmp_path: Path
) -> None:
    async with Phone.start(folder=tmp_path, name="dave") as dave:
        await dave.answer_calls()
        call = await alice.dial(dave.uri)
        await call.answered(5)
        await dave.vanish()
        await asyncio.sleep(0.5)
        assert not call.over
        with pytest.raises(PhoneError, match="dave"):
            await dave.answer_calls()
    async with Phone.start(folder=tmp_path, name="erin") as erin:
        await erin.answer_calls()
        call = await alice.dial(erin.uri)
        await call.answered(5)
    assert (await call.ended(5)).by_peer
    with pytest.raises(ProcessLookupError):
        os.kill(erin.pid, 0)


async def test_late_offer_srtp_tcp_and_tls(tmp_path: Path) -> None:
    every = ("udp", "tcp", "tls")
    async with (
        Phone.start(folder=tmp_path, name="left", srtp="mandatory", transports=every) as left,
        Phone.start(folder=tmp_path, name="right", srtp="optional", transports=every) as right,
    ):
        await right.answer_calls(tone_hz=620)
        for transport in every:
            call = await left.dial(right.uri_by(transport), tone_hz=440)
            theirs = await right.incoming(5)
            await call.answered(5)
            await asyncio.gather(call.hears(620, 5), theirs.hears(440, 5))
            assert (await call.stats())["srtp"]
            assert f"SIP/2.0/{transport.upper()}" in theirs.headers["via"]
            await call.hangup()
            await call.ended(5)
        call = await right.dial(left.uri, late_offer=True)
        theirs = await left.incoming(5)
        assert theirs.sdp == ""


async def test_waits_have_a_bound_and_say_what_was_seen(alice: Phone) -> None:
    with pytest.raises(
        Missed, match=r"incoming call of alice: not within 0\.2 s; alice saw last: \[\('ready', None\)"
    ):
        await alice.incoming(0.2)
    await alice.no_incoming(0.2)
    with pytest.raises(PhoneError, match="call 99 is over or was never there"):
        await alice.do("hangup", call=99)
    nowhere = await alice.dial("sip:x@127.0.0.1:9;transport=tcp")
    assert (await nowhere.ended(10)).code in (408, 502, 503)


def test_the_recording_reader_keeps_up_with_a_growing_file(tmp_path: Path) -> None:
    path = tones.write_wav(tmp_path / "x.wav", np.concatenate([tones.tone(440, 500)]))
    with path.open("ab") as more:
        more.write(tones.tone(440, 500).tobytes())
    assert len(tones.read_wav(path)[0]) >= 4000
