"""One running child: its process group, its log lines, its end within bounds. Knows nothing of restarts."""

import asyncio
import contextlib
import os
import pwd
import signal
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from pbx import logs
from pbx.edge.child import ChildCannotStart, ChildSpec

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIECE = 65_536  # bytes read at once, and the longest line that is kept whole


class Process:
    """A started child. `ended` is set when its leader is gone; then what is left of its group is killed."""

    def __init__(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.pid = process.pid  # also the id of its process group
        self.last_lines: deque[str] = deque(maxlen=5)  # for the sentence that says why it did not start
        self.ended = asyncio.Event()
        self._process = process
        self._reading = asyncio.create_task(self._read(), name=f"{spec.name} lines")
        self._waiting = asyncio.create_task(self._wait(), name=f"{spec.name} end")

    @property
    def exit(self) -> str:
        """How it ended: "status 1" or "signal SIGKILL"; empty while it runs."""
        code = self._process.returncode
        if code is None:
            return ""
        return f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    async def stop(self) -> bool:
        """Ask it to stop, kill the whole group after the spec's bound. True when it obeyed."""
        obeyed = True
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, self.spec.stop_signal)
            try:
                await asyncio.wait_for(self.ended.wait(), self.spec.stop_within_s)
            except TimeoutError:
                obeyed = False
        self.kill()
        await asyncio.wait([self._waiting])
        await asyncio.wait([self._reading], timeout=1.0)
        self._reading.cancel()  # a stranger outside the group may hold the pipe open
        return obeyed

    def kill(self) -> None:
        """SIGKILL to the group, whoever is left in it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _wait(self) -> None:
        """Notice the leader's end by its pidfd: asyncio's wait may also wait for whoever holds its pipe."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            loop.add_reader(descriptor, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        self.kill()  # orphans of a leader that died would keep its ports
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 1.0)
        self.ended.set()

    async def _read(self) -> None:
        """Pass its lines on as fast as they come, so that it never waits for us."""
        stream = self._process.stdout
        assert stream is not None
        rest = b""
        while piece := await stream.read(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._line(line)
            if len(rest) > _PIECE:
                self._line(rest)
                rest = b""
        if rest:
            self._line(rest)

    def _line(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            self.last_lines.append(line)
            logs.child_line(self.spec.name, line, is_json=self.spec.json_logs)


async def spawn(spec: ChildSpec, marks: Mapping[str, str], started: Callable[[int], None]) -> Process:
    """Start a child in its own process group, as `run_as` when we are root; `started` gets its pid at once.

    Its stdout and stderr are one stream of log lines. Raises ChildCannotStart when the program cannot be run.
    """
    credentials = _credentials(spec)
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/", **spec.env, **marks}
    try:
        process = await asyncio.create_subprocess_exec(
            *spec.argv,
            env=environment,
            cwd=spec.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            limit=2 * _PIECE,
            **credentials,
        )
    except OSError as error:
        who = f" as user {spec.run_as}" if credentials else ""
        raise ChildCannotStart(
            f"{spec.name} cannot be started{who}: {spec.argv[0]} in {spec.cwd}: {error.strerror}; "
            "is it installed, and may that user read and run it?"
        ) from error
    started(process.pid)
    return Process(spec, process)


def _credentials(spec: ChildSpec) -> dict[str, Any]:
    if spec.run_as is None or os.geteuid() != 0:
        return {}
    try:
        account = pwd.getpwnam(spec.run_as)
    except KeyError as error:
        raise ChildCannotStart(
            f'{spec.name} shall run as "{spec.run_as}" and there is no such user; create it or set run_as.'
        ) from error
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
