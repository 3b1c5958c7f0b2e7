"""Other shapes of the edge: trunks with accounts, workers on a network of their own, direct media."""

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pbx.edge import coturn
from tests.e2e.edgerig import (
    EDGE,
    PASSWORD,
    SIP_PORT,
    TLS_PORT,
    TRUNK_A,
    TRUNK_PORT,
    WORKER_PORT,
    WORKERS,
    RunningChild,
    running_edge,
    settings,
)
from tests.e2e.edgesip import Agent, Dialog, Message, Rtp, Worker, sdp
from tests.integration.pgrig import RunningPostgres, postgres, short_folder
from tests.peers import tones
from tests.peers.baresip import Baresip

pytestmark = pytest.mark.e2e
__all__ = ["postgres"]

UDP = (EDGE, SIP_PORT)
SECRET = r"""a:b\c"d$e'f %41;#"""  # every character that some layer could trip over
CHALLENGE = ("WWW-Authenticate", 'Digest realm="their realm", nonce="abc123", qop="auth"')


def account_trunk(folder: Path, **more: Any) -> dict[str, Any]:
    """A trunk that wants a password."""
    secret = folder / "password"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    return {
        "name": "gamma",
        "host": TRUNK_A,
        "port": TRUNK_PORT,
        "username": "clinic",
        "password_file": secret,
        **more,
    }


def proven(request: Message) -> bool:
    """Whether the request holds the right digest for SECRET (RFC 2617 3.2.2)."""
    header = request.get("Authorization") or request.get("Proxy-Authorization")
    found = dict(re.findall(r'(\w+)="?([^",]+)"?', header))
    if found.get("username") != "clinic":
        return False
    ha1 = hashlib.md5(f"clinic:their realm:{SECRET}".encode()).hexdigest()
    ha2 = hashlib.md5(f"{request.method}:{found['uri']}".encode()).hexdigest()
    middle = (
        f"{found['nonce']}:{found['nc']}:{found['cnonce']}:{found['qop']}"
        if "qop" in found
        else found["nonce"]
    )
    return bool(found["response"] == hashlib.md5(f"{ha1}:{middle}:{ha2}".encode()).hexdigest())


async def test_a_trunk_with_an_account(postgres: RunningPostgres, tmp_path: Path) -> None:
    trunks = [account_trunk(tmp_path, register=True)]
    async with (
        await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as network,
        running_edge(postgres, trunk=trunks, workers=one_worker()) as edge,
        await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker,
    ):
        first = await network.request("REGISTER", within_s=20)
        assert "clinic@" in first.get("To")
        network.reply(first, 401, headers=[CHALLENGE])
        second = await network.request("REGISTER")
        assert proven(second)
        contact = re.search(r"<([^>]+)>", second.get("Contact"))
        assert contact
        assert contact[1] == f"sip:gamma@{EDGE}:{SIP_PORT}"
        network.reply(second, 200, headers=[("Expires", "600")])

        # it calls the contact we gave; the number is in To
        await edge.worker_states({1: "active"})
        invite = network.new("INVITE", contact[1], to="<sip:+15550100@example.net>", body=sdp(TRUNK_A, 4000))
        network.send(invite)
        request = await worker.request("INVITE")
        assert request.uri.startswith("sip:+15550100@")
        assert request.get("X-Hotline-Id") == "gamma"
        worker.reply(request, 486)
        network.ack(invite, await network.final(invite.get("Call-ID")))

        # we call out: its challenge is answered, the worker sees none of it
        invite = worker.new("INVITE", f"sip:+15550300@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
        worker.send(invite)
        plain = await network.request("INVITE")
        network.reply(plain, 407, headers=[("Proxy-Authenticate", CHALLENGE[1])])
        await network.request("ACK")
        proof = await network.request("INVITE")
        assert proven(proof)
        network.reply(proof, 200, body=sdp(TRUNK_A, 4100))
        final = await worker.final(invite.get("Call-ID"))
        assert final.code == 200
        worker.ack(invite, final)
        await network.request("ACK")
        Dialog.of_caller(worker, invite, final).send("BYE")
        network.reply(await network.request("BYE"), 200)
        await worker.final(invite.get("Call-ID"))
        assert await edge.held_calls() == []

        # a second challenge means a wrong password: no endless loop
        invite = worker.new("INVITE", f"sip:+15550300@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
        worker.send(invite)
        for _ in range(2):
            network.reply(
                await network.request("INVITE"), 407, headers=[("Proxy-Authenticate", CHALLENGE[1])]
            )
            await network.request("ACK")
        final = await worker.final(invite.get("Call-ID"))
        assert final.code == 407
        worker.ack(invite, final)
        for path in edge.run_dir.rglob("*"):
            if path.is_file():
                assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
        assert "a:b" not in edge.kamailio.log()


def one_worker() -> dict[str, Any]:
    """The workers table with a single worker."""
    return {"count": 1, "address": WORKERS, "first_port": WORKER_PORT}


async def test_workers_on_a_network_of_their_own(postgres: RunningPostgres) -> None:
    """Outside sees one address of the edge, workers another, in signalling and in media."""
    inside = "127.0.49.9"
    async with (
        running_edge(postgres, edge={"internal_address": inside}, workers=one_worker()) as edge,
        await Worker.listening(WORKERS, WORKER_PORT, (inside, SIP_PORT)) as worker,
        await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as network,
        await Agent.udp("127.0.49.10", UDP) as phone,
    ):
        await edge.add_phone("1001")
        assert (await phone.register("1001", PASSWORD)).code == 200
        await edge.worker_states({1: "active"})
        theirs, ours = await Rtp.open(TRUNK_A), await Rtp.open(WORKERS)
        invite = network.new("INVITE", f"sip:+15550100@{EDGE}:{SIP_PORT}", body=sdp(TRUNK_A, theirs.port))
        network.send(invite)
        request = await worker.request("INVITE")
        assert request.media_address[0] == inside
        worker.reply(request, 200, body=sdp(WORKERS, ours.port))
        final = await network.final(invite.get("Call-ID"))
        assert final.media_address[0] == EDGE
        network.ack(invite, final)
        await worker.request("ACK")
        theirs.send(final.media_address)
        ours.send(request.media_address)
        await asyncio.sleep(0.1)
        assert {address[0] for address in ours.sources} == {inside}
        assert {address[0] for address in theirs.sources} == {EDGE}
        Dialog.of_caller(network, invite, final).send("BYE")
        worker.reply(await worker.request("BYE"), 200)
        assert (await network.final(invite.get("Call-ID"))).code == 200

        invite = worker.new("INVITE", f"sip:1001@{inside}:{SIP_PORT}", body=sdp(WORKERS, ours.port))
        worker.send(invite)
        request = await phone.request("INVITE")
        assert request.media_address[0] == EDGE
        reply = phone.reply(request, 200, body=sdp("127.0.49.10", theirs.port))
        final = await worker.final(invite.get("Call-ID"))
        assert final.media_address[0] == inside
        worker.ack(invite, final)
        await phone.request("ACK")
        Dialog.of_callee(phone, request, reply).send("BYE")
        worker.reply(await worker.request("BYE"), 200)
        assert (await phone.final(invite.get("Call-ID"))).code == 200
        assert await edge.held_calls() == []
        theirs.close()
        ours.close()


async def test_phones_of_direct_networks_skip_rtpengine(postgres: RunningPostgres) -> None:
    near = {"direct_networks": ("127.0.49.32/28",)}
    async with (
        running_edge(postgres, edge=near, workers=one_worker()) as edge,
        await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker,
        await Agent.udp("127.0.49.33", UDP) as lan,
        await Agent.udp("127.0.49.10", UDP) as far,
    ):
        await edge.worker_states({1: "active"})
        for phone, user, anchored in ((lan, "1001", False), (far, "1002", True)):
            await edge.add_phone(user)
            assert (await phone.register(user, PASSWORD)).code == 200
            first = phone.new("INVITE", "sip:600@careline", user=user, body=sdp(phone.host, 4000))
            phone.send(first)
            refused = await phone.final(first.get("Call-ID"))
            phone.ack(first, refused)
            invite = phone.with_credentials(first, refused, user, PASSWORD)
            phone.send(invite)
            request = await worker.request("INVITE")
            assert request.media_address[0] == (EDGE if anchored else phone.host)
            reply = worker.reply(request, 200, body=sdp(WORKERS, 4200))
            final = await phone.final(first.get("Call-ID"))
            assert final.media_address[0] == (EDGE if anchored else WORKERS)
            phone.ack(invite, final)
            await worker.request("ACK")
            callee = Dialog.of_callee(worker, request, reply)
            sent = callee.send("INVITE", body=sdp(WORKERS, 4300))
            request = await phone.request("INVITE")
            assert request.media_address[0] == (EDGE if anchored else WORKERS)
            phone.reply(request, 200, body=sdp(phone.host, 4000))
            await worker.final(first.get("Call-ID"))
            callee.send("ACK", cseq=sent.get("CSeq").split()[0])
            await phone.request("ACK")
            callee.send("BYE")
            phone.reply(await phone.request("BYE"), 200)
            await worker.final(first.get("Call-ID"))

            invite = worker.new("INVITE", f"sip:{user}@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4200))
            worker.send(invite)
            request = await phone.request("INVITE")
            assert request.media_address[0] == (EDGE if anchored else WORKERS)
            phone.reply(request, 486)
            worker.ack(invite, await worker.final(invite.get("Call-ID")))
        assert await edge.held_calls() == []


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_a_real_phone_with_tls_and_srtp(
    postgres: RunningPostgres, tmp_path: Path, direction: str
) -> None:
    """Baresip: TLS, SRTP, a tone each way; the worker's side is plain RTP with G.711."""
    async with (
        running_edge(postgres, workers=one_worker()) as edge,
        await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker,
        Baresip.start(
            folder=tmp_path,
            name="desk",
            bind="127.0.49.40",
            tone_hz=440,
            srtp="mandatory",
            rtp_ports=(52000, 52200),
        ) as desk,
    ):
        await edge.add_phone("1001")
        await edge.worker_states({1: "active"})
        await desk.register("1001", PASSWORD, f"{EDGE}:{TLS_PORT}", domain="careline", transport="tls")
        media = await Rtp.open(WORKERS)
        if direction == "in":
            dialling = asyncio.create_task(desk.dial(f"sip:600@{EDGE}:{TLS_PORT};transport=tls"))
            request = await worker.request("INVITE")
            assert "RTP/AVP " in request.body
            reply = worker.reply(request, 200, body=sdp(WORKERS, media.port))
            await worker.request("ACK")
            call = await dialling
            dialog, to = Dialog.of_callee(worker, request, reply), request.media_address
        else:
            invite = worker.new("INVITE", f"sip:1001@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, media.port))
            worker.send(invite)
            final = await worker.final(invite.get("Call-ID"))
            assert "RTP/AVP " in final.body
            worker.ack(invite, final)
            call = desk.calls[0]
            dialog, to = Dialog.of_caller(worker, invite, final), final.media_address
        sound = tones.to_ulaw(tones.tone(880, 2000))
        for start in range(0, len(sound), 160):
            media.send(to, sound[start : start + 160])
            await asyncio.sleep(0.02)
        heard = tones.from_ulaw(b"".join(packet[12:] for packet in media.got if packet[1] & 0x7F == 0))
        assert tones.heard(heard, 440).longest_ms > 1000
        await call.hears(880, within_s=5, for_ms=500, from_ms=0)
        dialog.send("BYE")
        assert (await worker.final(dialog.call_id)).code == 200
        assert await edge.held_calls() == []
        media.close()


async def test_video_between_a_phone_and_the_worker_is_not_stripped(postgres: RunningPostgres) -> None:
    video = "m=video 4002 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\n"
    async with (
        running_edge(postgres, workers=one_worker()) as edge,
        await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker,
        await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as network,
    ):
        await edge.worker_states({1: "active"})
        invite = network.new(
            "INVITE", f"sip:+15550100@{EDGE}:{SIP_PORT}", body=sdp(TRUNK_A, 4000, more=video)
        )
        network.send(invite)
        request = await worker.request("INVITE")
        found = re.search(r"m=video (\d+) RTP/AVP 97", request.body)
        assert found
        assert 50000 <= int(found[1]) < 52000
        worker.reply(request, 486)
        network.ack(invite, await network.final(invite.get("Call-ID")))


async def test_coturn_answers_and_relays_only_for_credentials_of_ours(tmp_path: Path) -> None:
    folder = short_folder()
    config = settings(folder, edge={"turn_port": 49034, "turn_first": 49500, "turn_last": 49600})
    running = RunningChild(
        coturn.child(config, folder / "run" / "coturn", allow_loopback_peers=True), folder / "log"
    )
    await running.start()
    try:
        secret = coturn.secret(config)
        now = datetime.now(UTC)
        good = coturn.credentials(config, secret, lasts=timedelta(minutes=5), at=now)
        stale = coturn.credentials(config, secret, lasts=timedelta(minutes=5), at=now - timedelta(hours=1))
        forged = coturn.credentials(config, "another secret", lasts=timedelta(minutes=5), at=now)
        for given, wanted in ((good, True), (stale, False), (forged, False)):
            process = await asyncio.create_subprocess_exec(
                "/usr/bin/turnutils_uclient", "-y", "-n", "3", "-m", "1", "-l", "100", "-p", "49034",
                "-u", given.username, "-w", given.credential, "-L", EDGE, EDGE,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            try:
                said, _ = await asyncio.wait_for(process.communicate(), 15)
            except TimeoutError:
                process.kill()
                said = b""
                await process.wait()
            assert (
                b"lost packets 0" in said or (b"tot_send_msgs=" in said and b"Total lost packets 0" in said)
            ) == wanted, said[-800:]
        assert secret not in " ".join(running.spec.argv)
    finally:
        await running.stop()
