"""coturn as a supervised child: the relay for browsers that cannot reach each other or rtpengine directly.

Credentials are made on demand and expire ("TURN REST API", coturn's use-auth-secret): the user
name is the end of validity in seconds since 1970, the password its HMAC-SHA1 under a secret of both.
Nothing is stored; a leaked pair is worthless soon.
"""

import asyncio
import base64
import hashlib
import hmac
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pbx.config import Config
from pbx.edge.child import ChildCannotStart, ChildSpec
from pbx.edge.files import account, kept_secret, private_file, private_folder, program

PROGRAM = Path("/usr/bin/turnserver")
_MAGIC = bytes.fromhex("2112a442")  # RFC 8489 section 5


@dataclass(frozen=True, kw_only=True)
class TurnCredentials:
    """What a browser puts into its RTCIceServer."""

    urls: tuple[str, ...]  # turn:address:port?transport=…
    username: str
    credential: str


def child(config: Config, run_dir: Path, *, allow_loopback_peers: bool = False) -> ChildSpec:
    """coturn for `config` (edge.turn_port must not be 0). Raises ChildCannotStart.

    `allow_loopback_peers` is for tests on one machine: it lets who has credentials reach our own services.
    """
    if not config.edge.turn_port:
        raise ChildCannotStart("edge.turn_port is 0: the TURN server is switched off.")
    user = account(config.run_as)
    return ChildSpec(
        name="coturn",
        # The secret is in the file, not among the arguments that every user can list.
        argv=(program(PROGRAM, "coturn"), "-c", str(run_dir / "turnserver.conf")),
        cwd=run_dir,
        run_as=user.pw_name if user else None,
        before=lambda: asyncio.to_thread(write_files, config, run_dir, allow_loopback_peers),
        ready=lambda: answers_binding(config.edge.address, config.edge.turn_port, within_s=2.0),
        alive=lambda: answers_binding(config.edge.address, config.edge.turn_port, within_s=2.0),
        stop_within_s=5.0,
    )


def write_files(config: Config, run_dir: Path, allow_loopback_peers: bool = False) -> None:
    """Write coturn's configuration. Blocking. Raises ChildCannotStart."""
    user = account(config.run_as)
    private_folder(run_dir, user)
    edge = config.edge
    lines = [
        f"listening-ip={edge.address}",
        f"listening-port={edge.turn_port}",
        f"relay-ip={edge.address}",
        f"min-port={edge.turn_first}",
        f"max-port={edge.turn_last}",
        f"realm={config.site.realm}",
        "use-auth-secret",
        f"static-auth-secret={secret(config)}",
        "fingerprint",
        "no-cli",
        "no-tls",
        "no-dtls",
        "no-multicast-peers",
        "no-software-attribute",
        "log-file=stdout",
        "simple-log",
        "user-quota=12",
        "total-quota=400",
        f"userdb={run_dir / 'turndb'}",
        f"pidfile={run_dir / 'turnserver.pid'}",
    ]
    if edge.public_address:
        lines.append(f"external-ip={edge.public_address}/{edge.address}")
    if allow_loopback_peers:
        lines.append("allow-loopback-peers")
    else:
        # A relay must not be a way into the machine or the workers' network.
        lines += ["denied-peer-ip=0.0.0.0-0.255.255.255", "denied-peer-ip=127.0.0.0-127.255.255.255"]
        lines += [f"denied-peer-ip={config.workers.address}"]
        if edge.internal_address:
            lines.append(f"denied-peer-ip={edge.internal_address}")
    private_file(run_dir / "turnserver.conf", "\n".join(lines) + "\n", user)


def secret(config: Config) -> str:
    """The secret shared with coturn, kept in state_dir/secrets/turn.secret. Raises ChildCannotStart."""
    user = account(config.run_as)
    folder = config.state_dir / "secrets"
    private_folder(folder, user)
    return kept_secret(folder / "turn.secret", user)


def credentials(config: Config, shared_secret: str, *, lasts: timedelta, at: datetime) -> TurnCredentials:
    """Credentials good from `at` (aware UTC) for `lasts`. Pure; `shared_secret` comes from `secret`."""
    username = str(int((at + lasts).timestamp()))
    mac = hmac.new(shared_secret.encode(), username.encode(), hashlib.sha1).digest()
    host = config.edge.public_address or config.edge.address
    urls = tuple(f"turn:{host}:{config.edge.turn_port}?transport={kind}" for kind in ("udp", "tcp"))
    return TurnCredentials(urls=urls, username=username, credential=base64.b64encode(mac).decode())


async def answers_binding(host: str, port: int, within_s: float) -> bool:
    """Whether a STUN Binding request over UDP (RFC 8489 section 7) gets its success response."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bool] = loop.create_future()
    transaction = os.urandom(12)

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
            if data[:2] == b"\x01\x01" and data[4:20] == _MAGIC + transaction and not answered.done():
                answered.set_result(True)

        def error_received(self, exc: Exception) -> None:
            if not answered.done():
                answered.set_result(False)

    transport, _ = await loop.create_datagram_endpoint(Asking, remote_addr=(host, port))
    try:
        async with asyncio.timeout(within_s):
            while not answered.done():
                transport.sendto(b"\x00\x01\x00\x00" + _MAGIC + transaction)
                await asyncio.wait({answered}, timeout=0.5)
        return answered.result()
    except TimeoutError:
        return False
    finally:
        transport.close()
