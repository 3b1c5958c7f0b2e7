"""The bench's rig: ports, and the menu callers; bridged talks are `talks`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import machine
from tests.bench.machine import Sample
from tests.bench.phones import PhoneBank
from tests.bench.rtpload import Group, Health, LegReport, RtpLoad
from tests.bench.sipp import Callers, SippResult, place_calls
from tests.bench.target import Target

MENU_LEGS = Group(name="menu", first_port=16000, count=2500, digit_after_ms=600, quiet_stop_ms=100)
# Patients' phones go on sending for 2 s after the hang-up, as broken ones do; no later call may be fooled.
PATIENT_LEGS = Group(name="patient", first_port=22000, count=450, first_tone=0, digit_after_ms=600)
PHONE_LEGS = Group(
    name="phone",
    first_port=24000,
    count=450,
    first_tone=450,
    digit_after_ms=300,
    event_payload_type=120,
    latch=False,
)
SIP_FIRST = 58000  # callers' SIP ports
PHONES_PORT = 58080
SIPP_MEDIA_FIRST = 29000  # bound by SIPp, never used
HEARD_MS = 300  # prompt audio a menu caller must have heard


@dataclass(frozen=True, kw_only=True)
class MenuRun:
    """Menu callers at one rate."""

    rate: float
    sipp: SippResult
    heard: int  # calls whose caller heard the prompt and pressed the key
    lost_packets: int
    worker_cpu_s: float  # in the steady window
    database_cpu_s: float | None
    window_s: float
    health: Health
    dropped: int  # datagrams lost to full receive buffers, machine-wide

    @property
    def clean(self) -> bool:
        """No failure, no retransmission by the callers, every call heard the prompt."""
        return self.sipp.failed == 0 and self.sipp.retransmissions == 0 and self.heard == self.sipp.succeeded

    @property
    def cpu_ms_a_call(self) -> float:
        """Worker CPU of one call."""
        return self.worker_cpu_s * 1000 / (self.rate * self.window_s)

    @property
    def database_cpu_ms_a_call(self) -> float | None:
        """Database CPU of one call; None without a database of ours."""
        if self.database_cpu_s is None:
            return None
        return round(self.database_cpu_s * 1000 / (self.rate * self.window_s), 3)

    def detail(self) -> dict[str, object]:
        """For the JSON line."""
        return {
            "rate": self.rate,
            "calls": self.sipp.calls,
            "failed": self.sipp.failed,
            "retransmissions": self.sipp.retransmissions,
            "heard": self.heard,
            "lost_packets": self.lost_packets,
            "worker_cpu_percent": round(100 * self.worker_cpu_s / self.window_s, 1),
            "database_cpu_ms_a_call": self.database_cpu_ms_a_call,
            "generator_late_ms": self.health.win_late_max_ms,
            "datagrams_dropped": self.dropped,
        }


@dataclass
class Rig:
    """A started target with its generators."""

    target: Target
    load: RtpLoad
    phones: PhoneBank
    folder: Path  # of SIPp's files
    share_runs: bool = False  # a clean run of menu callers serves whoever asks for the same again
    samples: list[Sample] = field(default_factory=list)
    _sip_ports: int = 0
    _callers: int = 0
    _menus: dict[tuple[float, float], MenuRun] = field(default_factory=dict)

    def must_live(self) -> None:
        """Raises RuntimeError when the server under test has died: no figure after that means anything."""
        if machine.rss_mb(self.target.pid) == 0:
            raise RuntimeError(f"the server under test ({self.target.name}) has gone; its log says why")

    def sip_port(self) -> int:
        """A SIP port for the next SIPp; never the one just used."""
        self._sip_ports = (self._sip_ports + 1) % 40
        return SIP_FIRST + self._sip_ports

    def _ports(self, group: Group, calls: int) -> list[int]:
        """Media ports of the next `calls` calls, the longest unused first."""
        first = self._callers % group.count
        self._callers += calls
        return [group.port((first + i) % group.count) for i in range(min(calls, group.count))]

    def callers(
        self,
        scenario: str,
        group: Group,
        ports: Sequence[int],
        calls: int,
        rate: float,
        *,
        longest_s: int,
        talk_ms: int = 0,
        first_caller: int = 0,
    ) -> Callers:
        """A SIPp run against the target."""
        sip_port = self.sip_port()
        return Callers(
            scenario=scenario,
            target=self.target.sip,
            service=self.target.menu if group is MENU_LEGS else self.target.hotline,
            calls=calls,
            rate=rate,
            ports=ports,
            sip_port=sip_port,
            media_port=SIPP_MEDIA_FIRST + 8 * (sip_port - SIP_FIRST),
            folder=self.folder,
            longest_s=longest_s,
            talk_ms=talk_ms,
            first_caller=first_caller,
        )

    async def menu(self, rate: float, seconds: float) -> MenuRun:
        """Callers of the menu at `rate` a second for `seconds`.

        The first 2 s and what follows the last call are not in the steady window.
        """
        run = self._menus.get((rate, seconds)) or await self._menu(rate, seconds)
        if self.share_runs and run.clean:
            self._menus[rate, seconds] = run
        return run

    async def _menu(self, rate: float, seconds: float) -> MenuRun:
        calls = round(rate * seconds)
        before, dropped = len(self.load.ended), machine.datagrams_dropped()
        callers = self.callers(
            "bench_ivr", MENU_LEGS, self._ports(MENU_LEGS, calls), calls, rate, longest_s=round(seconds) + 30
        )
        running = asyncio.create_task(place_calls(callers))
        lead_s = min(2.0, seconds / 4)
        await asyncio.sleep(lead_s)
        self.load.tell("window begin")
        began, worker, database = _now(), machine.cpu_s(self.target.pid), self.target.database_cpu_s()
        await asyncio.sleep(seconds - lead_s - 0.2)
        window_s = _now() - began
        worker_cpu_s = machine.cpu_s(self.target.pid) - worker
        database_end = self.target.database_cpu_s()
        _, health = await self.load.report()
        self.load.tell("window end")
        sipp = await running
        self.must_live()
        await asyncio.sleep(1.3)  # rtpload calls a leg ended after 1 s of silence
        legs = [leg for leg in self.load.ended[before:] if leg.group == MENU_LEGS.name]
        return MenuRun(
            rate=rate,
            sipp=sipp,
            heard=sum(leg.audible_ms >= HEARD_MS and leg.digit_start_ns > 0 for leg in legs),
            lost_packets=sum(leg.lost for leg in legs),
            worker_cpu_s=worker_cpu_s,
            database_cpu_s=None if database is None or database_end is None else database_end - database,
            window_s=window_s,
            health=health,
            dropped=machine.datagrams_dropped() - dropped,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def latest(legs: Sequence[LegReport], group: Group) -> dict[int, LegReport]:
    """The last report of each port of a group."""
    return {leg.port: leg for leg in legs if leg.group == group.name}
