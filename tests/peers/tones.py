"""Makes tones as 8 kHz PCM16 and finds them again in recordings.

Audio is a one-dimensional numpy int16 array at 8000 samples a second unless a `rate_hz` says otherwise.
dBFS here is RMS against full scale 32768: a full-scale sine reads -3.0 dBFS, digital silence `FLOOR_DBFS`.
Nothing here judges by a fixed offset or length: all positions are milliseconds from the start of the array.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RATE_HZ = 8000
FLOOR_DBFS = -96.0
SILENCE_DBFS = -50.0
WINDOW_MS = 40
HOP_MS = 20

Audio = npt.NDArray[np.int16]
Samples = npt.NDArray[np.float64]

_DTMF_ROWS_HZ = (697, 770, 852, 941)
_DTMF_COLUMNS_HZ = (1209, 1336, 1477, 1633)
_DTMF_KEYS = "123A456B789C*0#D"  # ITU-T Q.23, row by row


@dataclass(frozen=True, kw_only=True)
class Heard:
    """How much of one frequency a recording holds."""

    fraction: float  # share of the windows in which it was present, 0..1
    longest_ms: int  # longest uninterrupted run
    total_ms: int  # all runs together
    first_ms: int | None  # where it began first; None: never
    dbfs: float  # level of the tone itself while present; FLOOR_DBFS when never


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of a recording that sounds the same."""

    start_ms: int
    end_ms: int
    kind: str  # "tone", "sound" (speech, noise, mixed tones) or "silence"
    hz: int  # of a tone; 0 otherwise
    dbfs: float  # mean RMS level


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where a reference lies in a recording, and how alike the two are."""

    offset_ms: float  # start of the reference inside the recording
    correlation: float  # normalised, -1..1, independent of level; 1 is the same waveform
    level_db: float  # RMS of the recording there minus RMS of the reference


def tone(
    hz: float | Sequence[float], ms: int, *, dbfs: float = -15.0, rate_hz: int = RATE_HZ, fade_ms: int = 2
) -> Audio:
    """A sine of `ms` milliseconds at RMS level `dbfs`; several frequencies share that level equally.

    Raises ValueError when the sum would clip or a frequency is not below half the rate.
    """
    frequencies = [float(hz)] if isinstance(hz, int | float) else [float(one) for one in hz]
    for one in frequencies:
        if not 0 < one < rate_hz / 2:
            raise ValueError(f"tone of {one} Hz cannot be made at {rate_hz} samples a second")
    n = ms * rate_hz // 1000
    t = np.arange(n) / rate_hz
    peak = 32768 * 10 ** (dbfs / 20) * np.sqrt(2 / len(frequencies))
    if peak * len(frequencies) > 32767:
        raise ValueError(f"{len(frequencies)} tones at {dbfs} dBFS would clip; ask for a lower level")
    out = sum((np.sin(2 * np.pi * one * t) for one in frequencies), np.zeros(n)) * peak
    fade = min(fade_ms * rate_hz // 1000, n // 2)
    if fade:
        ramp = np.linspace(0, 1, fade, endpoint=False)
        out[:fade] *= ramp
        out[-fade:] *= ramp[::-1]
    made: Audio = np.round(out).astype(np.int16)
    return made


def silence(ms: int, *, rate_hz: int = RATE_HZ) -> Audio:
    """Digital silence of `ms` milliseconds."""
    return np.zeros(ms * rate_hz // 1000, dtype=np.int16)


def sequence(parts: Sequence[tuple[float, int]], *, dbfs: float = -15.0) -> Audio:
    """Tones one after the other as (hz, ms); hz 0 is silence."""
    made = [tone(hz, ms, dbfs=dbfs) if hz else silence(ms) for hz, ms in parts]
    return np.concatenate(made) if made else silence(0)


def noise(ms: int, *, dbfs: float = -20.0, seed: int = 1) -> Audio:
    """White noise at RMS level `dbfs`, the same for the same seed."""
    n = ms * RATE_HZ // 1000
    made = np.random.default_rng(seed).normal(0, 32768 * 10 ** (dbfs / 20), n)
    return np.round(np.clip(made, -32768, 32767)).astype(np.int16)


def speechlike(ms: int, *, dbfs: float = -20.0, seed: int = 1) -> Audio:
    """Never-repeating sound in the telephone band that rises and falls like syllables, for alignment."""
    n = ms * RATE_HZ // 1000
    random = np.random.default_rng(seed)
    spectrum = np.fft.rfft(random.normal(0, 1, n))
    hz = np.fft.rfftfreq(n, 1 / RATE_HZ)
    spectrum[(hz < 300) | (hz > 3400)] = 0
    spectrum /= np.sqrt(np.maximum(hz, 300) / 300)
    carrier = np.fft.irfft(spectrum, n)
    knots = random.uniform(0.02, 1.0, max(2, ms // 120))
    envelope = np.interp(np.linspace(0, len(knots) - 1, n), np.arange(len(knots)), knots)
    out = carrier * envelope
    out *= 32768 * 10 ** (dbfs / 20) / max(float(np.sqrt(np.mean(out**2))), 1e-9)
    return np.round(np.clip(out, -32768, 32767)).astype(np.int16)


def dtmf_hz(digit: str) -> tuple[int, int]:
    """The two frequencies of a key. Raises ValueError for an unknown one."""
    at = _DTMF_KEYS.find(digit.upper())
    if at < 0:
        raise ValueError(f"{digit!r} is not a DTMF key; use one of {_DTMF_KEYS}")
    return _DTMF_ROWS_HZ[at // 4], _DTMF_COLUMNS_HZ[at % 4]


def dtmf(digits: str, *, on_ms: int = 100, off_ms: int = 100, dbfs: float = -12.0) -> Audio:
    """In-band DTMF (ITU-T Q.23), each digit followed by a pause. Raises ValueError for an unknown key."""
    parts = []
    for digit in digits:
        parts += [tone(dtmf_hz(digit), on_ms, dbfs=dbfs), silence(off_ms)]
    return np.concatenate(parts) if parts else silence(0)


def write_wav(path: Path, audio: Audio, *, rate_hz: int = RATE_HZ) -> Path:
    """Writes mono 16-bit PCM and returns the path."""
    raw = np.asarray(audio, dtype="<i2").tobytes()
    header = b"RIFF" + (36 + len(raw)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += (1).to_bytes(2, "little") + (1).to_bytes(2, "little") + rate_hz.to_bytes(4, "little")
    header += (rate_hz * 2).to_bytes(4, "little") + (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    path.write_bytes(header + b"data" + len(raw).to_bytes(4, "little") + raw)
    return path


def read_wav(path: Path) -> tuple[Audio, int]:
    """Samples and rate of a mono 16-bit PCM WAV, also of one still being written (wrong length field).

    Raises ValueError when the file is not such a WAV; a file too young to have its header reads as empty.
    """
    raw = path.read_bytes()
    if len(raw) < 44:
        return silence(0), RATE_HZ
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise ValueError(f"{path}: not a WAV file")
    at, rate_hz = 12, 0
    while at + 8 <= len(raw):
        kind, length = raw[at : at + 4], int.from_bytes(raw[at + 4 : at + 8], "little")
        if kind == b"fmt ":
            coding, channels = int.from_bytes(raw[at + 8 : at + 10], "little"), raw[at + 10]
            rate_hz, bits = int.from_bytes(raw[at + 12 : at + 16], "little"), raw[at + 22]
            if coding not in (1, 0xFFFE) or channels != 1 or bits != 16:
                raise ValueError(
                    f"{path}: expected mono 16-bit PCM, found coding {coding}, {channels} ch, {bits} bit"
                )
        elif kind == b"data":
            if not rate_hz:
                break
            end = at + 8 + length if 0 < length <= len(raw) - at - 8 else len(raw)
            body = raw[at + 8 : end]
            return np.frombuffer(body[: len(body) // 2 * 2], dtype="<i2").astype(np.int16), rate_hz
        at += 8 + length + length % 2
    raise ValueError(f"{path}: no sound in this WAV file")


def load(recording: Path | Audio) -> Audio:
    """The samples of a file or an array, at 8 kHz. Raises ValueError for another rate."""
    if isinstance(recording, Path):
        audio, rate_hz = read_wav(recording)
        if rate_hz != RATE_HZ:
            raise ValueError(f"{recording}: {rate_hz} samples a second; analysis wants {RATE_HZ}")
        return audio
    return recording


def dbfs(audio: Audio | Samples) -> float:
    """RMS level against full scale, never below FLOOR_DBFS."""
    if not len(audio):
        return FLOOR_DBFS
    rms = float(np.sqrt(np.mean(np.asarray(audio, dtype=np.float64) ** 2))) / 32768
    return max(FLOOR_DBFS, 20 * float(np.log10(max(rms, 1e-9))))


def levels(recording: Path | Audio, *, window_ms: int = HOP_MS) -> Samples:
    """RMS level in dBFS of each full window."""
    audio = load(recording)
    n = window_ms * RATE_HZ // 1000
    blocks = np.asarray(audio[: len(audio) // n * n], dtype=np.float64).reshape(-1, n)
    rms = np.sqrt(np.mean(blocks**2, axis=1)) / 32768
    in_db: Samples = np.maximum(FLOOR_DBFS, 20 * np.log10(np.maximum(rms, 1e-9)))
    return in_db


def _windows(audio: Audio) -> Samples:
    n, hop = WINDOW_MS * RATE_HZ // 1000, HOP_MS * RATE_HZ // 1000
    if len(audio) < n:
        return np.zeros((0, n))
    return np.lib.stride_tricks.sliding_window_view(np.asarray(audio, dtype=np.float64), n)[::hop]


def _tone_power(windows: Samples, hz: float) -> tuple[Samples, Samples]:
    """Mean-square power of one frequency and of everything, a window each.

    The Hann window's zeros make other tones 50 Hz and more away read almost 0.
    """
    n = windows.shape[1]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    turn = np.exp(-2j * np.pi * hz * np.arange(n) / RATE_HZ)
    amplitude = 2 * np.abs(windows @ (hann * turn)) / hann.sum()
    total = (windows**2) @ (hann**2) / (hann**2).sum()
    return amplitude**2 / 2, total


def presence(
    recording: Path | Audio, hz: float, *, min_dbfs: float = -45.0, min_share: float = 0.3
) -> npt.NDArray[np.bool_]:
    """For each 40 ms window, one every 20 ms: has `hz` at least `min_dbfs` and `min_share` of the power?"""
    windows = _windows(load(recording))
    power, total = _tone_power(windows, hz)
    floor = (32768 * 10 ** (min_dbfs / 20)) ** 2
    there: npt.NDArray[np.bool_] = (power >= floor) & (power >= min_share * np.maximum(total, 1e-9))
    return there


def heard(recording: Path | Audio, hz: float, *, min_dbfs: float = -45.0, min_share: float = 0.3) -> Heard:
    """How much of `hz` the recording holds. Wrong tones 50 Hz or more away, noise and speech do not count."""
    audio = load(recording)
    there = presence(audio, hz, min_dbfs=min_dbfs, min_share=min_share)
    runs = _runs(there)
    power, _ = _tone_power(_windows(audio), hz)
    level = float(np.sqrt(np.mean(power[there]))) / 32768 if there.any() else 0.0
    return Heard(
        fraction=float(there.mean()) if len(there) else 0.0,
        longest_ms=max((_run_ms(a, b) for a, b in runs), default=0),
        total_ms=sum(_run_ms(a, b) for a, b in runs),
        first_ms=runs[0][0] * HOP_MS if runs else None,
        dbfs=max(FLOOR_DBFS, 20 * float(np.log10(max(level, 1e-9)))),
    )


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open index ranges in which the flags are set."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _run_ms(first: int, end: int) -> int:
    return (end - first - 1) * HOP_MS + WINDOW_MS


def dominant(recording: Path | Audio) -> tuple[Samples, Samples, Samples]:
    """For each 40 ms window, one every 20 ms: strongest frequency in Hz, level in dBFS, its share (0..1)."""
    windows = _windows(load(recording))
    n = windows.shape[1]
    if not len(windows):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    size = 1024
    spectrum = np.abs(np.fft.rfft(windows * hann, size, axis=1))
    spectrum[:, : 50 * size // RATE_HZ] = 0
    at = np.clip(np.argmax(spectrum, axis=1), 1, size // 2 - 1)
    rows = np.arange(len(windows))
    left, mid, right = (np.log(spectrum[rows, at + k] + 1e-9) for k in (-1, 0, 1))
    bend = left - 2 * mid + right
    shift = np.where(
        np.abs(bend) > 1e-12, 0.5 * (left - right) / np.where(np.abs(bend) > 1e-12, bend, 1), 0.0
    )
    hz = (at + np.clip(shift, -0.5, 0.5)) * RATE_HZ / size
    total = (windows**2) @ (hann**2) / (hann**2).sum()
    share = np.clip((2 * spectrum[rows, at] / hann.sum()) ** 2 / 2 / np.maximum(total, 1e-9), 0, 1)
    rms = np.sqrt(total) / 32768
    return hz, np.maximum(FLOOR_DBFS, 20 * np.log10(np.maximum(rms, 1e-9))), share


def spans(
    recording: Path | Audio, *, silence_dbfs: float = SILENCE_DBFS, shortest_ms: int = 60
) -> list[Span]:
    """What a recording sounds like from start to end; stretches shorter than `shortest_ms` are left out."""
    hz, level, share = dominant(recording)
    quiet = level < silence_dbfs
    key = np.where(quiet, 0, np.where(share > 0.7, np.round(hz / 10).astype(int) * 10, -1))
    out: list[Span] = []
    start = 0
    for i in range(1, len(key) + 1):
        if i < len(key) and (
            key[i] == key[start] or (key[i] > 0 and abs(int(key[i]) - int(key[start])) <= 10)
        ):
            continue
        if _run_ms(start, i) >= shortest_ms:
            value = int(key[start])
            out.append(
                Span(
                    start_ms=start * HOP_MS,
                    end_ms=start * HOP_MS + _run_ms(start, i),
                    kind="tone" if value > 0 else "silence" if value == 0 else "sound",
                    hz=round(float(np.median(hz[start:i]))) if value > 0 else 0,
                    dbfs=round(float(np.mean(level[start:i])), 1),
                )
            )
        start = i
    return out


def is_silent(recording: Path | Audio, *, silence_dbfs: float = SILENCE_DBFS) -> bool:
    """No 20 ms window is louder than `silence_dbfs`. An empty recording is not silent: nothing came."""
    level = levels(recording)
    return bool(len(level)) and bool((level < silence_dbfs).all())


def longest_silence_ms(recording: Path | Audio, *, silence_dbfs: float = SILENCE_DBFS) -> int:
    """Longest run of 20 ms windows below `silence_dbfs`."""
    return max((b - a for a, b in _runs(levels(recording) < silence_dbfs)), default=0) * HOP_MS


def first_audio_ms(recording: Path | Audio, *, silence_dbfs: float = SILENCE_DBFS) -> int | None:
    """Start of the first two loud 20 ms windows in a row (a click does not count); None without any."""
    loud = [a for a, b in _runs(levels(recording) >= silence_dbfs) if b - a >= 2]
    return loud[0] * HOP_MS if loud else None


def dtmf_digits(recording: Path | Audio) -> str:
    """In-band DTMF digits in a recording, each one lasting at least two windows (60 ms)."""
    windows = _windows(load(recording))
    if not len(windows):
        return ""
    rows = np.stack([_tone_power(windows, hz)[0] for hz in _DTMF_ROWS_HZ])
    columns = np.stack([_tone_power(windows, hz)[0] for hz in _DTMF_COLUMNS_HZ])
    total = _tone_power(windows, 1000)[1]
    power = rows.max(axis=0) + columns.max(axis=0)
    twist_ok = (rows.max(axis=0) > 0.1 * columns.max(axis=0)) & (columns.max(axis=0) > 0.1 * rows.max(axis=0))
    loud = total > (32768 * 10 ** (-45 / 20)) ** 2
    valid = loud & twist_ok & (power > 0.8 * np.maximum(total, 1e-9))
    key = np.where(valid, rows.argmax(axis=0) * 4 + columns.argmax(axis=0), -1)
    out, start = "", 0
    for i in range(1, len(key) + 1):
        if i < len(key) and key[i] == key[start]:
            continue
        if key[start] >= 0 and i - start >= 2:
            out += _DTMF_KEYS[int(key[start])]
        start = i
    return out


def correlate(recording: Path | Audio, reference: Path | Audio, *, drift_ms: int = 0) -> Match:
    """Finds the reference in the recording by normalised cross-correlation.

    With `drift_ms` each 400 ms piece may lie that much off the whole, as when a jitter buffer skips or
    stretches; the correlation is then the median of the pieces, without the silent ones.
    Raises ValueError when the recording is shorter than the reference or the reference is silent.
    """
    deg = np.asarray(load(recording), dtype=np.float64)
    ref = np.asarray(load(reference), dtype=np.float64)
    if len(deg) < len(ref):
        raise ValueError(
            f"the recording ({len(deg)} samples) is shorter than the reference ({len(ref)} samples)"
        )
    if not ref.any():
        raise ValueError("the reference is silent; nothing can be found with it")
    at, score = _best_place(deg, ref)
    if drift_ms:
        size, slack = 400 * RATE_HZ // 1000, drift_ms * RATE_HZ // 1000
        scores = []
        for start in range(0, max(1, len(ref) - size + 1), size):
            piece = ref[start : start + size]
            place = deg[max(0, at + start - slack) : at + start + size + slack]
            if dbfs(piece) > SILENCE_DBFS and len(place) >= len(piece):
                scores.append(_best_place(place, piece)[1])
        score = float(np.median(scores)) if scores else score
    return Match(
        offset_ms=at * 1000 / RATE_HZ,
        correlation=score,
        level_db=dbfs(deg[at : at + len(ref)]) - dbfs(ref),
    )


def _best_place(deg: Samples, ref: Samples) -> tuple[int, float]:
    """Sample offset and normalised correlation of the best place of `ref` in `deg`."""
    from scipy.signal import fftconvolve  # here: importing it takes longer than a phone's whole start

    energy = float(np.sum(ref**2))
    product = fftconvolve(deg, ref[::-1], mode="valid")
    running = np.concatenate(([0.0], np.cumsum(deg**2)))
    local = running[len(ref) :] - running[: len(deg) - len(ref) + 1]
    score = product / np.sqrt(np.maximum(local, energy * 1e-6) * energy)
    at = int(np.argmax(score))
    return at, float(score[at])


def aligned(recording: Path | Audio, reference: Path | Audio) -> tuple[Audio, Match]:
    """The stretch of the recording that holds the reference, as long as the reference."""
    deg, ref = load(recording), load(reference)
    match = correlate(deg, ref)
    at = round(match.offset_ms * RATE_HZ / 1000)
    return deg[at : at + len(ref)], match


def pesq_nb(recording: Path | Audio, reference: Path | Audio) -> float:
    """Narrow-band PESQ (ITU-T P.862, MOS-LQO 1.0-4.55) of the recording against the reference, aligned first.

    PESQ ignores level: check `level_difference_db` beside it. Raises ValueError as `correlate` does.
    """
    from pesq import pesq  # a test-only package with a licence of its own

    deg, _ = aligned(recording, reference)
    return float(pesq(RATE_HZ, load(reference), deg, "nb"))


def level_difference_db(recording: Path | Audio, reference: Path | Audio) -> float:
    """RMS level of the aligned recording minus that of the reference, in dB."""
    return correlate(recording, reference).level_db


def lufs(recording: Path | Audio) -> float:
    """Integrated loudness (ITU-R BS.1770) in LUFS. Raises ValueError when shorter than 0.4 s."""
    import pyloudnorm

    audio = load(recording)
    if len(audio) < 0.4 * RATE_HZ:
        raise ValueError(f"loudness needs 0.4 s of audio, got {len(audio) / RATE_HZ:.2f} s")
    meter: Any = pyloudnorm.Meter(RATE_HZ)
    return float(meter.integrated_loudness(np.asarray(audio, dtype=np.float64) / 32768))


def to_ulaw(audio: Audio) -> bytes:
    """G.711 mu-law, one byte a sample (ITU-T G.711 table 2a; its bias of 33 is 132 at 16 bits)."""
    x = np.asarray(audio, dtype=np.int32)
    sign = np.where(x < 0, 0x80, 0)
    magnitude = np.minimum(np.abs(x), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return bytes((~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8).tobytes())


def from_ulaw(raw: bytes) -> Audio:
    """The inverse of `to_ulaw`."""
    u = ~np.frombuffer(raw, dtype=np.uint8).astype(np.int32) & 0xFF
    magnitude = ((((u & 0x0F) << 3) + 132) << ((u >> 4) & 0x07)) - 132
    return np.where(u & 0x80, -magnitude, magnitude).astype(np.int16)
