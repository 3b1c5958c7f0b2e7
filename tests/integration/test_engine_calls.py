"""Legs in and out: answers, refusals, causes, headers. Real pjsua2 in a process of its own, raw SIP peers."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pbx.core.causes import Cause
from pbx.core.legs import Answered, Ended, Incoming, LegId, MediaReady, PlayEnded, Progress
from pbx.sip.engine import Engine
from tests.integration.enginerig import RemoteEngine, check_ends, rig, until
from tests.integration.rawphone import Dialog, RawPhone
from tests.peers import tones

pytestmark = pytest.mark.integration


async def answered(engine: RemoteEngine, call: Dialog) -> LegId:
    """Bring an incoming call up; returns its leg."""
    call.request("INVITE", call.sdp())
    leg = (await engine.expect(Incoming, sip_call_id=call.call_id)).leg
    engine.do("answer", leg)
    call.ack(await call.response(200))
    await engine.expect(Answered, leg=leg)
    return leg


async def test_two_callers_hear_their_own_prompt_and_hang_up(tmp_path: Path) -> None:
    prompts = [tones.write_wav(tmp_path / f"{hz}.wav", tones.tone(hz, 600)) for hz in (600, 900)]
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at, user=f"+1555010{n}") for n in range(2)]
        for call in calls:
            call.request("INVITE", call.sdp(), {"X-Hotline-Line": "main", "X-Other": "no"})
        legs = {}
        for call in calls:
            told = await engine.expect(Incoming, sip_call_id=call.call_id)
            legs[call.call_id] = told.leg
            assert told.to_user == call.uri.split(":")[1].split("@")[0]
            assert told.from_user == "raw"
            assert told.headers == {"x-hotline-line": "main"}
            assert told.source == f"127.0.0.1:{phone.port}"
        for call, prompt in zip(calls, prompts, strict=True):
            engine.do("answer", legs[call.call_id])
            engine.do("play", legs[call.call_id], [prompt])
        for call in calls:
            call.ack(await call.response(200))
            await engine.expect(Answered, leg=legs[call.call_id])
        for call, hz, other in zip(calls, (600, 900), (900, 600), strict=True):
            ended = await engine.expect(PlayEnded, leg=legs[call.call_id])
            assert ended.completed
            heard = call.media.heard()
            assert 520 <= tones.heard(heard, hz).longest_ms <= 640
            assert tones.heard(heard, other).total_ms == 0
            first = tones.heard(heard, hz).first_ms
            assert first is not None
            assert first >= 120  # the lead-in was played before the first sample
        for call in calls:
            await call.hang_up()
            over = await engine.expect(Ended, leg=legs[call.call_id])
            assert (over.cause, over.by_peer) == (Cause.NORMAL, True)
            assert over.tx_packets > 30


async def test_refusal_reaches_the_caller_with_its_status(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        for status, cause in ((486, Cause.BUSY), (603, Cause.REJECTED), (404, Cause.NOT_FOUND)):
            call = await phone.call(engine.at)
            call.request("INVITE", call.sdp())
            leg = (await engine.expect(Incoming, sip_call_id=call.call_id)).leg
            engine.do("ring", leg)
            await call.response(180)
            engine.do("reject", leg, status)
            answer = await call.response(status)
            assert "Q.850;cause=" in answer.get("reason")
            over = await engine.expect(Ended, leg=leg)
            assert (over.cause, over.code, over.by_peer) == (cause, status, False)


async def test_reject_can_name_when_to_try_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        call.request("INVITE", call.sdp())
        leg = (await engine.expect(Incoming)).leg
        engine.do("reject", leg, 503, 7)
        assert (await call.response(503)).get("retry-after") == "7"


async def test_caller_who_gives_up_is_cancelled(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        call.request("INVITE", call.sdp())
        leg = (await engine.expect(Incoming)).leg
        engine.do("ring", leg)
        await call.response(180)
        call.cancel()
        await call.response(487)
        over = await engine.expect(Ended, leg=leg)
        assert (over.cause, over.code, over.by_peer) == (Cause.CANCELLED, 487, True)


async def test_dialled_phone_sees_caller_and_headers_and_is_hung_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        legs = [
            await engine.dial(
                f"sip:100{n}@127.0.0.1:{phone.port}",
                caller_user="+15550100",
                caller_display='Dr "No"\r\nX-Evil: 1',
                headers={"X-Hotline-Call": f"id-{n}"},
            )
            for n in range(2)
        ]
        calls = [await phone.next_call() for _ in legs]
        calls.sort(key=lambda call: call.invite.start if call.invite else "")
        for n, (leg, call) in enumerate(zip(legs, calls, strict=True)):
            assert call.invite is not None
            assert call.invite.start == f"INVITE sip:100{n}@127.0.0.1:{phone.port} SIP/2.0"
            sender = call.invite.get("from")
            assert sender.startswith('"Dr \\"No\\" X-Evil: 1" <sip:+15550100@127.0.0.1>')
            assert call.invite.get("x-evil") == ""
            assert call.invite.get("x-hotline-call") == f"id-{n}"
            assert "m=video" not in call.invite.body
            assert "m=text" not in call.invite.body
            call.answer(180)
            told = await engine.expect(Progress, leg=leg)
            assert (told.code, told.early_media) == (180, False)
            call.answer(200)
            await engine.expect(Answered, leg=leg)
            await engine.expect(MediaReady, leg=leg)
            await call.incoming("ACK")
        engine.do("hangup", legs[0])
        bye = await calls[0].incoming("BYE")
        assert bye.get("reason") == 'Q.850;cause=16;text="Normal call clearing"'
        over = await engine.expect(Ended, leg=legs[0])
        assert (over.cause, over.by_peer) == (Cause.NORMAL, False)
        calls[1].request("BYE", headers={"Reason": 'Q.850;cause=27;text="out of order"'})
        over = await engine.expect(Ended, leg=legs[1])
        assert (over.cause, over.by_peer) == (Cause.UNREACHABLE, True)


@pytest.mark.parametrize(
    ("provisional", "status", "reason", "cause"),
    [
        (0, 404, "", Cause.NOT_FOUND),
        (180, 486, "", Cause.BUSY),
        (0, 480, "", Cause.NOT_REGISTERED),
        (180, 480, "", Cause.NO_ANSWER),
        (180, 408, "", Cause.NO_ANSWER),
        (0, 503, "", Cause.UNREACHABLE),
        (0, 503, "Q.850;cause=17", Cause.BUSY),
        (180, 603, "SIP;cause=603, Q.850 ;cause=21;text=x", Cause.REJECTED),
        (0, 488, "", Cause.INCOMPATIBLE),
        (0, 599, "", Cause.ERROR),
    ],
)
async def test_refused_dial_ends_with_its_cause(
    tmp_path: Path, provisional: int, status: int, reason: str, cause: Cause
) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        leg = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        call = await phone.next_call()
        assert call.invite is not None
        if provisional:
            call.answer(provisional)
        call.respond(call.invite, status, headers={"Reason": reason} if reason else None)
        over = await engine.expect(Ended, leg=leg)
        assert (over.cause, over.code, over.by_peer) == (cause, status, True)


@pytest.mark.parametrize(
    "target",
    ["not a uri", "", "sip:", "sip:1001@no-such-host.invalid", "sip:x@127.0.0.1\r\nX-Evil: 1", "tel:+1"],
)
async def test_impossible_target_is_an_ended_leg_and_blocks_nothing(tmp_path: Path, target: str) -> None:
    async with rig(tmp_path) as engine:
        began = time.monotonic()
        leg = await engine.dial(target)
        over = await engine.expect(Ended, leg=leg)
        assert over.cause in (Cause.NOT_FOUND, Cause.ERROR)
        assert time.monotonic() - began < 1


async def test_dial_that_nobody_answers_ends_at_its_bound(tmp_path: Path) -> None:
    async with rig(tmp_path, dial_within_s=1.0) as engine, await RawPhone.open() as phone:
        leg = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        call = await phone.next_call()
        call.answer(180)
        over = await engine.expect(Ended, leg=leg, within_s=3)
        assert over.cause is Cause.NO_ANSWER
        await call.incoming("CANCEL")


async def test_dial_is_cancelled_in_any_state(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        at_once = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        engine.do("hangup", at_once)
        call = await phone.next_call()
        assert (await engine.expect(Ended, leg=at_once)).cause is Cause.CANCELLED
        call.answer(180)  # only now may CANCEL be sent (RFC 3261 9.1)
        await call.incoming("CANCEL")
        ringing = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        call = await phone.next_call()
        call.answer(180)
        await engine.expect(Progress, leg=ringing)
        engine.do("hangup", ringing)
        await call.incoming("CANCEL")
        assert (await engine.expect(Ended, leg=ringing)).cause is Cause.CANCELLED


async def test_cancel_that_crosses_the_answer_becomes_a_bye(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        phone.obeys_cancel = False
        for _ in range(5):
            leg = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
            call = await phone.next_call()
            call.answer(180)
            await engine.expect(Progress, leg=leg)
            engine.do("hangup", leg)
            await engine.expect(Ended, leg=leg)
            await call.incoming("CANCEL")
            call.answer(200)  # it was on its way
            await call.incoming("ACK")
            await call.incoming("BYE")
        counted = await engine.counters()
        assert counted["active"] == 0


async def test_callers_cancel_that_crosses_our_answer(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        for _ in range(10):
            call = await phone.call(engine.at)
            call.request("INVITE", call.sdp())
            leg = (await engine.expect(Incoming, sip_call_id=call.call_id)).leg
            engine.do("answer", leg)
            call.cancel()
            final = await call.wait(lambda m: m.status >= 200 and m.method == "INVITE", within_s=5)
            if final.status == 200:
                call.ack(final)
                call.request("BYE")
            await engine.expect(Ended, leg=leg)
            phone.dialogs.pop(call.call_id)


async def test_early_media_is_heard_before_the_answer(tmp_path: Path) -> None:
    prompt = tones.write_wav(tmp_path / "early.wav", tones.tone(500, 400))
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        call.request("INVITE", call.sdp())
        leg = (await engine.expect(Incoming)).leg
        await engine.play(leg, [prompt])  # waits for audio
        engine.do("progress", leg)
        early = await call.response(183)
        assert "m=audio" in early.body
        assert (await engine.expect(PlayEnded, leg=leg)).completed
        assert tones.heard(call.media.heard(), 500).longest_ms >= 320
        engine.do("answer", leg)
        call.ack(await call.response(200))
        await engine.expect(Answered, leg=leg)
        call.media.received.clear()
        await engine.play(leg, [prompt])
        await engine.expect(PlayEnded, leg=leg)
        first = tones.heard(call.media.heard(), 500).first_ms
        assert first is not None
        assert first >= 120  # lead-in again: the path may be another one after the answer
        engine.do("hangup", leg)
        await call.incoming("BYE")


async def test_invite_without_offer_gets_ours_and_audio(tmp_path: Path) -> None:
    prompt = tones.write_wav(tmp_path / "late.wav", tones.tone(700, 400))
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        call.request("INVITE")
        leg = (await engine.expect(Incoming)).leg
        await engine.play(leg, [prompt])
        engine.do("answer", leg)
        ok = await call.response(200)
        assert "m=audio" in ok.body
        call.take_answer(ok)
        call.request("ACK", call.sdp())
        await engine.expect(MediaReady, leg=leg)
        assert (await engine.expect(PlayEnded, leg=leg)).completed
        assert tones.heard(call.media.heard(), 700).longest_ms >= 320
        await call.hang_up()


async def test_session_timer_is_offered_and_kept(tmp_path: Path) -> None:
    async with rig(tmp_path, session_timer_s=120) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        call.request("INVITE", call.sdp(), {"Supported": "timer", "Session-Expires": "90;refresher=uas"})
        leg = (await engine.expect(Incoming)).leg
        engine.do("answer", leg)
        ok = await call.response(200)
        assert ok.get("session-expires").startswith("90")
        call.ack(ok)
        out = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        dialled = await phone.next_call()
        assert dialled.invite is not None
        assert dialled.invite.get("session-expires") == "120"
        engine.do("hangup", out)
        await call.hang_up()


async def test_beyond_the_limit_503_with_retry_after_and_drain(tmp_path: Path) -> None:
    async with rig(tmp_path, max_calls=2, retry_after_s=9) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(3)]
        first, second = await answered(engine, calls[0]), await answered(engine, calls[1])
        calls[2].request("INVITE", calls[2].sdp())
        refused = await calls[2].response(503)
        assert refused.get("retry-after") == "9"
        await calls[0].hang_up()
        await engine.expect(Ended, leg=first)
        third = await answered(engine, await phone.call(engine.at))
        engine.do("set_admission", 0)
        more = await phone.call(engine.at)
        more.request("INVITE", more.sdp())
        await more.response(503)
        out = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")  # running calls may still dial
        dialled = await phone.next_call()
        dialled.answer(200)
        await engine.expect(Answered, leg=out)
        counted = await engine.counters()
        assert (counted["rejected_overload"], counted["incoming"], counted["active"]) == (2, 5, 3)
        assert engine.count(Incoming) == 3
        for leg in (second, third, out):
            engine.do("hangup", leg)
        for leg in (second, third, out):
            await engine.expect(Ended, leg=leg)


async def test_stop_with_twenty_calls_in_every_state(tmp_path: Path) -> None:
    music = tones.write_wav(tmp_path / "long.wav", tones.tone(500, 5000))
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(20)]
        legs = [await answered(engine, call) for call in calls]
        for leg in legs[:10]:
            engine.do("play", leg, [music])
        for a, b in zip(legs[:8:2], legs[1:8:2], strict=True):
            engine.do("bridge", a, b)
        engine.do("record", tmp_path / "rec.wav", legs[:2])
        ringing = await phone.call(engine.at)
        ringing.request("INVITE", ringing.sdp())
        await engine.expect(Incoming, sip_call_id=ringing.call_id)
        out = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        await phone.next_call()
        assert await engine.stop() == 0
        for leg in [*legs, out]:
            assert (await engine.expect(Ended, leg=leg)).cause is Cause.SHUTDOWN
        await asyncio.gather(*(call.incoming("BYE") for call in calls))
        await ringing.response(503)
        check_ends(engine.events)
        engine.process = _Finished()  # type: ignore[assignment]  # the rig may not stop it twice
        engine.ask = _nothing_to_ask  # type: ignore[method-assign]


class _Finished:
    """What the rig looks at after a test stopped its engine itself."""

    exitcode = None

    def is_alive(self) -> bool:
        return False

    def join(self, within_s: float = 0) -> None:
        self.exitcode = 0


async def _nothing_to_ask(name: str, *_: object, **__: object) -> object:
    return {"callback_errors": 0, "command_errors": 0, "sink_errors": 0} if name == "counters" else None


def _hang_up_from_everywhere(engine: Engine, legs: list[LegId]) -> None:
    def hang_up() -> None:
        for leg in legs:
            engine.hangup(leg)

    threads = [threading.Thread(target=hang_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)


async def test_hang_up_from_many_threads_at_once_and_twice(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(10)]
        legs = [await answered(engine, call) for call in calls]
        ringing = await engine.dial(f"sip:1001@127.0.0.1:{phone.port}")
        await phone.next_call()
        await engine.ask("break", _hang_up_from_everywhere, [*legs, ringing])
        for leg in [*legs, ringing]:
            await engine.expect(Ended, leg=leg)
        for command, arguments in (
            ("hangup", ()),
            ("answer", ()),
            ("music", (True,)),
            ("send_digits", ("1",)),
        ):
            engine.do(command, legs[0], *arguments)  # for an ended leg: ignored
        await until(lambda: all(any(r.method == "BYE" for r in call.requests) for call in calls))


async def test_180_legs_at_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        began = time.monotonic()
        legs = [await engine.dial(f"sip:{n}@127.0.0.1:{phone.port}") for n in range(180)]
        for _ in legs:
            (await phone.next_call(within_s=10)).answer(200)
        assert time.monotonic() - began < 5  # dialling asks no name server; it took 15 s when it did
        for leg in legs:
            await engine.expect(Answered, leg=leg, within_s=10)
        assert (await engine.counters())["active"] == 180
        for leg in legs:
            engine.do("hangup", leg)
        for leg in legs:
            await engine.expect(Ended, leg=leg, within_s=10)


def test_the_library_prints_nothing_of_its_own() -> None:
    program = (
        "import pjsua2 as pj; e = pj.Endpoint(); e.libCreate(); c = pj.EpConfig(); "
        "c.logConfig.level = c.logConfig.consoleLevel = 0; e.libInit(c); e.libDestroy()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True)
    assert (ran.stdout, ran.stderr) == (b"", b"")
