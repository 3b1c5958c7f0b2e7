"""The supervisor with real child processes: order, restarts, bounds, and nothing left behind."""

import asyncio
import functools
import logging
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pbx.edge import reaper
from pbx.edge.child import ChildCannotStart, ChildSpec
from pbx.edge.supervisor import Backoff, ChildState, ChildStatus, Supervisor
from tests.integration.pgrig import free_port

pytestmark = pytest.mark.integration

QUICK = Backoff(first_s=0.05, most_s=0.2, well_after_s=5.0)
# A leader with a child of its own that holds a port, as Kamailio's processes do.
FAMILY = """
import os, signal, socket, sys, time
port = int(sys.argv[1])
if os.fork() == 0:
    held = socket.create_server(("127.0.0.1", port))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True: time.sleep(1)
time.sleep(1000)
"""


def python(name: str, code: str, *arguments: object, **fields: object) -> ChildSpec:
    spec = ChildSpec(
        name=name, argv=(sys.executable, "-c", code, *(str(a) for a in arguments)), stop_within_s=3.0
    )
    return replace(spec, **fields)  # type: ignore[arg-type]


def holds(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


async def until(what: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def started(*specs: ChildSpec, backoff: Backoff = QUICK) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(specs, backoff=backoff)
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


def one(supervisor: Supervisor, name: str) -> ChildStatus:
    return next(status for status in supervisor.status() if status.name == name)


async def test_children_start_in_order_when_the_one_before_is_ready_and_stop_in_reverse(
    tmp_path: Path,
) -> None:
    story = tmp_path / "story"
    code = """
import pathlib, signal, sys, time
story, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def say(what):
    with story.open("a") as out: out.write(name + " " + what + "\\n")
def end(*_):
    say("ends"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
say("starts"); time.sleep(0.3); say("ready")
while True: time.sleep(1)
"""

    def is_ready(name: str) -> Callable[[], object]:
        async def ask() -> bool:
            return f"{name} ready" in story.read_text() if story.exists() else False

        return ask

    specs = [python(name, code, story, name, ready=is_ready(name)) for name in ("a", "b")]
    async with started(*specs) as supervisor:
        assert [status.state for status in supervisor.status()] == [ChildState.READY] * 2
        assert len({status.pid for status in supervisor.status()}) == 2
        for status in supervisor.status():
            assert status.pid is not None
            assert os.getpgid(status.pid) == status.pid
    assert story.read_text().split("\n")[:-1] == [
        "a starts", "a ready", "b starts", "b ready", "b ends", "a ends",
    ]  # fmt: skip
    assert {status.state for status in supervisor.status()} == {ChildState.STOPPED}
    assert {status.last_exit for status in supervisor.status()} == {"status 0"}


async def test_only_the_child_that_ended_is_restarted_and_its_orphans_are_killed() -> None:
    ports = free_port(), free_port()
    async with started(python("a", FAMILY, ports[0]), python("b", FAMILY, ports[1])) as supervisor:
        await until(lambda: holds(ports[0]) and holds(ports[1]))
        first, other = one(supervisor, "a").pid, one(supervisor, "b").pid
        assert first is not None
        os.kill(first, signal.SIGKILL)  # only the leader: its child still holds the port
        await until(
            lambda: one(supervisor, "a").restarts == 1 and one(supervisor, "a").state is ChildState.READY
        )
        assert one(supervisor, "a").pid != first
        assert (one(supervisor, "b").pid, one(supervisor, "b").restarts) == (other, 0)
        await until(lambda: holds(ports[0]))  # the new family could bind it
    assert not holds(ports[0])
    assert not holds(ports[1])


async def test_a_child_that_ignores_the_stop_is_killed_within_its_bound() -> None:
    port = free_port()
    code = FAMILY.replace(
        "time.sleep(1000)", "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    )
    async with started(python("deaf", code, port, stop_within_s=0.5)) as supervisor:
        await until(lambda: holds(port))
        await asyncio.sleep(0.2)
        began = time.monotonic()
    assert 0.4 < time.monotonic() - began < 2.5
    assert one(supervisor, "deaf").last_exit == "signal SIGKILL"
    assert not holds(port)


async def test_a_child_that_keeps_ending_is_restarted_with_growing_pauses() -> None:
    async with started(python("ends", "import time; time.sleep(0.2)")) as supervisor:
        await until(lambda: one(supervisor, "ends").restarts >= 3)
        assert one(supervisor, "ends").last_exit in ("", "status 0")
    pauses = [sum(QUICK.pause_s(n) for _ in range(200)) / 200 for n in (1, 2, 3, 4, 50)]
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.2, 0.2], rel=0.1)
    assert all(0.0375 <= QUICK.pause_s(1) <= 0.0625 for _ in range(200))


async def test_a_first_start_that_fails_says_why_and_leaves_nothing() -> None:
    port = free_port()
    bad = python("bad", "import sys; print('no such option', file=sys.stderr); sys.exit(3)", ready=_never)
    with pytest.raises(ChildCannotStart) as failed:
        async with started(python("good", FAMILY, port), bad):
            pass
    assert str(failed.value) == "bad ended with status 3 before it was ready; its last lines: no such option."
    assert not holds(port)


async def test_a_child_that_never_gets_ready_fails_the_start_within_its_bound() -> None:
    began = time.monotonic()
    with pytest.raises(
        ChildCannotStart, match=r"slow did not become ready within 0\.5 s; its last lines: still at it\."
    ):
        async with started(
            python(
                "slow",
                "import time; print('still at it', flush=True); time.sleep(99)",
                ready=_never,
                ready_within_s=0.5,
            )
        ):
            pass
    assert time.monotonic() - began < 5


async def _never() -> bool:
    return False


async def test_a_program_that_is_not_there_or_a_user_that_is_not_is_named() -> None:
    with pytest.raises(ChildCannotStart, match="gone cannot be started: /no/such/program in /: No such file"):
        async with started(ChildSpec(name="gone", argv=("/no/such/program",))):
            pass
    if os.geteuid() == 0:
        with pytest.raises(ChildCannotStart, match='shall run as "no-such-user"'):
            async with started(ChildSpec(name="x", argv=("/bin/true",), run_as="no-such-user")):
                pass


async def test_what_must_be_done_before_is_done_before_every_start() -> None:
    count = 0

    async def before() -> None:
        nonlocal count
        count += 1

    async with started(python("a", "import time; time.sleep(0.2)", before=before)) as supervisor:
        await until(lambda: one(supervisor, "a").restarts >= 2)
        assert count >= 3

    async def refuse() -> None:
        raise ChildCannotStart("Port 1 is taken; free it.")

    with pytest.raises(ChildCannotStart, match=r"^Port 1 is taken; free it\.$"):
        async with started(ChildSpec(name="a", argv=("/bin/true",), before=refuse)):
            pass


async def test_a_child_that_no_longer_answers_is_restarted() -> None:
    answers = True

    async def alive() -> bool:
        return answers

    spec = python("a", "import time; time.sleep(99)", alive=alive, alive_every_s=0.05, alive_failures=3)
    async with started(spec) as supervisor:
        await asyncio.sleep(0.4)
        assert one(supervisor, "a").restarts == 0
        answers = False
        await until(lambda: one(supervisor, "a").restarts == 1)
        answers = True
        await until(lambda: one(supervisor, "a").state is ChildState.READY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_child_of_root_becomes_the_user_named(tmp_path: Path) -> None:
    async with started(ChildSpec(name="a", argv=("/bin/sleep", "99"), run_as="nobody")) as supervisor:
        pid = one(supervisor, "a").pid
        assert pid is not None
        status = Path(f"/proc/{pid}/status").read_text()
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        assert f"Uid:\t{nobody}\t{nobody}\t{nobody}\t{nobody}" in status
        groups = next(line for line in status.splitlines() if line.startswith("Groups:"))
        assert "0" not in groups.split()[1:]


async def test_lines_of_children_become_one_stream_and_a_chatty_one_is_not_blocked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "careline.child")
    code = """
import sys
print("to stdout", flush=True)
print("to stderr sip:anna@edge", file=sys.stderr, flush=True)
sys.stderr.write("x" * 200000 + "\\n")
for n in range(20000): print("line", n)
print("done", flush=True)
import time; time.sleep(99)
"""
    async with started(python("chatty", code)):
        await until(lambda: "done" in [record.getMessage() for record in caplog.records[-3:]])
    said = [record.getMessage() for record in caplog.records if record.name == "careline.child"]
    assert {"to stdout", "to stderr sip:anna@edge", "line 19999"} <= set(said)
    assert max(map(len, said)) < 20000
    assert {
        getattr(record, "child", None) for record in caplog.records if record.name == "careline.child"
    } == {"chatty"}


async def test_run_until_stops_in_the_middle_of_a_start_and_after_it() -> None:
    for slow in (True, False):
        port = free_port()
        stop = asyncio.Event()
        specs = [python("a", FAMILY, port)]
        if slow:
            specs.append(python("b", "import time; time.sleep(99)", ready=_never))
        supervisor = Supervisor(specs, backoff=QUICK)
        running = asyncio.create_task(supervisor.run_until(stop))
        await until(functools.partial(holds, port))
        stop.set()
        await asyncio.wait_for(running, 10)
        assert not holds(port)
        assert all(status.pid is None for status in supervisor.status())


PARENT = """
import asyncio, os, sys
from pbx.edge.child import ChildSpec
from pbx.edge.supervisor import Supervisor
from tests.integration.test_supervisor import FAMILY, python

async def main():
    supervisor = Supervisor([python("a", FAMILY, sys.argv[1]), python("b", FAMILY, sys.argv[2])])
    await supervisor.start()
    print(supervisor._reaper._process.pid, *(status.pid for status in supervisor.status()), flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("reaper_dies_first", [False, True])
async def test_a_supervisor_killed_with_sigkill_leaves_no_process_and_no_port(
    reaper_dies_first: bool,
) -> None:
    ports = free_port(), free_port()
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, *map(str, ports), stdout=subprocess.PIPE, process_group=0
    )
    assert parent.stdout is not None
    try:
        guard, *pids = map(int, (await asyncio.wait_for(parent.stdout.readline(), 20)).split())
        await until(lambda: holds(ports[0]) and holds(ports[1]))
        family = [
            process for pid in pids for process in [psutil.Process(pid), *psutil.Process(pid).children()]
        ]
        assert len(family) == 4
        if reaper_dies_first:
            os.kill(guard, signal.SIGKILL)
            await asyncio.sleep(1.5)  # another one is started and told everything
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        await parent.wait()
    await until(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family),
        reaper.GRACE_S + 5,
    )
    assert not holds(ports[0])
    assert not holds(ports[1])


async def test_a_child_that_left_its_group_is_found_by_its_mark() -> None:
    stray = await asyncio.create_subprocess_exec(
        "/bin/sleep", "99", env={reaper.MARK: "abc"}, start_new_session=True
    )
    other = await asyncio.create_subprocess_exec("/bin/sleep", "99", env={reaper.MARK: "abcd"})
    try:
        assert await asyncio.to_thread(reaper.marked, "abc") == [stray.pid]
        guard = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", reaper.__file__, "abc", stdin=-1
        )
        assert guard.stdin is not None
        guard.stdin.close()
        assert await asyncio.wait_for(guard.wait(), 10) == 0
        assert await asyncio.wait_for(stray.wait(), 5) == -signal.SIGKILL
        assert other.returncode is None
    finally:
        for process in (stray, other):
            if process.returncode is None:
                process.kill()
            await process.wait()


def test_two_children_of_one_name_are_refused() -> None:
    spec = ChildSpec(name="a", argv=("/bin/true",))
    with pytest.raises(ValueError, match='Two children are named "a"'):
        Supervisor([spec, spec])
