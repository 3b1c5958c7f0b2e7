"""What the benchmark measures, in which order, and against which bar."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import speech
from tests.bench.figures import Figure, percentile, repeated
from tests.bench.machine import Sample, watch
from tests.bench.rig import MenuRun, Rig
from tests.bench.talks import Talks, TalkWindow

PARTS = ("memory", "answer", "cpu", "menu", "bridges")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of each load."""

    memory_rate: float = 100
    memory_s: float = 75
    plain_rate: float = 50  # for INVITE -> 200
    plain_s: float = 20
    cpu_rate: float = 160
    cpu_s: float = 8
    cpu_runs: int = 3
    menu_rates: tuple[float, ...] = (80, 120, 160, 200, 240, 280, 320)
    menu_s: float = 6
    bridge_steps: tuple[int, ...] = (200, 250, 300, 350, 400)
    probe_from: int = 100  # set-up is measured with this many talks up
    probe: int = 50
    bridge_rate: float = 20  # talks a second while growing
    window_s: float = 8
    delay_s: float = 6
    spoken_pairs: int = 4
    ladders: int = 2  # repetitions of each search for a ceiling


QUICK = Sizes(
    memory_rate=20,
    memory_s=2,
    plain_rate=20,
    plain_s=2,
    cpu_rate=20,
    cpu_s=2,
    cpu_runs=1,
    menu_rates=(20,),
    menu_s=2,
    bridge_steps=(8,),
    probe_from=4,
    probe=2,
    bridge_rate=5,
    window_s=2,
    delay_s=2,
    spoken_pairs=2,
    ladders=1,
)


@dataclass(frozen=True, kw_only=True)
class BridgeLadder:
    """One climb."""

    clean: int  # the highest step that was clean
    windows: Sequence[TalkWindow]
    after_end_ms: Sequence[float]
    after_start_ms: Sequence[float]
    delays_ms: Sequence[float]
    marks: int
    heard: Sequence[speech.Heard]
    failed: int  # patients that SIPp counted as failed
    retransmissions: int
    all_ended: bool


async def measure(rig: Rig, sizes: Sizes, clip: Path, say: "Say", parts: Collection[str]) -> list[Figure]:
    """The parts asked for (of PARTS), repeated measurements interleaved."""
    figures: list[Figure] = []
    memory: list[Figure] = []
    cpu: list[MenuRun] = []
    menus: list[tuple[float, MenuRun]] = []
    bridges: list[BridgeLadder] = []
    if "memory" in parts:
        say("memory", f"{sizes.memory_rate:g} calls/s for {sizes.memory_s:g} s")
        memory = await _memory(rig, sizes)
    if "answer" in parts:
        say("answer", f"{sizes.plain_rate:g} calls/s for {sizes.plain_s:g} s")
        figures += _answer_figures(sizes, await rig.menu(sizes.plain_rate, sizes.plain_s))
    for turn in range(max(sizes.ladders, sizes.cpu_runs)):
        if "cpu" in parts and turn < sizes.cpu_runs:
            say("cpu", f"{sizes.cpu_rate:g} calls/s, run {turn + 1}")
            cpu.append(await rig.menu(sizes.cpu_rate, sizes.cpu_s))
        if "menu" in parts and turn < sizes.ladders:
            say("menu", f"run {turn + 1}")
            menus.append(await _menu_ladder(rig, sizes, say))
        if "bridges" in parts and turn < sizes.ladders:
            say("bridges", f"run {turn + 1}")
            bridges.append(await _bridge_ladder(rig, sizes, clip, turn == 0, say))
    if menus:
        figures = _menu_figures(sizes, menus) + figures
    if cpu:
        figures += _cpu_figures(sizes, cpu)
    if bridges:
        figures += _bridge_figures(sizes, bridges)
    return figures + memory


class Say:
    """Progress for people, on standard error."""

    def __call__(self, what: str, how: str) -> None:
        """One line."""
        import sys

        print(f"bench: {what}: {how}", file=sys.stderr, flush=True)


async def _menu_ladder(rig: Rig, sizes: Sizes, say: Say) -> tuple[float, MenuRun]:
    """The highest clean rate and its run; a rate that is not clean gets one second chance."""
    best = 0.0
    run: MenuRun | None = None
    for rate in sizes.menu_rates:
        for _ in range(2):
            run = await rig.menu(rate, sizes.menu_s)
            say("menu", f"{rate:g}/s {'clean' if run.clean else f'not clean: {run.detail()}'}")
            if run.clean:
                break
        assert run is not None
        if not run.clean:
            return best, run
        best = rate
    assert run is not None
    return best, run


async def _bridge_ladder(rig: Rig, sizes: Sizes, clip: Path, long: bool, say: Say) -> BridgeLadder:
    """Climb until a step is not clean; the long form measures delay and speech at the first step, too."""
    talks = Talks(rig)
    windows: list[TalkWindow] = []
    after_end: Sequence[float] = ()
    after_start: Sequence[float] = ()
    delays: Sequence[float] = ()
    heard: Sequence[speech.Heard] = ()
    marks = clean = 0
    try:
        await talks.grow(sizes.probe_from, sizes.bridge_rate)
        await talks.grow(sizes.probe_from + sizes.probe, sizes.bridge_rate / 2)
        after_end, after_start = await talks.set_up_ms(sizes.probe_from)
        for step in sizes.bridge_steps:
            await talks.grow(step, sizes.bridge_rate)
            window = await talks.window(sizes.window_s)
            windows.append(window)
            say("bridges", f"{step} {'clean' if window.clean else f'not clean: {window.detail()}'}")
            if not window.clean:
                break
            clean = step
            if long and step == sizes.bridge_steps[0]:
                delays, marks = await talks.delays(sizes.delay_s)
                heard = await speech.through_bridge(rig.load, clip, rig.folder, sizes.spoken_pairs)
    finally:
        all_ended, results = await talks.end()
    return BridgeLadder(
        clean=clean,
        windows=windows,
        after_end_ms=after_end,
        after_start_ms=after_start,
        delays_ms=delays,
        marks=marks,
        heard=heard,
        failed=sum(result.failed for result in results),
        retransmissions=sum(result.retransmissions for result in results),
        all_ended=all_ended,
    )


async def _memory(rig: Rig, sizes: Sizes) -> list[Figure]:
    """Plateau and growth of the worker's resident memory under a steady rate, and its descriptors."""
    samples: list[Sample] = []
    watching = asyncio.create_task(watch(rig.target.pid, samples))
    try:
        run = await rig.menu(sizes.memory_rate, sizes.memory_s)
    finally:
        watching.cancel()
    calls_s = 5000 / sizes.memory_rate
    loaded = [s.rss_mb for s in samples if s.at_s < sizes.memory_s]
    late = [s.rss_mb for s in samples if calls_s < s.at_s < sizes.memory_s] or loaded[-2:]
    growth = late[-1] - late[0]
    detail: dict[str, object] = {
        **run.detail(),
        "start_mb": round(loaded[0], 1),
        "descriptors_max": max(s.descriptors for s in samples),
        "descriptors_start": samples[0].descriptors,
        "descriptors_end": samples[-1].descriptors,
    }
    return [
        Figure(
            name="memory_plateau_mb",
            what=f"worker memory at {sizes.memory_rate:g} calls/s",
            value=max(loaded),
            unit="MB",
            bar=300,
            better="low",
            detail=detail,
        ),
        Figure(
            name="memory_growth_percent",
            what="worker memory, growth after 5,000 calls",
            value=100 * growth / late[0] if late[0] else None,
            unit="%",
            bar=3,
            better="low",
            detail={
                "calls_before": 5000,
                "calls_after": run.sipp.calls,
                "from_mb": late[0],
                "to_mb": late[-1],
            },
        ),
    ]


def _menu_figures(sizes: Sizes, menus: Sequence[tuple[float, MenuRun]]) -> list[Figure]:
    ceilings = [ceiling for ceiling, _ in menus]
    return [
        Figure(
            name="menu_calls_per_s",
            what="menu calls/s, clean",
            value=repeated(ceilings),
            unit="calls/s",
            bar=200,
            aim=320,
            runs=ceilings,
            detail={"highest_tried": sizes.menu_rates[-1], "last": [run.detail() for _, run in menus]},
        )
    ]


def _cpu_figures(sizes: Sizes, cpu: Sequence[MenuRun]) -> list[Figure]:
    costs = [run.cpu_ms_a_call for run in cpu]
    database = [ms for run in cpu if (ms := run.database_cpu_ms_a_call) is not None]
    return [
        Figure(
            name="menu_cpu_ms",
            what=f"worker CPU a call at {sizes.cpu_rate:g}/s",
            value=repeated(costs),
            unit="ms",
            bar=4.5,
            aim=3.5,
            better="low",
            runs=costs,
            detail={"clean": all(run.clean for run in cpu), "runs": [run.detail() for run in cpu]},
        ),
        Figure(
            name="database_cpu_ms",
            what=f"database CPU a call at {sizes.cpu_rate:g}/s",
            value=repeated(database),
            unit="ms",
            better="low",
            runs=database,
        ),
    ]


def _answer_figures(sizes: Sizes, plain: MenuRun) -> list[Figure]:
    answers = plain.sipp.answer_ms
    return [
        Figure(
            name="answer_p50_ms",
            what=f"INVITE to 200, p50 at {sizes.plain_rate:g} calls/s",
            value=percentile(answers, 50),
            unit="ms",
            better="low",
        ),
        Figure(
            name="answer_p99_ms",
            what=f"INVITE to 200, p99 at {sizes.plain_rate:g} calls/s",
            value=percentile(answers, 99),
            unit="ms",
            bar=50,
            better="low",
            detail={**plain.detail(), "clock_resolution_ms": 4},  # SIPp reads the coarse clock
        ),
    ]


def _bridge_figures(sizes: Sizes, ladders: Sequence[BridgeLadder]) -> list[Figure]:
    # A ladder during which a patient's signalling failed or had to be repeated has no clean step.
    ceilings = [float(r.clean if r.failed == 0 and r.retransmissions == 0 else 0) for r in ladders]
    first = sizes.bridge_steps[0]
    costs = [w.cpu_percent_a_bridge for r in ladders for w in r.windows if w.bridges == first]
    after_end = [ms for r in ladders for ms in r.after_end_ms]
    after_start = [ms for r in ladders for ms in r.after_start_ms]
    delays = [ms for r in ladders for ms in r.delays_ms]
    marks = sum(r.marks for r in ladders)
    heard = [h for r in ladders for h in r.heard]
    setup: dict[str, object] = {"talks_up": sizes.probe_from, "measured": len(after_end)}
    return [
        Figure(
            name="bridges",
            what="bridged talks, clean",
            value=repeated(ceilings),
            unit="talks",
            bar=300,
            aim=400,
            runs=ceilings,
            detail={
                "highest_tried": sizes.bridge_steps[-1],
                "failed": sum(r.failed for r in ladders),
                "retransmissions": sum(r.retransmissions for r in ladders),
                "all_ended": all(r.all_ended for r in ladders),
                "windows": [[w.detail() for w in r.windows] for r in ladders],
            },
        ),
        Figure(
            name="bridge_cpu_percent",
            what=f"worker CPU a talk at {first}",
            value=repeated(costs),
            unit="%",
            bar=0.20,
            better="low",
            runs=costs,
        ),
        Figure(
            name="key_to_invite_p95_ms",
            what=f"end of key to clinician's INVITE, p95 at {sizes.probe_from} talks",
            value=percentile(after_end, 95),
            unit="ms",
            bar=20,
            better="low",
            detail={**setup, "negative": "the server acted on the key before it was released"},
        ),
        Figure(
            name="key_start_to_invite_p95_ms",
            what=f"start of key to clinician's INVITE, p95 at {sizes.probe_from} talks",
            value=percentile(after_start, 95),
            unit="ms",
            better="low",
            detail=setup,
        ),
        Figure(
            name="audio_delay_p50_ms",
            what=f"audio delay of the bridge, p50 at {first} talks",
            value=percentile(delays, 50),
            unit="ms",
            bar=22,
            better="low",
            detail={"bursts_sent": marks, "bursts_heard": len(delays)},
        ),
        Figure(
            name="audio_delay_p99_ms",
            what=f"audio delay of the bridge, p99 at {first} talks",
            value=percentile(delays, 99),
            unit="ms",
            bar=40,
            better="low",
            detail={"bursts_sent": marks, "bursts_heard": len(delays)},
        ),
        Figure(
            name="pesq_nb",
            what=f"speech through the bridge, PESQ-nb, worst of {len(heard)}",
            value=min((h.pesq for h in heard), default=None),
            unit="MOS",
            bar=4.0,
            detail={"each": [round(h.pesq, 2) for h in heard]},
        ),
        Figure(
            name="level_db",
            what="speech through the bridge, level difference, worst",
            value=max((abs(h.level_db) for h in heard), default=None),
            unit="dB",
            bar=3,
            better="low",
            detail={"each": [round(h.level_db, 2) for h in heard]},
        ),
    ]


def without_bars(figures: Sequence[Figure]) -> list[Figure]:
    """A quick run is too small to pass or miss anything."""
    return [replace(figure, bar=None, aim=None) for figure in figures]
