"""The one ordered writer of a worker's records: never blocks a call, loses nothing that reached it.

Records wait in memory for at most one window (50 ms), then many calls' records go into PostgreSQL in one
transaction. While PostgreSQL is away they go to fsynced files (`spool`) and are replayed in order when it
is back; files of workers that died are replayed too. Everything may be replayed twice without harm. A
record PostgreSQL refuses for what it says (not for the state PostgreSQL is in) is written to
`<spool>/dead/`, logged, and holds up nobody.

What is lost with kill -9 of the worker: the records of its last window. What is lost when PostgreSQL is
away and the disk is full as well: events beyond the memory bound, counted as `lost`; starts and ends are
kept longest.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import asyncpg

from pbx.store.batch import HookFailed, OnEnded, store
from pbx.store.db import Database, is_away
from pbx.store.records import (
    ANSWERED,
    JSON,
    WORKER_LOST,
    CallEnded,
    CallEvent,
    CallStarted,
    Record,
    from_line,
    to_json,
    to_line,
)
from pbx.store.spool import Spool, append_lines

__all__ = [
    "ANSWERED",
    "JSON",
    "WORKER_LOST",
    "CallEnded",
    "CallEvent",
    "CallStarted",
    "Journal",
    "OnEnded",
    "Record",
]

log = logging.getLogger("careline.journal")

WINDOW_S = 0.05  # records wait this long for company
BATCH = 500  # records in one transaction
REPLAY_BATCH = 250  # parsing a batch of lines holds the event loop for 2 ms
STORE_WITHIN_S = 10.0
RETRY_FIRST_S, RETRY_MOST_S = 0.25, 5.0
ADOPT_EVERY_S = 30.0
COMPLAIN_EVERY_S = 10.0
_REFUSED_CLASSES = ("22", "23", "54")  # data, constraint, program limit: PostgreSQL documentation, Appendix A

T = TypeVar("T")


class Journal:
    """Takes records from the calls of one process. Use on one event loop: `start`, `write` …, `close`."""

    def __init__(
        self,
        database: Database,
        spool_dir: Path,
        on_ended: OnEnded | None = None,
        *,
        memory_records: int = 100_000,
    ) -> None:
        """`on_ended(connection, ends)` runs in the transaction that stores the ends, only for calls it ends.

        `memory_records` bounds what is kept when neither PostgreSQL nor the disk takes it.
        """
        self._database = database
        self._on_ended = on_ended
        self._memory_records = memory_records
        self._dead_file = spool_dir / "dead" / f"{os.getpid()}-{uuid4().hex[:8]}.jsonl"
        self._spool = Spool(spool_dir, f"{os.getpid()}-{uuid4().hex[:8]}")
        self._memory: deque[Record] = deque()
        self._set_aside: list[bytes] = []  # lines waiting for the disk to take them
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._behind_since: float | None = None  # loop time of the oldest record that is not in PostgreSQL
        self._retry_at = 0.0
        self._retry_s = RETRY_FIRST_S
        self._adopt_at = 0.0
        self._complained: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._counts = dict.fromkeys(("written", "spooled", "replayed", "set_aside", "lost"), 0)

    async def start(self) -> None:
        """Begin writing; records given before wait in memory."""
        if self._task is not None:
            raise RuntimeError("This Journal was started already.")
        self._task = asyncio.create_task(self._run(), name="journal")

    async def __aenter__(self) -> "Journal":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(5.0)

    def write(self, record: Record) -> None:
        """Take a record. Returns at once whatever database and disk do. Event-loop thread only."""
        if self._closed:
            self._counts["lost"] += 1
            self._complain(None, "a record came after the journal was closed", "journal_lost")
            return
        if not self._memory:
            self._idle.clear()
            self._wake.set()
            if self._behind_since is None:
                self._behind_since = asyncio.get_running_loop().time()
        elif len(self._memory) >= self._memory_records and not self._has_room(record):
            return
        self._memory.append(record)

    async def flush(self, within_s: float) -> bool:
        """Wait until everything written so far is in PostgreSQL. False when `within_s` is over first."""
        try:
            await asyncio.wait_for(self._idle.wait(), within_s)
        except TimeoutError:
            return False
        return True

    async def close(self, within_s: float) -> None:
        """Flush for at most `within_s`; what is left then goes to the spool for the next start."""
        task, self._task = self._task, None
        if task is None:
            return
        await self.flush(within_s)
        self._closed = True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self._memory:
            await self._to_spool()
        await self._keep_set_aside()
        left = len(self._memory) + len(self._set_aside)
        if left:
            self._counts["lost"] += left
            log.critical("records are lost at the end", extra={"action": "journal_lost", "records": left})
        self._spool.close()
        log.info("journal closed", extra={"action": "journal_closed", **self._counts})

    def counters(self) -> Mapping[str, float]:
        """Records since the start: written, spooled, replayed (part of written), set_aside, lost; see below.

        `waiting` is what memory holds now, `lag_s` the seconds since PostgreSQL last had everything.
        """
        behind = self._behind_since
        lag_s = 0.0 if behind is None else asyncio.get_running_loop().time() - behind
        return {**self._counts, "waiting": len(self._memory), "lag_s": round(lag_s, 3)}

    def _has_room(self, record: Record) -> bool:
        """Whether a record is kept although neither PostgreSQL nor the disk takes any: ends before events."""
        if type(record) is not CallEvent and len(self._memory) < 2 * self._memory_records:
            return True
        self._counts["lost"] += 1
        self._complain(None, "memory is full and records are lost", "journal_lost")
        return False

    # The writing task: the only one that touches spool and database.

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, self._adopt_at - loop.time()))
            if self._wake.is_set() and len(self._memory) < BATCH:
                await asyncio.sleep(WINDOW_S)
            began = loop.time()
            try:
                await self._turn(began)
            except Exception:  # a fault of ours must not end the writer: the records are in memory or on disk
                log.exception("journal turn failed", extra={"action": "journal_turn_failed"})
                self._postpone()
            if self._memory or self._set_aside or self._spool.own_pending:
                if not self._spool.own_pending:
                    self._behind_since = began
            else:
                self._behind_since = None
                self._wake.clear()
                self._idle.set()

    async def _turn(self, now: float) -> None:
        """Bring everything one step towards PostgreSQL, in order: the spool first, then memory."""
        await self._keep_set_aside()
        if now < self._retry_at:
            await self._to_spool()
            return
        if self._spool.own_pending and not await self._replay(adopted=False):
            await self._to_spool()
            return
        while self._memory:
            batch = list(itertools.islice(self._memory, BATCH))
            left = await self._store(batch)
            for _ in range(len(batch) - len(left)):
                self._memory.popleft()
            if left:
                self._postpone()
                await self._to_spool()
                return
        if now >= self._adopt_at:
            self._adopt_at = now + ADOPT_EVERY_S
            taken = await _in_thread(self._spool.adopt)
            if taken:
                log.info("records of dead workers found", extra={"action": "spool_adopted", "files": taken})
        if self._spool.adopted_pending:
            await self._replay(adopted=True)
            if self._spool.adopted_pending:
                self._adopt_at = now + self._retry_s

    async def _store(self, records: Sequence[Record]) -> list[Record]:
        """Store in transactions, halving a batch that is refused until the guilty record is alone.

        Returns what is left, in order, because PostgreSQL is away; empty when everything is stored or set
        aside.
        """
        parts = deque([records])
        while parts:
            part = parts[0]
            try:
                async with asyncio.timeout(STORE_WITHIN_S), self._database.transaction() as connection:
                    await store(connection, part, self._on_ended)
            except Exception as error:
                if _not_now(error):
                    self._complain(error, "PostgreSQL is away; records wait on disk", "journal_away")
                    return [record for part in parts for record in part]
                if len(part) > 1:
                    parts.popleft()
                    parts.extendleft((part[len(part) // 2 :], part[: len(part) // 2]))
                    continue
                if not await self._isolate(part[0], error):
                    return [record for part in parts for record in part]
            else:
                self._counts["written"] += len(part)
                if self._retry_s > RETRY_FIRST_S:
                    self._retry_s = RETRY_FIRST_S
                    log.info("PostgreSQL takes records again", extra={"action": "journal_back"})
            parts.popleft()
        return []

    async def _isolate(self, record: Record, error: Exception) -> bool:
        """Set one refused record aside. An end that only the hook refused is stored: no ghost calls."""
        if isinstance(error, HookFailed):
            try:
                async with asyncio.timeout(STORE_WITHIN_S), self._database.transaction() as connection:
                    await store(connection, [record], None)
            except Exception as second:
                if _not_now(second):
                    return False
                error = second
        cause = error.__cause__ or error
        reason = str(getattr(cause, "sqlstate", None) or type(cause).__name__)
        self._put_aside(reason, record)
        log.error(
            "a record was refused and set aside",
            extra={
                "action": "record_set_aside",
                "call": str(record.call_id),
                "record": type(record).__name__,
                "reason": reason,
                "file": str(self._dead_file),
            },
        )
        await self._keep_set_aside()
        return True

    def _put_aside(self, reason: str, record: Record | bytes) -> None:
        if isinstance(record, bytes):
            line = to_json({"reason": reason, "line": record.decode(errors="replace")})
        else:
            try:
                line = to_json({"reason": reason, **json.loads(to_line(record))})
            except (TypeError, ValueError):
                line = to_json({"reason": reason, "unwritable": repr(record)})
        self._set_aside.append(line.encode(errors="replace"))
        self._counts["set_aside"] += 1

    async def _replay(self, *, adopted: bool) -> bool:
        """Store the spool from its front. False when PostgreSQL is away; True when all of it is done."""
        while chunk := await _in_thread(self._spool.next_chunk, REPLAY_BATCH, adopted):
            records: list[Record] = []
            torn: list[bytes] = []
            for line in chunk.lines:
                try:
                    records.append(from_line(line))
                except ValueError:
                    torn.append(line)
            if await self._store(records):
                self._postpone()
                return False
            for line in torn:
                self._put_aside("torn", line)
                log.error(
                    "a torn spool line was set aside", extra={"action": "record_set_aside", "reason": "torn"}
                )
            await self._keep_set_aside()
            await _in_thread(self._spool.stored, chunk)
            self._counts["replayed"] += len(records)
            if len(self._memory) >= BATCH:
                if adopted:
                    break
                await self._to_spool()
        return True

    async def _to_spool(self) -> None:
        """Move memory to disk. When the disk does not take it, memory keeps it."""
        while self._memory:
            batch = list(itertools.islice(self._memory, BATCH))
            lines: list[bytes] = []
            for record in batch:
                try:
                    lines.append(to_line(record).encode())
                except (TypeError, ValueError) as error:
                    self._put_aside(type(error).__name__, record)
                    log.error(
                        "a record cannot be written and was set aside",
                        extra={"action": "record_set_aside", "call": str(record.call_id)},
                    )
            try:
                await _in_thread(self._spool.append, lines)
            except OSError as error:
                self._complain(error, "the spool cannot be written; memory keeps records", "spool_failed")
                return
            for _ in batch:
                self._memory.popleft()
            self._counts["spooled"] += len(lines)

    async def _keep_set_aside(self) -> None:
        if not self._set_aside:
            return
        lines = list(self._set_aside)
        try:
            await _in_thread(append_lines, self._dead_file, lines)
        except OSError as error:
            self._complain(error, "the file of refused records cannot be written", "dead_file_failed")
            return
        del self._set_aside[: len(lines)]

    def _postpone(self) -> None:
        self._retry_at = asyncio.get_running_loop().time() + self._retry_s
        self._retry_s = min(self._retry_s * 1.5, RETRY_MOST_S)

    def _complain(self, error: Exception | None, message: str, action: str) -> None:
        """Log a lasting trouble at most every COMPLAIN_EVERY_S seconds an action."""
        now = asyncio.get_running_loop().time()
        if now - self._complained.get(action, -COMPLAIN_EVERY_S) < COMPLAIN_EVERY_S:
            return
        self._complained[action] = now
        cause = error and (error.__cause__ or error)
        reason = cause and str(
            getattr(cause, "sqlstate", None) or getattr(cause, "strerror", None) or type(cause).__name__
        )
        log.error(message, extra={"action": action, "reason": reason, **self.counters()})


def refused_for_good(error: BaseException) -> bool:
    """Whether a record was refused for what it says: trying again changes nothing until somebody mends it."""
    return not _not_now(error)


def _not_now(error: BaseException) -> bool:
    """Whether the fault lies in the state PostgreSQL is in and not in the record: try again later."""
    if isinstance(error, HookFailed) and error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            return False  # a file the hook needs is missing: that is the hook's fault and waits for nobody
    if isinstance(error, asyncpg.PostgresError):
        return is_away(error) or str(error.sqlstate or "")[:2] not in _REFUSED_CLASSES
    return is_away(error)


async def _in_thread(function: Callable[..., T], *args: object) -> T:
    """Run a blocking call aside; a cancellation waits for its end, so two never touch a file at once."""
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
