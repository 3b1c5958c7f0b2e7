"""`make soak`: thousands of calls, menu callers and bridged talks mixed; nothing fails, nothing leaks."""

import asyncio
import json
from collections.abc import Mapping

from tests.bench.machine import Sample, descriptors, watch
from tests.bench.rig import MENU_LEGS, PATIENT_LEGS, PHONE_LEGS, Rig
from tests.bench.sipp import place_calls

MENU_RATE, TALK_RATE = 45.0, 5.0  # calls a second
TALK_MS = 8000
LINGER_S = 36.0  # transactions keep their memory for a while after their end (RFC 3261: 32 s; ours: 10 s)
GROWTH_PERCENT = 3.0  # of resident memory between the first and the last part of the plateau
SPARE_DESCRIPTORS = 8  # a pool may open a few and keep them


async def soak(rig: Rig, calls: int) -> Mapping[str, object]:
    """Nine in ten calls visit the menu, one is bridged to a clinician. The verdict is "ok"."""
    talks = calls // 10
    menu = calls - talks
    seconds = menu / MENU_RATE
    before = await rig.target.records()
    legs_before = len(rig.load.ended)
    start_descriptors = descriptors(rig.target.pid)
    samples: list[Sample] = []
    watching = asyncio.create_task(watch(rig.target.pid, samples))
    try:
        menu_ports = [MENU_LEGS.port(i) for i in range(MENU_LEGS.count)]
        talk_ports = [PATIENT_LEGS.port(i) for i in range(PATIENT_LEGS.count)]
        longest = round(seconds + 60)
        results = await asyncio.gather(
            place_calls(
                rig.callers("bench_ivr", MENU_LEGS, menu_ports, menu, MENU_RATE, longest_s=longest)
            ),
            place_calls(
                rig.callers(
                    "bench_patient", PATIENT_LEGS, talk_ports, talks, TALK_RATE,
                    longest_s=longest, talk_ms=TALK_MS, first_caller=100_000,
                )
            ),
        )  # fmt: skip
        await asyncio.sleep(LINGER_S)
    finally:
        watching.cancel()
    ended = rig.load.ended[legs_before:]
    heard = sum(leg.group == MENU_LEGS.name and leg.audible_ms > 0 for leg in ended)
    menus = sum(leg.group == MENU_LEGS.name for leg in ended)
    patients = [leg for leg in ended if leg.group == PATIENT_LEGS.name]
    phones = [leg for leg in ended if leg.group == PHONE_LEGS.name]
    loaded = [s.rss_mb for s in samples if s.at_s < seconds]
    middle, last = loaded[len(loaded) // 2 : len(loaded) * 3 // 4], loaded[len(loaded) * 3 // 4 :]
    growth = 100 * (_mean(last) - _mean(middle)) / _mean(middle) if middle else 0.0
    judged = seconds >= 2 * LINGER_S  # before that memory still fills up, and says nothing
    outcome: dict[str, object] = {
        "calls": sum(r.calls for r in results),
        "failed": sum(r.failed for r in results),
        "retransmissions": sum(r.retransmissions for r in results),
        "menu_heard": heard,
        "talks_heard_both_ways": min(
            sum(leg.own > 20 for leg in patients), sum(leg.own > 20 for leg in phones)
        ),
        # A port that hears something again after its call: audio of another call, sent to who had hung up.
        "audio_after_hangup": max(0, len(patients) - talks) + max(0, menus - menu),
        "mixed_legs": sum(leg.foreign > 0 for leg in patients + phones),
        "rss_start_mb": round(loaded[0], 1),
        "rss_middle_mb": round(_mean(middle), 1),
        "rss_last_mb": round(_mean(last), 1),
        "rss_growth_percent": round(growth, 2),
        "rss_judged": judged,
        "rss_after_mb": round(samples[-1].rss_mb, 1),
        "descriptors_start": start_descriptors,
        "descriptors_max": max(s.descriptors for s in samples),
        "descriptors_after": samples[-1].descriptors,
        "seconds": round(samples[-1].at_s),
    }
    faults = [
        sentence
        for wrong, sentence in (
            (outcome["calls"] != calls, "not every call was placed"),
            (outcome["failed"] != 0, "calls failed"),
            (heard != menu, "menu callers did not hear the prompt"),
            (outcome["talks_heard_both_ways"] != talks, "talks were not heard both ways"),
            (outcome["mixed_legs"] != 0, "somebody heard another call"),
            (outcome["audio_after_hangup"] != 0, "somebody who had hung up was sent another call's audio"),
            (judged and growth > GROWTH_PERCENT, f"memory grew by more than {GROWTH_PERCENT:g} %"),
            (
                samples[-1].descriptors > start_descriptors + SPARE_DESCRIPTORS,
                "descriptors were not given back",
            ),
        )
        if wrong
    ]
    records = await rig.target.records()
    if records is not None and before is not None:
        outcome["rows"], outcome["ended_rows"] = rows = records[0] - before[0], records[1] - before[1]
        if rows != (calls, calls):
            faults.append("the database does not hold every call with its end")
    outcome["faults"] = faults
    outcome["ok"] = not faults
    return outcome


def print_soak(outcome: Mapping[str, object]) -> None:
    """The table, then one line of JSON."""
    width = max(len(name) for name in outcome)
    for name, value in outcome.items():
        print(f"{name.replace('_', ' ').ljust(width)}  {value}")
    print(json.dumps(outcome), flush=True)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
