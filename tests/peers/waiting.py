"""Bounded waits for what a peer reports, and where peers live on loopback."""

import asyncio
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_serial = itertools.count(1)


class Missed(AssertionError):
    """Something a test waited for did not happen in time."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One report of a peer."""

    t: float  # seconds since the epoch
    kind: str  # "incoming", "ringing", "answered", "digit", "ended", ...
    call: int | None  # number of the call it is about
    detail: Mapping[str, Any]  # everything else


class Reports:
    """The ordered events of one peer and bounded waits for them. Belongs to one asyncio loop."""

    name: str  # of the peer, for messages

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.gone = False  # the peer has ended
        self._news = asyncio.Event()

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._ring_news()

    def _ring_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _log_tail(self) -> str:
        """The end of the peer's own log, for messages."""
        return ""

    async def until(self, check: Callable[[], T | None], within_s: float, what: str) -> T:
        """What `check` gives once it is not None, asked at every report. Raises Missed."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            news = self._news
            found = check()
            if found is not None:
                return found
            if self.gone:
                raise Missed(f"{what}: {self.name} has ended; its log: {self._log_tail()}")
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                late = check()
                if late is not None:
                    return late
                recent = [(event.kind, event.call) for event in self.events[-12:]]
                raise Missed(f"{what}: not within {within_s} s; {self.name} saw last: {recent}") from None

    async def event(self, kind: str, within_s: float, *, call: int | None = None, **detail: object) -> Event:
        """The first report of that kind, call and details, past or to come. Raises Missed."""

        def check() -> Event | None:
            for event in self.events:
                fits = event.kind == kind and call in (None, event.call)
                if fits and all(event.detail.get(key) == value for key, value in detail.items()):
                    return event
            return None

        about = f" about call {call}" if call else ""
        return await self.until(
            check, within_s, f"{kind!r}{about} with {detail}" if detail else f"{kind!r}{about}"
        )


def own_address() -> str:
    """A loopback address no other phone of this machine is likely to have: by process id and a counter."""
    pid, n = os.getpid(), next(_serial)
    return f"127.{64 + pid % 128}.{pid // 128 % 254 + 1}.{n % 254 + 1}"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A throw-away self-signed certificate and key for a TLS listener, made by openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    if not cert.exists():
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]
        subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    return cert, key


def free_port(bind: str, kind: int = socket.SOCK_DGRAM) -> int:
    """A port of that address nobody uses right now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((bind, 0))
        return int(probe.getsockname()[1])
