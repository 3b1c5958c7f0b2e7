"""Audio delay through the edge, by rtpload's bursts: trunk to worker to a mobile on the same trunk.

Both legs are plain RTP, as rtpload speaks nothing else; every packet passes rtpengine twice and the worker
once.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from tests.bench.phones import PhoneBank
from tests.bench.rtpload import Group, RtpLoad, build
from tests.bench.sipp import Callers, place_calls
from tests.e2e.systemrig import System

NUMBER = "+13125550177"  # its clinician is called on a mobile
TALKS = 4
SETTLE_S = 10.0


async def delays(system: System, cache: Path, folder: Path, seconds: float) -> tuple[Sequence[float], int]:
    """Every burst's delay in ms, and how many bursts were sent, of TALKS talks for `seconds`."""
    patient = Group(
        name="patient", address=system.trunk, first_port=22000, count=TALKS, first_tone=0, digit_after_ms=600
    )
    mobile = Group(
        name="phone", address=system.trunk, first_port=24000, count=TALKS, first_tone=450,
        digit_after_ms=300, latch=False,
    )  # fmt: skip
    load = RtpLoad(await asyncio.to_thread(build, cache), [patient, mobile], longest_s=120)
    async with load:
        bank = PhoneBank(
            address=system.trunk,
            port=system.config.trunk[0].port,
            media_ports=[mobile.port(i) for i in range(TALKS)],
            on_media=lambda port, to, rtp, event: load.tell(f"peer {port} {to} {rtp} {event}"),
            on_over=lambda port: load.tell(f"bye {port}"),
        )
        callers = Callers(
            scenario="bench_held", target=system.edge, service=NUMBER, calls=TALKS, rate=4,
            ports=[patient.port(i) for i in range(TALKS)], sip_port=58050, media_port=29500,
            folder=folder, longest_s=60, address=system.trunk,
        )  # fmt: skip
        with bank:
            placing = asyncio.create_task(place_calls(callers))
            try:
                return await _bursts(load, seconds)
            finally:
                await bank.hang_up_all(per_s=50, within_s=5)
                done, _ = await asyncio.wait([placing], timeout=5)
                if not done:
                    placing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await placing


async def _bursts(load: RtpLoad, seconds: float) -> tuple[list[float], int]:
    for _ in range(round(SETTLE_S / 0.5)):
        await asyncio.sleep(0.5)
        legs, _ = await load.report()
        if sum(leg.pair_port >= 0 for leg in legs) == 2 * TALKS:
            break
    load.tell("marks on")
    await asyncio.sleep(seconds)
    legs, _ = await load.report()
    return [delay for leg in legs for delay in leg.delay_ms], sum(leg.marks_sent for leg in legs)
