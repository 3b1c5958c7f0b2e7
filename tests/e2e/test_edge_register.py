"""The registrar: who may register, from where, over which transport, and with parts of it away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import psutil
import pytest
import pytest_asyncio

from pbx.edge import rpc
from pbx.store import phones
from tests.e2e.edgerig import (
    EDGE,
    PASSWORD,
    SIP_PORT,
    TLS_PORT,
    TRUNK_A,
    TRUNK_PORT,
    WORKER_PORT,
    WORKERS,
    WS_PORT,
    WSS_PORT,
    Edge,
    running_edge,
)
from tests.e2e.edgesip import Agent, Worker, sdp
from tests.integration.pgrig import RunningPostgres, postgres

pytestmark = pytest.mark.e2e
__all__ = ["postgres"]

UDP = (EDGE, SIP_PORT)


@pytest_asyncio.fixture(loop_scope="function")
async def edge(postgres: RunningPostgres) -> AsyncIterator[Edge]:
    """A running edge with the accounts 1001 and 1002."""
    async with running_edge(postgres) as running:
        for username in ("1001", "1002"):
            await running.add_phone(username)
        yield running


async def test_right_wrong_and_disabled_passwords(edge: Edge) -> None:
    async with await Agent.udp("127.0.49.10", UDP) as phone, await Agent.udp("127.0.49.11", UDP) as other:
        assert (await phone.register("1001", PASSWORD)).code == 200
        assert (await other.register("1002", PASSWORD)).code == 200
        assert (await phone.register("1001", "wrong-password")).code == 401
        assert (await phone.register("1003", PASSWORD)).code == 401, "unknown account"
        await phones.set_enabled(edge.database, "1001", False)
        await rpc.forget_account(edge.run_dir, "1001")
        assert (await phone.register("1001", PASSWORD)).code == 401
        found = await phones.contacts(edge.database, datetime.now(UTC))
        assert [(c.username, c.transport, c.source) for c in found] == [
            ("1002", "udp", f"127.0.49.11:{other.port}")
        ]
        await rpc.forget_account(edge.run_dir, "1001")  # again: nothing left, no error


async def test_nobody_registers_another_account(edge: Edge) -> None:
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        first = phone.new("REGISTER", "sip:careline", user="1001", to="<sip:1002@careline>")
        assert (await phone.authenticated(first, "1001", PASSWORD)).code == 403


async def test_every_transport(edge: Edge) -> None:
    agents = [
        await Agent.udp("127.0.49.10", UDP),
        await Agent.tcp("127.0.49.10", UDP),
        await Agent.tcp("127.0.49.10", (EDGE, TLS_PORT), tls=True),
        await Agent.websocket("127.0.49.10", (EDGE, WS_PORT)),
        await Agent.websocket("127.0.49.10", (EDGE, WSS_PORT), tls=True),
    ]
    try:
        for agent in agents:
            assert (await agent.register("1001", PASSWORD)).code == 200, agent.transport
        found = await phones.contacts(edge.database, datetime.now(UTC), "1001")
        assert sorted(c.transport for c in found) == ["tcp", "tls", "udp", "ws", "wss"]
        assert {c.source for c in found} == {f"127.0.49.10:{a.port}" for a in agents}
    finally:
        for agent in agents:
            await agent.close()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 45
    while len(await phones.contacts(edge.database, datetime.now(UTC), "1001")) > 1:
        assert loop.time() < deadline, "contacts of closed connections stay"
        await asyncio.sleep(0.5)


async def test_a_restart_keeps_udp_contacts_and_drops_connections(edge: Edge) -> None:
    async with await Agent.udp("127.0.49.10", UDP) as kept, await Agent.tcp("127.0.49.10", UDP) as lost:
        web = await Agent.websocket("127.0.49.10", (EDGE, WS_PORT))
        for agent in (kept, lost, web):
            assert (await agent.register("1001", PASSWORD)).code == 200
        assert len(await phones.contacts(edge.database, datetime.now(UTC))) == 3
        await edge.kamailio.kill()
        await web.close()
        await edge.kamailio.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 5  # one of its processes loads the contacts while the others already answer
        while len(found := await phones.contacts(edge.database, datetime.now(UTC))) > 1:
            assert loop.time() < deadline, found
            await asyncio.sleep(0.05)
        assert [(c.transport, c.source) for c in found] == [("udp", f"127.0.49.10:{kept.port}")]


async def test_a_contact_elsewhere_is_still_called_where_it_registered(edge: Edge) -> None:
    """A Contact naming a trunk or a stranger must not make the edge call there."""
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        assert (
            await phone.register("1001", PASSWORD, contact="<sip:+15550100@127.0.49.3:49080>")
        ).code == 200
        (found,) = await phones.contacts(edge.database, datetime.now(UTC))
        assert found.source == f"127.0.49.10:{phone.port}"


async def test_database_away_is_503_and_heals(edge: Edge, postgres: RunningPostgres) -> None:
    async with await Agent.udp("127.0.49.10", UDP) as phone:
        assert (await phone.register("1001", PASSWORD)).code == 200
        postgres.kill()
        try:
            refused = await asyncio.wait_for(phone.register("1001", PASSWORD), 15)
            assert refused.code == 503
            assert int(refused.get("Retry-After")) > 0
        finally:
            await asyncio.to_thread(postgres.start)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 15
        while (await phone.register("1001", PASSWORD)).code != 200:
            assert loop.time() < deadline, "the registrar did not recover"
            await asyncio.sleep(0.5)


async def test_a_database_that_hangs_holds_up_no_call(edge: Edge, postgres: RunningPostgres) -> None:
    """A frozen disk: phones cannot register, but trunks reach workers and workers reach phones as ever."""
    async with (
        await Worker.listening(WORKERS, WORKER_PORT, UDP) as worker,
        await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as network,
        await Agent.udp("127.0.49.10", UDP) as phone,
    ):
        assert (await phone.register("1001", PASSWORD)).code == 200
        await edge.worker_states({1: "active", 2: "inactive"})
        worker.invite_code = 486
        first = psutil.Process(postgres.pid)
        frozen = [first, *first.children(recursive=True)]
        for process in frozen:
            process.suspend()
        try:
            for _ in range(6):  # more than there are processes for this
                waiting = phone.new("REGISTER", "sip:careline", user="1001", to="<sip:1001@careline>")
                phone.send(waiting)
                challenge = await phone.final(waiting.get("Call-ID"), within_s=1)
                phone.send(phone.with_credentials(waiting, challenge, "1001", PASSWORD))
                await asyncio.sleep(0.1)
                invite = network.new("INVITE", f"sip:+15550100@{EDGE}:{SIP_PORT}", body=sdp(TRUNK_A, 4000))
                network.send(invite)
                final = await network.final(invite.get("Call-ID"), within_s=1)
                assert final.code == 486
                network.ack(invite, final)
                invite = worker.new("INVITE", f"sip:1001@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
                worker.send(invite)
                phone.reply(await phone.request("INVITE", within_s=1), 603)
                worker.ack(invite, await worker.final(invite.get("Call-ID")))
        finally:
            for process in frozen:
                process.resume()
        assert (await phone.register("1001", PASSWORD, within_s=20)).code == 200


async def test_too_many_contacts(edge: Edge) -> None:
    agents = [await Agent.udp("127.0.49.10", UDP) for _ in range(11)]
    try:
        codes = [(await agent.register("1001", PASSWORD)).code for agent in agents]
        assert codes[:10] == [200] * 10
        assert codes[10] >= 500
    finally:
        for agent in agents:
            await agent.close()


async def test_sha256(postgres: RunningPostgres) -> None:
    async with running_edge(postgres, edge={"digest": "sha-256"}) as running:
        await running.add_phone("1001")
        async with await Agent.udp("127.0.49.10", UDP) as phone:
            assert (await phone.register("1001", PASSWORD, algorithm="sha-256")).code == 200
            assert (await phone.register("1001", PASSWORD, algorithm="md5")).code == 401
