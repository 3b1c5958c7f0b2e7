"""One transaction's worth of records into PostgreSQL: a statement a kind, whatever the number of calls."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pbx.store.records import ANSWERED, CallEnded, CallEvent, CallStarted, Record, to_json
from pbx.store.sql import queries

OnEnded = Callable[
    [Any, Sequence[CallEnded]], Awaitable[None]
]  # (connection, calls that ended in this transaction)


class UnknownCall(Exception):
    """A record belongs to a call that was never stored."""


class HookFailed(Exception):
    """The hook that is told of ended calls raised; the cause is its exception."""


async def store(connection: Any, records: Sequence[Record], on_ended: OnEnded | None) -> None:
    """Write records by kind (starts, events, ends) on a connection inside the caller's transaction.

    Running it again with the same records changes nothing, and `on_ended` sees only calls this run ended.
    Raises UnknownCall, HookFailed, and asyncpg's exceptions.
    """
    starts, events, ends = _by_kind(records)
    sql = queries("journal")
    if starts:
        await connection.execute(
            sql["starts"],
            [r.call_id for r in starts],
            [r.line for r in starts],
            [r.dialled for r in starts],
            [r.caller for r in starts],
            [r.sip_call_id for r in starts],
            [r.worker for r in starts],
            [r.at for r in starts],
        )
    if events:
        await connection.execute(
            sql["events"],
            [r.call_id for r in events],
            [r.seq for r in events],
            [r.at for r in events],
            [r.kind for r in events],
            [to_json(r.detail) for r in events],
        )
        answers = [r for r in events if r.kind == ANSWERED]
        if answers:
            await connection.execute(sql["answers"], [r.call_id for r in answers], [r.at for r in answers])
    if ends:
        await _end(connection, ends, on_ended)


async def _end(connection: Any, ends: dict[Any, CallEnded], on_ended: OnEnded | None) -> None:
    given = list(ends.values())
    rows = await connection.fetch(
        queries("journal")["ends"],
        [r.call_id for r in given],
        [r.at for r in given],
        [r.cause for r in given],
        [r.disposition for r in given],
        [r.answered_by for r in given],
    )
    if not all(row["known"] for row in rows):
        raise UnknownCall("The end of a call that has no start was given.")
    changed = [ends[row["call_id"]] for row in rows if row["changed"]]
    if changed and on_ended is not None:
        try:
            await on_ended(connection, changed)
        except Exception as error:
            raise HookFailed(f"The hook for ended calls failed with {type(error).__name__}.") from error


def _by_kind(records: Sequence[Record]) -> tuple[list[CallStarted], list[CallEvent], dict[Any, CallEnded]]:
    starts: list[CallStarted] = []
    events: list[CallEvent] = []
    ends: dict[Any, CallEnded] = {}  # the first end of a call counts
    for record in records:
        if type(record) is CallEvent:
            events.append(record)
        elif type(record) is CallStarted:
            starts.append(record)
        elif type(record) is CallEnded:
            ends.setdefault(record.call_id, record)
        else:
            raise TypeError(
                f"The journal takes CallStarted, CallEvent and CallEnded, not {type(record).__name__}."
            )
    return starts, events, ends
