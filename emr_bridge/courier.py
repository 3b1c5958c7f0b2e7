"""The courier: carries notes from the outbox to every EMR, as often as it takes and never twice.

Any number of couriers may run against one database. Delivery is at least once; that it is filed once follows
from the conditional create, or from looking before sending. New rows are announced by NOTIFY; a slow tick
covers for a lost one. A runner: it reads the clock unless it is given one.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import aiohttp

from emr_bridge import outbox
from emr_bridge.lane import Lane, Pace
from emr_bridge.outbox import DatabaseAway, Lag, OutboxDatabase
from emr_bridge.transport import ConnectorSettings, Transport

log = logging.getLogger("careline.courier")


def utc_now() -> datetime:
    """The clock of the courier when it is given no other."""
    return datetime.now(UTC)  # noqa: TID251  this is a runner


class Courier:
    """All lanes of one process. `run` it once."""

    def __init__(
        self,
        dsn: str,
        connectors: Sequence[ConnectorSettings],
        name: str,
        *,
        clock: Callable[[], datetime] = utc_now,
        jitter: Callable[[], float] = random.random,
        pace: Pace | None = None,
        lag_alarm_s: float = 900.0,
    ) -> None:
        """`dsn` is postgresql://…; `name` is this courier's own, such as "host-a/courier":
        no two that live at once share one, and its successor takes over what it left under it.

        `lag_alarm_s` is the age of an undelivered note from which on it is reported as an error.
        """
        self._database = OutboxDatabase(dsn, application_name=f"careline courier {name}")
        self._connectors = tuple(connectors)
        self._name = name
        self._clock = clock
        self._jitter = jitter
        self._pace = pace or Pace()
        self._lag_alarm_s = lag_alarm_s
        self._lanes: dict[str, Lane] = {}
        self._lag: tuple[Lag, ...] = ()

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """By connector, counted since the start.

        Keys: claimed, taken_over, delivered, repeats, filed, retried, resent, held, dead, failed_transient,
        failed_ambiguous, failed_permanent, read_back_missing, breaker_opened, claims_lost, claims_expired,
        database_away, errors.
        """
        return {name: dict(lane.counts) for name, lane in self._lanes.items()}

    def lag(self) -> Sequence[Lag]:
        """What was unfinished at the last look, every 30 s."""
        return self._lag

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set; then end what is under way within the bound and return.

        PostgreSQL and the EMRs may come and go. Raises what a broken schema raises.
        """
        connections = sum(connector.concurrency for connector in self._connectors)
        async with (
            self._database as database,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=max(1, connections), keepalive_timeout=15)
            ) as session,
        ):
            self._lanes = {
                connector.name: Lane(
                    connector,
                    Transport(connector, session),
                    database,
                    self._name,
                    clock=self._clock,
                    jitter=self._jitter,
                    pace=self._pace,
                )
                for connector in self._connectors
            }
            log.info("courier started", extra={"action": "courier_started", "courier": self._name})
            async with asyncio.TaskGroup() as group:
                watchers = [group.create_task(self._listen()), group.create_task(self._watch_lag())]
                lanes = [group.create_task(lane.run(stop)) for lane in self._lanes.values()]
                await stop.wait()
                self._wake()
                if lanes:
                    await asyncio.wait(lanes)
                for watcher in watchers:
                    watcher.cancel()
        log.info("courier stopped", extra={"action": "courier_stopped", "courier": self._name})

    def _wake(self) -> None:
        for lane in self._lanes.values():
            lane.wake()

    async def _listen(self) -> None:
        """Keep one listening connection; come back when it is lost. Runs until cancelled."""
        while True:
            try:
                await self._database.listen(self._wake)
            except DatabaseAway:
                log.warning("not listening for new notes", extra={"action": "outbox_not_listening"})
                await asyncio.sleep(1.0)

    async def _watch_lag(self) -> None:
        """Every 30 s look how old the oldest undelivered note is. Runs until cancelled."""
        while True:
            try:
                async with self._database.connection() as connection:
                    self._lag = tuple(await outbox.lag(connection, self._clock()))
            except DatabaseAway:
                log.warning("the outbox is out of reach", extra={"action": "outbox_away"})
            for one in self._lag:
                if one.oldest_s > self._lag_alarm_s:
                    extra = {
                        "action": "outbox_lag",
                        "connector": one.connector,
                        "oldest_s": round(one.oldest_s),
                    }
                    log.error("a note waits for its EMR too long", extra=extra)
            await asyncio.sleep(30.0)
