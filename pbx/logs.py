"""One JSON line an event on stderr, written by a thread of its own so that logging never blocks a call.

`logging.getLogger("careline.<part>")`, a static message, and `extra={"action": …, "call": …}` with ids.
Extra fields are written as they are, so only ids belong there. Messages and exceptions are masked
(`redact`): a last net, not a permission to put numbers into them. Exceptions are written with the places
they went through, without source lines and without values.
"""

import atexit
import json
import logging
import queue
import re
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUEUE_LINES = 20_000  # lines that wait for a stuck reader of stderr; beyond it lines are dropped and counted
_LONGEST = 16_384  # characters of one child's line

_SECRETS = re.compile(  # every repeat is bounded: a long line costs no more than its length
    r"(?P<keep>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"  # a UUID is an id of ours
    r"|\b(?P<scheme>sips?):[^@\s<>\"']{1,128}(?=@)"  # the user part of a SIP URI (RFC 3261 19.1.1)
    r"|\b(?P<tel>tel):[^\s<>;\"']+"  # a telephone URI (RFC 3966)
    r"|\b(?P<url>[a-z]{1,20}://[^:/@\s]{0,64}):[^@\s]{1,256}(?=@)"  # the password of a URL
    r"|\+\d[\d ().-]{5,30}\d"  # +1 (555) 010-0123
    r"|\(?\b\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b"  # 555-010-0123
    r"|\d{7,}"
)
_SEVERITY = re.compile(r"\b(?:(FATAL|PANIC|CRITICAL|EMERG|ALERT|ERROR|ERR)|(WARNING|WARN))\b")


def redact(text: str) -> str:
    """Mask what may be a telephone number, a SIP user or a password. UUIDs stay."""
    return _SECRETS.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    if found["keep"]:
        return found["keep"]
    prefix = found["scheme"] or found["tel"] or found["url"]
    return f"{prefix}:***" if prefix else "***"


class JsonFormatter(logging.Formatter):
    """A record as one line: ts, level, process, logger, msg, the extra fields, exception."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line without its end. Never raises: what is not JSON is written by its type's name."""
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "msg": redact(_message(record)),
        }
        fields.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = _exception(record.exc_info[1])
        return json.dumps(fields, ensure_ascii=False, default=_foreign)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} (its arguments do not fit)"


def _foreign(value: object) -> str:
    return (
        str(value)
        if type(value).__name__ in ("UUID", "PosixPath", "datetime")
        else f"<{type(value).__name__}>"
    )


def _exception(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """Type, masked message, places (outermost first, the last 20), and what it was raised from."""
    places: list[str] = []
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    told: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "message": redact(str(error))[:2000],
        "at": places[-20:],
    }
    origin = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if origin is not None and depth < 5:
        told["from"] = _exception(origin, depth + 1)
    if isinstance(error, BaseExceptionGroup) and depth < 5:
        told["group"] = [_exception(inner, depth + 1) for inner in error.exceptions[:10]]
    return told


class _Writer(logging.Handler):
    """Formats in the caller's thread (an exception's frames must not outlive it) and writes in its own."""

    def __init__(self, process: str, stream: TextIO) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter(process))
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUE_LINES)
        self._stopping = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        try:
            self.put(self.format(record))
        except Exception:  # logging must never break what it logs
            self.handleError(record)

    def put(self, line: str) -> None:
        """Queue one finished line; dropped and counted when nobody reads stderr."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def shut(self, within_s: float) -> None:
        """Write what is queued, for at most `within_s`."""
        deadline = time.monotonic() + within_s
        self._stopping = True
        with suppress(queue.Full):  # then the thread ends when it has written what is queued
            self._lines.put(None, timeout=within_s)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError, ValueError):  # a reader that went away; a stream closed at exit
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            if self._stopping and self._lines.empty():
                break
        with suppress(OSError, ValueError):
            self._stream.flush()


_writer: _Writer | None = None
_children = logging.getLogger("careline.child")


def configure(level: str, name: str, stream: TextIO | None = None) -> None:
    """Log from `level` ("debug", "info", "warning", "error") on, as process `name`, to stderr or `stream`.

    Other packages are heard from warning on. Unhandled exceptions of any thread are logged, not printed.
    """
    global _writer
    shutdown()
    _writer = _Writer(name, stream or sys.stderr)
    root = logging.getLogger()
    root.handlers[:] = [_writer]
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    logging.getLogger("careline").setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _unhandled
    threading.excepthook = lambda args: _unhandled(args.exc_type, args.exc_value, args.exc_traceback)
    atexit.register(shutdown)


def shutdown(within_s: float = 2.0) -> None:
    """Write what is queued and stop the writing thread; logging then goes nowhere until `configure`."""
    global _writer
    writer, _writer = _writer, None
    if writer is None:
        return
    atexit.unregister(shutdown)
    logging.getLogger().removeHandler(writer)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    writer.shut(within_s)


def dropped() -> int:
    """Lines dropped because nobody read stderr."""
    return _writer.dropped if _writer else 0


def child_line(child: str, line: str, *, is_json: bool) -> None:
    """Put one line of a child process into the stream: our JSON as it is, else wrapped and masked."""
    if is_json and line.startswith("{") and line.endswith("}") and _writer is not None:
        _writer.put(line)
        return
    found = _SEVERITY.search(line[:200])
    level = logging.INFO if found is None else logging.ERROR if found[1] else logging.WARNING
    _children.log(level, "%s", line[:_LONGEST], extra={"action": "child_line", "child": child})


def _unhandled(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("careline").critical(
        "unhandled exception",
        exc_info=(kind, error, traceback) if error is not None else None,
        extra={"action": "unhandled"},
    )
