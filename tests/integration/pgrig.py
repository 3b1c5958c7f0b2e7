"""A real PostgreSQL for tests: one server a run, one fresh migrated database a test.

Use the fixtures `database_url` or `database` (opened); `tests/integration/conftest.py` re-exports both, other
folders import them from here. Start your own `RunningPostgres` to kill it.
"""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pbx.edge import reaper
from pbx.edge.postgres import EmbeddedPostgres
from pbx.store.db import Database
from pbx.store.migrate import migrate
from pbx.store.schema import SCHEMA, dump

TEMPLATE = "template_careline"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningPostgres:
    """An EmbeddedPostgres started without the supervisor, so that a test can kill and restart it at will."""

    def __init__(self, state_dir: Path, **settings: str) -> None:
        self.server = EmbeddedPostgres(state_dir, free_port(), settings=settings)
        self._log = state_dir / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None  # ends it when the test run is killed

    def start(self, within_s: float = 60.0) -> None:
        """Prepare, start and wait until it accepts connections."""
        self.server.prepare()
        child = self.server.child()
        credentials: dict[str, Any] = {}
        if child.run_as:
            account = pwd.getpwnam(child.run_as)
            credentials = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                child.argv,
                env=dict(child.env),
                stdout=log,
                stderr=log,
                cwd="/",
                process_group=0,
                **credentials,
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, uuid.uuid4().hex],
            stdin=subprocess.PIPE,
            process_group=0,
        )
        assert self._guard.stdin is not None
        self._guard.stdin.write(b"+ %d %d\n" % (self._process.pid, signal.SIGINT))
        self._guard.stdin.flush()
        deadline = time.monotonic() + within_s
        while not asyncio.run(self.server.is_ready()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {self.log()[-2000:]}")
            time.sleep(0.05)

    def log(self) -> str:
        """Everything it wrote so far."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL the whole process group, as a power cut would end it."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._dismiss_guard()

    def stop(self) -> None:
        """Fast shutdown; SIGKILL when that takes longer than 20 s."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None and self._process is not None:
            guard.communicate(b"- %d\n" % self._process.pid, timeout=10)


def short_folder() -> Path:
    """A temporary folder with a path short enough for a unix socket that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[RunningPostgres]:
    """The run's server, with a migrated template database. Do not kill this one."""
    folder = short_folder()
    running = RunningPostgres(folder)
    try:
        running.start()
        asyncio.run(_make_template(running.server))
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


async def _make_template(server: EmbeddedPostgres) -> None:
    await create_database(server, TEMPLATE, "template0")
    database = Database(server.url(database=TEMPLATE))
    await database.open()
    try:
        await migrate(database, datetime.now(UTC))
    finally:
        await database.close()


async def create_database(server: EmbeddedPostgres, name: str, template: str) -> None:
    """CREATE DATABASE name, owned by careline."""
    connection = await asyncpg.connect(server.url("postgres", "postgres"))
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER careline')
    finally:
        await connection.close()


async def drop_database(server: EmbeddedPostgres, name: str) -> None:
    """DROP DATABASE, cutting who is still connected."""
    connection = await asyncpg.connect(server.url("postgres", "postgres"))
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture
async def database_url(postgres: RunningPostgres) -> AsyncIterator[str]:
    """URL of a fresh migrated database, as role careline; dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    await create_database(postgres.server, name, TEMPLATE)
    yield postgres.server.url(database=name)
    await drop_database(postgres.server, name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh migrated database, opened."""
    opened = Database(database_url)
    await opened.open()
    yield opened
    await opened.close()


def main() -> None:
    """Write pbx/store/schema.sql from the migrations, with a server of its own."""
    folder = short_folder()
    running = RunningPostgres(folder)
    try:
        running.start()
        asyncio.run(_make_template(running.server))
        SCHEMA.write_text(dump(running.server.url(database=TEMPLATE)), encoding="utf-8")
    finally:
        running.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
