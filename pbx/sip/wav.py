"""WAV files of the engine: how long one is, whether the engine can play it, and silence.

The audio path is 8 kHz mono 16-bit PCM; nothing is resampled on a call.
"""

import os
import wave
from pathlib import Path

RATE_HZ = 8000
_CACHE_LIMIT = 4096


class WavError(Exception):
    """A file cannot be played; the text is a sentence for the log."""


class Lengths:
    """Lengths of WAV files, read once a version of a file."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], int] = {}

    def of(self, path: Path | str) -> int:
        """Milliseconds of audio in `path`. Raises WavError when it is missing or of another format."""
        try:
            found = os.stat(path)
        except OSError as error:
            raise WavError(f"{path} cannot be opened: {error.strerror}.") from error
        key = (str(path), found.st_mtime_ns, found.st_size)
        length = self._known.get(key)
        if length is None:
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            length = self._known[key] = read_length(path)
        return length


def read_length(path: Path | str) -> int:
    """Milliseconds of audio in `path`. Raises WavError when it is not 8 kHz mono 16-bit PCM or is empty."""
    try:
        with wave.open(os.fspath(path), "rb") as file:
            shape = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            frames = file.getnframes()
    except (OSError, wave.Error, EOFError) as error:
        raise WavError(f"{path} is not a WAV file of PCM audio ({error}); render it again.") from error
    if shape != (RATE_HZ, 1, 2):
        got = f"{shape[0]} Hz, {shape[1]} channels, {shape[2] * 8} bits"
        raise WavError(f"{path} is {got}; only 8000 Hz, 1 channel, 16 bits is played.")
    if frames == 0:
        raise WavError(f"{path} holds no audio; render it again.")
    return frames * 1000 // RATE_HZ


def write_silence(path: Path, length_ms: int) -> None:
    """Write `length_ms` of silence. Raises OSError."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(bytes(2 * RATE_HZ * length_ms // 1000))


def is_closed(path: Path) -> bool:
    """Whether the header of a recording already names the length the file has."""
    try:
        with path.open("rb") as file:
            head = file.read(44)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    return len(head) == 44 and int.from_bytes(head[40:44], "little") == size - 44
