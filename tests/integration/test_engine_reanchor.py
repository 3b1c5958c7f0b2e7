"""A leg whose audio stopped is offered anew, as after the death of a media relay; never at its cost."""

import asyncio
import time
from pathlib import Path

import pytest

from pbx.core.causes import Cause
from pbx.core.legs import Ended
from tests.integration.enginerig import rig, until
from tests.integration.rawphone import Dialog, Media, RawPhone
from tests.integration.test_engine_calls import answered
from tests.integration.test_engine_media import hears

pytestmark = pytest.mark.integration


def offers(call: Dialog) -> int:
    """Re-INVITEs that came, repetitions not counted."""
    return len({m.get("cseq") for m in call.requests if m.method == "INVITE"})


async def test_a_leg_moves_to_a_new_relay_and_the_other_one_is_left_alone(tmp_path: Path) -> None:
    async with rig(tmp_path, reanchor_after_s=1.0) as engine, await RawPhone.open() as phone:
        lost, fine = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in (lost, fine)]
        engine.do("bridge", *legs)
        lost.media.say(620)
        fine.media.say(880)
        await until(lambda: hears(lost, 880) and hears(fine, 620), what="both parties")
        old = lost.media
        old.be_silent()
        began = time.monotonic()
        offer = await lost.incoming("INVITE")
        assert 0.9 < time.monotonic() - began < 3.0
        assert "a=sendrecv" in offer.body
        lost.media = await Media.open()
        lost.take_answer(offer)
        lost.respond(offer, 200, lost.sdp())
        await lost.incoming("ACK")
        lost.media.say(620)
        await until(lambda: hears(lost, 880) and hears(fine, 620), what="both parties again")
        got = len(old.received)
        await asyncio.sleep(1.5)
        assert len(old.received) == got
        assert (offers(lost), offers(fine)) == (1, 0)
        assert (await engine.counters())["reanchored"] == 1
        lost.media.close()
        for call in (lost, fine):
            await call.hang_up()


@pytest.mark.parametrize("status", [488, 491, 500, 408, 0])
async def test_a_phone_that_refuses_keeps_its_call(tmp_path: Path, status: int) -> None:
    async with rig(tmp_path, reanchor_after_s=0.5) as engine, await RawPhone.open() as phone:
        refusing, other = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in (refusing, other)]
        engine.do("bridge", *legs)
        other.media.say(880)
        offer = await refusing.incoming("INVITE")
        if status:
            refusing.respond(offer, status)
            await refusing.incoming("ACK")
        else:
            await asyncio.sleep(11)  # until the transaction gives up
        await until(lambda: hears(refusing, 880), what="the other party")
        refusing.media.say(620)
        await until(lambda: hears(other, 620), what="the one who refused")
        engine.do("hold", legs[0])  # and the next offer of ours goes through
        hold = await refusing.incoming("INVITE")
        while "a=sendonly" not in hold.body:
            hold = await refusing.incoming("INVITE")
        refusing.respond(hold, 200, refusing.sdp(direction="recvonly"))
        await refusing.incoming("ACK")
        assert engine.count(Ended) == 0
        for call in (refusing, other):
            await call.hang_up()


async def test_glare_does_no_harm(tmp_path: Path) -> None:
    async with rig(tmp_path, reanchor_after_s=0.5) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        await answered(engine, call)
        offer = await call.incoming("INVITE")
        call.request("INVITE", call.sdp())  # both at once (RFC 3261 14.1)
        theirs = await call.response(4)
        assert theirs.status == 491
        call.request("ACK", same=True)
        call.respond(offer, 491)
        await call.incoming("ACK")
        call.request("INVITE", call.sdp())
        call.ack(await call.response(200))
        call.media.say(620)
        await asyncio.sleep(1.5)
        assert engine.count(Ended) == 0
        await call.hang_up()


async def test_silence_ends_a_leg_in_spite_of_accepted_offers(tmp_path: Path) -> None:
    async with (
        rig(tmp_path, reanchor_after_s=0.5, media_loss_s=3.0) as engine,
        await RawPhone.open() as phone,
    ):
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        began = time.monotonic()
        offer = await call.incoming("INVITE")
        call.media = await Media.open()
        call.respond(offer, 200, call.sdp())
        assert (await engine.expect(Ended, leg=leg, within_s=8)).cause is Cause.MEDIA_LOST
        assert 2.5 < time.monotonic() - began < 5.0
        call.media.close()


async def test_a_muted_phone_is_not_asked_again_and_again_and_one_on_hold_never(tmp_path: Path) -> None:
    async with rig(tmp_path, reanchor_after_s=0.5) as engine, await RawPhone.open() as phone:
        muted, held = [await phone.call(engine.at) for _ in range(2)]
        reporter = await Media.open()
        muted.rtcp_port = reporter.port
        for call in (muted, held):
            await answered(engine, call)
        assert muted.media.remote is not None
        reporter.remote = (muted.media.remote[0], muted.media.remote[1] + 1)
        held.request("INVITE", held.sdp(direction="sendonly"))
        held.ack(await held.response(200))
        until_s, done = time.monotonic() + 8, set[str]()
        while time.monotonic() < until_s:
            reporter.raw(bytes.fromhex("80c9000100001267"))  # an empty receiver report (RFC 3550 6.4.2)
            for message in muted.requests[:]:
                if message.method == "INVITE" and message.get("cseq") not in done:
                    done.add(message.get("cseq"))
                    muted.respond(message, 200, muted.sdp())
            await asyncio.sleep(1)
        assert 1 <= offers(muted) <= 2
        assert offers(held) == 0
        for call in (muted, held):
            await call.hang_up()
        reporter.close()
