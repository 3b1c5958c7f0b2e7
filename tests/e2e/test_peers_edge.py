"""The phones of the tests behind the real edge, several calls at once, over UDP and over TLS with SRTP."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.edgerig import PASSWORD, running_edge
from tests.integration.pgrig import RunningPostgres, postgres
from tests.peers.baresip import Baresip
from tests.peers.phones import Phone

pytestmark = pytest.mark.e2e
__all__ = ["postgres"]

EDGE, WORKER = "127.0.54.1", "127.0.54.2"
PORTS = {
    "address": EDGE, "udp_port": 54060, "tls_port": 54061, "ws_port": 54062, "wss_port": 54063,
    "ng_port": 54022, "rtp_first": 56000, "rtp_last": 56999,
}  # fmt: skip


async def test_phones_and_baresip_through_the_edge(postgres: RunningPostgres, tmp_path: Path) -> None:
    workers = {"count": 1, "address": WORKER, "first_port": 54071}
    async with (
        running_edge(postgres, edge=PORTS, workers=workers) as edge,
        Phone.start(folder=tmp_path, name="worker", bind=WORKER, port=54071) as worker,
        Phone.start(folder=tmp_path, name="secure", transports=("udp", "tls"), srtp="mandatory") as secure,
        Phone.start(folder=tmp_path, name="plain") as plain,
        Baresip.start(folder=tmp_path, name="desk", srtp="mandatory", tone_hz=700) as desk,
    ):
        for account in ("1001", "1002", "1003"):
            await edge.add_phone(account)
        await secure.register("1001", PASSWORD, f"{EDGE}:54061", domain="careline", transport="tls")
        await plain.register("1002", PASSWORD, f"{EDGE}:54060", domain="careline")
        await desk.register("1003", PASSWORD, f"{EDGE}:54061", domain="careline", transport="tls")
        await edge.worker_states({1: "active"})

        at_worker = []
        from_secure = await secure.dial("100", tone_hz=440)
        at_worker.append(await worker.incoming(6))
        from_plain = await plain.dial("100", tone_hz=540)
        at_worker.append(await worker.incoming(6))
        from_desk = await desk.dial("100")
        at_worker.append(await worker.incoming(6))
        for call, hz in zip(at_worker, (620, 820, 920), strict=True):
            await call.play_tone(hz)
            await call.answer()
        await asyncio.gather(from_secure.hears(620, 8), from_plain.hears(820, 8), from_desk.hears(920, 8))
        await asyncio.gather(
            *(call.hears(hz, 8) for call, hz in zip(at_worker, (440, 540, 700), strict=True))
        )
        assert (await from_secure.stats())["srtp"]
        assert not (await from_plain.stats())["srtp"]
        await asyncio.gather(*(call.hangup() for call in at_worker))
        await asyncio.gather(from_secure.ended(5), from_plain.ended(5), from_desk.ended(5))

        await asyncio.sleep(1.1)  # Baresip names its recordings by the second
        await secure.answer_calls(tone_hz=640)
        await plain.answer_calls(tone_hz=840)
        to = [await worker.dial(f"sip:{user}@{EDGE}:54060", tone_hz=hz) for user, hz in
              (("1001", 450), ("1002", 550), ("1003", 650))]  # fmt: skip
        at = [await secure.incoming(6), await plain.incoming(6), await desk.incoming(6)]
        await asyncio.gather(*(call.hears(hz, 8) for call, hz in zip(to, (640, 840, 700), strict=True)))
        await asyncio.gather(*(call.hears(hz, 8) for call, hz in zip(at, (450, 550, 650), strict=True)))
        for call, key in zip(to, "159", strict=True):
            await call.press(key)
        await asyncio.gather(*(call.received_digits(key, 5) for call, key in zip(at, "159", strict=True)))
