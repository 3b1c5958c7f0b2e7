"""Who hears whom: the judge of recorded talks in which every leg sends a tone of its own.

Each leg's tone is a multiple of STEP_HZ; windows of WINDOW_MS hold whole periods of all of them, so that the
tone of a neighbour reads nothing. A talk counts when both hear their partner all the time and nobody else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.peers import tones

FIRST_HZ, STEP_HZ, LAST_HZ = 400, 25, 3300
WINDOW_MS = 200
OWN_SHARE = (
    0.95  # of the time the partner's tone must be there; in windows of 40 ms, as a jitter buffer may skip
)
PURE = 0.5  # power of one tone against all, for it to be what is heard
SECOND = 0.05  # … of another tone, for it to be a stranger's (-13 dB)
MIXED_SHARE = 0.1  # windows with a stranger that make a fault: one skip is no stranger
FLOOR_DBFS = -40.0  # the legs send -15 dBFS


def tone_hz(number: int) -> int:
    """The tone of leg `number`. Raises ValueError when there are not so many."""
    hz = FIRST_HZ + STEP_HZ * number
    if hz > LAST_HZ:
        raise ValueError(
            f"leg {number} has no tone of its own; at most {(LAST_HZ - FIRST_HZ) // STEP_HZ + 1} legs"
        )
    return hz


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One side of a talk."""

    name: str  # "caller 3"
    hz: int  # what it sends
    audio: tones.Audio  # what it heard in the window judged


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge found."""

    partners: dict[int, int]  # index of the caller -> index of the clinician, for good talks only
    faults: tuple[str, ...]  # a sentence each; empty: every call was heard both ways

    @property
    def clean(self) -> bool:
        """Everybody heard the partner and nobody else."""
        return not self.faults


def judge(callers: Sequence[Leg], clinicians: Sequence[Leg], window_s: float) -> Verdict:
    """Pair callers with clinicians by what they hear. Every leg that is in no good talk is a fault."""
    known = [leg.hz for leg in (*callers, *clinicians)]
    at = {leg.hz: index for index, leg in enumerate(clinicians)}
    heard = {leg.name: _listen(leg, known, window_s) for leg in (*callers, *clinicians)}
    partners: dict[int, int] = {}
    for number, caller in enumerate(callers):
        theirs = at.get(heard[caller.name].hz)
        if theirs is None or heard[clinicians[theirs].name].hz != caller.hz:
            continue
        if not heard[caller.name].fault and not heard[clinicians[theirs].name].fault:
            partners[number] = theirs
    faults = [f"{name} {heard[name].fault}" for name in heard if heard[name].fault]
    good = {callers[a].name for a in partners} | {clinicians[b].name for b in partners.values()}
    faults += [
        f"{name} hears {found.hz} Hz, from somebody who does not hear {name}"
        for name, found in heard.items()
        if not found.fault and name not in good and not heard[_owner(found.hz, callers, clinicians)].fault
    ]
    if len(partners) < max(len(callers), len(clinicians)) and not faults:
        faults.append(f"{len(callers)} callers and {len(clinicians)} clinicians make {len(partners)} talks")
    return Verdict(partners=partners, faults=tuple(faults))


@dataclass(frozen=True, kw_only=True)
class _Heard:
    hz: int  # the tone heard most; 0: none
    fault: str  # empty: this tone and no other


def _owner(hz: int, callers: Sequence[Leg], clinicians: Sequence[Leg]) -> str:
    return next(leg.name for leg in (*callers, *clinicians) if leg.hz == hz)


def _listen(leg: Leg, known: Sequence[int], window_s: float) -> _Heard:
    heard_s = len(leg.audio) / tones.RATE_HZ
    if heard_s < 0.8 * window_s:
        return _Heard(hz=0, fault=f"was sent {heard_s:.1f} s of sound in {window_s:g} s")
    share = _shares(leg.audio, known)
    best = int(np.argmax(share.sum(axis=0)))
    hz = known[best]
    if not float(share[:, best].max(initial=0.0)) >= PURE:
        return _Heard(hz=0, fault="hears nobody")
    often = float(tones.presence(leg.audio, hz, min_dbfs=FLOOR_DBFS, min_share=PURE).mean())
    if often < OWN_SHARE:
        return _Heard(hz=hz, fault=f"hears {hz} Hz in {often:.0%} of the time only")
    others = np.delete(share, best, axis=1)
    if others.shape[1] and float((others.max(axis=1) >= SECOND).mean()) > MIXED_SHARE:
        stranger = np.delete(known, best)[int(np.argmax(others.sum(axis=0)))]
        return _Heard(hz=hz, fault=f"hears {stranger} Hz of somebody else")
    return _Heard(hz=hz, fault="")


def _shares(audio: tones.Audio, known: Sequence[int]) -> npt.NDArray[np.float64]:
    """Power of each known tone against everything, one row a window; 0 in silence."""
    n = WINDOW_MS * tones.RATE_HZ // 1000
    windows = np.asarray(audio[: len(audio) // n * n], dtype=np.float64).reshape(-1, n)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(n), known) / tones.RATE_HZ)
    power = 2 * np.abs(windows @ (hann[:, None] * turns) / hann.sum()) ** 2
    total = (windows**2) @ (hann**2) / (hann**2).sum()
    floor = (32768 * 10 ** (FLOOR_DBFS / 20)) ** 2
    loud = total[:, None] >= floor
    shares: npt.NDArray[np.float64] = np.where(loud, power / np.maximum(total[:, None], floor), 0.0)
    return shares
