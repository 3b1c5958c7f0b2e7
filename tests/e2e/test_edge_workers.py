"""Workers that die, hang, drain or are full: the caller is always taken on, or told when to try again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from pbx.edge import kamailio, rpc
from pbx.edge.supervisor import Backoff, ChildState, Supervisor
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
from tests.e2e.edgesip import Agent, Dialog, Message, Rtp, Worker, sdp
from tests.integration.pgrig import RunningPostgres, postgres

pytestmark = pytest.mark.e2e
__all__ = ["postgres"]

UDP = (EDGE, SIP_PORT)
DID = f"sip:+15550100@{EDGE}:{SIP_PORT}"


@pytest_asyncio.fixture(loop_scope="function")
async def edge(postgres: RunningPostgres) -> AsyncIterator[Edge]:
    """A running edge."""
    async with running_edge(postgres) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="function")
async def network(edge: Edge) -> AsyncIterator[Agent]:
    """The trunk."""
    async with await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as agent:
        yield agent


async def worker(number: int) -> Worker:
    """Worker n, from 1."""
    return await Worker.listening(WORKERS, WORKER_PORT + number - 1, UDP)


def call(network: Agent) -> Message:
    """Place a call."""
    invite = network.new("INVITE", DID, body=sdp(TRUNK_A, 4000))
    network.send(invite)
    return invite


async def test_both_take_turns_and_a_dead_one_costs_less_than_3_s(edge: Edge, network: Agent) -> None:
    first, second = await worker(1), await worker(2)
    async with second:
        await edge.worker_states({1: "active", 2: "active"})
        for _ in range(4):
            call(network)
            await network.wait(lambda m: m.code == 100)
            await asyncio.sleep(0.05)
        assert (first.invites, second.invites) == (2, 2)
        second.inbox.clear()
        await first.close()
        loop = asyncio.get_running_loop()
        started = loop.time()
        invites = [call(network) for _ in range(4)]
        for _ in invites:
            await second.request("INVITE", within_s=3)
        assert loop.time() - started < 3
        await edge.worker_states({1: "inactive"})
        started = loop.time()
        call(network)
        await second.request("INVITE", within_s=0.5)
        async with await worker(1):
            await edge.worker_states({1: "active"}, within_s=4)


async def test_a_worker_that_hangs_after_100_loses_no_caller(
    postgres: RunningPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kamailio, "WORKER_ANSWER_MS", 3000)  # as deployed it is 20 s
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(running_edge(postgres))
        network = await stack.enter_async_context(await Agent.udp(TRUNK_A, UDP, TRUNK_PORT))
        hanging = await stack.enter_async_context(await worker(1))
        await edge.worker_states({1: "active", 2: "inactive"})
        invite = call(network)
        request = await hanging.request("INVITE")
        hanging.reply(request, 180)
        await network.wait(lambda m: m.code == 180)
        async with await worker(2) as healthy:
            taken = await healthy.request("INVITE", within_s=5)
            cancelled = await hanging.request("CANCEL")
            assert cancelled.get("Call-ID") == invite.get("Call-ID")
            healthy.reply(taken, 200, body=sdp(WORKERS, 4200))
            assert (await network.final(invite.get("Call-ID"))).code == 200


async def test_503_goes_to_the_next_and_all_busy_is_503_with_retry_after(edge: Edge, network: Agent) -> None:
    async with await worker(1) as first, await worker(2) as second:
        await edge.worker_states({1: "active", 2: "active"})
        first.invite_code = 503
        for _ in range(2):
            invite = call(network)
            request = await second.request("INVITE")
            second.reply(request, 486)
            final = await network.final(invite.get("Call-ID"))
            assert final.code == 486, "the worker's own answer is passed on"
            network.ack(invite, final)
        assert first.invites >= 1
        second.invite_code = 503
        loop = asyncio.get_running_loop()
        started = loop.time()
        invite = call(network)
        final = await network.final(invite.get("Call-ID"))
        assert final.code == 503
        assert int(final.get("Retry-After")) > 0
        assert loop.time() - started < 1
        network.ack(invite, final)
        assert await edge.held_calls() == []


async def test_drain_by_command_and_by_the_worker_itself(edge: Edge, network: Agent) -> None:
    async with await worker(1) as first, await worker(2) as second:
        await edge.worker_states({1: "active", 2: "active"})
        uri = kamailio.worker_uris(edge.config)[0]
        await rpc.drain(edge.run_dir, uri)
        for _ in range(3):
            call(network)
            await second.request("INVITE")
        await asyncio.sleep(2.5)  # its good answers to probes must not put it back
        call(network)
        await second.request("INVITE")
        assert first.invites == 0
        await rpc.undrain(edge.run_dir, uri)
        await edge.worker_states({1: "active"})
        second.options_code = 503
        await edge.worker_states({2: "inactive"})
        for _ in range(3):
            call(network)
            await first.request("INVITE")


async def test_a_drained_worker_is_no_last_resort_either(edge: Edge, network: Agent) -> None:
    async with await worker(1) as first:
        await edge.worker_states({1: "active", 2: "inactive"})
        await rpc.drain(edge.run_dir, kamailio.worker_uris(edge.config)[0])
        invite = call(network)
        final = await network.final(invite.get("Call-ID"), within_s=12)
        assert final.code == 503
        assert final.get("Retry-After")
        network.ack(invite, final)
        assert first.invites == 0


async def test_callers_are_held_while_the_only_worker_starts(edge: Edge, network: Agent) -> None:
    """No worker lives when the call comes: it is held, and taken by the one that starts 3 s later."""
    await edge.worker_states({1: "inactive", 2: "inactive"})
    invites = [call(network), call(network)]
    await asyncio.sleep(3)
    async with await worker(1) as late:
        for _ in invites:
            request = await late.request("INVITE", within_s=6)
            late.reply(request, 200, body=sdp(WORKERS, 4200))
        for invite in invites:
            assert (await network.final(invite.get("Call-ID"))).code == 200
    await edge.worker_states({1: "inactive"})
    invite = call(network)
    loop = asyncio.get_running_loop()
    started = loop.time()
    final = await network.final(invite.get("Call-ID"), within_s=edge.config.edge.wait_for_worker_s + 4)
    assert final.code == 503
    assert final.get("Retry-After")
    assert loop.time() - started >= edge.config.edge.wait_for_worker_s - 1
    network.ack(invite, final)
    assert invite.get("Call-ID") not in await edge.held_calls()


async def test_kamailio_killed_in_a_call(edge: Edge, network: Agent) -> None:
    async with await worker(1) as taking:
        await edge.worker_states({1: "active"})
        theirs, ours = await Rtp.open(TRUNK_A), await Rtp.open(WORKERS)
        calls = []
        for _ in range(2):
            invite = network.new("INVITE", DID, body=sdp(TRUNK_A, theirs.port))
            network.send(invite)
            request = await taking.request("INVITE")
            reply = taking.reply(request, 200, body=sdp(WORKERS, ours.port))
            final = await network.final(invite.get("Call-ID"))
            network.ack(invite, final)
            await taking.request("ACK")
            calls.append((invite, final, request, reply))
        await edge.kamailio.kill()
        for _, final, request, _ in calls:
            theirs.send(final.media_address)
            ours.send(request.media_address)
        await asyncio.sleep(0.1)
        assert len(ours.got) == len(theirs.got) == 2, "media goes on without Kamailio"
        await edge.kamailio.start()
        (invite, final, _, _), (other, _, request, reply) = calls
        Dialog.of_caller(network, invite, final).send("BYE")
        taking.reply(await taking.request("BYE"), 200)
        assert (await network.final(invite.get("Call-ID"))).code == 200
        Dialog.of_callee(taking, request, reply).send("BYE")
        network.reply(await network.request("BYE"), 200)
        assert (await taking.final(other.get("Call-ID"))).code == 200
        assert await edge.held_calls() == []
        theirs.close()
        ours.close()


async def renewed(
    callee: Dialog, taking: Worker, network: Agent, ours: Rtp, theirs: Rtp
) -> tuple[Message, Message]:
    """re-INVITE from the worker until rtpengine is used again: what the trunk and the worker got."""
    for _ in range(10):
        sent = callee.send("INVITE", body=sdp(WORKERS, ours.port))
        await asyncio.sleep(0.1)
        if any(message.method == "INVITE" for message in network.inbox):
            got = await network.request("INVITE")
            network.reply(got, 200, body=sdp(TRUNK_A, theirs.port))
            answer = await taking.final(callee.call_id)
            callee.send("ACK", cseq=sent.get("CSeq").split()[0])
            await network.request("ACK")
            return got, answer
        refused = await taking.final(callee.call_id)
        assert refused.code == 500, "while rtpengine is away the offer is refused, not passed on"
        assert refused.get("Retry-After")
        taking.ack(sent, refused)
        await asyncio.sleep(0.5)
    raise AssertionError("rtpengine is not used again")


async def test_new_calls_wait_while_rtpengine_starts(edge: Edge, network: Agent) -> None:
    async with await worker(1) as taking, await Agent.udp("127.0.49.10", UDP) as phone:
        await edge.add_phone("1001")
        assert (await phone.register("1001", PASSWORD)).code == 200
        await edge.worker_states({1: "active"})
        await edge.rtpengine.kill()
        invite = call(network)
        ringing = taking.new("INVITE", f"sip:1001@{EDGE}:{SIP_PORT}", body=sdp(WORKERS, 4000))
        taking.send(ringing)
        await asyncio.sleep(1)
        await edge.rtpengine.start()
        request = await taking.request("INVITE", within_s=6)
        assert request.get("Call-ID") == invite.get("Call-ID")
        assert request.media_address[0] == EDGE
        first, _ = await rpc.workers(edge.run_dir)
        assert first.state == "active", "not the worker's fault"
        assert (await phone.request("INVITE", within_s=8)).media_address[0] == EDGE


async def test_rtpengine_killed_in_a_call_is_mended_by_a_reinvite(edge: Edge, network: Agent) -> None:
    """Media is lost with rtpengine; the signalling is not, and a re-INVITE of the worker anchors it anew."""
    async with await worker(1) as taking:
        await edge.worker_states({1: "active"})
        theirs, ours = await Rtp.open(TRUNK_A), await Rtp.open(WORKERS)
        invite = network.new("INVITE", DID, body=sdp(TRUNK_A, theirs.port))
        network.send(invite)
        request = await taking.request("INVITE")
        reply = taking.reply(request, 200, body=sdp(WORKERS, ours.port))
        final = await network.final(invite.get("Call-ID"))
        network.ack(invite, final)
        await taking.request("ACK")
        await edge.rtpengine.kill()
        await edge.rtpengine.start()
        theirs.send(final.media_address)
        await asyncio.sleep(0.1)
        assert ours.got == [], "the media of this call is gone"
        assert await edge.held_calls() == []

        callee = Dialog.of_callee(taking, request, reply)
        got, answer = await renewed(callee, taking, network, ours, theirs)
        assert got.media_address[0] == answer.media_address[0] == EDGE
        for _ in range(3):
            theirs.send(got.media_address, b"\x05" * 160)
            ours.send(answer.media_address, b"\x06" * 160)
            await asyncio.sleep(0.02)
        assert {packet[12] for packet in ours.got} == {5}
        assert {packet[12] for packet in theirs.got} == {6}
        callee.send("BYE")
        network.reply(await network.request("BYE"), 200)
        await taking.final(invite.get("Call-ID"))
        assert await edge.held_calls() == []
        theirs.close()
        ours.close()


async def test_the_supervisor_brings_a_killed_edge_back(postgres: RunningPostgres) -> None:
    """kill -9 of Kamailio's first process alone: its orphans go, it comes back on the same ports."""
    async with running_edge(postgres) as edge:
        await edge.kamailio.stop()
        await edge.rtpengine.stop()
        quick = Backoff(first_s=0.2, most_s=1.0)
        supervisor = Supervisor([edge.rtpengine.spec, edge.kamailio.spec], backoff=quick)
        await supervisor.start()
        try:
            async with await Agent.udp(TRUNK_A, UDP, TRUNK_PORT) as network, await worker(1) as taking:
                for _ in range(2):
                    for child in supervisor.status():
                        assert child.pid
                        os.kill(child.pid, signal.SIGKILL)
                    await asyncio.sleep(0.5)
                    loop = asyncio.get_running_loop()
                    deadline = loop.time() + 15
                    while {child.state for child in supervisor.status()} != {ChildState.READY}:
                        assert loop.time() < deadline, supervisor.status()
                        await asyncio.sleep(0.1)
                    invite = call(network)
                    request = await taking.request("INVITE", within_s=8)
                    assert request.get("Call-ID") == invite.get("Call-ID")
                    assert request.media_address[0] == EDGE
        finally:
            await supervisor.stop()
