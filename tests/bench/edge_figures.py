"""What a run through the edge is reported as. No bars: these stand beside the bare worker's figures."""

from collections.abc import Sequence

from tests.bench.edge import PHONES, EdgeRun
from tests.bench.figures import Figure, percentile


def figures(run: EdgeRun) -> list[Figure]:
    """In the order of the report."""
    return [_bridges(run), *_answers(run), *_cpu(run), *_delay(run), *_speech(run)]


def _bridges(run: EdgeRun) -> Figure:
    return Figure(
        name="edge_bridges",
        what="edge: talks heard both ways, TLS + SRTP clinicians",
        value=len(run.verdict.partners),
        unit="talks",
        detail={
            "asked_for": run.sizes.bridges,
            "callers": "half by plain trunk, half by TLS + SRTP",
            "without_srtp": run.without_srtp,
            "ended_by_server": run.ended,
            "menu_callers": run.sizes.set_ups,
            "menu_callers_heard": run.heard_prompt,
            "faults": list(run.faults),
            "phones_cpu_percent": round(100 * run.calling[PHONES], 1),  # near 100: the phones were the limit
        },
    )


def _answers(run: EdgeRun) -> list[Figure]:
    made = []
    for kind, secure in (("trunk", False), ("srtp", True)):
        ms = [answer.ms for answer in run.answers if answer.secure == secure]
        for percent in (50, 99):
            made.append(
                Figure(
                    name=f"edge_answer_{kind}_p{percent}_ms",
                    what=f"edge: INVITE to 200, {'TLS' if secure else 'trunk'}, "
                    f"p{percent} at {run.sizes.rate:g} calls/s",
                    value=percentile(ms, percent),
                    unit="ms",
                    better="low",
                    detail={"calls": len(ms), "with_digest": secure, "clock_resolution_ms": 1},
                )
            )
    return made


def _cpu(run: EdgeRun) -> list[Figure]:
    bridges, calls = run.sizes.bridges, run.sizes.set_ups
    a_talk = [
        Figure(
            name=f"edge_{part.partition('-')[0]}_cpu_percent",
            what=f"edge: {part.partition('-')[0]} CPU a talk at {bridges}",
            value=100 * run.talking[part] / bridges,
            unit="%",
            better="low",
            detail={"core_percent": round(100 * run.talking[part], 1)},
        )
        for part in ("worker-1", "rtpengine", "kamailio")
    ]
    a_call = [
        Figure(
            name=f"edge_{name}_cpu_ms",
            what=f"edge: {name} CPU a menu call, talks taken off",
            value=1000 * run.calling_s * (run.calling[part] - run.talking[part]) / calls,
            unit="ms",
            better="low",
            detail={"calls": calls, "resolution_ms": round(10 / calls, 2)},
        )
        for name, part in (
            ("worker", "worker-1"),
            ("rtpengine", "rtpengine"),
            ("kamailio", "kamailio"),
            ("database", "postgres"),
            ("courier", "courier"),
        )
    ]
    return a_talk + a_call


def _delay(run: EdgeRun) -> list[Figure]:
    return [
        Figure(
            name=f"edge_audio_delay_p{percent}_ms",
            what=f"edge: audio delay trunk to trunk, p{percent} at {run.sizes.bridges} talks",
            value=percentile(run.delays_ms, percent),
            unit="ms",
            better="low",
            detail={
                "media": "plain RTP; twice through rtpengine, once through the worker",
                "bursts_sent": run.marks,
                "bursts_heard": len(run.delays_ms),
            },
        )
        for percent in (50, 99)
    ]


def _speech(run: EdgeRun) -> list[Figure]:
    heard = run.heard
    worst: Sequence[float] = [abs(h.level_db) for h in heard.values()]
    return [
        Figure(
            name="edge_pesq_nb",
            what=f"edge: speech through SRTP and edge, PESQ-nb, worst of {len(heard)}",
            value=min((h.pesq for h in heard.values()), default=None),
            unit="MOS",
            detail={
                "each": {way: round(h.pesq, 2) for way, h in heard.items()},
                "listeners": "real phones; their jitter buffers are part of it",
            },
        ),
        Figure(
            name="edge_level_db",
            what="edge: speech through SRTP and edge, level difference, worst",
            value=max(worst, default=None),
            unit="dB",
            better="low",
            detail={"each": {way: round(h.level_db, 2) for way, h in heard.items()}},
        ),
    ]
