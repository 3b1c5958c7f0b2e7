"""Exceptions on the pj thread: kept from vanishing, and from keeping pjsua2 objects alive."""

import sys
import traceback
from collections.abc import Callable

import pjsua2 as pj


def text_of_error() -> str:
    """The exception being handled as text: places and type, and the library's reason, but not its message.

    A message may hold what a caller pressed or said; a traceback object would keep the Call of its frames and
    free it on whatever thread drops the log record.
    """
    kind, error, trace = sys.exc_info()
    reason = error.reason if isinstance(error, pj.Error) else ""
    places = "".join(traceback.format_tb(trace))
    return f"{places}{kind.__name__ if kind else ''} {reason}".rstrip()


def guarded(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator for callbacks of pjsua2, which would print and swallow an exception.

    The object the callback belongs to must have `callback_failed(name)`, which logs and counts it.
    """

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        def guard(self: object, *arguments: object) -> None:
            try:
                function(self, *arguments)
            except Exception:
                self.callback_failed(name)  # type: ignore[attr-defined]

        return guard

    return wrap
