"""What a peer hears: bounded waits on a recording that is still growing.

Positions are milliseconds from the start of the recording. "From now on" means from its present end, which
in a recording by pjsua2 lies up to half a second behind.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.peers import tones
from tests.peers.waiting import Missed

POLL_S = 0.1
T = TypeVar("T")


class Ears:
    """A call that records what it receives."""

    recording: Path  # mono 16-bit WAV, grows during the call; need not exist before media

    async def received_digits(self, digits: str, within_s: float) -> None:
        """The far end pressed exactly these keys by then. Raises Missed."""
        raise NotImplementedError

    def _deaf(self) -> str:
        """Why the recording will not grow any more, "" while it may."""
        raise NotImplementedError

    def audio(self) -> tones.Audio:
        """All samples received so far."""
        return tones.read_wav(self.recording)[0] if self.recording.exists() else tones.silence(0)

    def position_ms(self) -> int:
        """Present end of the recording."""
        return len(self.audio()) * 1000 // tones.RATE_HZ

    async def hears(
        self, hz: float, within_s: float, *, for_ms: int = 200, min_dbfs: float = -45.0,
        min_share: float = 0.3, from_ms: int | None = None,
    ) -> tones.Heard:  # fmt: skip
        """A run of at least `for_ms` of the tone, from now on or from `from_ms` of the recording."""
        start = self.position_ms() if from_ms is None else from_ms

        def check(audio: tones.Audio) -> tones.Heard | None:
            found = tones.heard(audio, hz, min_dbfs=min_dbfs, min_share=min_share)
            return found if found.longest_ms >= for_ms else None

        return await self._listen(check, start, within_s, f"{hz:g} Hz for {for_ms} ms")

    async def hears_sound(self, within_s: float, *, for_ms: int = 100, from_ms: int | None = None) -> int:
        """Anything louder than silence, of any kind; the position in the recording where it began, in ms."""
        start = self.position_ms() if from_ms is None else from_ms

        def check(audio: tones.Audio) -> int | None:
            loud = tones.levels(audio) >= tones.SILENCE_DBFS
            first = tones.first_audio_ms(audio)
            return start + first if first is not None and int(loud.sum()) * tones.HOP_MS >= for_ms else None

        return await self._listen(check, start, within_s, f"{for_ms} ms of sound")

    async def hears_silence(self, for_ms: int, within_s: float, *, hz: float | None = None) -> None:
        """A run of `for_ms` of silence from now on; with `hz`, of that tone being absent."""
        start = self.position_ms()

        def check(audio: tones.Audio) -> bool | None:
            if hz is None:
                return True if tones.longest_silence_ms(audio) >= for_ms else None
            absent = ~tones.presence(audio, hz)
            run = max((len(part) for part in "".join("x" if a else " " for a in absent).split()), default=0)
            return True if run * tones.HOP_MS >= for_ms else None

        await self._listen(check, start, within_s, f"{for_ms} ms without {hz or 'any sound'}")

    async def hears_prompt(
        self,
        reference: Path | tones.Audio,
        within_s: float,
        *,
        min_correlation: float = 0.8,
        from_ms: int = 0,
    ) -> tones.Match:
        """The prompt, found by correlation from `from_ms` on; the offset is that in the recording.

        Small skips of a jitter buffer on a loaded machine are forgiven; PESQ of the recording counts them.
        """
        wanted = tones.load(reference)

        def check(audio: tones.Audio) -> tones.Match | None:
            if len(audio) < len(wanted):
                return None
            match = tones.correlate(audio, wanted, drift_ms=60)
            return match if match.correlation >= min_correlation else None

        match = await self._listen(
            check, from_ms, within_s, f"the prompt of {len(wanted) / tones.RATE_HZ:.1f} s"
        )
        return tones.Match(
            offset_ms=match.offset_ms + from_ms, correlation=match.correlation, level_db=match.level_db
        )

    async def _listen(
        self, check: Callable[[tones.Audio], T | None], start_ms: int, within_s: float, what: str
    ) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        seen = -1
        while True:
            deaf = self._deaf()
            audio = self.audio()[start_ms * tones.RATE_HZ // 1000 :]
            if len(audio) != seen:
                seen = len(audio)
                found = await asyncio.to_thread(check, audio)
                if found is not None:
                    return found
            if deaf or loop.time() >= deadline:
                spans = [
                    f"{s.start_ms + start_ms}-{s.end_ms + start_ms} {s.kind} {s.hz} Hz"
                    for s in tones.spans(audio)
                ]
                why = deaf or f"{within_s} s are over"
                raise Missed(f"{self} did not hear {what}: {why}; heard from {start_ms} ms on: {spans}")
            await asyncio.sleep(POLL_S)
