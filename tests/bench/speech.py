"""Speech through a bridge: a clip spoken on one leg, recorded on the other, scored by PESQ (P.862)."""

import asyncio
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ivr.audio import for_telephone, write_wav
from ivr.speak import engine
from tests.bench.rig import PATIENT_LEGS, PHONE_LEGS, latest
from tests.bench.rtpload import RtpLoad

RATE_HZ = 8000
VOICE = "en_US-joe-medium"
TEXT = (
    "The nurse will call you back within ten minutes. Please keep your phone close, and write down "
    "when the fever began, how high it was, and which medicine you gave."
)
Samples = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One clip after its way through the bridge."""

    pesq: float  # narrow-band MOS-LQO
    level_db: float  # what came out against what went in
    delay_ms: float  # between the start of the recording and the clip in it; not the bridge's delay


def make_clip(cache: Path) -> Path:
    """Render TEXT once as the prompts are rendered: 8 kHz mono 16-bit WAV of about 9 s, telephone band.

    Raises ivr.speak.SpeakError when the engine (the `tts` extra) is missing.
    """
    path = cache / f"speech-{VOICE}.wav"
    if path.exists():
        return path
    samples, rate_hz = engine("piper", VOICE).speak(TEXT)
    cache.mkdir(parents=True, exist_ok=True)
    write_wav(path, for_telephone(samples, rate_hz))
    return path


def read_wav(path: Path) -> Samples:
    """The samples of an 8 kHz mono 16-bit WAV."""
    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.int16)


def from_ulaw(data: bytes) -> Samples:
    """Decode G.711 mu-law."""
    code = ~np.frombuffer(data, dtype=np.uint8)
    value = (((code & 0x0F).astype(np.int32) << 3) + 0x84) << ((code >> 4) & 7)
    return np.where(code & 0x80, 0x84 - value, value - 0x84).astype(np.int16)


def to_ulaw(samples: Samples) -> bytes:
    """Encode G.711 mu-law, by the nearest of its 256 values."""
    values = from_ulaw(bytes(range(256))).astype(np.int32)
    order = np.argsort(values, kind="stable")
    middles = (values[order][1:] + values[order][:-1]) / 2
    return order[np.searchsorted(middles, samples.astype(float))].astype(np.uint8).tobytes()


def judge(sent: Samples, recorded: Samples) -> Heard:
    """Score a recording that holds the clip somewhere. A silent recording scores 1 and minus infinity."""
    from pesq import PesqError, pesq

    size = 1 << (len(sent) + len(recorded)).bit_length()
    spectrum = np.fft.rfft(recorded.astype(float), size) * np.conj(np.fft.rfft(sent.astype(float), size))
    match = np.fft.irfft(spectrum, size)[: max(1, len(recorded) - len(sent) // 2)]
    at = int(np.argmax(match))
    heard = recorded[at : at + len(sent)]
    clip = sent[: len(heard)]
    power = float(np.mean(heard.astype(float) ** 2)), float(np.mean(clip.astype(float) ** 2))
    score = 1.0
    if power[0] > 0:
        score = float(pesq(RATE_HZ, clip, heard, "nb", on_error=PesqError.RETURN_VALUES))
    with np.errstate(divide="ignore"):
        level_db = float(10 * np.log10(power[0] / power[1]))
    return Heard(pesq=score, level_db=level_db, delay_ms=at * 1000 / RATE_HZ)


async def through_bridge(load: RtpLoad, clip: Path, folder: Path, pairs: int) -> Sequence[Heard]:
    """Speak the clip in `pairs` running talks, by turns from the patient's and the clinician's side."""
    sent = read_wav(clip)
    spoken = folder / "speech.ulaw"
    spoken.write_bytes(to_ulaw(sent))
    legs, _ = await load.report()
    sides = latest(legs, PATIENT_LEGS), latest(legs, PHONE_LEGS)
    tapes: list[Path] = []
    speakers: list[int] = []
    seconds = round(len(sent) / RATE_HZ) + 2
    talking = [leg for leg in sides[0].values() if leg.pair_port in sides[1]][:pairs]
    for number, leg in enumerate(talking):
        speaker, listener = (leg.port, leg.pair_port) if number % 2 == 0 else (leg.pair_port, leg.port)
        tapes.append(folder / f"heard-{listener}.ulaw")
        load.tell(f"record {listener} {tapes[-1]} {seconds}")
        load.tell(f"say {speaker} {spoken}")
        speakers.append(speaker)
    await asyncio.sleep(seconds + 0.5)
    load.tell("tapes")
    for speaker in speakers:
        load.tell(f"tone {speaker}")
    await load.report()
    return [judge(sent, from_ulaw(tape.read_bytes())) for tape in tapes]
