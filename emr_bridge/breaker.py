"""A circuit breaker: whether an EMR that failed repeatedly is asked at all. Pure; time is an argument.

closed: all may pass. open: nobody until a time. probing: one delivery may try; its end opens or closes it.
A refusal of one note is no failure of the EMR: only what would have failed for any note counts.
"""

from datetime import datetime, timedelta

FAILURES_TO_OPEN = 5  # in a row
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Breaker:
    """The breaker of one connector."""

    def __init__(self) -> None:
        self._failures = 0  # in a row
        self._pause_s = FIRST_PAUSE_S
        self._open_until: datetime | None = None  # None: closed
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether deliveries are held back, a probe apart."""
        return self._open_until is not None

    @property
    def open_until(self) -> datetime | None:
        """When the next probe may go (aware UTC); None when closed."""
        return self._open_until

    def allowance(self, now: datetime, wanted: int) -> int:
        """How many deliveries may start now: `wanted` when closed, one probe when its time came, else 0."""
        if self._open_until is None:
            return wanted
        return 0 if self._probing or now < self._open_until else min(1, wanted)

    def started(self) -> None:
        """A delivery begins."""
        if self._open_until is not None:
            self._probing = True

    def succeeded(self) -> bool:
        """The EMR answered properly. True: it was open and closes now."""
        was_open = self.is_open
        self._failures, self._pause_s, self._open_until, self._probing = 0, FIRST_PAUSE_S, None, False
        return was_open

    def failed(self, now: datetime, retry_after_s: float | None = None) -> bool:
        """The EMR did not answer properly. True: it was closed and opens now.

        The pause doubles with each failed probe, up to 60 s, and is never shorter than the server's own wish.
        """
        self._failures += 1
        self._probing = False
        until = self._open_until
        if until is None and self._failures < FAILURES_TO_OPEN:
            return False
        if until is None or now >= until:  # late failures of one burst do not double it
            self._open_until = now + timedelta(seconds=max(self._pause_s, retry_after_s or 0.0))
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        return until is None

    def abandoned(self) -> None:
        """A delivery ended without saying anything about the EMR."""
        self._probing = False
