"""`python -m tests.bench [soak]`: measures careline, or any other server. Every load ends by itself.

Core 0 belongs to the server under test, core 1 to SIPp, rtpload, the database and this driver.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench import machine, plan, soak, speech
from tests.bench.careline_worker import CarelineWorker
from tests.bench.figures import print_all
from tests.bench.phones import PhoneBank
from tests.bench.rig import MENU_LEGS, PATIENT_LEGS, PHONE_LEGS, PHONES_PORT, Rig
from tests.bench.rtpload import RtpLoad, build
from tests.bench.target import External, Target

CACHE = Path.home() / ".cache" / "careline" / "bench"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("bench", "soak"), default="bench")
    parser.add_argument("--quick", action="store_true", help="under a minute, small loads, no bars")
    parser.add_argument("--only", nargs="+", choices=plan.PARTS, default=plan.PARTS, help="parts to measure")
    parser.add_argument("--calls", type=int, default=4500, help="calls of the soak")
    parser.add_argument("--keep", action="store_true", help="keep the logs of SIPp and the server")
    parser.add_argument("--external", metavar="ADDR:PORT", help="measure a server that runs already …")
    parser.add_argument("--pid", type=int, help=f"… with this process id; it dials 127.0.0.1:{PHONES_PORT}")
    parser.add_argument("--menu", default="menu", help="its number that hangs up on key 1")
    parser.add_argument("--hotline", default="hotline", help="its number that dials a clinician on key 1")
    chosen = parser.parse_args()
    if bool(chosen.external) != bool(chosen.pid):
        parser.error("--external and --pid belong together")
    return chosen


async def run(chosen: argparse.Namespace, folder: Path) -> bool:
    """Start everything, measure, end everything. True when all that has a bar reaches it."""
    target: Target
    if chosen.external:
        target = External(sip=chosen.external, pid=chosen.pid, menu=chosen.menu, hotline=chosen.hotline)
    else:
        target = CarelineWorker(folder=folder, cache=CACHE)
    clip = await asyncio.to_thread(speech.make_clip, CACHE)
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
                return await _measure(
                    chosen, Rig(target=target, load=load, phones=phones, folder=folder), clip
                )
            finally:
                load.save(folder / "legs.jsonl")
                await target.stop()


async def _measure(chosen: argparse.Namespace, rig: Rig, clip: Path) -> bool:
    say = plan.Say()
    say("target", f"{rig.target.name} {json.dumps(machine.conditions())}")
    await rig.menu(10, 3)  # warm: code paths, pools, caches
    if chosen.what == "soak":
        outcome = await soak.soak(rig, chosen.calls)
        soak.print_soak(outcome)
        return bool(outcome["ok"])
    figures = await plan.measure(rig, plan.QUICK if chosen.quick else plan.Sizes(), clip, say, chosen.only)
    if chosen.quick:
        figures = plan.without_bars(figures)
    print_all(figures)
    print(json.dumps({"target": rig.target.name, **machine.conditions()}), flush=True)
    return all(figure.ok is not False for figure in figures)


def main() -> int:
    """0 when every bar is reached (a quick run: when everything could be measured), 1 otherwise."""
    chosen = arguments()
    folder = Path(tempfile.mkdtemp(prefix="careline-bench-"))
    good = False
    try:
        good = asyncio.run(run(chosen, folder))
    finally:
        if good and not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"bench: logs are in {folder}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
