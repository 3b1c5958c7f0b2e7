"""What a leg hears, says and presses: plays, music, bridges, recordings, hold, keys."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from pbx.core.legs import Answered, Digit, Ended, Held, Incoming, MediaReady, PlayEnded, RecordingEnded
from tests.integration.enginerig import rig, until
from tests.integration.rawphone import Dialog, RawPhone
from tests.integration.test_engine_calls import answered
from tests.peers import tones

pytestmark = pytest.mark.integration
MUSIC_HZ = 350


def hears(call: Dialog, hz: float, last_ms: int = 400) -> bool:
    """Whether the tone filled most of what came last."""
    return tones.heard(call.media.heard(last_ms), hz).total_ms > 0.6 * last_ms


async def settle(call: Dialog, ms: int = 500) -> None:
    """Forget what was heard and listen for a while."""
    await asyncio.sleep(0.1)
    call.media.received.clear()
    await asyncio.sleep(ms / 1000)


async def test_files_of_a_play_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    files = [tones.write_wav(tmp_path / f"{n}.wav", tones.tone(800, 250, fade_ms=0)) for n in range(4)]
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        plays = [await engine.play(leg, files) for leg in legs]
        for leg, play, call in zip(legs, plays, calls, strict=True):
            over = await engine.expect(PlayEnded, leg=leg)
            assert (over.play, over.completed, over.error) == (play, True, "")
            found = tones.heard(call.media.heard(), 800)
            assert 960 <= found.longest_ms <= 1040
        for call in calls:
            await call.hang_up()


@pytest.mark.parametrize("ms", [130, 270, 500, 760, 1010])
async def test_the_end_of_a_file_is_heard_whole_and_only_once(tmp_path: Path, ms: int) -> None:
    parts = [(600.0, 200), (900.0, ms)]
    file = tones.write_wav(tmp_path / "two.wav", tones.sequence(parts))
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        await engine.play(leg, [file])
        await engine.expect(PlayEnded, leg=leg)
        await asyncio.sleep(0.4)
        found = tones.heard(call.media.heard(), 900)
        assert ms - 60 <= found.longest_ms <= ms + 60
        assert found.total_ms == found.longest_ms
        await call.hang_up()


async def test_a_new_play_replaces_the_running_one_and_stop_interrupts(tmp_path: Path) -> None:
    first, second = (tones.write_wav(tmp_path / f"{hz}.wav", tones.tone(hz, 3000)) for hz in (600, 900))
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        one = await engine.play(leg, [first])
        await until(lambda: hears(call, 600), what="the first play")
        two = await engine.play(leg, [second], loop=True)
        over = await engine.expect(PlayEnded, leg=leg)
        assert (over.play, over.completed) == (one, False)
        await until(lambda: hears(call, 900), what="the second play")
        engine.do("stop_play", leg)
        over = await engine.expect(PlayEnded, leg=leg)
        assert (over.play, over.completed) == (two, False)
        await settle(call)
        assert tones.heard(call.media.heard(), 900).total_ms == 0
        engine.do("stop_play", leg)  # nothing to stop: nothing is said
        three = await engine.play(leg, [second])
        await until(lambda: hears(call, 900, 200), what="the third play")
        await call.hang_up()
        over = await engine.expect(PlayEnded, leg=leg)
        assert (over.play, over.completed) == (three, False)
        assert engine.count(PlayEnded) == 3


async def test_a_loop_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    short = tones.write_wav(tmp_path / "short.wav", tones.tone(700, 300))
    async with rig(tmp_path, lead_in_ms=0) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        await engine.play(leg, [short], loop=True)
        await asyncio.sleep(1.5)
        assert tones.heard(call.media.heard(), 700).total_ms > 1200
        assert engine.count(PlayEnded) == 0
        await call.hang_up()


async def test_files_that_cannot_be_played_are_named(tmp_path: Path) -> None:
    fast = tones.write_wav(tmp_path / "fast.wav", tones.tone(500, 200, rate_hz=16000), rate_hz=16000)
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"not a wav file")
    empty = tones.write_wav(tmp_path / "empty.wav", tones.silence(0))
    good = tones.write_wav(tmp_path / "good.wav", tones.tone(500, 100))
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        for bad, word in (
            (tmp_path / "none.wav", "opened"),
            (fast, "16000 Hz"),
            (noise, "not a WAV"),
            (empty, "no audio"),
        ):
            await engine.play(leg, [good, bad])
            over = await engine.expect(PlayEnded, leg=leg)
            assert not over.completed
            assert bad.name in over.error
            assert word in over.error
        await engine.play(leg, [good] * 64)
        assert "63 are the most" in (await engine.expect(PlayEnded, leg=leg)).error
        await engine.play(leg, [])
        assert (await engine.expect(PlayEnded, leg=leg)).completed
        await engine.play(leg, [good] * 63)
        assert (await engine.expect(PlayEnded, leg=leg, within_s=10)).completed
        await call.hang_up()


async def test_hold_music_starts_and_stops_beside_a_bridge(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        for leg in legs:
            engine.do("music", leg, True)
        await until(lambda: all(hears(call, MUSIC_HZ) for call in calls), what="music")
        engine.do("music", legs[0], False)
        await settle(calls[0])
        assert tones.heard(calls[0].media.heard(), MUSIC_HZ).total_ms == 0
        assert hears(calls[1], MUSIC_HZ)
        for call in calls:
            await call.hang_up()


async def test_bridges_join_and_part_two_and_three_legs(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(3)]
        legs = [await answered(engine, call) for call in calls]
        hz = (500, 750, 1100)
        for call, tone in zip(calls, hz, strict=True):
            call.media.say(tone)
        engine.do("bridge", legs[0], legs[1])
        await until(lambda: hears(calls[0], hz[1]) and hears(calls[1], hz[0]), what="the bridge")
        assert tones.heard(calls[2].media.heard(), hz[0]).total_ms == 0
        assert tones.heard(calls[0].media.heard(300), hz[0]).total_ms == 0  # nobody hears themselves
        engine.do("bridge", legs[1], legs[2])
        engine.do("bridge", legs[2], legs[0])
        await until(
            lambda: all(hears(calls[i], hz[j]) for i in range(3) for j in range(3) if i != j),
            what="the conference",
        )
        engine.do("unbridge", legs[0], legs[1])
        engine.do("unbridge", legs[0], legs[2])
        await settle(calls[0])
        assert tones.heard(calls[0].media.heard(), hz[1]).total_ms == 0
        assert hears(calls[1], hz[2])
        await calls[2].hang_up()
        await settle(calls[1])
        assert tones.heard(calls[1].media.heard(), hz[2]).total_ms == 0
        for call in calls[:2]:
            await call.hang_up()


async def test_a_bridge_asked_for_before_audio_comes_with_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        out = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        engine.do("bridge", leg, out)
        dialled = await phone.next_call()
        dialled.answer(200)
        call.media.say(600)
        dialled.media.say(900)
        await engine.expect(MediaReady, leg=out)
        await until(lambda: hears(call, 900) and hears(dialled, 600), what="the bridge")
        engine.do("hangup", out)
        await call.hang_up()


async def test_a_recording_holds_both_sides_and_is_complete_when_told(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        for call, hz in zip(calls, (600, 900), strict=True):
            call.media.say(hz)
        both, one = tmp_path / "both.wav", tmp_path / "one.wav"
        engine.do("record", both, legs)
        engine.do("record", one, legs[:1])
        await asyncio.sleep(1.2)
        engine.do("stop_record", both)
        told = await engine.expect(RecordingEnded, path=both)
        assert told.leg == legs[0]
        assert abs(told.duration_ms - 1200) < 250
        for hz in (600, 900):
            assert tones.heard(both, hz).fraction > 0.8
        await calls[0].hang_up()  # ends the other recording
        told = await engine.expect(RecordingEnded, path=one)
        await engine.expect(Ended, leg=legs[0])
        assert [type(e) for e in engine.of(legs[0])][-2:] == [RecordingEnded, Ended]
        audio, rate = tones.read_wav(one)
        assert len(audio) * 1000 // rate == told.duration_ms
        assert tones.heard(one, 600).fraction > 0.8
        assert tones.heard(one, 900).total_ms == 0
        await calls[1].hang_up()


async def test_hold_plays_music_to_the_far_end_and_resume_brings_the_bridge_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        for call, hz in zip(calls, (600, 900), strict=True):
            call.media.say(hz)
        engine.do("bridge", *legs)
        await until(lambda: hears(calls[0], 900) and hears(calls[1], 600), what="the bridge")
        engine.do("hold", legs[0])
        invite = await calls[0].incoming("INVITE")
        assert "a=sendonly" in invite.body
        calls[0].respond(invite, 200, calls[0].sdp(direction="recvonly"))
        await until(lambda: hears(calls[0], MUSIC_HZ), what="music on hold")
        await settle(calls[0])
        await settle(calls[1])
        assert tones.heard(calls[0].media.heard(), 900).total_ms == 0
        assert tones.heard(calls[1].media.heard(), 600).total_ms == 0
        assert tones.heard(calls[1].media.heard(), MUSIC_HZ).total_ms == 0
        engine.do("resume", legs[0])
        invite = await calls[0].incoming("INVITE")
        assert "a=sendrecv" in invite.body
        calls[0].respond(invite, 200, calls[0].sdp())
        await until(lambda: hears(calls[0], 900) and hears(calls[1], 600), what="the bridge again")
        await settle(calls[0])
        assert tones.heard(calls[0].media.heard(), MUSIC_HZ).total_ms == 0
        for call in calls:
            await call.hang_up()


async def test_hold_is_tried_again_when_the_far_end_was_busy_with_its_own_offer(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        engine.do("hold", leg)
        invite = await call.incoming("INVITE")
        call.respond(invite, 491)
        invite = await call.incoming("INVITE")
        call.respond(invite, 200, call.sdp(direction="recvonly"))
        await until(lambda: hears(call, MUSIC_HZ), what="music on hold")
        await call.hang_up()


async def test_far_end_hold_is_told_and_taken_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        calls[1].media.say(900)
        engine.do("bridge", *legs)
        await until(lambda: hears(calls[0], 900), what="the bridge")
        calls[0].request("INVITE", calls[0].sdp(direction="sendonly"))
        calls[0].ack(await calls[0].response(200))
        assert (await engine.expect(Held, leg=legs[0])).held
        calls[0].request("INVITE", calls[0].sdp())
        calls[0].ack(await calls[0].response(200))
        assert not (await engine.expect(Held, leg=legs[0])).held
        await until(lambda: hears(calls[0], 900), what="the bridge again")
        assert engine.count(MediaReady) == 2
        for call in calls:
            await call.hang_up()


@pytest.mark.parametrize("payload_type", [96, 101, 127])
async def test_keys_by_rfc4733_once_each_on_their_own_leg(tmp_path: Path, payload_type: int) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        for call in calls:
            call.event_type = payload_type
        legs = []
        for call in calls:
            call.request("INVITE", call.sdp(codecs=f"0 {payload_type}"))
            leg = (await engine.expect(Incoming, sip_call_id=call.call_id)).leg
            engine.do("answer", leg)
            call.ack(await call.response(200))
            await engine.expect(Answered, leg=leg)
            call.media.say(0)
            legs.append(leg)
        sequences = ("1590*#", "22A2D7")
        for pair in zip(*sequences, strict=True):
            await asyncio.gather(*(c.media.press(d, payload_type) for c, d in zip(calls, pair, strict=True)))
            await asyncio.sleep(0.05)
        for leg, keys in zip(legs, sequences, strict=True):
            for key in keys:
                assert (await engine.expect(Digit, leg=leg)).digit == key
        await asyncio.sleep(0.2)
        assert engine.count(Digit) == 12
        for call in calls:
            await call.hang_up()


async def test_keys_by_info_and_by_both_ways(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        call.request("INFO", "Signal=5\r\nDuration=160\r\n", content_type="application/dtmf-relay")
        await call.response(200, "INFO")
        told = await engine.expect(Digit, leg=leg)
        assert (told.digit, told.via) == ("5", "info")
        call.request("INFO", "#", content_type="application/dtmf")
        told = await engine.expect(Digit, leg=leg)
        assert (told.digit, told.via) == ("#", "info")
        call.media.say(0)
        for _ in range(2):  # the same key twice, each press sent both ways
            await call.media.press("7", 101)
            call.request("INFO", "Signal=7\r\nDuration=100\r\n", content_type="application/dtmf-relay")
            await call.response(200, "INFO")
        await asyncio.sleep(0.3)
        assert [e.digit for e in engine.events if isinstance(e, Digit)] == ["5", "#", "7", "7"]
        await call.hang_up()


async def test_digits_sent_arrive_as_events_or_as_info(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        engine.do("send_digits", leg, "15#")
        await asyncio.sleep(1.5)
        ends = {}
        for _, packet in call.media.received:
            if packet[1] & 0x7F == 101:
                ends[packet[4:8]] = packet[12]
        assert list(ends.values()) == [1, 5, 11]
        await call.hang_up()
        plain = await phone.call(engine.at)  # a phone without telephone-event
        plain.request("INVITE", plain.sdp(codecs="0").replace("a=rtpmap:101 telephone-event/8000\r\n", ""))
        leg = (await engine.expect(Incoming, sip_call_id=plain.call_id)).leg
        engine.do("answer", leg)
        plain.ack(await plain.response(200))
        await engine.expect(Answered, leg=leg)
        engine.do("send_digits", leg, "9")
        info = await plain.incoming("INFO")
        assert "Signal=9" in info.body.replace(" ", "")
        await plain.hang_up()


async def test_fifty_legs_never_mix(tmp_path: Path) -> None:
    """Each says a tone and hears a prompt of their own, all at once; then they are bridged in pairs."""
    count = 50
    said = [300 + 32 * n for n in range(count)]
    played = [2000 + 30 * n for n in range(count)]
    prompts = [tones.write_wav(tmp_path / f"p{n}.wav", tones.tone(hz, 4000)) for n, hz in enumerate(played)]
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(count)]
        legs = [await answered(engine, call) for call in calls]
        for call, hz in zip(calls, said, strict=True):
            call.media.say(hz)
        for n, leg in enumerate(legs):
            engine.do("record", tmp_path / f"r{n}.wav", [leg])
        for leg, prompt in zip(legs, prompts, strict=True):
            engine.do("play", leg, [prompt])
        await asyncio.sleep(2.0)
        for n, call in enumerate(calls):
            audio = call.media.heard(1000)
            assert _loudest(audio) == pytest.approx(played[n], abs=12), f"leg {n} heard another prompt"
        for n in range(count):
            engine.do("stop_record", tmp_path / f"r{n}.wav")
        for n in range(count):
            await engine.expect(RecordingEnded, path=tmp_path / f"r{n}.wav")
            assert _loudest(tones.load(tmp_path / f"r{n}.wav")[-8000:]) == pytest.approx(said[n], abs=12)
        for leg in legs:
            engine.do("stop_play", leg)
        for a, b in zip(legs[::2], legs[1::2], strict=True):
            engine.do("bridge", a, b)
        await asyncio.sleep(1.6)
        for n, call in enumerate(calls):
            assert _loudest(call.media.heard(800)) == pytest.approx(said[n ^ 1], abs=12), (
                f"leg {n} hears a stranger"
            )
        for leg in legs:
            engine.do("hangup", leg)
        for leg in legs:
            await engine.expect(Ended, leg=leg, within_s=10)


def _loudest(audio: tones.Audio) -> float:
    """Frequency of the strongest component, in Hz."""
    spectrum = np.abs(np.fft.rfft(np.asarray(audio, dtype=np.float64) * np.hanning(len(audio))))
    return float(np.argmax(spectrum) * tones.RATE_HZ / len(audio))
