"""Records that were set aside, given another chance when what refused them is mended.

The journal writes them to `<spool>/dead/*.jsonl`; nothing reads them by itself, because a record that was
refused once is refused again until somebody looked.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from pbx.store.batch import HookFailed, OnEnded, store
from pbx.store.db import Database
from pbx.store.journal import CallEnded, refused_for_good
from pbx.store.records import Record, from_line
from pbx.store.spool import append_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Retried:
    """What became of the records."""

    stored: int
    still_refused: int  # they are in a file of the folder again


def count(spool_dir: Path) -> int:
    """How many records are set aside: for a probe; anything but 0 wants a person. Blocking."""
    return sum(len(path.read_bytes().splitlines()) for path in (spool_dir / "dead").glob("*.jsonl*"))


async def retry(database: Database, spool_dir: Path, on_ended: OnEnded | None) -> Retried:
    """Store every record that is set aside; may run beside living journals and be cut off at any point.

    An end that is stored already (only the hook had refused it) is given to `on_ended` again, which must
    therefore change nothing for a call it knows. Raises DatabaseAway; what was not stored then is still in
    its file.
    """
    stored = still_refused = 0
    folder = spool_dir / "dead"
    for path in sorted(folder.glob("*.jsonl")):
        path.rename(path.with_suffix(".jsonl.retry"))  # a living journal begins a new file
    for path in sorted(folder.glob("*.jsonl.retry")):
        refused: list[bytes] = []
        for line in path.read_bytes().splitlines():
            try:
                await _again(database, line, on_ended)
            except Exception as error:
                if not refused_for_good(error):
                    raise
                refused.append(line)
            else:
                stored += 1
        if refused:
            await asyncio.to_thread(append_lines, path.with_suffix(""), refused)
        path.unlink()
        still_refused += len(refused)
    return Retried(stored=stored, still_refused=still_refused)


async def _again(database: Database, line: bytes, on_ended: OnEnded | None) -> None:
    fields = json.loads(line)
    fields.pop("reason", None)
    record: Record = from_line(json.dumps(fields))
    async with database.transaction() as connection:
        await store(connection, [record], None)
        if isinstance(record, CallEnded) and on_ended is not None:
            try:
                await on_ended(connection, [record])
            except Exception as error:
                raise HookFailed("The hook refused this end again.") from error
