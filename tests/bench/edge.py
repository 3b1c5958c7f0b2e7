"""The bench through the whole hotline: Kamailio, rtpengine, worker, courier, FHIR server, real phones.

Reported beside the bare worker's figures, without bars. Core 0 has what serves calls (worker, rtpengine,
Kamailio), core 1 the phones, PostgreSQL, courier, FHIR server and this driver.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import edge_delay, machine, speech
from tests.bench.careline_worker import DIALPLANS, MENU_PROMPT, PROMPTS
from tests.bench.edge_judge import Verdict
from tests.bench.edge_talks import CLINICIAN, DESK, Answer, EdgeTalks
from tests.bench.plan import Say
from tests.e2e.systemrig import Clinic, System, system

SERVING = ("worker-1", "rtpengine", "kamailio")
HELPING = ("postgres", "courier")
PHONES = "phones"
END_RATE = 10.0  # hang-ups a second; more from one address would be a flood to the edge


@dataclass(frozen=True, kw_only=True)
class EdgeSizes:
    """How much."""

    bridges: int = 30
    rate: float = 5  # callers a second
    window_s: float = 8
    set_ups: int = 60  # further callers while the talks are up
    delay_s: float = 6


QUICK = EdgeSizes(bridges=6, window_s=2, set_ups=10, delay_s=2)


@dataclass(frozen=True, kw_only=True)
class EdgeRun:
    """What was measured."""

    sizes: EdgeSizes
    verdict: Verdict
    failed: Sequence[str]  # calls that did not come about, a sentence each
    answers: Sequence[Answer]
    heard_prompt: int  # of sizes.set_ups callers
    without_srtp: int  # legs of TLS phones
    ended: int  # callers the server ended when their clinician hung up
    talking: Mapping[str, float]  # CPU by part while only talks are up, in cores
    calling: Mapping[str, float]  # CPU by part while further callers come, too, in cores
    calling_s: float
    heard: Mapping[str, speech.Heard]  # by way: "srtp_to_caller"
    delays_ms: Sequence[float]
    marks: int

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the figures mean nothing; empty when every call was heard both ways and ended well."""
        sizes = self.sizes
        checks = (
            (len(self.verdict.partners) < sizes.bridges, f"only {len(self.verdict.partners)} talks were up"),
            (self.heard_prompt < sizes.set_ups, f"only {self.heard_prompt} callers heard the prompt"),
            (self.without_srtp > 0, f"{self.without_srtp} TLS phones had no SRTP"),
            (not self.delays_ms, "no burst of the delay measurement was heard"),
            (self.ended < sizes.bridges, f"the server ended only {self.ended} callers"),
        )
        return (*self.failed, *self.verdict.faults, *(sentence for wrong, sentence in checks if wrong))


async def run(sizes: EdgeSizes, cache: Path, folder: Path, clip: Path, say: Say) -> EdgeRun:
    """Start everything, measure, end everything."""
    cores = [str(core) for core in os.sched_getaffinity(0)]
    log, handler = logging.getLogger("careline"), logging.FileHandler(folder / "hotline.log")
    log.addHandler(handler)
    async with AsyncExitStack() as stack:
        stack.callback(handler.close)
        stack.callback(machine.move, os.getpid(), *cores)
        clinic = Clinic(dialplans=_dialplans(folder), accounts=(CLINICIAN, DESK), rtp_ports=4000, drain_s=0)
        stack.callback(log.removeHandler, handler)
        say("edge", "starting the whole hotline")
        hotline = await stack.enter_async_context(system(clinic))
        machine.move(os.getpid(), machine.LOAD_CORE)
        for name in SERVING:
            machine.move(_pid(hotline, name), machine.WORKER_CORE)
        talks = await EdgeTalks.start(stack, hotline, folder / "phones", sizes.bridges)
        return await _measure(sizes, hotline, talks, cache, folder, clip, say)


async def _measure(
    sizes: EdgeSizes, hotline: System, talks: EdgeTalks, cache: Path, folder: Path, clip: Path, say: Say
) -> EdgeRun:
    say("edge", f"{sizes.bridges} talks, {sizes.rate:g} callers a second")
    await talks.grow(sizes.bridges, sizes.rate)
    await asyncio.sleep(1)
    load = _Load(hotline, talks)
    await asyncio.sleep(sizes.window_s)
    talking, _ = load.since()
    verdict = await talks.verdict(sizes.window_s)
    without_srtp = await talks.without_srtp()
    say("edge", f"{sizes.set_ups} callers of the menu beside the talks, speech through some of these")
    load = _Load(hotline, talks)
    calling = asyncio.create_task(talks.set_up(sizes.set_ups, sizes.rate))
    heard = await talks.speak(verdict.partners, clip)
    heard_prompt = await calling
    cores, calling_s = load.since()
    say("edge", "audio delay")
    delays_ms, marks = await edge_delay.delays(hotline, cache, folder, sizes.delay_s)
    return EdgeRun(
        sizes=sizes,
        verdict=verdict,
        answers=talks.answers,
        heard_prompt=heard_prompt,
        without_srtp=without_srtp,
        ended=await talks.end(END_RATE),
        failed=talks.failed,
        talking=talking,
        calling=cores,
        calling_s=calling_s,
        heard=heard,
        delays_ms=delays_ms,
        marks=marks,
    )


class _Load:
    """CPU of every part since it was made."""

    def __init__(self, hotline: System, talks: EdgeTalks) -> None:
        self._pids = {name: [_pid(hotline, name)] for name in (*SERVING, *HELPING)}
        self._pids[PHONES] = list(talks.pids)
        self._began, self._before = asyncio.get_running_loop().time(), self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(map(machine.family_cpu_s, pids)) for name, pids in self._pids.items()}

    def since(self) -> tuple[dict[str, float], float]:
        """Cores used by each part, and the seconds that was measured over."""
        seconds = asyncio.get_running_loop().time() - self._began
        return {name: (after - self._before[name]) / seconds for name, after in self._now().items()}, seconds


def _pid(hotline: System, name: str) -> int:
    pid = hotline.status(name).pid
    if pid is None:
        raise RuntimeError(f"{name} has ended; hotline.log in the folder of logs says why")
    return pid


def _dialplans(folder: Path) -> Path:
    """The bench's lines with the shipped prompts and the bench's own."""
    target = folder / "edge-dialplans"
    shutil.copytree(DIALPLANS, target)
    (target / "prompts").mkdir()
    (target / "prompts" / "en.toml").write_text(PROMPTS.read_text() + MENU_PROMPT)
    return target
