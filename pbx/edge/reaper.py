"""Ends the supervisor's children when the supervisor is gone, even by kill -9. A tiny process, stdlib only.

The supervisor writes a line for every process group it starts and ends:

    + PGID SIGNAL   a group runs; SIGNAL asks its leader to stop
    - PGID          it is gone

When the pipe ends, whoever held it died: every group still listed is asked to stop, and after GRACE_S
killed. A process that left its group, or was started in the instant before its line was written, is found
by the mark in its environment. Without this, Kamailio's or a worker's orphans would hold their ports for
ever.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE_S = 3.0
MARK = "CARELINE_SUPERVISOR"


def marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment, without this one."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def send(group: int, sign: int) -> bool:
    """Signal a whole group; False when it has no process left."""
    try:
        os.killpg(group, sign)
    except ProcessLookupError:
        return False
    except PermissionError:  # only zombies of another user are left
        return False
    return True


def main() -> None:
    """`reaper.py MARK`, its stdin the pipe from the supervisor."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    groups: dict[int, int] = {}  # group -> number of the signal that stops its leader
    for line in sys.stdin:
        words = line.split()
        if words[0] == "+":
            groups[int(words[1])] = int(words[2])
        else:
            groups.pop(int(words[1]), None)
    for group, stop in groups.items():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(group, stop)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any([send(group, 0) for group in groups]):
        time.sleep(0.05)
    for group in groups:
        send(group, signal.SIGKILL)
    for pid in marked(sys.argv[1]):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
