"""One key, one report: pairs the two ways in which a phone may send the same press. Pure.

Some phones send a key as RFC 4733 events in the audio stream and as SIP INFO as well. A report by one way is
a repeat when the other way reported the same key within the window and that report has not been paired yet,
so pressing a key twice quickly still counts twice.
"""

from collections import deque

KEYS = frozenset("0123456789*#ABCD")


class DigitPairing:
    """Remembers the unpaired reports of one leg."""

    __slots__ = ("_unpaired", "_window_s")

    def __init__(self, window_s: float = 1.0) -> None:
        """`window_s`: longest time between the two reports of one press.

        INFO comes after the key is released.
        """
        self._window_s = window_s
        self._unpaired: deque[tuple[float, str, str]] = deque(maxlen=32)

    def is_new(self, digit: str, via: str, now_s: float) -> bool:
        """Whether this report is a press of its own; `now_s` is any monotonic clock in seconds."""
        while self._unpaired and now_s - self._unpaired[0][0] > self._window_s:
            self._unpaired.popleft()
        for index, (_, known, way) in enumerate(self._unpaired):
            if known == digit and way != via:
                del self._unpaired[index]
                return False
        self._unpaired.append((now_s, digit, via))
        return True
