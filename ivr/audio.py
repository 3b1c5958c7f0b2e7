"""Makes speech fit for the telephone: band, level, rate, file format.

Samples are one-dimensional float64 arrays in [-1, 1]. What leaves is 8 kHz mono PCM16 at -23 LUFS (ITU-R
BS.1770 as in EBU R 128), limited to the telephone band of 300 to 3400 Hz (ITU-T G.712), and it never clips.
A change that is heard needs another `ivr.recipe.POSTPROCESSING`.
"""

import os
import tempfile
import wave
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyloudnorm
from scipy.signal import butter, resample_poly, sosfiltfilt

from ivr.recipe import RATE_HZ

BAND_HZ = (300.0, 3400.0)
SPEECH_LUFS = -23.0
PEAK = 0.89  # -1 dBFS: what is left for the codec
LEAD_MS, TAIL_MS = 40, 60  # silence around the words

Samples = npt.NDArray[np.float64]

_SHORTEST_S = 0.4  # BS.1770 gates blocks of 400 ms
_QUIET = 10 ** (-45 / 20)  # below it an engine's lead-in or tail is silence


def for_telephone(samples: Samples, rate_hz: int, lufs: float = SPEECH_LUFS) -> Samples:
    """Speech of `rate_hz` in telephone band, level and rate. Raises ValueError when nothing is heard."""
    if rate_hz != RATE_HZ:
        divisor = gcd(rate_hz, RATE_HZ)
        samples = np.asarray(resample_poly(samples, RATE_HZ // divisor, rate_hz // divisor), dtype=np.float64)
    band = butter(6, BAND_HZ, btype="bandpass", fs=RATE_HZ, output="sos")
    padded = np.pad(samples, RATE_HZ // 20)  # so that the filter starts and ends in silence
    filtered: Samples = np.asarray(sosfiltfilt(band, padded), dtype=np.float64)
    return at_loudness(trimmed(filtered), lufs)


def trimmed(samples: Samples) -> Samples:
    """The sound with LEAD_MS and TAIL_MS of silence around it. Raises ValueError when nothing is heard."""
    top = float(np.max(np.abs(samples), initial=0.0))
    loud = np.flatnonzero(np.abs(samples) > top * _QUIET)
    if top < 1e-4 or not loud.size:
        raise ValueError("there is nothing to hear")
    first = max(0, int(loud[0]) - LEAD_MS * RATE_HZ // 1000)
    last = min(len(samples), int(loud[-1]) + TAIL_MS * RATE_HZ // 1000)
    return samples[first:last]


def at_loudness(samples: Samples, lufs: float) -> Samples:
    """The same sound at that loudness; peaks that would clip are limited, not the whole turned down."""
    for _ in range(3):  # limiting takes a little loudness away, which the next round gives back
        samples = samples * 10 ** ((lufs - loudness(samples)) / 20)
        if float(np.max(np.abs(samples))) <= PEAK:
            break
        samples = np.asarray(PEAK * np.tanh(samples / PEAK), dtype=np.float64)
    return samples


def loudness(samples: Samples, rate_hz: int = RATE_HZ) -> float:
    """Integrated loudness in LUFS; a sound shorter than a measuring block is measured repeated."""
    shortest = int(_SHORTEST_S * rate_hz) + 1
    if len(samples) < shortest:
        samples = np.tile(samples, shortest // max(1, len(samples)) + 1)
    meter: Any = pyloudnorm.Meter(rate_hz)
    return float(meter.integrated_loudness(samples))


def read_wav(path: Path) -> tuple[Samples, int]:
    """Samples and rate of a PCM WAV of 8 to 32 bits, channels mixed. Raises ValueError for anything else."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate_hz = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError("it is not a PCM WAV file") from error
    if width == 1:
        samples = (np.frombuffer(raw, dtype=np.uint8).astype(np.float64) - 128) / 128
    elif width == 3:
        low = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3).astype(np.int32)
        samples = ((low[:, 0] << 8 | low[:, 1] << 16 | low[:, 2] << 24) >> 8).astype(np.float64) / 2**23
    else:
        samples = np.frombuffer(raw, dtype=f"<i{width}").astype(np.float64) / 2 ** (8 * width - 1)
    return samples.reshape(-1, channels).mean(axis=1), rate_hz


def write_wav(path: Path, samples: Samples) -> None:
    """Write 8 kHz mono PCM16; the file appears whole or not at all. Raises OSError."""
    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".wav")
    try:
        with os.fdopen(handle, "wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes(pcm.tobytes())
        os.chmod(name, 0o644)  # the children that play it run as another user
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
