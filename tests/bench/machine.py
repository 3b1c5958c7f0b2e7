"""What /proc says about processes and the machine: CPU time, memory, descriptors, lost datagrams."""

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
WORKER_CORE = "0"  # the system under test alone
LOAD_CORE = str(min(1, (os.cpu_count() or 1) - 1))  # generators and the database


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from `state` on (proc(5)); empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_s(pid: int) -> float:
    """User and system time of one process, in seconds; 0 when it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S if fields else 0.0


def family(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def family_cpu_s(pid: int) -> float:
    """CPU time of a process tree, ended and awaited children of its members included."""
    total = 0
    for member in family(pid):
        if fields := _stat(member):
            total += sum(int(value) for value in fields[11:15])
    return total / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes); 0 when the process is gone."""
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if fields else 0.0


def descriptors(pid: int) -> int:
    """Open file descriptors; 0 when the process is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return 0


def datagrams_dropped() -> int:
    """UDP datagrams the kernel dropped for full receive buffers, machine-wide, since boot (RFC 4113)."""
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    )
    return int(values[names.index("RcvbufErrors")])


def pinned(core: str, *argv: str) -> list[str]:
    """The command, bound to one core."""
    return ["taskset", "-c", core, *argv]


def move(pid: int, *cores: str) -> None:
    """Bind a process tree with all its threads to these cores; what it starts later inherits them."""
    for member in family(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for task in os.listdir(f"/proc/{member}/task"):
                os.sched_setaffinity(int(task), {int(core) for core in cores})


def conditions() -> dict[str, object]:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "load_average_before": os.getloadavg()[0],
    }


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at a process."""

    at_s: float  # since the watch began
    rss_mb: float
    descriptors: int


async def watch(pid: int, samples: list[Sample], every_s: float = 1.0) -> None:
    """Append a sample each `every_s` until cancelled."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        samples.append(Sample(at_s=loop.time() - began, rss_mb=rss_mb(pid), descriptors=descriptors(pid)))
        await asyncio.sleep(every_s)
