"""`careline courier`: delivers what waits in the outbox to every configured EMR."""

import asyncio
import logging
import signal
import socket
from dataclasses import asdict

from emr_bridge.courier import Courier
from emr_bridge.transport import ConnectorSettings
from pbx import logs
from pbx.app import control
from pbx.app.places import database_url, run_dir, utc_now
from pbx.config import Config

log = logging.getLogger("careline.courier")


def connectors_of(config: Config) -> list[ConnectorSettings]:
    """The EMRs of the configuration, as the bridge wants them."""
    return [
        ConnectorSettings(
            name=connector.name,
            base_url=connector.base_url,
            token_file=connector.token_file,
            timeout_s=connector.timeout_s,
            conditional_create=connector.conditional_create,
        )
        for connector in config.emr.connectors
    ]


def main(config: Config) -> int:
    """Run until SIGTERM or SIGINT."""
    logs.configure(config.log_level, "courier")
    try:
        asyncio.run(_run(config))
    except OSError as error:
        log.error("courier cannot run", extra={"action": "start", "reason": str(error)})
        return 1
    finally:
        logs.shutdown()
    return 0


async def _run(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    courier = Courier(
        database_url(config), connectors_of(config), f"{socket.gethostname()}/courier", clock=utc_now
    )

    async def status() -> dict[str, object]:
        return {"connectors": dict(courier.counters()), "lag": [asdict(one) for one in courier.lag()]}

    server = await control.serve(run_dir(config, "courier") / "control.sock", {"status": status})
    try:
        await courier.run(stop)
    finally:
        server.close()
