"""The system under test: who starts it, which process is measured, and what its database holds afterwards."""

from dataclasses import dataclass
from typing import Protocol


class Target(Protocol):
    """A server that answers a menu line and a hotline."""

    name: str  # printed with the figures
    sip: str  # address:port
    menu: str  # number whose menu ends the call on key 1
    hotline: str  # number that dials a clinician on key 1
    pid: int  # the process whose CPU and memory count

    async def start(self) -> None:
        """Start and wait until it takes calls."""

    async def stop(self) -> None:
        """End everything that was started."""

    def database_cpu_s(self) -> float | None:
        """CPU time of its database so far; None without one."""

    async def records(self) -> tuple[int, int] | None:
        """(calls, ended calls) in its database; None without one."""


@dataclass
class External:
    """A server somebody else started, for comparisons: nothing is started or stopped."""

    sip: str
    pid: int
    menu: str = "menu"
    hotline: str = "hotline"
    name: str = "external"

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def database_cpu_s(self) -> float | None:
        """Unknown."""
        return None

    async def records(self) -> tuple[int, int] | None:
        """Unknown."""
        return None
