"""Records on disk while PostgreSQL is away: fsynced JSON lines in segments, read in order. Blocking calls.

Every segment is held with flock by the process that writes it; a lock that can be had means that its
process died, and whoever takes it replays it. A torn last line (power cut, full disk) is recognised by its
missing line end.
"""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 8 * 1024 * 1024


@dataclass(kw_only=True)
class Segment:
    """One file and how far it was read."""

    path: Path
    descriptor: int  # open for reading and appending, locked
    size: int  # bytes of whole lines
    done: int = 0  # bytes that were read and stored


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some whole lines of one segment."""

    segment: Segment
    lines: tuple[bytes, ...]  # without line ends
    end: int  # offset after the last of them


class Spool:
    """The segments of one process, and those it took over from dead ones, oldest first."""

    def __init__(self, folder: Path, name: str) -> None:
        """`name` is unique among living processes; files are `<folder>/<name>-000001.jsonl` and so on."""
        self._folder = folder
        self._name = name
        self._number = 0
        self._own: list[Segment] = []
        self._adopted: list[Segment] = []

    @property
    def own_pending(self) -> bool:
        """Whether lines of this process wait to be replayed."""
        return any(segment.done < segment.size for segment in self._own)

    @property
    def adopted_pending(self) -> bool:
        """Whether lines of dead processes wait to be replayed."""
        return bool(self._adopted)

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines and fsync them. Raises OSError, and then nothing of them is there."""
        if not lines:
            return
        segment = self._own[-1] if self._own and self._own[-1].size < SEGMENT_BYTES else self._new_segment()
        payload = b"".join(line + b"\n" for line in lines)
        try:
            written = 0
            while written < len(payload):
                written += os.pwrite(segment.descriptor, payload[written:], segment.size + written)
            os.fsync(segment.descriptor)
        except OSError:
            os.ftruncate(segment.descriptor, segment.size)
            raise
        segment.size += len(payload)

    def next_chunk(self, count: int, adopted: bool) -> Chunk | None:
        """The next lines that were not stored yet, at most `count`; the same ones until `stored` is told."""
        for segment in list(self._adopted if adopted else self._own):
            if segment.done >= segment.size:
                self._drop(segment)
                continue
            lines: list[bytes] = []
            end = segment.done
            with open(os.dup(segment.descriptor), "rb") as reader:
                reader.seek(segment.done)
                while len(lines) < count and end < segment.size:
                    line = reader.readline()
                    if not line:
                        break
                    end += len(line)
                    lines.append(line.rstrip(b"\n"))
            return Chunk(segment=segment, lines=tuple(lines), end=end)
        return None

    def stored(self, chunk: Chunk) -> None:
        """The lines of a chunk are in the database; a segment without further lines is removed."""
        chunk.segment.done = chunk.end
        if chunk.segment.done >= chunk.segment.size:
            self._drop(chunk.segment)

    def adopt(self) -> int:
        """Take over the segments of dead processes; returns how many."""
        mine = {segment.path for segment in (*self._own, *self._adopted)}
        taken = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            if path in mine:
                continue
            try:
                segment = _locked(path)
            except FileNotFoundError:
                continue
            if segment is not None:
                self._adopted.append(segment)
                taken += 1
        return taken

    def close(self) -> None:
        """Let go of every file; what was not stored stays for whoever adopts it."""
        for segment in (*self._own, *self._adopted):
            os.close(segment.descriptor)
        self._own, self._adopted = [], []

    def _new_segment(self) -> Segment:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._number += 1
        path = self._folder / f"{self._name}-{self._number:06d}.jsonl"
        nascent = path.with_suffix(".new")  # it gets its name when it is locked, or another process adopts it
        descriptor = os.open(nascent, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            nascent.rename(path)
            _sync_folder(self._folder)
        except BaseException:
            os.close(descriptor)
            raise
        segment = Segment(path=path, descriptor=descriptor, size=0)
        self._own.append(segment)
        return segment

    def _drop(self, segment: Segment) -> None:
        for segments in (self._own, self._adopted):
            if segment in segments:
                segments.remove(segment)
        segment.path.unlink(missing_ok=True)  # before the lock is given up: nobody can adopt it
        os.close(segment.descriptor)


def append_lines(path: Path, lines: Sequence[bytes]) -> None:
    """Append lines to a file for people (records that were set aside) and fsync. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"".join(line + b"\n" for line in lines))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_folder(path.parent)


def _locked(path: Path) -> Segment | None:
    """The segment at `path` if its process is gone and nobody replayed and removed it meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return Segment(path=path, descriptor=descriptor, size=os.fstat(descriptor).st_size)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
