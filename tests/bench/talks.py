"""Bridged talks: patients and clinicians brought together by the server, held, judged, ended."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench import machine
from tests.bench.phones import PhoneCall
from tests.bench.rig import PATIENT_LEGS, PHONE_LEGS, Rig, latest
from tests.bench.rtpload import Health, LegReport
from tests.bench.sipp import SippResult, place_calls

OWN_SHARE = 0.95  # of the judged frames must carry the pair's own tone
SETTLE_S = 25.0  # a talk that is not up by then is not going to be


@dataclass(frozen=True, kw_only=True)
class TalkWindow:
    """What a steady window with `bridges` talks showed."""

    bridges: int  # asked for
    heard_both_ways: int  # pairs that heard only each other
    mixed: int  # legs that heard somebody else's tone, too
    lost_packets: int
    jitter_ms: float  # the worst leg's
    max_gap_ms: float  # the worst leg's
    phone_repeats: int  # messages the phones had to send again
    worker_cpu_s: float
    database_cpu_s: float | None
    window_s: float
    health: Health

    @property
    def clean(self) -> bool:
        """Everybody hears the partner and nobody else, and no phone had to repeat itself."""
        return self.heard_both_ways == self.bridges and self.mixed == 0 and self.phone_repeats == 0

    @property
    def cpu_percent_a_bridge(self) -> float:
        """Worker CPU of one talk in percent of a core."""
        return 100 * self.worker_cpu_s / self.window_s / self.bridges

    def detail(self) -> dict[str, object]:
        """For the JSON line."""
        return {
            "bridges": self.bridges,
            "heard_both_ways": self.heard_both_ways,
            "mixed_legs": self.mixed,
            "lost_packets": self.lost_packets,
            "jitter_ms_worst": self.jitter_ms,
            "gap_ms_worst": self.max_gap_ms,
            "phone_repeats": self.phone_repeats,
            "worker_cpu_percent": round(100 * self.worker_cpu_s / self.window_s, 1),
            "generator_late_ms": self.health.win_late_max_ms,
        }


@dataclass
class Talks:
    """Talks that grow in steps and end together. Every patient waits for the server's BYE."""

    rig: Rig
    wanted: int = 0
    _running: list["asyncio.Task[SippResult]"] = field(default_factory=list)
    _first_ended: int = 0

    async def grow(self, bridges: int, rate: float) -> None:
        """Bring the number of talks up to `bridges`, `rate` a second; wait until both sides hear tones."""
        more = bridges - self.wanted
        if more <= 0:
            return
        ports = [PATIENT_LEGS.port(i) for i in range(self.wanted, bridges)]
        callers = self.rig.callers(
            "bench_held", PATIENT_LEGS, ports, more, rate, longest_s=400, first_caller=10_000 + self.wanted
        )
        self._running.append(asyncio.create_task(place_calls(callers)))
        self.wanted = bridges
        await asyncio.sleep(more / rate)
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while asyncio.get_running_loop().time() < deadline:
            legs, _ = await self.rig.load.report()
            if sum(leg.pair_port >= 0 for leg in legs) >= 2 * bridges:
                return
            await asyncio.sleep(0.5)

    async def window(self, seconds: float) -> TalkWindow:
        """Judge `seconds` of steady talks."""
        rig = self.rig
        await asyncio.sleep(1)
        rig.load.tell("window begin")
        began, worker = asyncio.get_running_loop().time(), machine.cpu_s(rig.target.pid)
        database = rig.target.database_cpu_s()
        await asyncio.sleep(seconds)
        window_s = asyncio.get_running_loop().time() - began
        worker_cpu_s = machine.cpu_s(rig.target.pid) - worker
        database_end = rig.target.database_cpu_s()
        rig.must_live()
        legs, health = await rig.load.report()
        rig.load.tell("window end")
        patients, phones = latest(legs, PATIENT_LEGS), latest(legs, PHONE_LEGS)
        judged = [leg for leg in legs if leg.in_window]
        return TalkWindow(
            bridges=self.wanted,
            heard_both_ways=sum(
                _hears(leg, seconds) and (phone := phones.get(leg.pair_port)) is not None
                and phone.pair_port == leg.port and _hears(phone, seconds)
                for leg in patients.values()
            ),
            mixed=sum(leg.foreign > 0 for leg in legs),
            lost_packets=sum(leg.win_lost for leg in judged),
            jitter_ms=max((leg.win_jitter_ms for leg in judged), default=0.0),
            max_gap_ms=max((leg.win_max_gap_ms for leg in judged), default=0.0),
            phone_repeats=rig.phones.our_repeats,
            worker_cpu_s=worker_cpu_s,
            database_cpu_s=None if database is None or database_end is None else database_end - database,
            window_s=window_s,
            health=health,
        )  # fmt: skip

    async def set_up_ms(self, first: int) -> tuple[list[float], list[float]]:
        """From the end, and from the start, of the patient's key to the clinician's INVITE, in ms."""
        legs, _ = await self.rig.load.report()
        patients, calls = latest(legs, PATIENT_LEGS), self.rig.phones.by_port()
        pairs: list[tuple[LegReport, PhoneCall]] = [
            (patients[port], calls[patients[port].pair_port])
            for port in (PATIENT_LEGS.port(i) for i in range(first, self.wanted))
            if port in patients and patients[port].pair_port in calls
        ]
        after_end = [(call.invite_ns - leg.digit_end_ns) / 1e6 for leg, call in pairs if leg.digit_end_ns]
        after_start = [
            (call.invite_ns - leg.digit_start_ns) / 1e6 for leg, call in pairs if leg.digit_start_ns
        ]
        return after_end, after_start

    async def delays(self, seconds: float) -> tuple[list[float], int]:
        """Mouth-to-ear delay of every burst found, in ms, and how many bursts were sent."""
        load = self.rig.load
        load.tell("marks on")
        await asyncio.sleep(seconds)
        legs, _ = await load.report()
        load.tell("marks off")
        await asyncio.sleep(0.3)
        return [delay for leg in legs for delay in leg.delay_ms], sum(leg.marks_sent for leg in legs)

    async def end(self) -> tuple[bool, Sequence[SippResult]]:
        """Clinicians hang up; true when the server ended every patient, too. With SIPp's counts."""
        confirmed = await self.rig.phones.hang_up_all(per_s=50, within_s=10)
        done, late = await asyncio.wait(self._running, timeout=15) if self._running else (set(), set())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._running = []
        self.wanted = 0
        await asyncio.sleep(2.5)  # legs fall silent and end
        return confirmed and not late, [task.result() for task in done]


def _hears(leg: LegReport, seconds: float) -> bool:
    judged = leg.win_own + leg.win_foreign + leg.win_dirty + leg.win_silent
    return judged >= 0.8 * seconds * 10 and leg.win_own >= OWN_SHARE * judged and leg.foreign == 0
