"""Floods, scanners, password guessers and malformed messages: they are shut out, everybody else is served."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from pbx.edge import rpc
from tests.e2e.edgerig import (
    EDGE,
    PASSWORD,
    SIP_PORT,
    TRUNK_A,
    TRUNK_PORT,
    WORKER_PORT,
    WORKERS,
    Edge,
    running_edge,
)
from tests.e2e.edgesip import Agent, Worker, sdp
from tests.integration.pgrig import RunningPostgres, postgres
from tests.peers import torture

pytestmark = pytest.mark.e2e
__all__ = ["postgres"]

UDP = (EDGE, SIP_PORT)
DID = f"sip:+15550100@{EDGE}:{SIP_PORT}"
SHORT_BAN = {
    "ban_s": 3,
    "wrong_passwords": 5,
    "flood_requests_per_2s": 40,
    "never_banned": ("127.0.49.99/32",),
}


@pytest_asyncio.fixture(loop_scope="function")
async def edge(postgres: RunningPostgres) -> AsyncIterator[Edge]:
    """A running edge with short bans and the account 1001."""
    async with running_edge(postgres, edge=SHORT_BAN) as running:
        await running.add_phone("1001")
        yield running


async def answered(agent: Agent, within_s: float = 1.0) -> bool:
    """Whether an OPTIONS of the agent is answered."""
    options = agent.new("OPTIONS", f"sip:{EDGE}:{SIP_PORT}")
    agent.send(options)
    try:
        await agent.final(options.get("Call-ID"), within_s)
    except AssertionError:
        return False
    return True


async def served_again(agent: Agent, within_s: float = 20.0) -> None:
    """Raises AssertionError when the ban does not end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not await answered(agent, 0.5):
        assert loop.time() < deadline, "the ban does not end"
        await asyncio.sleep(1)


async def test_a_scanner_is_banned_and_comes_back(edge: Edge) -> None:
    async with await Agent.udp("127.0.49.66", UDP) as scanner, await Agent.udp("127.0.49.10", UDP) as phone:
        probe = scanner.new("OPTIONS", f"sip:100@{EDGE}")
        probe.headers.append(("User-Agent", "friendly-scanner"))
        scanner.send(probe)
        await scanner.nothing()
        assert not await answered(scanner), "banned as a whole"
        assert await rpc.banned(edge.run_dir) == ["127.0.49.66"]
        assert await answered(phone), "others are served"
        await served_again(scanner)
        scanner.send(probe)
        await scanner.nothing(0.3)
        await rpc.unban(edge.run_dir, "127.0.49.66")
        assert await answered(scanner)


async def test_a_flood_is_banned_but_never_a_trunk_a_worker_or_an_exempt_address(edge: Edge) -> None:
    async with (
        await Agent.udp("127.0.49.67", UDP) as flooder,
        await Agent.udp("127.0.49.99", UDP) as exempt,
        await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as network,
        await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker,
    ):
        for agent in (flooder, exempt, network, worker):
            for _ in range(200):
                agent.send(agent.new("OPTIONS", f"sip:{EDGE}:{SIP_PORT}"))
            await asyncio.sleep(0.3)
            agent.inbox.clear()
        assert await rpc.banned(edge.run_dir) == ["127.0.49.67"]
        assert not await answered(flooder)
        for agent in (exempt, network, worker):
            assert await answered(agent)
        await served_again(flooder)


async def test_a_password_guesser_is_banned_but_one_bad_phone_bans_no_clinic(edge: Edge) -> None:
    async with await Agent.udp("127.0.49.68", UDP) as guesser, await Agent.udp("127.0.49.20", UDP) as good:
        for _ in range(4):
            assert (await guesser.register("1001", "guessed-wrong")).code == 401
        first = guesser.new("REGISTER", "sip:careline", user="1001", to="<sip:1001@careline>")
        guesser.send(first)
        challenge = await guesser.final(first.get("Call-ID"))
        guesser.send(guesser.with_credentials(first, challenge, "1001", "guessed-wrong"))
        await guesser.nothing()
        assert await rpc.banned(edge.run_dir) == ["127.0.49.68"]
        async with await Agent.udp("127.0.49.20", UDP) as bad:  # behind the same address as the good one
            for _ in range(4):
                for _ in range(3):
                    assert (await bad.register("1001", "old-password")).code == 401
                assert (await good.register("1001", PASSWORD)).code == 200
        await served_again(guesser)


async def test_torture(edge: Edge) -> None:
    """Messages after RFC 4475, as a phone and as a trunk: answered as is fair, and nobody dies."""
    async with await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker:
        worker.invite_code = 486
        before = {p.pid for p in processes(edge)}
        for host, port in (("127.0.49.99", 0), (TRUNK_A, TRUNK_PORT)):
            async with await Agent.udp(host, UDP, port) as peer:
                named = torture.messages(target=f"{EDGE}:{SIP_PORT}", sender=f"{host}:{peer.port}")
                for name, message in named.items():
                    peer.inbox.clear()
                    peer.send(message.raw)
                    await asyncio.sleep(0.05)
                    codes = [reply.code for reply in peer.inbox if reply.code >= 200]
                    if message.reaction in ("refuse", "ignore"):
                        assert not any(code < 300 for code in codes), (name, codes)
                    if message.reaction == "accept":
                        assert 400 not in codes, (name, [reply.start for reply in peer.inbox])
                    assert await answered(peer), name
        junk = Path("/dev/urandom").open("rb")  # noqa: SIM115, ASYNC230 - closed below; never blocks
        async with await Agent.udp("127.0.49.99", UDP) as peer:
            for size in (1, 4, 100, 1400, 8000, 60000):
                peer.send(junk.read(size))
                peer.send(b"INVITE sip:x@y SIP/2.0\r\n" + junk.read(size))
                peer.send(b"\r\n" * (size // 2))
            junk.close()
            assert await answered(peer)
        assert {p.pid for p in processes(edge)} == before, "a process died and came back"
        assert edge.kamailio.running


async def test_half_open_streams_and_slow_handshakes_hold_nobody_up(edge: Edge) -> None:
    streams = [
        await asyncio.open_connection(EDGE, SIP_PORT, local_addr=("127.0.49.99", 0)) for _ in range(100)
    ]
    try:
        for _, writer in streams:
            writer.write(b"INVITE sip:x@y SIP/2.0\r\nVia: ")
        async with await Agent.tcp("127.0.49.10", UDP) as phone:
            assert (await phone.register("1001", PASSWORD)).code == 200
    finally:
        for _, writer in streams:
            writer.close()


async def test_logs_hold_no_numbers(edge: Edge) -> None:
    """Numbers, names and URIs of callers stay out of Kamailio's and rtpengine's logs."""
    async with (
        await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as network,
        await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker,
    ):
        for code in (404, 503):
            worker.invite_code = code
            invite = network.new(
                "INVITE", DID.replace("0100", "7777"), user="+15558888", body=sdp(TRUNK_A, 4000)
            )
            network.send(invite)
            network.ack(invite, await network.final(invite.get("Call-ID")))
        broken = f"INVITE sip:+15557777@{EDGE} SIP/2.0\r\nFrom: <sip:+15558888@x\r\nVia: broken\r\n\r\n"
        network.send(broken.encode())
        await asyncio.sleep(0.5)
        for log in (edge.kamailio.log(), edge.rtpengine.log()):
            assert not re.search(r"15557777|15558888", log), log


def processes(edge: Edge) -> list[psutil.Process]:
    """Kamailio's processes of this edge."""
    text = str(edge.run_dir)
    return [
        p
        for p in psutil.process_iter(["cmdline"])
        if text in " ".join(p.info["cmdline"] or []) and "kamailio" in (p.info["cmdline"] or [""])[0]
    ]
