"""careline itself as the system under test: an embedded PostgreSQL of its own and one `careline worker`.

The worker is the real application with its database writes. The edge's place is taken by the bank of phones,
so that only the worker is measured. Flows and roster are tests/bench/dialplans, prompts are the shipped ones.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pbx.edge.postgres import EmbeddedPostgres
from pbx.store.db import Database
from pbx.store.migrate import migrate
from tests.bench import machine
from tests.bench.machine import LOAD_CORE, WORKER_CORE, pinned
from tests.bench.rig import PHONES_PORT

DIALPLANS = Path(__file__).with_name("dialplans")
CARELINE = Path(sys.executable).with_name("careline")
PROMPTS = Path(__file__).parents[2] / "dialplans" / "prompts" / "en.toml"
MENU_PROMPT = """
[prompt.bench_menu]
text = "This line measures the telephone server. To go on with the measurement, press 1 at any time."
"""
DATABASE_PORT = 58543
WORKER_PORT = 58060
READY_WITHIN_S = 60.0
RENDER_WITHIN_S = 300.0
CONFIG = """\
state_dir = "{state}"
dialplans = "{dialplans}"
prompts_cache = "{prompts}"
log_level = "warning"

[database]
port = {database_port}

[edge]
address = "127.0.0.1"
udp_port = {phones_port}

[workers]
count = 1
first_port = {worker_port}
rtp_first = 12000
rtp_ports_each = 4000
max_calls = 500
drain_s = 0

[[emr.connectors]]  # its notes and outbox rows are written; no courier runs
name = "bench"
kind = "fhir"
base_url = "http://127.0.0.1:9/fhir"
"""


@dataclass
class CarelineWorker:
    """Owns the database and the worker it starts."""

    folder: Path  # state and logs
    cache: Path  # rendered prompts survive there
    name: str = "careline worker"
    sip: str = f"127.0.0.1:{WORKER_PORT}"
    menu: str = "menu"
    hotline: str = "hotline"
    pid: int = 0
    _server: EmbeddedPostgres | None = None
    _database: asyncio.subprocess.Process | None = None
    _worker: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Database, schema, prompts, worker. Raises RuntimeError naming the log of what did not come up."""
        self.folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        state = self.folder / "state"
        config = self.folder / "careline.toml"
        dialplans = self.folder / "dialplans"
        shutil.copytree(DIALPLANS, dialplans)
        (dialplans / "prompts").mkdir()
        (dialplans / "prompts" / "en.toml").write_text(PROMPTS.read_text() + MENU_PROMPT)
        config.write_text(
            CONFIG.format(
                state=state,
                dialplans=dialplans,
                prompts=self.cache / "prompts",
                database_port=DATABASE_PORT,
                phones_port=PHONES_PORT,
                worker_port=WORKER_PORT,
            )
        )
        await self._render(config)
        self._server = EmbeddedPostgres(state, DATABASE_PORT)
        await self._start_database(self._server)
        async with Database(self._server.url()) as database:
            await migrate(database, datetime.now(UTC))
        with (self.folder / "worker.log").open("wb") as log:
            self._worker = await asyncio.create_subprocess_exec(
                *pinned(WORKER_CORE, str(CARELINE), "--config", str(config), "worker", "--number", "1"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._worker.pid  # taskset becomes the program
        await _answers_options(("127.0.0.1", WORKER_PORT), self._worker, self.folder / "worker.log")

    async def _render(self, config: Path) -> None:
        """Render the prompts ahead, on all cores; what is in the cache is not rendered again."""
        process = await asyncio.create_subprocess_exec(
            str(CARELINE), "--config", str(config), "prompts", stdout=sys.stderr
        )
        try:
            code = await asyncio.wait_for(process.wait(), RENDER_WITHIN_S)
        finally:
            if process.returncode is None:
                process.kill()
        if code != 0:
            raise RuntimeError("the prompts could not be rendered; the reason is above")

    async def _start_database(self, server: EmbeddedPostgres) -> None:
        await asyncio.to_thread(server.prepare)
        child = server.child()
        with (self.folder / "postgres.log").open("wb") as log:
            self._database = await asyncio.create_subprocess_exec(
                *pinned(LOAD_CORE, *child.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(child.env),
                user=child.run_as,
                start_new_session=True,
            )
        deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
        while not await server.is_ready():
            if self._database.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"PostgreSQL did not start; see {self.folder}/postgres.log")
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Worker first, then its database; each by its process group, SIGKILL after a bound."""
        for process, stop_signal, within_s in (
            (self._worker, signal.SIGTERM, 15),
            (self._database, signal.SIGINT, 20),
        ):
            if process is None or process.returncode is not None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, stop_signal)
            try:
                await asyncio.wait_for(process.wait(), within_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def database_cpu_s(self) -> float | None:
        """PostgreSQL's CPU time, all its processes."""
        return machine.family_cpu_s(self._database.pid) if self._database else None

    async def records(self) -> tuple[int, int] | None:
        """Rows of calls, and of those that have their end."""
        if self._server is None:
            return None
        async with Database(self._server.url(), max_size=1) as database:
            row = await database.fetchrow("SELECT count(*) AS calls, count(ended_at) AS ended FROM call")
        return int(row["calls"]), int(row["ended"])


async def _answers_options(address: tuple[str, int], worker: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until the worker answers SIP at all (RFC 3261 11)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        probe.bind(("127.0.0.1", 0))
        probe.connect(address)
        port = probe.getsockname()[1]
        for number in range(1, 10_000):
            with contextlib.suppress(ConnectionRefusedError):
                await loop.sock_sendall(probe, _options(number, port, address[1]))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await loop.sock_recv(probe, 65535)
                        return
            if worker.returncode is not None or loop.time() > deadline:
                raise RuntimeError(f"careline worker did not come up; see {log}")
            await asyncio.sleep(0.2)


def _options(number: int, port: int, to: int) -> bytes:
    lines = [
        f"OPTIONS sip:127.0.0.1:{to} SIP/2.0",
        f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKready{number}",
        "Max-Forwards: 70",
        f"From: <sip:bench@127.0.0.1>;tag=ready{number}",
        f"To: <sip:127.0.0.1:{to}>",
        f"Call-ID: ready-{number}-{port}",
        "CSeq: 1 OPTIONS",
        "Content-Length: 0",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
