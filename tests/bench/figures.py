"""A measured figure, the bar it has to reach, and how both are printed: table and JSON lines."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the benchmark."""

    name: str  # stable, for programs: "ivr_calls_per_s"
    what: str  # for people
    value: float | None  # the median where it was repeated; None: could not be measured
    unit: str
    bar: float | None = None  # None: reported only
    aim: float | None = None  # what we would rather have
    better: Literal["high", "low"] = "high"
    runs: Sequence[float] = ()  # every repetition, in order
    detail: Mapping[str, object] = field(default_factory=dict)  # conditions and side figures

    @property
    def ok(self) -> bool | None:
        """Whether the bar is reached; None when there is no bar."""
        if self.bar is None:
            return None
        if self.value is None:
            return False
        return self.value >= self.bar if self.better == "high" else self.value <= self.bar

    def as_json(self) -> str:
        """One line for programs."""
        record: dict[str, object] = {
            "figure": self.name,
            "value": _round(self.value),
            "unit": self.unit,
            "bar": self.bar,
            "aim": self.aim,
            "better": self.better,
            "ok": self.ok,
        }
        if len(self.runs) > 1:
            record |= {
                "runs": [_round(r) for r in self.runs],
                "min": _round(min(self.runs)),
                "max": _round(max(self.runs)),
            }
        if self.detail:
            record["detail"] = self.detail
        return json.dumps(record)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def repeated(runs: Sequence[float]) -> float | None:
    """The median of repetitions, None without any."""
    return median(runs) if runs else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Nearest-rank percentile (0-100), None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def print_all(figures: Sequence[Figure]) -> None:
    """The table, then one JSON line a figure."""
    rows = [("what", "measured", "bar", "aim", "")]
    for f in figures:
        sign = ">=" if f.better == "high" else "<="
        value = "-" if f.value is None else f"{f.value:.4g} {f.unit}"
        if len(f.runs) > 1:
            value += f" ({min(f.runs):.4g}-{max(f.runs):.4g}, {len(f.runs)} runs)"
        verdict = {None: "", True: "pass", False: "MISS"}[f.ok]
        rows.append(
            (
                f.what,
                value,
                "" if f.bar is None else f"{sign} {f.bar:g}",
                "" if f.aim is None else f"{sign} {f.aim:g}",
                verdict,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    for f in figures:
        print(f.as_json())
    sys.stdout.flush()
