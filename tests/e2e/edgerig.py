"""The real edge for tests: rtpengine, Kamailio and PostgreSQL as children, each role on its own address.

edge 127.0.49.1   workers 127.0.49.2   trunks 127.0.49.3, .4   phones 127.0.49.10 and up
"""

import asyncio
import os
import pwd
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pbx.config import Config
from pbx.edge import kamailio, ng, rpc, rtpengine
from pbx.edge.child import ChildSpec
from pbx.store import phones
from pbx.store.db import Database
from tests.integration.pgrig import (
    TEMPLATE,
    RunningPostgres,
    create_database,
    drop_database,
    short_folder,
)

EDGE = "127.0.49.1"
WORKERS = "127.0.49.2"
TRUNK_A, TRUNK_B = "127.0.49.3", "127.0.49.4"
SIP_PORT, TLS_PORT, WS_PORT, WSS_PORT, NG_PORT = 49060, 49061, 49062, 49063, 49022
WORKER_PORT = 49071
TRUNK_PORT = 49080
PASSWORD = "correct-horse-battery"


class RunningChild:
    """One ChildSpec started as the supervisor would, to be killed at will."""

    def __init__(self, spec: ChildSpec, log: Path) -> None:
        self.spec = spec
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """`before`, start, wait for `ready`. Raises RuntimeError with the end of the log."""
        if self.spec.before:
            await self.spec.before()
        credentials: dict[str, Any] = {}
        if self.spec.run_as:
            account = pwd.getpwnam(self.spec.run_as)
            credentials = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **self.spec.env},
                cwd=self.spec.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                **credentials,
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.spec.ready_within_s
        while self.spec.ready and not await self.spec.ready():
            if self._process.returncode is not None or loop.time() > deadline:
                await self.kill()
                raise RuntimeError(f"{self.spec.name} did not start: {self.log()[-3000:]}")
            await asyncio.sleep(0.05)

    def log(self) -> str:
        """Everything it wrote so far."""
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether its first process lives."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.wait_for(self._process.wait(), 10)

    async def stop(self) -> None:
        """The stop signal, then SIGKILL to what is left of the group."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(self.spec.stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.spec.stop_within_s)
        await self.kill()


@dataclass
class Edge:
    """The running edge."""

    config: Config
    folder: Path
    database: Database
    postgres: RunningPostgres
    kamailio: RunningChild
    rtpengine: RunningChild
    accounts: list[str] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        """Kamailio's folder."""
        return self.folder / "run" / "kamailio"

    async def add_phone(self, username: str, password: str = PASSWORD) -> None:
        """A phone account."""
        await phones.add(
            self.database,
            username,
            realm=self.config.site.realm,
            at=datetime.now(UTC),
            password=password,
        )

    async def held_calls(self) -> list[str]:
        """Call-IDs rtpengine holds."""
        return await ng.calls(("127.0.0.1", self.config.edge.ng_port))

    async def worker_states(self, wanted: Mapping[int, str], within_s: float = 6.0) -> None:
        """Wait until worker n (from 1) is in a state. Raises AssertionError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while True:
            found = {d.uri: d.state for d in await rpc.workers(self.run_dir)}
            uris = kamailio.worker_uris(self.config)
            if all(found[uris[n - 1]] == state for n, state in wanted.items()):
                return
            assert loop.time() < deadline, f"workers are {found}, wanted {wanted}"
            await asyncio.sleep(0.1)


def settings(folder: Path, *, edge: Mapping[str, Any] | None = None, **tables: Any) -> Config:
    """A configuration in the test's ports and addresses; `edge` overrides its keys, `tables` whole tables."""
    tree: dict[str, Any] = {
        "state_dir": folder,
        "edge": {
            "address": EDGE,
            "udp_port": SIP_PORT,
            "tls_port": TLS_PORT,
            "ws_port": WS_PORT,
            "wss_port": WSS_PORT,
            "ng_port": NG_PORT,
            "rtp_first": 50000,
            "rtp_last": 51999,
            "processes": 2,
            **(edge or {}),
        },
        "workers": {"count": 2, "address": WORKERS, "first_port": WORKER_PORT},
        "trunk": [
            {
                "name": "alpha",
                "host": TRUNK_A,
                "port": TRUNK_PORT,
                "addresses": [f"{TRUNK_A}/32"],
                "priority": 10,
            },
            {
                "name": "beta",
                "host": TRUNK_B,
                "port": TRUNK_PORT,
                "addresses": [f"{TRUNK_B}/32"],
                "priority": 5,
            },
        ],
        **tables,
    }
    return Config.model_validate(tree)


@asynccontextmanager
async def running_edge(
    postgres: RunningPostgres, *, edge: Mapping[str, Any] | None = None, **tables: Any
) -> AsyncIterator[Edge]:
    """Start the edge on a fresh migrated database; end everything afterwards."""
    folder = short_folder()
    config = settings(folder, edge=edge, **tables)
    name = f"e_{uuid.uuid4().hex[:12]}"
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        await create_database(postgres.server, name, TEMPLATE)
        stack.push_async_callback(drop_database, postgres.server, name)
        database = Database(postgres.server.url(database=name))
        await database.open()
        stack.push_async_callback(database.close)
        media = RunningChild(rtpengine.child(config, folder / "run" / "rtpengine"), folder / "rtpengine.log")
        stack.push_async_callback(media.stop)
        await media.start()
        sip = RunningChild(
            kamailio.child(config, folder / "run" / "kamailio", postgres.server.url("kamailio", name)),
            folder / "kamailio.log",
        )
        stack.push_async_callback(sip.stop)
        await sip.start()
        yield Edge(
            config=config,
            folder=folder,
            database=database,
            postgres=postgres,
            kamailio=sip,
            rtpengine=media,
        )
