"""`careline up`: everything on one machine, started in order, kept running, stopped in reverse order.

Order: PostgreSQL, its schema, rtpengine, Kamailio, coturn, courier, prompts, workers. At the stop every
worker first refuses new calls and lets the ones it has end, while all they need is still there.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pbx import logs
from pbx.app import control, plans
from pbx.app.places import control_socket, database_url, embedded, python_user, run_dir, utc_now
from pbx.config import Config
from pbx.edge import coturn, kamailio, rtpengine
from pbx.edge.child import ChildCannotStart, ChildSpec
from pbx.edge.supervisor import Supervisor
from pbx.store.db import Database, DatabaseAway
from pbx.store.migrate import MigrationError, migrate

log = logging.getLogger("careline.up")
Say = Callable[[str], None]


class Hotline:
    """The parts of one machine. `async with` starts them; leaving drains and stops them."""

    def __init__(self, config: Config, config_path: Path, say: Say) -> None:
        """`say` gets a line of progress for people."""
        self._config = config
        self._config_path = config_path.resolve()
        self._say = say
        self._reloading: asyncio.Task[None] | None = None
        config.state_dir.mkdir(parents=True, exist_ok=True)
        self._supervisor: Supervisor | None = None

    @property
    def supervisor(self) -> Supervisor:
        """What keeps the parts running, once they were started."""
        if self._supervisor is None:
            raise RuntimeError("This Hotline was not started.")
        return self._supervisor

    async def __aenter__(self) -> Self:
        if not self._config.database.url:  # first: the roles' passwords are made here and others need them
            self._say("starting PostgreSQL")
            await asyncio.to_thread(embedded(self._config).prepare)
        self._supervisor = Supervisor(self._children())
        await self._supervisor.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.drain()
        await self.supervisor.stop()

    async def drain(self) -> None:
        """Let every worker refuse new calls; those it has go on."""
        await self._tell_workers("drain")

    async def reload(self) -> None:
        """Let every worker read the dialplans again."""
        await self._tell_workers("reload")

    async def _tell_workers(self, word: str) -> None:
        for number in range(1, self._config.workers.count + 1):
            try:
                await control.ask(control_socket(self._config, number), word, within_s=60.0)
            except (OSError, TimeoutError, ValueError):
                log.warning("worker not reached", extra={"action": word, "worker": f"worker-{number}"})

    def reload_soon(self) -> None:
        """`reload` in the background; a second wish while one is under way is the same wish."""
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self.reload())

    def _children(self) -> list[ChildSpec]:
        config = self._config
        specs = []
        kamailio_url = config.database.url
        if not config.database.url:
            server = embedded(config)
            specs.append(server.child())
            kamailio_url = server.url("kamailio")
        media = rtpengine.child(config, run_dir(config, "rtpengine"))
        specs.append(self._after("starting the edge: rtpengine and Kamailio", media, self._migrate))
        specs.append(kamailio.child(config, run_dir(config, "kamailio"), kamailio_url))
        if config.edge.turn_port:
            specs.append(coturn.child(config, run_dir(config, "coturn")))
        specs.append(self._after("starting the courier", courier_child(config, self._config_path)))
        for number in range(1, config.workers.count + 1):
            worker = worker_child(config, self._config_path, number)
            if number == 1:
                worker = self._after("reading dialplans and starting the workers", worker, self._render)
            specs.append(worker)
        return specs

    def _after(
        self, text: str, spec: ChildSpec, work: Callable[[], Awaitable[None]] | None = None
    ) -> ChildSpec:
        """`spec`, with `text` said and `work` done before its first start only."""
        first = True
        own = spec.before

        async def before() -> None:
            nonlocal first
            if first:
                self._say(text)
                if work is not None:
                    await work()
                first = False
            if own is not None:
                await own()

        return replace(spec, before=before)

    async def _migrate(self) -> None:
        try:
            async with Database(database_url(self._config), max_size=1) as database:
                applied = await migrate(database, utc_now())
        except (MigrationError, DatabaseAway) as error:
            raise ChildCannotStart(str(error)) from error
        if applied:
            self._say(f"database schema brought up to {applied[-1]}")

    async def _render(self) -> None:
        try:
            await asyncio.to_thread(plans.read, self._config, progress=self._rendering)
        except plans.PlansError as error:
            raise ChildCannotStart(str(error)) from error

    def _rendering(self, done: int, of: int) -> None:
        if done == of or done % max(1, of // 5) == 0:
            self._say(f"rendering prompts: {done} of {of}")


def _python_child(config: Config, config_path: Path, name: str, *arguments: str) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-m", "pbx", "--config", str(config_path), *arguments),
        cwd=config.state_dir,
        run_as=python_user(config),
        json_logs=True,
    )


def worker_child(config: Config, config_path: Path, number: int) -> ChildSpec:
    """Worker `number`; alive while its event loop answers, so a hung one is replaced."""
    socket = control_socket(config, number)
    return replace(
        _python_child(config, config_path, f"worker-{number}", "worker", "--number", str(number)),
        ready=lambda: control.is_alive(socket),
        alive=lambda: control.is_alive(socket),
        alive_every_s=5.0,
        stop_within_s=config.workers.drain_s + 30.0,
    )


def courier_child(config: Config, config_path: Path) -> ChildSpec:
    """The courier; what it is delivering when it must stop is taken over by the next one."""
    socket = run_dir(config, "courier") / "control.sock"
    return replace(
        _python_child(config, config_path, "courier", "courier"),
        ready=lambda: control.is_alive(socket),
        alive=lambda: control.is_alive(socket),
        stop_within_s=30.0,
    )


def main(config: Config, config_path: Path) -> int:
    """Run until SIGTERM or SIGINT. SIGHUP lets the workers read the dialplans again."""
    logs.configure(config.log_level, "up")
    try:
        return asyncio.run(_run(config, config_path))
    finally:
        logs.shutdown()


async def _run(config: Config, config_path: Path) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def say(text: str) -> None:
        log.info(text, extra={"action": "up"})

    try:
        hotline = Hotline(config, config_path, say)
        async with hotline:
            loop.add_signal_handler(signal.SIGHUP, hotline.reload_soon)
            log.info("the hotline is up", extra={"action": "up", "pid": os.getpid()})
            await stop.wait()
            log.info("stopping: no new calls, running calls may end", extra={"action": "stop"})
    except (ChildCannotStart, OSError) as error:
        log.error("the hotline cannot start", extra={"action": "start", "reason": str(error)})
        sys.stderr.write(f"careline up: {error}\n")
        return 1
    return 0
