"""The outbox: notes on their way to an EMR, one row a (connector, call, version), in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from emr_bridge.facts import CallFacts


async def enqueue(
    connection: asyncpg.Connection, finished: Sequence[CallFacts], connectors: Sequence[str], now: datetime
) -> None:
    """Store the notes of ended calls and one outbox row a connector, in the caller's own transaction.

    Renders the note text itself. A replay of the same (call, version) changes nothing. `connectors` are names;
    with none, the notes are stored and wait for nobody. `now` is aware UTC. Raises asyncpg errors as they come.
    """
    raise NotImplementedError
