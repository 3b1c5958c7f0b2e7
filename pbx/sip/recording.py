"""Recordings: the mix of what some legs say, one WAV file each. Only on the pj thread.

A recording ends by command or with the last of its legs. The library writes the final header a little after
the recorder is freed, on its own thread, so a recording is over when the header names the length of the file,
or after CLOSE_WITHIN_S. The Ended of a leg waits for the recordings that were closed because of it.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pjsua2 as pj

from pbx.core.legs import LegEvent, LegId, RecordingEnded
from pbx.sip import wav

if TYPE_CHECKING:
    from pbx.sip.leg import Leg
    from pbx.sip.owner import Owner

log = logging.getLogger("careline.engine")
CLOSE_WITHIN_S = 2.0


@dataclass(slots=True)
class Recording:
    """One file being written."""

    path: Path
    legs: list[LegId]  # those still alive, in the order given
    recorder: pj.AudioMediaRecorder | None
    told: LegId  # the leg that RecordingEnded will name
    give_up_s: float = 0.0  # monotonic clock; set when closing
    after: list[LegEvent] = field(default_factory=list)  # told after RecordingEnded


class Recordings:
    """All recordings of one engine."""

    def __init__(self, owner: "Owner") -> None:
        self._owner = owner
        self._open: dict[str, Recording] = {}
        self._closing: list[Recording] = []

    def start(self, path: Path, legs: Sequence[LegId]) -> None:
        """Open `path` and connect the legs that live. Raises pj.Error when the file cannot be written."""
        alive = [leg for leg in legs if leg in self._owner.legs]
        if not alive:
            return
        self.stop(path)
        recorder = pj.AudioMediaRecorder()
        recorder.createRecorder(str(path), 0, 0, pj.PJMEDIA_FILE_WRITE_PCM)
        self._open[str(path)] = Recording(path, alive, recorder, alive[0])
        for leg_id in alive:
            leg = self._owner.legs[leg_id]
            leg.recordings.add(str(path))
            self.attach(leg)

    def attach(self, leg: "Leg") -> None:
        """Connect the leg's audio to its recordings."""
        if leg.audio is None:
            return
        for name in leg.recordings:
            recorder = self._open[name].recorder
            if recorder is not None:
                leg.audio.startTransmit(recorder)

    def stop(self, path: Path) -> None:
        """Begin to close a recording; RecordingEnded follows."""
        recording = self._open.pop(str(path), None)
        if recording is None:
            return
        for leg_id in recording.legs:
            leg = self._owner.legs.get(leg_id)
            if leg is not None:
                leg.recordings.discard(str(path))
        recording.recorder = None  # freed here
        recording.give_up_s = time.monotonic() + CLOSE_WITHIN_S
        self._closing.append(recording)

    def leg_over(self, leg: "Leg", ended: LegEvent) -> None:
        """Take a leg out of its recordings and say `ended`, after what they have to say about it."""
        for name in sorted(leg.recordings):
            recording = self._open[name]
            recording.legs.remove(leg.leg_id)
            if recording.legs:
                recording.told = recording.legs[0]
            else:
                self.stop(recording.path)
        leg.recordings.clear()
        for recording in reversed(self._closing):
            if recording.told == leg.leg_id:
                recording.after.append(ended)
                return
        self._owner.emit(ended)

    def check(self, now_s: float) -> None:
        """Report the recordings whose files are complete, oldest first for each leg."""
        while self._closing:
            recording = self._closing[0]
            complete = wav.is_closed(recording.path)
            if not complete and now_s < recording.give_up_s:
                return
            del self._closing[0]
            if not complete:
                log.error(
                    "A recording has no final header", extra={"action": "recording", "leg": recording.told}
                )
            try:
                length_ms = wav.read_length(recording.path)
            except wav.WavError:
                length_ms = 0
            self._owner.emit(RecordingEnded(leg=recording.told, path=recording.path, duration_ms=length_ms))
            for event in recording.after:
                self._owner.emit(event)

    def close_all(self) -> None:
        """Begin to close everything."""
        for recording in list(self._open.values()):
            self.stop(recording.path)

    @property
    def busy(self) -> bool:
        """Whether some file is still being closed."""
        return bool(self._closing)
