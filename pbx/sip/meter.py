"""What the engine counts, and how late its thread is."""

from pbx.sip.endpoint import POLL_MS

COUNTED = (
    "incoming",  # INVITEs outside a dialog, refused ones included
    "answered",  # legs confirmed, either direction
    "ended",  # Ended events
    "dialled",  # legs made by dial or by a REFER
    "rejected_overload",  # 503 of the admission limit
    "callback_errors",  # exceptions in callbacks and in our own turns
    "command_errors",  # commands that raised
    "unacked_freed",  # 200s without ACK, ended at their bound
    "unanswered_freed",  # INVITEs without a final answer of ours, ended at their bound
    "reanchored",  # re-INVITEs sent because nothing came
    "media_lost",  # legs ended because nothing came any more
    "active",  # legs alive now
    "loop_lag_ms",  # worst turn of the last second beyond the time it may sleep
)


class Meter:
    """Counts of one engine; written by the pj thread, read by any."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTED, 0)
        self._worst_s = 0.0
        self._window_ends_s = 0.0

    def turn(self, began_s: float, now_s: float, active: int) -> None:
        """One turn of the pj thread is over."""
        self.counts["active"] = active
        self._worst_s = max(self._worst_s, now_s - began_s - POLL_MS / 1000)
        if now_s >= self._window_ends_s:
            self._window_ends_s = now_s + 1.0
            self.counts["loop_lag_ms"] = round(self._worst_s * 1000)
            self._worst_s = 0.0
