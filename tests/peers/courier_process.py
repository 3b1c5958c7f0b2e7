"""A courier as a process of its own, for tests that kill it.

Arguments: DSN, FHIR base, name, timeout in seconds.
"""

import asyncio
import signal
import sys

from emr_bridge.courier import Courier
from emr_bridge.transport import ConnectorSettings


async def main(dsn: str, base_url: str, name: str, timeout_s: float) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = ConnectorSettings(name="emr", base_url=base_url, timeout_s=timeout_s)
    await Courier(dsn, [settings], name).run(stop)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
