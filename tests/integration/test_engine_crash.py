"""What once crashed, blocked or leaked: each test fails without the rule it is about.

The engine runs in a process of its own; `rig` asserts that it is alive at the end and leaves with code 0.
"""

import asyncio
import gc
import logging
import os
import random
import select
import socket
import time
from pathlib import Path

import pytest

from pbx.core.causes import Cause
from pbx.core.legs import Answered, Digit, Ended, Incoming, LegEvent, MediaReady
from pbx.sip.engine import Engine, EngineError
from tests.integration.enginerig import rig, settings, until
from tests.integration.rawphone import Media, RawPhone
from tests.integration.test_engine_calls import answered
from tests.integration.test_engine_media import hears
from tests.peers.torture import SDP, messages

pytestmark = pytest.mark.integration


def _stop_collecting(engine: Engine) -> None:
    gc.disable()


def _calls_alive(engine: Engine) -> int:
    """pjsua2 Call objects alive in this process, without any help of the garbage collector."""
    import pjsua2

    return sum(isinstance(found, pjsua2.Call) for found in gc.get_objects())


async def test_call_objects_are_freed_by_the_pj_thread_and_never_by_the_collector(tmp_path: Path) -> None:
    async with rig(tmp_path, max_calls=30) as engine, await RawPhone.open() as phone:
        await engine.ask("break", _stop_collecting)
        for _ in range(2):
            calls = [await phone.call(engine.at) for _ in range(20)]
            legs = [await answered(engine, call) for call in calls]
            for a, b in zip(legs[::2], legs[1::2], strict=True):
                engine.do("bridge", a, b)
            engine.do("record", tmp_path / "r.wav", legs)
            outs = [await engine.dial(f"sip:1001@127.0.0.1:{phone.port}") for _ in range(5)]
            for _ in outs:
                (await phone.next_call()).answer(486)
            await engine.dial("garbage")
            for call in calls[:10]:
                await call.hang_up()
            for leg in legs:
                engine.do("hangup", leg)
            for leg in [*legs, *outs]:
                await engine.expect(Ended, leg=leg)
        await asyncio.sleep(0.1)
        assert await engine.ask("break", _calls_alive) == 0


def _collect_all_the_time(engine: Engine) -> None:
    """Let the garbage collector of another thread look at everything for a while."""
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        gc.collect()


async def test_collector_on_another_thread_does_no_harm(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        busy = asyncio.create_task(engine.ask("break", _collect_all_the_time))
        while not busy.done():
            call = await phone.call(engine.at)
            call.request("INVITE", call.sdp())
            leg = (await engine.expect(Incoming, sip_call_id=call.call_id)).leg
            engine.on_event = lambda event: None
            await asyncio.sleep(0.02)
            call.cancel()
            await engine.expect(Ended, leg=leg)
        await busy


async def test_a_new_call_in_a_freed_slot_lives(tmp_path: Path) -> None:
    """A stale Call object, freed late, would take the slot's new call from us and hang it up."""
    async with rig(tmp_path, call_slots=1, max_calls=1) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        for _ in range(30):
            following = await phone.call(engine.at)
            call.request("BYE")
            following.request("INVITE", following.sdp())  # both wait in the socket: one turn reads both
            await engine.expect(Ended, leg=leg)
            final = asyncio.create_task(following.wait(lambda m: m.status >= 200 and m.method == "INVITE", 5))
            told = await engine.expect(Incoming, sip_call_id=following.call_id)
            engine.do("answer", told.leg)
            ok = await final
            assert ok.status == 200
            following.ack(ok)
            await engine.expect(Answered, leg=told.leg)
            call, leg = following, told.leg
        await call.hang_up()


def _break_digits(engine: Engine) -> None:
    """Make the reading of one key raise inside the callback."""
    from pbx.sip.digits import DigitPairing

    def broken(self: DigitPairing, digit: str, via: str, now_s: float) -> bool:
        raise RuntimeError("pressed " + digit * 3)

    DigitPairing.is_new = broken  # type: ignore[method-assign]


async def test_an_exception_in_a_callback_is_counted_and_the_call_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        await engine.ask("break", _break_digits)
        call.request("INFO", "Signal=5\r\nDuration=160\r\n", content_type="application/dtmf-relay")
        await call.response(200, "INFO")
        await asyncio.sleep(0.1)
        assert engine.count(Digit) == 0
        assert (await engine.counters())["callback_errors"] == 1
        engine.expected_callback_errors = 1
        await call.hang_up()
        await engine.expect(Ended, leg=leg)
    logged = capfd.readouterr().err
    assert "A callback failed" in logged
    assert "RuntimeError" in logged
    assert "555" not in logged  # the text of an exception may hold what a caller pressed


async def test_200s_without_ack_are_freed_long_before_the_library_would(tmp_path: Path) -> None:
    async with rig(tmp_path, max_calls=10, ack_within_s=1.0) as engine, await RawPhone.open() as phone:
        silent = [await phone.call(engine.at) for _ in range(10)]
        for call in silent:
            call.request("INVITE", call.sdp())
            engine.do("answer", (await engine.expect(Incoming, sip_call_id=call.call_id)).leg)
        for call in silent:
            await call.response(200)
        refused = await phone.call(engine.at)
        refused.request("INVITE", refused.sdp())
        await refused.response(503)
        for _ in silent:
            assert (await engine.expect(Ended, within_s=3)).cause is Cause.TIMEOUT
        assert (await engine.counters())["unacked_freed"] == 10
        for _ in range(10):
            await answered(engine, await phone.call(engine.at))
        for event in list(engine.events):
            if isinstance(event, Answered):
                engine.do("hangup", event.leg)
        await until(lambda: engine.count(Ended) == 20)


async def test_an_invite_nobody_answers_is_refused_at_its_bound(tmp_path: Path) -> None:
    async with rig(tmp_path, max_calls=1, answer_within_s=0.8) as engine, await RawPhone.open() as phone:
        for ring in (False, True):
            call = await phone.call(engine.at)
            call.request("INVITE", call.sdp())
            leg = (await engine.expect(Incoming, sip_call_id=call.call_id)).leg
            if ring:
                engine.do("ring", leg)
            await call.response(480)
            assert (await engine.expect(Ended, leg=leg)).cause is Cause.TIMEOUT


async def test_a_phone_that_vanishes_is_noticed_and_only_that_one(tmp_path: Path) -> None:
    async with rig(tmp_path, media_loss_s=1.5) as engine, await RawPhone.open() as phone:
        vanishing, talking, held, reporting = [await phone.call(engine.at) for _ in range(4)]
        reporter = await Media.open()
        reporting.rtcp_port = reporter.port
        legs = [await answered(engine, call) for call in (vanishing, talking, held, reporting)]
        for call in (vanishing, talking, held, reporting):
            call.media.say(600)
        await asyncio.sleep(0.4)
        held.request("INVITE", held.sdp(direction="sendonly"))
        held.ack(await held.response(200))
        for call in (vanishing, held, reporting):
            call.media.be_silent()
        began = time.monotonic()
        assert reporting.media.remote is not None
        address, port = reporting.media.remote
        reporter.remote = (address, port + 1)
        report = bytes.fromhex("81c90007") + bytes(4) + os.urandom(4) + bytes(20)  # RFC 3550 6.4.2
        while engine.count(Ended) == 0 and time.monotonic() - began < 5:
            reporter.raw(report)
            await asyncio.sleep(0.1)
        over = await engine.expect(Ended)
        assert (over.leg, over.cause, over.by_peer) == (legs[0], Cause.MEDIA_LOST, False)
        assert 1.0 < time.monotonic() - began < 3.0
        assert "cause=41" in (await vanishing.incoming("BYE")).get("reason")
        await asyncio.sleep(0.5)
        assert engine.count(Ended) == 1
        for call in (talking, held, reporting):
            await call.hang_up()
        reporter.close()


async def test_a_phone_that_never_answers_our_bye_costs_nothing_but_its_slot(tmp_path: Path) -> None:
    async with (
        rig(tmp_path, max_calls=2) as engine,
        await RawPhone.open() as dead,
        await RawPhone.open() as phone,
    ):
        for _ in range(5):
            legs = [await answered(engine, await dead.call(engine.at)) for _ in range(2)]
            dead.mute = True
            for leg in legs:
                engine.do("hangup", leg)
                await engine.expect(Ended, leg=leg, within_s=1)
            dead.mute = False
        call = await phone.call(engine.at)
        await answered(engine, call)
        await call.hang_up()


async def test_bye_before_ack_and_retransmitted_invite(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        for _ in range(10):
            call = await phone.call(engine.at)
            call.request("INVITE", call.sdp())
            call.cseq -= 1
            branch = call.branch
            call.request("INVITE", call.sdp())  # another branch, same CSeq: merged (RFC 3261 8.2.2.2)
            leg = (await engine.expect(Incoming, sip_call_id=call.call_id)).leg
            engine.do("answer", leg)
            ok = await call.wait(lambda m: m.status == 200, 5)
            assert branch in ok.get("via")
            call.take_answer(ok)
            call.request("BYE")
            await engine.expect(Ended, leg=leg)
        assert engine.count(Incoming) == 10


async def test_a_contact_that_names_a_host_does_not_block_the_others(tmp_path: Path) -> None:
    """Names are asked for without waiting, here from a server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind(("127.0.0.53", 53))
        except PermissionError:
            pytest.skip("port 53 is for root")
        async with rig(tmp_path, name_server="127.0.0.53") as engine, await RawPhone.open() as phone:
            good = await phone.call(engine.at)
            await answered(engine, good)
            slow = await phone.call(engine.at)
            slow.request("INVITE", slow.sdp(), {"Contact": "<sip:x@slow-host.invalid:5060>"})
            leg = (await engine.expect(Incoming, sip_call_id=slow.call_id)).leg
            engine.do("answer", leg)
            slow.ack(await slow.response(200))
            await engine.expect(Answered, leg=leg)
            began = time.monotonic()
            engine.do("hangup", leg)
            await engine.expect(Ended, leg=leg)
            await good.hang_up()
            assert time.monotonic() - began < 1.0
        silent.setblocking(False)
        assert b"slow-host" in silent.recv(512)


async def test_garbage_in_the_audio_ports_harms_nobody(tmp_path: Path) -> None:
    noise = random.Random(7)
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        calls[0].media.say(600)
        calls[1].media.say(900)
        engine.do("bridge", *legs)
        await until(lambda: hears(calls[0], 900), what="the bridge")
        stranger = await Media.open()
        try:
            for call in calls:
                assert call.media.remote is not None
                address, port = call.media.remote
                for target in ((address, port), (address, port + 1)):
                    stranger.remote = target
                    for length in (0, 1, 3, 11, 12, 13, 20, 60, 172, 1400, 9000, 60000):
                        stranger.raw(noise.randbytes(length))
                        stranger.raw((b"\x80\x00" + noise.randbytes(length))[:length])
                        stranger.raw((b"\x8f\x65" + noise.randbytes(length))[:length])
                        stranger.raw((b"\x81\xc8\xff\xff" + noise.randbytes(length))[:length])
                        stranger.raw((b"\xbf\xcb\x00\x07" + noise.randbytes(length))[:length])
                    await asyncio.sleep(0.05)
        finally:
            stranger.close()
        await until(lambda: hears(calls[0], 900) and hears(calls[1], 600), what="the bridge after garbage")
        for call in calls:
            await call.hang_up()


async def test_two_hundred_invites_in_one_second(tmp_path: Path) -> None:
    async with rig(tmp_path, max_calls=250) as engine, await RawPhone.open() as phone:
        talking = await phone.call(engine.at)
        steady = await answered(engine, talking)
        talking.media.say(700)

        def at_once(event: LegEvent) -> None:
            if isinstance(event, Incoming):
                engine.do("answer", event.leg)

        engine.on_event = at_once
        calls = [await phone.call(engine.at) for _ in range(200)]
        for start in range(0, 200, 20):
            for call in calls[start : start + 20]:
                call.request("INVITE", call.sdp())
            await asyncio.sleep(0.1)
        for call in calls:
            call.ack(await call.response(200))
        await asyncio.gather(*(call.hang_up() for call in calls))
        await until(lambda: engine.count(Ended) == 200)
        assert not any(isinstance(event, Ended) for event in engine.of(steady))
        assert (await engine.counters())["rejected_overload"] == 0
        await talking.hang_up()


async def test_torture_leaves_the_engine_and_other_calls_unharmed(tmp_path: Path) -> None:
    async with rig(tmp_path, answer_within_s=1.0, ack_within_s=1.0) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        calls[0].media.say(600)
        engine.do("bridge", *legs)

        def at_once(event: LegEvent) -> None:
            if isinstance(event, Incoming):
                engine.do("answer", event.leg)

        engine.on_event = at_once
        async with await RawPhone.open() as stranger:
            target = f"{engine.at[0]}:{engine.at[1]}"
            wrong = []
            for name, message in messages(target=target, sender=f"127.0.0.1:{stranger.port}").items():
                stranger.strays.clear()
                stranger.send(message.raw, engine.at)
                await asyncio.sleep(0.08)
                assert engine.process.exitcode is None, f"{name} ended the engine"
                mine = [
                    m.status for m in stranger.strays if m.status and m.get("call-id").startswith(f"{name}.")
                ]
                if (
                    (message.reaction == "ignore" and mine)
                    or (message.reaction == "refuse" and any(200 <= status < 300 for status in mine))
                    or (message.reaction == "accept" and (not mine or 400 in mine))
                ):
                    wrong.append((name, message.section, message.reaction, mine))
            # pjsip forgives three and is deaf to one; only the edge talks to a worker, and it is stricter.
            deviations = {name for name, *_ in wrong}
            assert deviations == {"clerr", "mismatch01", "multi01", "intmeth"}, wrong
        engine.on_event = lambda event: None
        await until(lambda: hears(calls[1], 600), what="the bridge after torture")
        for call in calls:
            await call.hang_up()
        after = await phone.call(engine.at)
        await answered(engine, after)
        await after.hang_up()


async def test_random_damage_to_an_invite_leaves_the_engine_alive(tmp_path: Path) -> None:
    dice = random.Random(20)
    async with rig(tmp_path, answer_within_s=1.0, ack_within_s=1.0) as engine, await RawPhone.open() as phone:
        engine.on_event = lambda e: engine.do("answer", e.leg) if isinstance(e, Incoming) else None
        template = messages(target=f"127.0.0.1:{engine.at[1]}", sender=f"127.0.0.1:{phone.port}")["sdp01"].raw
        for number in range(600):
            raw = bytearray(template.replace(b"sdp01", b"fz%d" % number))
            for _ in range(dice.randrange(1, 12)):
                at = dice.randrange(len(raw))
                kind = dice.randrange(4)
                if kind == 0:
                    raw[at] = dice.randrange(256)
                elif kind == 1:
                    del raw[at : at + dice.randrange(1, 40)]
                elif kind == 2:
                    raw[at:at] = bytes(dice.choices(b'<>;:@,"%\r\n \x00=[]9', k=dice.randrange(1, 20)))
                else:
                    raw[at:at] = raw[at : at + dice.randrange(1, 60)]
            phone.send(bytes(raw), engine.at)
            if number % 20 == 0:
                await asyncio.sleep(0.03)
                assert engine.process.exitcode is None, f"damage {number} ended the engine"
        engine.on_event = lambda event: None
        await asyncio.sleep(1.5)
        call = await phone.call(engine.at)
        await answered(engine, call)
        await call.hang_up()


async def test_sdp_of_every_kind_in_a_reinvite(tmp_path: Path) -> None:
    bodies = [
        "",
        "\r\n",
        "v=0\r\n",
        SDP.replace("49217", "0"),
        SDP.replace("0 12", "97"),
        SDP + "m=video 5000 RTP/AVP 96\r\n",
        SDP.replace("127.0.0.1", "0.0.0.0"),
        SDP.replace("m=audio", "m=text"),
    ]
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        for body in bodies:
            call = await phone.call(engine.at)
            leg = await answered(engine, call)
            await engine.expect(MediaReady, leg=leg)
            call.request("INVITE", body)
            final = await call.wait(lambda m: m.status >= 200 and m.method == "INVITE", 5)
            if final.status == 200:
                call.cseq = int(final.get("cseq").split()[0])
                call.request("ACK", "" if body else call.sdp())
            await asyncio.sleep(0.1)
            call.request("BYE")
            await engine.expect(Ended, leg=leg)


async def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine:
        with pytest.raises(EngineError, match="is another engine running"):
            await Engine(settings(tmp_path, sip_port=engine.at[1]), lambda event: None).start()


async def test_missing_hold_music_is_a_sentence_and_dial_after_it_ends(tmp_path: Path) -> None:
    events: list[LegEvent] = []
    engine = Engine(settings(tmp_path, hold_music=tmp_path / "none.wav"), events.append)
    with pytest.raises(EngineError, match=r"none\.wav cannot be opened"):
        await engine.start()
    await engine.stop()
    leg = engine.dial("sip:1001@127.0.0.1:9", caller_user="x")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [(e.leg, type(e)) for e in events] == [(leg, Ended)]


async def test_engine_starts_again_in_the_same_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        events: list[LegEvent] = []
        engine = Engine(settings(tmp_path), events.append)
        await engine.start()
        leg = engine.dial("garbage", caller_user="x")
        await until(lambda events=events: any(isinstance(e, Ended) for e in events))  # type: ignore[misc]
        await engine.stop()
        await engine.stop()
        late = engine.dial("sip:1001@127.0.0.1:9", caller_user="x")
        await asyncio.sleep(0.01)
        assert [e.leg for e in events if isinstance(e, Ended)] == [leg, late]


async def test_a_dial_that_nobody_hears_ends_within_ten_seconds(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        phone.mute = True
        began = time.monotonic()
        legs = [await engine.dial(f"sip:raw@127.0.0.1:{phone.port}") for _ in range(2)]
        for leg in legs:
            await engine.expect(Ended, leg=leg, within_s=15)
        assert 9.0 < time.monotonic() - began < 12.0  # PJSIP_TD_TIMEOUT


async def test_sockets_stay_in_the_epoll_set_between_packets(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        await answered(engine, call)
        call.media.say(600)
        await asyncio.sleep(0.5)
        process = Path(f"/proc/{engine.process.pid}")
        masks = [
            int(line.split()[3], 16)
            for fd in (process / "fd").iterdir()
            if fd.readlink().name == "anon_inode:[eventpoll]"
            for line in (process / "fdinfo" / fd.name).read_text().splitlines()
            if line.startswith("tfd:")
        ]
        once = select.EPOLLEXCLUSIVE | select.EPOLLONESHOT  # what costs system calls for every packet
        assert len(masks) >= 3
        assert [mask for mask in masks if mask & once] == []
        await call.hang_up()
