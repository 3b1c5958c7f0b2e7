"""Calls through the edge: who may call whom, what the worker is told, and that media passes rtpengine."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.edgerig import (
    EDGE,
    PASSWORD,
    SIP_PORT,
    TLS_PORT,
    TRUNK_A,
    TRUNK_B,
    TRUNK_PORT,
    WORKER_PORT,
    WORKERS,
    WS_PORT,
    Edge,
    running_edge,
)
from tests.e2e.edgesip import Agent, Dialog, Message, Rtp, Worker, sdp
from tests.integration.pgrig import RunningPostgres, postgres

pytestmark = pytest.mark.e2e
__all__ = ["postgres"]

UDP = (EDGE, SIP_PORT)
DID = f"sip:+15550100@{EDGE}:{SIP_PORT}"


@pytest_asyncio.fixture(loop_scope="function")
async def edge(postgres: RunningPostgres) -> AsyncIterator[Edge]:
    """A running edge with the accounts 1001 and 1002."""
    async with running_edge(postgres) as running:
        for username in ("1001", "1002"):
            await running.add_phone(username)
        yield running


@pytest_asyncio.fixture(loop_scope="function")
async def worker(edge: Edge) -> AsyncIterator[Worker]:
    """Worker 1; worker 2 is dead and known to be."""
    async with await Worker.listening(WORKERS, WORKER_PORT, UDP) as listening:
        await edge.worker_states({1: "active", 2: "inactive"})
        yield listening


async def trunk(host: str = TRUNK_A) -> Agent:
    """A trunk's SIP side."""
    return await Agent.udp(host, UDP, TRUNK_PORT)


async def test_a_trunks_call_reaches_a_worker_with_anchored_media(edge: Edge, worker: Worker) -> None:
    async with await trunk() as network:
        calls = []
        for number in (1, 2):  # two at once: their media must not mix
            theirs, ours = await Rtp.open(TRUNK_A), await Rtp.open(WORKERS)
            invite = network.new("INVITE", DID, user=f"+1555020{number}", body=sdp(TRUNK_A, theirs.port))
            invite.headers.append(("X-Hotline-Src", "user"))
            invite.headers.append(("X-hotline-id", "1001"))
            invite.headers.append(("P-Asserted-Identity", "<sip:+15550201@example.net>"))
            network.send(invite)
            request = await worker.request("INVITE")
            assert request.all("X-Hotline-Src") == ["trunk"]
            assert request.all("X-Hotline-Id") == ["alpha"]
            assert request.get("P-Asserted-Identity")
            assert request.uri.startswith("sip:+15550100@")
            assert "RTP/AVP" in request.body
            assert request.media_address[0] == EDGE
            assert 50000 <= request.media_port < 52000
            reply = worker.reply(request, 200, body=sdp(WORKERS, ours.port))
            final = await network.final(invite.get("Call-ID"))
            assert final.code == 200
            assert final.media_address[0] == EDGE
            network.ack(invite, final)
            await worker.request("ACK")
            calls.append((invite, final, request, reply, theirs, ours))
        for number, (_, final, request, _, theirs, ours) in enumerate(calls):
            for _ in range(5):
                theirs.send(final.media_address, bytes([number]) * 160)
                ours.send(request.media_address, bytes([number + 10]) * 160)
                await asyncio.sleep(0.02)
            assert {packet[12] for packet in ours.got} == {number}
            assert {packet[12] for packet in theirs.got} == {number + 10}
            assert {address[0] for address in ours.sources | theirs.sources} == {EDGE}
        assert len(await edge.held_calls()) == 2
        for invite, final, request, reply, theirs, ours in calls:
            if invite is calls[0][0]:
                Dialog.of_caller(network, invite, final).send("BYE")
                worker.reply(await worker.request("BYE"), 200)
                assert (await network.final(invite.get("Call-ID"))).code == 200
            else:
                Dialog.of_callee(worker, request, reply).send("BYE")
                network.reply(await network.request("BYE"), 200)
                assert (await worker.final(invite.get("Call-ID"))).code == 200
            theirs.close()
            ours.close()
        assert await edge.held_calls() == []


async def test_a_phone_must_authenticate_and_reaches_workers_only(edge: Edge, worker: Worker) -> None:
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        invite = phone.new("INVITE", DID, user="1001", body=sdp("127.0.49.10", 4000))
        invite.headers.append(("P-Asserted-Identity", "<sip:boss@example.net>"))
        invite.headers.append(("Route", f"<sip:{TRUNK_A}:{TRUNK_PORT};lr>"))
        phone.send(invite)
        refused = await phone.final(invite.get("Call-ID"))
        assert refused.code == 407
        phone.ack(invite, refused)
        assert worker.invites == 0

        again = phone.with_credentials(invite, refused, "1001", PASSWORD)
        phone.send(again)
        request = await worker.request("INVITE")
        assert request.all("X-Hotline-Src") == ["user"]
        assert request.all("X-Hotline-Id") == ["1001"]
        assert not request.get("P-Asserted-Identity")
        assert not request.get("Proxy-Authorization")
        assert not request.get("Route")
        worker.reply(request, 486)
        final = await phone.final(invite.get("Call-ID"))
        assert final.code == 486
        phone.ack(again, final)
        assert await edge.held_calls() == []

        for method in ("MESSAGE", "REFER", "SUBSCRIBE", "PUBLISH"):
            said = phone.new(method, "sip:1002@careline", user="1001")
            phone.send(said)
            assert (await phone.final(said.get("Call-ID"))).code == 405
        other = phone.new("INVITE", DID, user="1002", body=sdp("127.0.49.10", 4000))
        answer = await phone.authenticated(other, "1001", PASSWORD)
        assert answer.code == 403, "a phone may not call as another account"


async def test_forged_dialogs_go_nowhere(edge: Edge, worker: Worker) -> None:
    async with await trunk() as network, await Agent.udp("127.0.49.10", UDP) as stranger:
        ours = f"<sip:{EDGE}:{SIP_PORT};lr>"
        for target, routes, code in (
            (f"sip:+15550199@{TRUNK_A}:{TRUNK_PORT}", [ours], 403),
            (f"sip:{WORKERS}:{WORKER_PORT}", [ours, f"<sip:{TRUNK_A}:{TRUNK_PORT};lr>"], 403),
            ("sip:1001@127.0.49.11:5060", [ours], 403),
            (f"sip:+15550199@{EDGE}:{SIP_PORT}", [], 404),
            (f"sip:+15550199@{TRUNK_A}:{TRUNK_PORT}", [], 404),
        ):
            for method in ("INVITE", "BYE", "INFO", "ACK"):
                forged = stranger.new(
                    method, target, to=f"<{target}>;tag=forged", body=sdp("127.0.49.10", 4000)
                )
                forged.headers[2:2] = [("Route", route) for route in routes]
                stranger.send(forged)
                if method != "ACK":
                    assert (await stranger.final(forged.get("Call-ID"))).code == code, (target, routes)
        await network.nothing()
        assert worker.inbox == []


async def test_a_worker_calls_every_phone_of_an_account(edge: Edge, worker: Worker) -> None:
    async with await Agent.udp("127.0.49.10", UDP) as desk, await Agent.tcp("127.0.49.11", UDP) as soft:
        for phone in (desk, soft):
            assert (await phone.register("1001", PASSWORD)).code == 200
        media = await Rtp.open(WORKERS)
        invite = worker.new(
            "INVITE", f"sip:1001@{EDGE}:{SIP_PORT}", user="hotline", body=sdp(WORKERS, media.port)
        )
        invite.headers.append(("X-Hotline-Call", "abc"))
        worker.send(invite)
        ringing = {phone: await phone.request("INVITE") for phone in (desk, soft)}
        assert ringing[desk].media_address[0] == ringing[soft].media_address[0] == EDGE
        assert ringing[desk].media_port != ringing[soft].media_port, "each branch has its own media"
        for phone, request in ringing.items():
            assert request.get("X-Hotline-Call") == "abc"
            phone.reply(request, 180)
        answer = await Rtp.open("127.0.49.11")
        soft.reply(ringing[soft], 200, body=sdp("127.0.49.11", answer.port))
        final = await worker.final(invite.get("Call-ID"))
        assert final.code == 200
        worker.ack(invite, final)
        await soft.request("ACK")
        desk.reply(await desk.request("CANCEL"), 200)
        desk.reply(ringing[desk], 487)
        await desk.request("ACK")
        for _ in range(5):
            media.send(final.media_address, b"\x01" * 160)
            answer.send(ringing[soft].media_address, b"\x02" * 160)
            await asyncio.sleep(0.02)
        assert {packet[12] for packet in answer.got} == {1}
        assert {packet[12] for packet in media.got} == {2}
        dialog = Dialog.of_caller(worker, invite, final)
        dialog.send("BYE")
        soft.reply(await soft.request("BYE"), 200)
        assert (await worker.final(invite.get("Call-ID"))).code == 200
        assert await edge.held_calls() == []
        for rtp in (media, answer):
            rtp.close()


async def test_a_phone_that_is_not_there(edge: Edge, worker: Worker) -> None:
    for user in ("1001", "nobody"):
        invite = worker.new("INVITE", f"sip:{user}@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
        worker.send(invite)
        final = await worker.final(invite.get("Call-ID"))
        assert final.code == 480
        worker.ack(invite, final)
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        assert (await phone.register("1001", PASSWORD)).code == 200
    invite = worker.new("INVITE", f"sip:1001@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
    worker.send(invite)
    final = await worker.final(invite.get("Call-ID"), within_s=8)
    assert final.code == 408
    worker.ack(invite, final)
    assert await edge.held_calls() == []


async def test_cancel_by_the_worker(edge: Edge, worker: Worker) -> None:
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        assert (await phone.register("1001", PASSWORD)).code == 200
        invite = worker.new("INVITE", f"sip:1001@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
        worker.send(invite)
        request = await phone.request("INVITE")
        phone.reply(request, 180)
        await worker.wait(lambda m: m.code == 180)
        assert len(await edge.held_calls()) == 1
        worker.send(cancel_of(invite))
        phone.reply(await phone.request("CANCEL"), 200)
        phone.reply(request, 487)
        await phone.request("ACK")
        final = await worker.wait(lambda m: m.code == 487)
        worker.ack(invite, final)
        assert await edge.held_calls() == []


def cancel_of(invite: Message) -> Message:
    """The CANCEL of an INVITE (RFC 3261 9.1)."""
    kept = ("Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq")
    headers = [(n, v.replace("INVITE", "CANCEL")) for n, v in invite.headers if n in kept]
    return Message(f"CANCEL {invite.uri} SIP/2.0", headers)


async def test_cancel_and_200_cross(edge: Edge, worker: Worker) -> None:
    """The worker answered before it saw the CANCEL: the call is up, and its BYE leaves nothing behind."""
    async with await trunk() as network:
        for _ in range(2):
            invite = network.new("INVITE", DID, body=sdp(TRUNK_A, 4000))
            network.send(invite)
            request = await worker.request("INVITE")
            network.send(cancel_of(invite))
            worker.reply(request, 200, body=sdp(WORKERS, 4200))
            final = await network.wait(lambda m: m.code == 200 and m.cseq == "INVITE")
            network.ack(invite, final)
            await worker.request("ACK")
            Dialog.of_caller(network, invite, final).send("BYE")
            worker.reply(await worker.request("BYE"), 200)
            await network.wait(lambda m: m.code == 200 and m.cseq == "BYE")
            network.inbox.clear()
            worker.inbox.clear()
        assert await edge.held_calls() == []


async def test_a_phone_gives_up_at_once(edge: Edge, worker: Worker) -> None:
    """CANCEL right behind the INVITE, while the password may still be looked up."""
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        for pause_s in (0, 0.005, 0.05):
            first = phone.new("INVITE", "sip:600@careline", user="1001", body=sdp("127.0.49.10", 4000))
            phone.send(first)
            refused = await phone.final(first.get("Call-ID"))
            phone.ack(first, refused)
            invite = phone.with_credentials(first, refused, "1001", PASSWORD)
            phone.send(invite)
            await asyncio.sleep(pause_s)
            phone.send(cancel_of(invite))
            final = None
            for _ in range(25):  # a phone repeats its CANCEL; one that overtakes the INVITE is ignored
                await asyncio.sleep(0.2)
                for request in [m for m in worker.inbox if m.method == "CANCEL"]:
                    worker.reply(request, 200)
                    invited = next(m for m in worker.inbox if m.method == "INVITE")
                    worker.reply(invited, 487)
                    worker.inbox.clear()
                final = next((m for m in phone.inbox if m.code >= 400 and m.cseq == "INVITE"), None)
                if final:
                    break
                phone.send(cancel_of(invite))
            assert final
            assert final.code == 487
            phone.inbox.clear()
            phone.ack(invite, final)
        await asyncio.sleep(0.3)
        assert await edge.held_calls() == []


async def test_to_the_telephone_network_by_priority(edge: Edge, worker: Worker) -> None:
    async with await trunk(TRUNK_A) as alpha, await trunk(TRUNK_B) as beta:
        for refusal in (503, 0):  # refused, then silent
            media = await Rtp.open(WORKERS)
            invite = worker.new(
                "INVITE", DID.replace("0100", "0300"), user="+15550111", body=sdp(WORKERS, media.port)
            )
            invite.headers.append(("X-Hotline-Call", "abc"))
            worker.send(invite)
            first = await alpha.request("INVITE")
            assert first.uri == f"sip:+15550300@{TRUNK_A}:{TRUNK_PORT}"
            assert not first.get("X-Hotline-Call"), "our headers stay inside"
            if refusal:
                alpha.reply(first, refusal)
            second = await beta.request("INVITE")
            assert second.uri == f"sip:+15550300@{TRUNK_B}:{TRUNK_PORT}"
            beta.reply(second, 183, body=sdp(TRUNK_B, 4100))
            early = await worker.wait(lambda m: m.code == 183)
            assert early.media_address[0] == EDGE, "early media is anchored"
            beta.reply(second, 200, body=sdp(TRUNK_B, 4100))
            final = await worker.final(invite.get("Call-ID"))
            assert final.code == 200
            worker.ack(invite, final)
            await beta.request("ACK")
            Dialog.of_caller(worker, invite, final).send("BYE")
            beta.reply(await beta.request("BYE"), 200)
            await worker.final(invite.get("Call-ID"))
            media.close()
        alpha.inbox.clear()
        # alpha was silent a moment ago: the next call does not wait for it
        invite = worker.new("INVITE", DID.replace("0100", "0300"), body=sdp(WORKERS, 4000))
        worker.send(invite)
        beta.reply(await beta.request("INVITE", within_s=1), 404)
        final = await worker.final(invite.get("Call-ID"))
        assert final.code == 404, "the number's own answer, not a reason to try elsewhere"
        worker.ack(invite, final)
        assert alpha.inbox == []
        assert await edge.held_calls() == []


async def test_later_requests_in_both_directions(edge: Edge, worker: Worker) -> None:
    """re-INVITE (hold), UPDATE, a late offer, INFO: all with media kept in rtpengine."""
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        invite = phone.new("INVITE", "sip:600@careline", user="1001", body=sdp("127.0.49.10", 4000))
        phone.send(invite)
        refused = await phone.final(invite.get("Call-ID"))
        phone.ack(invite, refused)
        invite = phone.with_credentials(invite, refused, "1001", PASSWORD)
        phone.send(invite)
        request = await worker.request("INVITE")
        reply = worker.reply(request, 200, body=sdp(WORKERS, 4200))
        final = await phone.final(invite.get("Call-ID"))
        phone.ack(invite, final)
        await worker.request("ACK")
        caller, callee = Dialog.of_caller(phone, invite, final), Dialog.of_callee(worker, request, reply)
        for method, asking, asked, where, hosts in (
            ("INVITE", caller, worker, phone, ("127.0.49.10", WORKERS)),
            ("INVITE", callee, phone, worker, (WORKERS, "127.0.49.10")),
            ("UPDATE", caller, worker, phone, ("127.0.49.10", WORKERS)),
            ("UPDATE", callee, phone, worker, (WORKERS, "127.0.49.10")),
        ):
            sent = asking.send(method, body=sdp(hosts[0], 4300))
            got = await asked.request(method)
            assert got.media_address[0] == EDGE
            asked.reply(got, 200, body=sdp(hosts[1], 4400))
            answer = await where.final(invite.get("Call-ID"))
            assert answer.code == 200
            assert answer.media_address[0] == EDGE
            if method == "INVITE":
                asking.send("ACK", cseq=sent.get("CSeq").split()[0])
                await asked.request("ACK")
        # a late offer: the offer comes in the 200, the answer in the ACK
        sent = callee.send("INVITE")
        got = await phone.request("INVITE")
        assert got.body == ""
        phone.reply(got, 200, body=sdp("127.0.49.10", 4500))
        offer = await worker.final(invite.get("Call-ID"))
        assert offer.media_address[0] == EDGE
        callee.send("ACK", body=sdp(WORKERS, 4600), cseq=sent.get("CSeq").split()[0])
        assert (await phone.request("ACK")).media_address[0] == EDGE
        callee.send("INFO")
        phone.reply(await phone.request("INFO"), 200)
        assert (await worker.final(invite.get("Call-ID"))).code == 200
        assert len(await edge.held_calls()) == 1
        caller.send("BYE")
        worker.reply(await worker.request("BYE"), 200)
        await phone.final(invite.get("Call-ID"))
        assert await edge.held_calls() == []


async def test_secure_phones_and_browsers_are_plain_to_workers(edge: Edge, worker: Worker) -> None:
    crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"
    async with await Agent.tcp("127.0.49.10", (EDGE, TLS_PORT), tls=True) as phone:
        assert (await phone.register("1001", PASSWORD)).code == 200
        invite = phone.new(
            "INVITE",
            "sip:600@careline;transport=tls",
            user="1001",
            body=sdp("127.0.49.10", 4000, profile="RTP/SAVP", more=crypto),
        )
        phone.send(invite)
        refused = await phone.final(invite.get("Call-ID"))
        phone.ack(invite, refused)
        invite = phone.with_credentials(invite, refused, "1001", PASSWORD)
        phone.send(invite)
        request = await worker.request("INVITE")
        assert f"m=audio {request.media_port} RTP/AVP " in request.body
        assert "a=crypto" not in request.body
        assert "transport=tls" not in request.uri
        reply = worker.reply(request, 200, body=sdp(WORKERS, 4200))
        final = await phone.final(invite.get("Call-ID"))
        assert "RTP/SAVP" in final.body
        assert "a=crypto" in final.body
        phone.ack(invite, final)
        await worker.request("ACK")
        # the worker's hold: what the phone spoke at first is kept
        callee = Dialog.of_callee(worker, request, reply)
        sent = callee.send("INVITE", body=sdp(WORKERS, 4200).replace("sendrecv", "sendonly"))
        got = await phone.request("INVITE")
        assert "RTP/SAVP" in got.body
        phone.reply(
            got,
            200,
            body=sdp("127.0.49.10", 4000, profile="RTP/SAVP", more=crypto).replace("sendrecv", "recvonly"),
        )
        answer = await worker.final(invite.get("Call-ID"))
        assert "RTP/AVP" in answer.body
        callee.send("ACK", cseq=sent.get("CSeq").split()[0])
        await phone.request("ACK")
        callee.send("BYE")
        phone.reply(await phone.request("BYE"), 200)
        await worker.final(invite.get("Call-ID"))

        # called by a worker: SRTP is offered
        invite = worker.new("INVITE", f"sip:1001@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
        worker.send(invite)
        got = await phone.request("INVITE")
        assert "RTP/SAVP " in got.body
        assert "a=crypto" in got.body
        phone.reply(got, 486)
        worker.ack(invite, await worker.final(invite.get("Call-ID")))
    async with await Agent.websocket("127.0.49.12", (EDGE, WS_PORT)) as browser:
        assert (await browser.register("1002", PASSWORD)).code == 200
        invite = worker.new("INVITE", f"sip:1002@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
        worker.send(invite)
        got = await browser.request("INVITE")
        for part in ("RTP/SAVPF", "a=fingerprint:", "a=ice-ufrag:", "a=candidate:", "a=rtcp-mux"):
            assert part in got.body, part
        assert "a=crypto" not in got.body
        browser.reply(got, 603)
        worker.ack(invite, await worker.final(invite.get("Call-ID")))
    assert await edge.held_calls() == []


async def test_a_phone_with_opus_alone_is_transcoded(edge: Edge, worker: Worker) -> None:
    async with await trunk() as network:
        body = sdp(TRUNK_A, 4000, formats="96 101", more="a=rtpmap:96 opus/48000/2\r\n")
        invite = network.new("INVITE", DID, body=body)
        network.send(invite)
        request = await worker.request("INVITE")
        assert " RTP/AVP 0 " in request.body
        assert "opus" not in request.body
        worker.reply(request, 200, body=sdp(WORKERS, 4200))
        final = await network.final(invite.get("Call-ID"))
        assert "opus/48000" in final.body
        network.ack(invite, final)
        await worker.request("ACK")
        Dialog.of_caller(network, invite, final).send("BYE")
        worker.reply(await worker.request("BYE"), 200)
        await network.final(invite.get("Call-ID"))


async def test_fifty_calls_leave_nothing_behind(edge: Edge, worker: Worker) -> None:
    """Answered, busy, cancelled, unanswered offers: rtpengine holds no call afterwards."""
    async with await trunk() as network:
        for number in range(50):
            invite = network.new("INVITE", DID, user=f"+1555{number:04}", body=sdp(TRUNK_A, 4000 + number))
            network.send(invite)
            request = await worker.request("INVITE")
            if number % 3 == 0:
                worker.reply(request, 200, body=sdp(WORKERS, 5000 + number))
                final = await network.final(invite.get("Call-ID"))
                network.ack(invite, final)
                await worker.request("ACK")
                Dialog.of_caller(network, invite, final).send("BYE")
                worker.reply(await worker.request("BYE"), 200)
                await network.final(invite.get("Call-ID"))
            elif number % 3 == 1:
                worker.reply(request, 183, body=sdp(WORKERS, 5000 + number))
                worker.reply(request, 404)
                network.ack(invite, await network.final(invite.get("Call-ID")))
            else:
                worker.reply(request, 180)
                network.send(cancel_of(invite))
                worker.reply(await worker.request("CANCEL"), 200)
                worker.reply(request, 487)
                network.ack(invite, await network.wait(lambda m: m.code == 487))
    assert await edge.held_calls() == []
