"""A call's audio is between its two parties: after its end a phone hears and says nothing.

Phones do go on sending after their BYE. Media ranges are tiny here: ports come again at once.
"""

import asyncio
import struct
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from pbx.core.causes import Cause
from pbx.core.legs import Answered, Ended, LegId
from tests.integration.enginerig import RTP_FIRST, RemoteEngine, rig, until
from tests.integration.rawphone import Dialog, Media, RawPhone
from tests.integration.test_engine_calls import answered
from tests.integration.test_engine_media import hears, settle
from tests.peers import tones

pytestmark = pytest.mark.integration
STRANGER_HZ, ONE_HZ, TWO_HZ = 440.0, 620.0, 880.0
TWO_PORTS_A_LINE = 8


def rtp_port(call: Dialog) -> int:
    """The engine's media port of a call."""
    assert call.media.remote is not None
    return call.media.remote[1]


async def stranger(engine: RemoteEngine, phone: RawPhone) -> Dialog:
    """A call that is over and goes on sending RTP, and RTCP from another port."""
    call = await phone.call(engine.at)
    leg = await answered(engine, call)
    call.media.say(STRANGER_HZ)
    await call.hang_up()
    await engine.expect(Ended, leg=leg)
    return call


async def reports(of: Media, to: int) -> None:
    """Receiver reports (RFC 3550 6.4.2) to an RTCP port, fifty a second, until cancelled."""
    of.remote = ("127.0.0.1", to)
    while True:
        of.raw(struct.pack("!BBHI", 0x80, 201, 1, 4711))
        await asyncio.sleep(0.02)


async def talk(engine: RemoteEngine, phone: RawPhone) -> tuple[list[Dialog], list[LegId]]:
    """Two calls bridged; the phones say nothing yet, so that a stranger is there first."""
    calls = [await phone.call(engine.at) for _ in range(2)]
    legs = [await answered(engine, call) for call in calls]
    engine.do("bridge", *legs)
    await asyncio.sleep(0.2)
    calls[0].media.say(ONE_HZ)
    calls[1].media.say(TWO_HZ)
    return calls, legs


async def test_the_next_legs_of_a_port_hear_only_their_partner(tmp_path: Path) -> None:
    async with rig(tmp_path, rtp_ports=TWO_PORTS_A_LINE) as engine, await RawPhone.open() as phone:
        gone = await stranger(engine, phone)
        reporter = await Media.open()
        reporting = asyncio.create_task(reports(reporter, rtp_port(gone) + 1))
        await asyncio.sleep(0.2)
        got, ports = len(gone.media.received), set()
        for _ in range(10):
            calls, legs = await talk(engine, phone)
            ports |= {rtp_port(call) for call in calls}
            await settle(calls[0])
            for call, hz in zip(calls, (TWO_HZ, ONE_HZ), strict=True):
                await until(partial(hears, call, hz), what="the partner")
                assert tones.heard(call.media.heard(400), STRANGER_HZ).total_ms == 0
            for call, leg in zip(calls, legs, strict=True):
                call.media.be_silent()
                await call.hang_up()
                await engine.expect(Ended, leg=leg)
        assert rtp_port(gone) in ports
        assert len(gone.media.received) == got
        assert reporter.received == []
        reporting.cancel()
        reporter.close()


async def test_a_stranger_does_not_keep_a_leg_alive(tmp_path: Path) -> None:
    changes = {"rtp_ports": TWO_PORTS_A_LINE, "media_loss_s": 1.5}
    async with rig(tmp_path, **changes) as engine, await RawPhone.open() as phone:
        gone = [await stranger(engine, phone) for _ in range(2)]
        reporter = await Media.open()
        reporting = asyncio.create_task(reports(reporter, rtp_port(gone[0]) + 1))
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        assert {rtp_port(call) for call in calls} == {rtp_port(call) for call in gone}
        for leg in legs:
            assert (await engine.expect(Ended, leg=leg)).cause is Cause.MEDIA_LOST
        reporting.cancel()
        reporter.close()


async def test_audio_moves_with_a_reinvite_and_only_with_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        (moving, staying), _ = await talk(engine, phone)
        await until(lambda: hears(moving, TWO_HZ) and hears(staying, ONE_HZ), what="both parties")
        old, new = moving.media, await Media.open()
        new.remote = old.remote
        new.say(STRANGER_HZ)  # from elsewhere, before anybody was told
        await settle(staying, 800)
        assert hears(staying, ONE_HZ)
        assert tones.heard(staying.media.heard(400), STRANGER_HZ).total_ms == 0
        assert new.received == []
        moving.media = new
        moving.request("INVITE", moving.sdp())
        moving.ack(await moving.response(200))
        await until(lambda: hears(moving, TWO_HZ) and hears(staying, STRANGER_HZ), what="both after the move")
        await asyncio.sleep(0.2)
        got = len(old.received)
        await settle(staying)  # the old place goes on sending and is neither heard nor served
        assert tones.heard(staying.media.heard(400), ONE_HZ).total_ms == 0
        assert len(old.received) == got
        for call in (moving, staying):
            await call.hang_up()
        new.close()


async def test_a_port_comes_again_only_after_all_others(tmp_path: Path) -> None:
    async with rig(tmp_path, rtp_ports=40) as engine, await RawPhone.open() as phone:
        incoming, outgoing = [], []
        for _ in range(11):
            call = await phone.call(engine.at)
            leg = await answered(engine, call)
            incoming.append(rtp_port(call))
            dialled = await engine.dial(f"sip:raw@127.0.0.1:{phone.port}")
            theirs = await phone.next_call()
            theirs.answer()
            await engine.expect(Answered, leg=dialled)
            outgoing.append(rtp_port(theirs))
            await call.hang_up()
            await theirs.hang_up()
            await engine.expect(Ended, leg=leg)
            await engine.expect(Ended, leg=dialled)
        for ports in (incoming, outgoing):
            assert len(set(ports)) == 10
            assert ports[0] == ports[10]
            assert all(b - a in (2, -18) for a, b in pairwise(ports))
        used = {*incoming, *outgoing}
        assert len(used) == 20
        assert min(used) >= RTP_FIRST
        assert max(used) + 1 < RTP_FIRST + 40
