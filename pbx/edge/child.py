"""What the supervisor has to know about one child process. Pure value; running it is `supervisor`'s."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals


class ChildCannotStart(Exception):
    """A child must not be started now; the message is a sentence that says what to do."""


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """A foreground program that runs in its own process group and is restarted with backoff when it ends."""

    name: str  # short, unique, used in logs: "postgres", "kamailio", "worker-1"
    argv: tuple[str, ...]  # absolute program path first
    env: Mapping[str, str] = field(default_factory=dict)  # added to a minimal environment
    cwd: Path = Path("/")
    run_as: str | None = None  # user to become when we are root
    before: Callable[[], Awaitable[None]] | None = None  # run before every start; raises ChildCannotStart
    ready: Callable[[], Awaitable[bool]] | None = None  # asked until true; None: ready once started
    ready_within_s: float = 20.0
    alive: Callable[[], Awaitable[bool]] | None = None  # asked while it runs; None: running is alive
    alive_every_s: float = 10.0  # also the bound on one answer
    alive_failures: int = 3  # this many bad answers in a row and the child is stopped and restarted
    stop_signal: Signals = SIGTERM
    stop_within_s: float = 10.0  # then SIGKILL to the whole group
    json_logs: bool = False  # its stderr lines are already our JSON; else each line is wrapped
