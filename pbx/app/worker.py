"""`careline worker`: one engine, its calls, its journal, its lease, put together and taken down in order."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pbx import logs
from pbx.app import control, ghosts, plans
from pbx.app.places import (
    control_socket,
    database_url,
    message_dir,
    utc_now,
    worker_name,
)
from pbx.app.story import Story, notes_of
from pbx.calls import Calls, CallSettings
from pbx.config import Config
from pbx.core.call_events import Limits
from pbx.edge.kamailio import address_for_workers
from pbx.sip.engine import Engine, EngineError, EngineSettings
from pbx.store import workers
from pbx.store.db import Database, DatabaseAway
from pbx.store.journal import Journal

log = logging.getLogger("careline.worker")

FLUSH_WITHIN_S = 5.0  # what is not in PostgreSQL by then waits in the spool
SHED_WITHIN_S = 10.0  # engine: hang up, close


class Worker:
    """One running worker."""

    def __init__(self, config: Config, number: int) -> None:
        self._config = config
        self._number = number
        self._name = worker_name(config, number)
        self._sip_port = config.workers.first_port + number - 1
        self._connectors = [connector.name for connector in config.emr.connectors]
        self._database = Database(database_url(config), max_size=4, application_name=f"careline {self._name}")
        self._journal = Journal(
            self._database, config.state_dir / "spool", notes_of(self._connectors, utc_now)
        )
        self._live = plans.LivePlans(config, plans.read(config))
        self._engine = Engine(self._engine_settings(), lambda event: self._calls.on_leg_event(event))
        self._calls = Calls(
            telephony=self._engine,
            dialplans=lambda: self._live.plans.dialplans,
            prompts=lambda: self._live.plans.prompts,
            roster=lambda: self._live.plans.duty,
            timeline=Story(self._journal, self._name),
            settings=self._call_settings(),
        )
        self._draining = False
        self._started_at = utc_now()  # before any call: an older call of this name is a predecessor's
        self._registered = False
        self._reloading: asyncio.Task[Mapping[str, Any]] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Take calls until `stop` is set, then drain and leave nothing behind."""
        message_dir(self._config).mkdir(parents=True, exist_ok=True, mode=0o700)
        async with AsyncExitStack() as stack:
            await self._database.open(within_s=0)
            stack.push_async_callback(self._database.close)
            stack.push_async_callback(self._forget)
            await self._journal.start()
            stack.push_async_callback(self._journal.close, FLUSH_WITHIN_S)
            await stack.enter_async_context(self._owned(self._keep_lease()))
            await stack.enter_async_context(
                self._owned(ghosts.watch(self._database, self._connectors, utc_now))
            )
            await self._engine.start()
            stack.push_async_callback(self._engine.stop, SHED_WITHIN_S)
            socket = control_socket(self._config, self._number)
            server = await control.serve(
                socket, {"status": self._status, "drain": self._drain, "reload": self._reload}
            )
            stack.callback(server.close)
            log.info("worker ready", extra={"action": "ready", "worker": self._name, "port": self._sip_port})
            await stop.wait()
            await self._drain()
            log.info("worker drains", extra={"action": "drain", "calls": len(self._calls)})
            clean = await self._calls.drain(self._config.workers.drain_s)
            log.info("worker drained", extra={"action": "drained", "clean": clean})

    async def _status(self) -> Mapping[str, Any]:
        return {
            "worker": self._name,
            "calls": len(self._calls),
            "faults": self._calls.failures,
            "draining": self._draining,
            "engine": dict(self._engine.counters()),
            "journal": dict(self._journal.counters()),
        }

    async def _drain(self) -> Mapping[str, Any]:
        self._draining = True
        self._engine.set_admission(0)
        return {"draining": True, "calls": len(self._calls)}

    async def _reload(self) -> Mapping[str, Any]:
        problems = await asyncio.to_thread(self._live.reload)
        return {"reloaded": not problems, "problems": [str(problem) for problem in problems]}

    def reload_soon(self) -> None:
        """Read the dialplans again, in the background; a second wish while one is read is the same wish."""
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    @asynccontextmanager
    async def _owned(self, work: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(work)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_lease(self) -> None:
        """Register and renew the lease until cancelled; PostgreSQL may come and go."""
        while True:
            now = utc_now()
            try:
                if not self._registered or not await workers.heartbeat(
                    self._database, name=self._name, started_at=self._started_at, at=now, lease=ghosts.LEASE
                ):
                    await workers.register(
                        self._database,
                        name=self._name,
                        sip_address=f"{self._config.workers.address}:{self._sip_port}",
                        pid=os.getpid(),
                        host=self._name.partition("/")[0],
                        at=self._started_at,
                        lease=(now - self._started_at) + ghosts.LEASE,
                    )
                    self._registered = True
            except DatabaseAway:
                log.warning("lease not renewed", extra={"action": "lease"})
            except Exception:  # whatever it is: a worker that stops renewing would have its live calls buried
                log.exception("lease not renewed", extra={"action": "lease"})
            await asyncio.sleep(ghosts.LEASE.total_seconds() / 5)

    async def _forget(self) -> None:
        """At a clean end the row goes, once every end of a call is stored."""
        try:
            await workers.forget(self._database, name=self._name, started_at=self._started_at)
        except DatabaseAway:
            log.warning("row left behind", extra={"action": "forget"})

    def _engine_settings(self) -> EngineSettings:
        settings = self._config.workers
        return EngineSettings(
            address=settings.address,
            sip_port=self._sip_port,
            rtp_first=settings.rtp_first + (self._number - 1) * settings.rtp_ports_each,
            rtp_ports=settings.rtp_ports_each,
            hold_music=self._live.plans.prompts.tone("hold_music"),
            max_calls=settings.max_calls,
            edge=address_for_workers(self._config),
        )

    def _call_settings(self) -> CallSettings:
        hunt, site = self._config.hunt, self._config.site
        return CallSettings(
            site=site.name,
            time_zone=site.time_zone,
            edge=address_for_workers(self._config),
            message_dir=message_dir(self._config),
            clock=utc_now,
            limits=Limits(
                ring_s=hunt.ring_s,
                accept_s=hunt.accept_s,
                rounds=hunt.rounds,
                message_s=hunt.voicemail_s,
                max_call_s=hunt.max_call_s,
            ),
        )


def main(config: Config, number: int) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reads the dialplans again. Leaves the process."""
    os.umask(0o077)  # recordings and spool are nobody else's
    logs.configure(config.log_level, f"worker-{number}")
    try:
        asyncio.run(_run(config, number))
        code = 0
    except (plans.PlansError, EngineError, OSError) as error:
        log.error("worker cannot run", extra={"action": "start", "reason": str(error)})
        code = 1
    logs.shutdown()
    # pjsua's own clean-up at the interpreter's exit may abort; everything of ours is closed by now.
    os._exit(code)


async def _run(config: Config, number: int) -> None:
    worker = Worker(config, number)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, worker.reload_soon)
    await worker.run(stop)
