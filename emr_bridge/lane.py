"""One connector's deliveries: claim, send, read back, and what follows from a failure.

A lane never has more notes under way than its connector allows, starts none while the breaker is open, and
ends each claim by marking it, or leaves it to end by itself. Everything it waits for has a bound.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from emr_bridge import fhir, outbox
from emr_bridge.breaker import Breaker
from emr_bridge.facts import CallFacts
from emr_bridge.failure import DeliveryFailed, ErrorClass, Failure
from emr_bridge.outbox import Claimed, DatabaseAway, OutboxDatabase
from emr_bridge.transport import ConnectorSettings, Parcel, Transport

log = logging.getLogger("careline.courier")

_LOOKS_BEFORE_RESEND = 3  # times an accepted document is looked for before it counts as gone


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often things are tried."""

    tick_s: float = 5.0  # a lane looks for work at least this often, whatever NOTIFY says
    first_retry_s: float = 1.0  # pause after the first failed attempt; it doubles with each
    longest_retry_s: float = 60.0
    stop_within_s: float = 15.0  # deliveries under way may end; then they are cut


class Lane:
    """The deliveries of one connector. Runs on one event loop."""

    def __init__(
        self,
        settings: ConnectorSettings,
        transport: Transport,
        database: OutboxDatabase,
        courier: str,
        *,
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
        pace: Pace,
    ) -> None:
        """`clock` gives aware UTC; `jitter` a number from 0 to 1."""
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._transport = transport
        self._database = database
        self._courier = courier
        self._clock = clock
        self._jitter = jitter
        self._pace = pace
        self._breaker = Breaker()
        self._awake = asyncio.Event()
        self._under_way: set[int] = set()  # ids of outbox rows
        self._orphans = True  # there may be claims under our name that we know nothing of

    @property
    def is_open(self) -> bool:
        """Whether the breaker holds this lane back."""
        return self._breaker.is_open

    def wake(self) -> None:
        """There may be something to do."""
        self._awake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set (and `wake` called); then let what is under way end, within a bound."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as deliveries:
                while not stop.is_set():
                    self._awake.clear()
                    await self._pause(await self._round(deliveries))
                bound.reschedule(loop.time() + self._pace.stop_within_s)
        except TimeoutError:
            log.warning("deliveries were cut", extra=self._extra("courier_cut"))

    async def _pause(self, wait_s: float) -> None:
        try:
            await asyncio.wait_for(self._awake.wait(), wait_s)
        except TimeoutError:
            return

    async def _round(self, deliveries: asyncio.TaskGroup) -> float:
        """Start what may be started; returns for how many seconds nothing is expected."""
        now = self._clock()
        wanted = self._breaker.allowance(now, self._settings.concurrency - len(self._under_way))
        if wanted <= 0:
            until = self._breaker.open_until
            return self._within_tick((until - now).total_seconds() if until else self._pace.tick_s)
        try:
            async with self._database.connection() as connection:
                if self._orphans and self._settings.conditional_create:
                    await outbox.reclaim(
                        connection,
                        connector=self._settings.name,
                        courier=self._courier,
                        under_way=self._under_way,
                        now=now,
                    )
                self._orphans = False
                rows = await outbox.claim(
                    connection,
                    connector=self._settings.name,
                    now=now,
                    courier=self._courier,
                    limit=wanted,
                    lease_s=self._settings.lease_s,
                )
                due = None if len(rows) == wanted else await outbox.next_due(connection, self._settings.name)
        except DatabaseAway:
            self._orphans = True
            self.counts["database_away"] += 1
            log.warning("the outbox is out of reach", extra=self._extra("outbox_away"))
            return 1.0
        for row in rows:
            self._under_way.add(row.id)
            self._breaker.started()
            deliveries.create_task(self._handle(row), name=f"deliver {row.id}")
        if len(rows) == wanted:
            return 0.0
        if due is None or due <= now:  # nothing, or only what waits for another row of its call
            return self._pace.tick_s
        return self._within_tick((due - now).total_seconds())

    def _within_tick(self, wait_s: float) -> float:
        return min(max(wait_s, 0.02), self._pace.tick_s)

    async def _handle(self, row: Claimed) -> None:
        """One delivery. A fault of ours ends here: the claim runs out, the row is tried again as unsure."""
        self.counts["claimed"] += 1
        self.counts["taken_over"] += row.taken_over
        try:
            async with asyncio.timeout(self._settings.lease_s - 5):
                await self._deliver(row)
        except asyncio.CancelledError:
            await self._give_back(row)
            raise
        except TimeoutError:
            self.counts["claims_expired"] += 1
            log.error("a delivery outlasted its claim", extra=self._extra("claim_expired", row))
        except Exception as error:
            # Its text may hold what the EMR sent, so only the kind is logged.
            self.counts["errors"] += 1
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
            extra = self._extra("delivery_error", row) | {"error": type(error).__name__, "where": where}
            log.error("a delivery stopped on a fault of the program", extra=extra)
        finally:
            self._breaker.abandoned()
            self._under_way.discard(row.id)
            self._awake.set()

    async def _give_back(self, row: Claimed) -> None:
        """Cut while it was under way: the next courier has to know that it may have arrived."""
        failure = Failure(
            error_class=ErrorClass.AMBIGUOUS,
            sentence="The courier was stopped before the EMR answered; the note may have been accepted.",
        )
        now = self._clock()
        step = "read-back" if row.accepted else "send"
        try:
            async with asyncio.timeout(2), self._database.connection() as connection:
                await outbox.mark_failed(connection, row, failure, now, retry_at=now, step=step)
        except (DatabaseAway, TimeoutError):
            log.warning("a cut delivery could not be given back", extra=self._extra("outbox_away", row))

    async def _deliver(self, row: Claimed) -> None:
        try:
            facts = CallFacts.from_json(row.facts)
            document = row.remote_document
            if not row.accepted or document is None:
                document = await self._send(row, facts)
                if document is None:
                    return
        except (ValueError, fhir.Invalid) as error:  # their texts name keys and places, never values
            failure = Failure(
                error_class=ErrorClass.PERMANENT,
                sentence=f"The note cannot be written as FHIR; tell the makers of careline: {error}",
            )
            await self._failed(row, failure, "send")
            return
        except DeliveryFailed as error:
            await self._failed(row, error.failure, "send")
            return
        try:
            await self._transport.read_back(document, fhir.note_identifier(facts.call_id, facts.version))
        except DeliveryFailed as error:
            await self._failed(row, error.failure, "read-back")
            return
        await self._answered()
        now = self._clock()
        if await self._mark(row, lambda connection: outbox.mark_filed(connection, row, now)):
            self.counts["filed"] += 1
            log.info("note filed", extra=self._extra("note_filed", row))

    async def _send(self, row: Claimed, facts: CallFacts) -> str | None:
        """Bring it to the EMR; returns its reference there, None when the claim was lost meanwhile."""
        accepted = await self._transport.deliver(
            Parcel(
                facts=facts,
                text=row.text,
                written_at=row.written_at,
                replaces=row.replaces,
                unsure=row.unsure,
            )
        )
        await self._answered()
        now = self._clock()
        stored = await self._mark(
            row,
            lambda connection: outbox.mark_delivered(
                connection,
                row,
                now,
                encounter=accepted.encounter,
                document=accepted.document,
                http_status=accepted.http_status,
            ),
        )
        if not stored:
            return None
        self.counts["delivered"] += 1
        self.counts["repeats"] += accepted.http_status == 200
        return accepted.document

    async def _failed(self, row: Claimed, failure: Failure, step: str) -> None:
        """Decide what a failure leads to; the one place where that is decided."""
        kind, now = failure.error_class, self._clock()
        can_tell_repeat = self._settings.conditional_create or self._settings.search_identifier
        retry_at = now + timedelta(seconds=self._retry_s(row, failure))
        if failure.missing:
            self.counts["read_back_missing"] += 1
            if row.read_backs + 1 < _LOOKS_BEFORE_RESEND:
                outcome = "retried"
            else:
                outcome = "resent" if can_tell_repeat else "held"
        elif failure.hold or (kind is ErrorClass.AMBIGUOUS and step == "send" and not can_tell_repeat):
            outcome = "held"
        elif kind is ErrorClass.PERMANENT:
            outcome = "dead" if step == "send" else "held"  # accepted, but reading it is refused
        else:
            outcome = "retried"
        if kind is ErrorClass.PERMANENT or failure.missing or failure.hold:
            await self._answered()
        elif self._breaker.failed(now, failure.retry_after_s):
            self.counts["breaker_opened"] += 1
            log.error("the EMR does not answer properly", extra=self._extra("emr_away"))

        async def end(connection: Any) -> bool:
            if outcome == "dead":
                return await outbox.mark_dead(connection, row, failure, now, step=step)
            if outcome == "held":
                return await outbox.mark_held(connection, row, failure, now, step=step)
            if outcome == "resent":
                return await outbox.mark_resend(connection, row, failure, now)
            return await outbox.mark_failed(connection, row, failure, now, retry_at=retry_at, step=step)

        if await self._mark(row, end):
            self.counts[outcome] += 1
            self.counts[f"failed_{kind}"] += 1
            log.log(
                logging.ERROR if outcome in ("dead", "held") else logging.WARNING,
                "note not delivered",
                extra=self._extra(f"note_{outcome}", row)
                | {"class": str(kind), "http_status": failure.http_status, "step": step},
            )

    def _retry_s(self, row: Claimed, failure: Failure) -> float:
        """Exponential pause with jitter; never shorter than the server's wish.

        Where a repeat is told only by a search, also not before a request still running there has ended.
        """
        doubled = self._pace.first_retry_s * 2.0 ** min(row.attempts - 1, 16)
        pause_s = min(self._pace.longest_retry_s, doubled) * (0.5 + 0.5 * self._jitter())
        if failure.error_class is ErrorClass.AMBIGUOUS and not self._settings.conditional_create:
            pause_s = max(pause_s, self._settings.timeout_s)
        return max(pause_s, failure.retry_after_s or 0.0)

    async def _answered(self) -> None:
        """The EMR answered properly: if it was away before, everything that waits is due now."""
        if not self._breaker.succeeded():
            return
        log.info("the EMR answers again", extra=self._extra("emr_back"))
        try:
            async with self._database.connection() as connection:
                await outbox.wake(
                    connection,
                    self._settings.name,
                    self._clock(),
                    unsure_too=self._settings.conditional_create,
                )
        except DatabaseAway:
            self.counts["database_away"] += 1  # what waits comes at its own time
        self._awake.set()

    async def _mark(self, row: Claimed, work: Callable[[Any], Awaitable[bool]]) -> bool:
        """Store the end of a step, trying for as long as the claim lasts. False: the claim was lost.

        The caller's bound ends it; then another courier takes the row over as unsure.
        """
        while True:
            try:
                async with self._database.connection() as connection:
                    stored = await work(connection)
                break
            except DatabaseAway:
                self.counts["database_away"] += 1
                await asyncio.sleep(0.25)
        if not stored:
            self.counts["claims_lost"] += 1
            log.warning("another courier has this note", extra=self._extra("claim_lost", row))
        return stored

    def _extra(self, action: str, row: Claimed | None = None) -> dict[str, Any]:
        extra: dict[str, Any] = {"action": action, "connector": self._settings.name}
        if row is not None:
            extra |= {"outbox": row.id, "call": str(row.call_id), "attempt": row.attempts}
        return extra
