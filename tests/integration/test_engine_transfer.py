"""Transfers: REFER received and sent, blind and attended, and INVITE with Replaces."""

import asyncio
from pathlib import Path
from urllib.parse import quote

import pytest

from pbx.core.causes import Cause
from pbx.core.legs import Answered, Ended, Incoming, MediaReady, Replaced, TransferAsked, TransferProgress
from tests.integration.enginerig import rig, until
from tests.integration.rawphone import Dialog, RawPhone
from tests.integration.test_engine_calls import answered
from tests.integration.test_engine_media import hears

pytestmark = pytest.mark.integration


def tags(call: Dialog) -> tuple[str, str]:
    """Tags of the engine's side and of the phone's side."""
    return call.remote.partition(";tag=")[2], call.local.partition(";tag=")[2]


async def test_blind_refer_is_accepted_dialled_and_reported(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        call.request("REFER", headers={"Refer-To": f"<sip:1002@127.0.0.1:{phone.port}>"})
        await call.response(202, "REFER")
        asked = await engine.expect(TransferAsked, leg=leg)
        assert asked.target == f"sip:1002@127.0.0.1:{phone.port}"
        assert asked.replaces is None
        target = await phone.next_call()
        assert target.invite is not None
        assert target.invite.start.split()[1] == asked.target
        target.answer(180)
        target.answer(200)
        await engine.expect(Answered, leg=asked.new_leg)
        await until(
            lambda: any("200" in r.body for r in call.requests if r.method == "NOTIFY"), what="NOTIFY"
        )
        await call.hang_up()
        await engine.expect(Ended, leg=leg)
        engine.do("hangup", asked.new_leg)
        await target.incoming("BYE")
        await engine.expect(Ended, leg=asked.new_leg)


async def test_refer_whose_target_refuses_ends_only_the_new_leg(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        call.request("REFER", headers={"Refer-To": f"<sip:1002@127.0.0.1:{phone.port}>"})
        asked = await engine.expect(TransferAsked, leg=leg)
        (await phone.next_call()).answer(486)
        assert (await engine.expect(Ended, leg=asked.new_leg)).cause is Cause.BUSY
        await until(
            lambda: any("486" in r.body for r in call.requests if r.method == "NOTIFY"), what="NOTIFY"
        )
        await call.hang_up()


@pytest.mark.parametrize(
    "target", ["<sip:1002@no-such-host.invalid>", "<tel:+15550100>", "garbage", "<sip:@>"]
)
async def test_refer_to_nowhere_harms_nobody(tmp_path: Path, target: str) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        calls[0].request("REFER", headers={"Refer-To": target})
        answer = await calls[0].wait(lambda m: m.status >= 200 and m.method == "REFER", 3)
        assert answer.status >= 400 or engine.count(TransferAsked) == 1
        await asyncio.sleep(0.3)
        for call in calls:
            await call.hang_up()
        for leg in legs:
            await engine.expect(Ended, leg=leg)


async def test_refer_through_the_edge_whatever_host_it_names(tmp_path: Path) -> None:
    async with await RawPhone.open() as edge, rig(tmp_path, edge=f"127.0.0.1:{edge.port}") as engine:
        call = await edge.call(engine.at)
        leg = await answered(engine, call)
        call.request("REFER", headers={"Refer-To": "<sip:1002@clinic.example>"})
        asked = await engine.expect(TransferAsked, leg=leg)
        target = await edge.next_call()
        assert target.invite is not None
        assert target.invite.start.split()[1] == "sip:1002@clinic.example"
        assert f"127.0.0.1:{edge.port}" in target.invite.get("route")
        engine.do("hangup", asked.new_leg)
        await call.hang_up()


async def test_attended_refer_names_the_leg_it_replaces(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone, await RawPhone.open() as other:
        first = await phone.call(engine.at)
        leg = await answered(engine, first)
        out = await engine.dial(f"sip:1002@127.0.0.1:{other.port}")
        second = await other.next_call()
        second.answer(200)
        await engine.expect(Answered, leg=out)
        theirs, ours = second.local.partition(";tag=")[2], second.remote.partition(";tag=")[2]
        replaces = quote(f"{second.call_id};to-tag={theirs};from-tag={ours}", safe="")
        first.request("REFER", headers={"Refer-To": f"<sip:1002@127.0.0.1:{other.port}?Replaces={replaces}>"})
        asked = await engine.expect(TransferAsked, leg=leg)
        assert asked.replaces == out
        assert "?" not in asked.target
        third = await other.next_call()
        assert third.invite is not None
        assert third.invite.get("replaces").startswith(second.call_id)
        third.answer(200)
        await engine.expect(Answered, leg=asked.new_leg)
        for one in (leg, out, asked.new_leg):
            engine.do("hangup", one)
        for one in (leg, out, asked.new_leg):
            await engine.expect(Ended, leg=one)


async def test_invite_with_replaces_takes_over_a_leg(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        ours, theirs = tags(calls[0])
        taker = await phone.call(engine.at)
        value = f"{calls[0].call_id};to-tag={ours};from-tag={theirs}"
        taker.request("INVITE", taker.sdp(), {"Replaces": value, "Require": "replaces"})
        taker.ack(await taker.response(200))
        told = await engine.expect(Replaced, leg=legs[0])
        await calls[0].incoming("BYE")
        over = await engine.expect(Ended, leg=legs[0])
        assert over.cause is Cause.NORMAL
        await engine.expect(Answered, leg=told.new_leg)
        await engine.expect(MediaReady, leg=told.new_leg)
        engine.do("bridge", told.new_leg, legs[1])
        calls[1].media.say(900)
        await until(lambda: hears(taker, 900), what="the bridge to the new leg")
        await taker.hang_up()
        await engine.expect(Ended, leg=told.new_leg)
        await calls[1].hang_up()
        assert engine.count(Incoming) == 2


async def test_replaces_of_an_unknown_dialog_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        await answered(engine, call)
        for value in (f"{call.call_id};to-tag=no;from-tag=no", "no;to-tag=a;from-tag=b", "garbage"):
            taker = await phone.call(engine.at)
            taker.request("INVITE", taker.sdp(), {"Replaces": value, "Require": "replaces"})
            final = await taker.wait(lambda m: m.status >= 300 and m.method == "INVITE", 3)
            assert final.status in (400, 481)
        await call.hang_up()
        await engine.expect(Ended)
        await asyncio.sleep(0.1)
        counted = await engine.counters()
        assert counted["active"] == 0
        assert engine.count(Incoming) == 1


async def test_blind_transfer_sent_and_its_progress(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        engine.do("refer", leg, "sip:1003@127.0.0.1:9")
        refer = await call.incoming("REFER")
        assert "sip:1003@127.0.0.1:9" in refer.get("refer-to")
        call.respond(refer, 202)
        for body, state in (
            ("SIP/2.0 180 Ringing", "active"),
            ("SIP/2.0 200 OK", "terminated;reason=noresource"),
        ):
            call.request(
                "NOTIFY",
                body + "\r\n",
                {"Event": "refer", "Subscription-State": state},
                content_type="message/sipfrag;version=2.0",
            )
            await call.response(200, "NOTIFY")
        await engine.expect(TransferProgress, leg=leg, code=180, final=False)
        await engine.expect(TransferProgress, leg=leg, code=200, final=True)
        await call.hang_up()


async def test_refused_transfer_is_told(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        call = await phone.call(engine.at)
        leg = await answered(engine, call)
        engine.do("refer", leg, "sip:1003@127.0.0.1:9")
        refer = await call.incoming("REFER")
        call.respond(refer, 603)
        told = await engine.expect(TransferProgress, leg=leg)
        assert told.code >= 300
        assert told.final
        await call.hang_up()


async def test_attended_transfer_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as engine, await RawPhone.open() as phone:
        calls = [await phone.call(engine.at) for _ in range(2)]
        legs = [await answered(engine, call) for call in calls]
        engine.do("refer_to", legs[0], legs[1])
        refer = await calls[0].incoming("REFER")
        assert "Replaces=" in refer.get("refer-to")
        assert quote(calls[1].call_id, safe="") in refer.get("refer-to")
        calls[0].respond(refer, 202)
        engine.do("refer_to", legs[1], 999_999)
        told = await engine.expect(TransferProgress, leg=legs[1])
        assert (told.code, told.final) == (481, True)
        for call in calls:
            await call.hang_up()
