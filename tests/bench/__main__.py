"""`python -m tests.bench [soak]`: measures careline, or any other server. Every load ends by itself.

Core 0 belongs to the server under test, core 1 to SIPp, rtpload, phones, the database and this driver.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.bench import edge, edge_figures, machine, plan, soak, speech
from tests.bench.careline_worker import CarelineWorker
from tests.bench.figures import Figure, print_all
from tests.bench.phones import PhoneBank
from tests.bench.rig import MENU_LEGS, PATIENT_LEGS, PHONE_LEGS, PHONES_PORT, Rig
from tests.bench.rtpload import RtpLoad, build
from tests.bench.target import External, Target

EDGE = "edge"  # the part that has a hotline of its own
CACHE = Path.home() / ".cache" / "careline" / "bench"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("bench", "soak"), default="bench")
    parser.add_argument("--quick", action="store_true", help="under a minute, small loads, no bars")
    parser.add_argument("--only", nargs="+", choices=(*plan.PARTS, EDGE), help="parts to measure")
    parser.add_argument("--edge", action="store_true", help="only through the whole hotline, TLS and SRTP")
    parser.add_argument("--calls", type=int, default=4500, help="calls of the soak")
    parser.add_argument("--keep", action="store_true", help="keep the logs of SIPp and the server")
    parser.add_argument("--external", metavar="ADDR:PORT", help="measure a server that runs already …")
    parser.add_argument("--pid", type=int, help=f"… with this process id; it dials 127.0.0.1:{PHONES_PORT}")
    parser.add_argument("--menu", default="menu", help="its number that hangs up on key 1")
    parser.add_argument("--hotline", default="hotline", help="its number that dials a clinician on key 1")
    chosen = parser.parse_args()
    if bool(chosen.external) != bool(chosen.pid):
        parser.error("--external and --pid belong together")
    if chosen.edge and (chosen.only or chosen.external or chosen.what == "soak"):
        parser.error("--edge stands alone: it measures the whole hotline of this checkout")
    everything = plan.PARTS if chosen.quick or chosen.external else (*plan.PARTS, EDGE)
    chosen.only = [EDGE] if chosen.edge else chosen.only or list(everything)
    return chosen


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One benchmark at a time on this machine. Raises RuntimeError when another one runs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another benchmark is running; two would measure each other") from None
        yield


async def run(chosen: argparse.Namespace, folder: Path) -> bool:
    """Measure what was asked for. True when every bar is reached and every call was as it should be."""
    say = plan.Say()
    if chosen.what == "soak":
        return await _soak(chosen, folder)
    clip = await asyncio.to_thread(speech.make_clip, CACHE)
    figures: list[Figure] = []
    faults: tuple[str, ...] = ()
    name = "careline, whole hotline"
    if set(chosen.only) & set(plan.PARTS):
        async with _rig(chosen, folder) as rig:
            name = rig.target.name
            sizes = plan.QUICK if chosen.quick else plan.Sizes()
            figures = await plan.measure(rig, sizes, clip, say, chosen.only)
    if chosen.quick:
        figures = plan.without_bars(figures)
    if EDGE in chosen.only:
        through = await edge.run(edge.QUICK if chosen.quick else edge.EdgeSizes(), CACHE, folder, clip, say)
        figures += edge_figures.figures(through)
        faults = through.faults
    print_all(figures)
    print(json.dumps({"target": name, **machine.conditions()}), flush=True)
    for fault in faults:
        say("edge", f"fault: {fault}")
    return not faults and all(figure.ok is not False for figure in figures)


async def _soak(chosen: argparse.Namespace, folder: Path) -> bool:
    async with _rig(chosen, folder) as rig:
        outcome = await soak.soak(rig, chosen.calls)
    soak.print_soak(outcome)
    return bool(outcome["ok"])


@contextlib.asynccontextmanager
async def _rig(chosen: argparse.Namespace, folder: Path) -> AsyncIterator[Rig]:
    """The bare worker, or the other server, with its generators; warmed up."""
    target: Target
    if chosen.external:
        target = External(sip=chosen.external, pid=chosen.pid, menu=chosen.menu, hotline=chosen.hotline)
    else:
        target = CarelineWorker(folder=folder, cache=CACHE)
    load = RtpLoad(await asyncio.to_thread(build, CACHE), [MENU_LEGS, PATIENT_LEGS, PHONE_LEGS])
    async with load:
        phones = PhoneBank(
            address="127.0.0.1",
            port=PHONES_PORT,
            media_ports=[PHONE_LEGS.port(i) for i in range(PHONE_LEGS.count)],
            on_media=lambda port, to, rtp, event: load.tell(f"peer {port} {to} {rtp} {event}"),
            on_over=lambda port: load.tell(f"bye {port}"),
        )
        with phones:
            try:
                await target.start()
                rig = Rig(target=target, load=load, phones=phones, folder=folder, share_runs=chosen.quick)
                plan.Say()("target", f"{target.name} {json.dumps(machine.conditions())}")
                await rig.menu(10, 1 if chosen.quick else 3)  # warm: code paths, pools, caches
                yield rig
            finally:
                load.save(folder / "legs.jsonl")
                await target.stop()


def main() -> int:
    """0 when every bar is reached (a quick run: when everything could be measured), 1 otherwise."""
    chosen = arguments()
    folder = Path(tempfile.mkdtemp(prefix="careline-bench-"))
    good = False
    try:
        with alone():
            good = asyncio.run(run(chosen, folder))
    finally:
        if good and not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"bench: logs are in {folder}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
