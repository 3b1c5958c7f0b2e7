"""The log stream: JSON with ids, without numbers, names in URIs, or a chance to block."""

import contextlib
import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from pbx import logs

pytestmark = pytest.mark.unit

CALL = UUID("12345678-1234-4234-8234-123456789012")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("careline")
    before = (root.handlers[:], root.level, ours.level)
    out = io.StringIO()
    logs.configure("info", "worker-1", out)
    yield out
    logs.shutdown()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    logs.shutdown()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("given", "masked"),
    [
        ("call from 15550100123 failed", "call from *** failed"),
        ("from +1 (555) 010-0123 now", "from *** now"),
        ("from 555-010-0123.", "from ***."),
        ("From: <sip:anna.smith@10.0.0.1:5060>", "From: <sip:***@10.0.0.1:5060>"),
        ('"x" <sips:+15550100123;phone-context=a@edge>', '"x" <sips:***@edge>'),
        ("sip:1001@a, sip:1002@b", "sip:***@a, sip:***@b"),
        ("tel:+1-201-555-0123 rang", "tel:*** rang"),
        (
            "postgresql://careline:s3cret@127.0.0.1:5433/careline",
            "postgresql://careline:***@127.0.0.1:5433/careline",
        ),
        ("code 503 on port 50600 after 123456 ms", "code 503 on port 50600 after 123456 ms"),
        (f"call {CALL} ended", f"call {CALL} ended"),
        ("127.0.0.1:48071 at 12:30:59", "127.0.0.1:48071 at 12:30:59"),
        ("١٢٣٤٥٦٧٨", "***"),
    ],
)
def test_numbers_and_users_are_masked_and_ids_stay(given: str, masked: str) -> None:
    assert logs.redact(given) == masked


def test_a_line_has_its_fields(stream: io.StringIO) -> None:
    log = logging.getLogger("careline.calls")
    log.info(
        "leg answered", extra={"action": "answered", "call": str(CALL), "leg": 7, "odd": object(), "id": CALL}
    )
    log.debug("not said")
    logging.getLogger("somebody.else").info("not said either")
    logging.getLogger("somebody.else").warning("said to %s", "sip:1001@edge")
    ours, theirs = lines(stream)
    assert ours.pop("ts").endswith("+00:00")
    assert ours == {
        "level": "info",
        "process": "worker-1",
        "logger": "careline.calls",
        "msg": "leg answered",
        "action": "answered",
        "call": str(CALL),
        "leg": 7,
        "odd": "<object>",
        "id": str(CALL),
    }
    assert (theirs["level"], theirs["msg"]) == ("warning", "said to sip:***@edge")


def test_an_exception_tells_places_and_no_numbers(stream: io.StringIO) -> None:
    def dial(number: str) -> None:
        raise ValueError(f"cannot dial {number}")

    try:
        try:
            dial("15550100123")
        except ValueError as error:
            raise RuntimeError("no way to sip:anna@edge") from error
    except RuntimeError:
        logging.getLogger("careline.calls").exception("call failed")
    (line,) = lines(stream)
    assert line["exception"]["type"] == "RuntimeError"
    assert line["exception"]["message"] == "no way to sip:***@edge"
    assert line["exception"]["from"]["message"] == "cannot dial ***"
    assert line["exception"]["from"]["at"][-1].endswith(" dial")
    assert "15550100123" not in stream.getvalue()
    assert "anna" not in stream.getvalue()


def test_an_exception_nobody_caught_is_masked_too(stream: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError("15550100123")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    (line,) = lines(stream)
    assert (line["level"], line["exception"]["message"]) == ("critical", "***")


def test_childrens_lines_join_the_stream(stream: io.StringIO) -> None:
    logs.child_line("worker-2", '{"msg":"theirs","process":"worker-2"}', is_json=True)
    logs.child_line("worker-2", "Traceback (most recent call last):", is_json=True)
    logs.child_line("kamailio", " 0(12) ERROR: <core> bad sip:1001@edge", is_json=False)
    logs.child_line("postgres", "[1] WARNING: late", is_json=False)
    first, second, third, fourth = lines(stream)
    assert first == {"msg": "theirs", "process": "worker-2"}
    assert (second["level"], second["child"]) == ("info", "worker-2")
    assert (third["level"], third["msg"], third["child"]) == (
        "error",
        " 0(12) ERROR: <core> bad sip:***@edge",
        "kamailio",
    )
    assert fourth["level"] == "warning"


def test_bad_arguments_do_not_raise() -> None:
    record = logging.LogRecord("careline.x", logging.ERROR, "x.py", 1, "%d of %d", (1,), None)
    line = json.loads(logs.JsonFormatter("x").format(record))
    assert line["msg"] == "%d of %d (its arguments do not fit)"


def test_a_reader_that_is_stuck_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_QUEUE_LINES", 100)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    reader, writer = os.pipe()  # 64 KB fit, nobody reads
    out = os.fdopen(writer, "w")
    try:
        logs.configure("info", "x", out)
        log = logging.getLogger("careline.x")
        began = time.monotonic()
        for _ in range(2000):
            log.warning("x" * 1000)
        assert time.monotonic() - began < 2.0
        assert logs.dropped() > 1000
        began = time.monotonic()
        logs.shutdown(0.2)
        assert time.monotonic() - began < 1.0
    finally:
        root.handlers[:], root.level = before
        read = 0
        deadline = time.monotonic() + 5
        os.set_blocking(reader, False)
        while any(thread.name == "logs" for thread in threading.enumerate()) and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                read += len(os.read(reader, 65536))
        os.close(reader)
        with contextlib.suppress(BrokenPipeError):
            out.close()
    assert read > 60_000
    assert not any(thread.name == "logs" for thread in threading.enumerate())
