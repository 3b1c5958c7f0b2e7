"""Whether anything still comes on a leg, and when to offer its media again. Pure.

RTCP counts as life beside RTP, for a phone on mute may send no audio. Such a phone reports every five seconds
or so, which looks like silence in between: the time between two re-INVITEs doubles until audio has come
again, so that it is not bothered for ever.
"""

FIRST_GAP_S = 6.0
LONGEST_GAP_S = 300.0
FLOWING_PACKETS = 50  # a second of audio since the last re-INVITE: it helped, or was not needed


class Life:
    """What was seen of one leg; times are the monotonic clock in seconds."""

    __slots__ = ("_alive_s", "_gap_s", "_next_s", "_packets", "_reports", "_since_offer")

    def __init__(self) -> None:
        self._packets = self._reports = 0
        self._alive_s: float | None = None
        self._since_offer = 0
        self._gap_s = FIRST_GAP_S
        self._next_s = 0.0

    def look(self, now_s: float, *, packets: int, reports: int) -> None:
        """Counts of RTP packets and RTCP reports received in the present stream.

        A re-INVITE may begin a new stream, whose counts begin at 0: that alone is no life.
        """
        came = packets - self._packets if packets >= self._packets else packets
        reported = reports - self._reports if reports >= self._reports else reports
        self._packets, self._reports = packets, reports
        if came or reported or self._alive_s is None:
            self._alive_s = now_s
        self._since_offer += came
        if self._since_offer >= FLOWING_PACKETS:
            self._gap_s = FIRST_GAP_S

    def idle(self, now_s: float) -> None:
        """Nothing is expected just now."""
        self._alive_s = now_s

    def silent_s(self, now_s: float) -> float:
        """For how long nothing has come."""
        return 0.0 if self._alive_s is None else now_s - self._alive_s

    def is_reanchor_due(self, now_s: float, after_s: float) -> bool:
        """Whether to offer the media again after `after_s` of silence; True counts as having done it."""
        if self.silent_s(now_s) < after_s or now_s < self._next_s:
            return False
        self._next_s = now_s + self._gap_s
        self._gap_s = min(2 * self._gap_s, LONGEST_GAP_S)
        self._since_offer = 0
        return True
