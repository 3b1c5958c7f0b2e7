"""Kamailio as a supervised child: its configuration is rendered from careline.toml at every start.

What it does is in `templates/`, with the reasons. Here: which values go in, the files around it
(destinations, addresses, trunk accounts, certificate), all 0600 in the run directory of its user, and how to
see that it answers. It dies as a whole: SIGKILL of its first process alone would leave the others on its
ports; the supervisor kills the process group.

A call outlives a restart: nothing about dialogs is kept here, later requests follow the Record-Route we wrote
and rtpengine goes on with the media. A phone on TCP, TLS or WebSocket loses its connection and registers
again.
"""

import asyncio
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from pbx.config import Config, Trunk
from pbx.edge import certs, rpc
from pbx.edge.child import ChildCannotStart, ChildSpec
from pbx.edge.files import account, kept_secret, private_file, private_folder, program

PROGRAM = Path("/usr/sbin/kamailio")
WORKER_SILENCE_MS = 2000  # no answer at all, not even 100: the next worker is tried
WORKER_ANSWER_MS = 20_000  # a provisional answer and then nothing: the worker died or hangs
TRUNK_SILENCE_MS = 3000
PHONE_SILENCE_MS = 5000  # a mobile may have to wake up
RING_MS = 180_000  # bound on ringing; callers of phones bound it tighter themselves
RETRY_AFTER_S = 5
_LOG_LEVELS = {
    "debug": 2,
    "info": 0,
    "warning": 0,
    "error": -1,
}  # Kamailio: 2 info, 1 notice, 0 warning, -1 error
_WORKERS, _TRUNKS = 1, 2  # dispatcher sets
_FROM_TRUNK, _DIRECT, _NEVER_BANNED = 1, 3, 4  # address groups


def worker_uris(config: Config) -> list[str]:
    """SIP URIs of the workers as the dispatcher names them, worker 1 first."""
    workers = config.workers
    return [f"sip:{workers.address}:{workers.first_port + n}" for n in range(workers.count)]


def address_for_workers(config: Config) -> str:
    """ "address:port" that workers send their requests to (UDP)."""
    return f"{config.edge.internal_address or config.edge.address}:{config.edge.udp_port}"


def child(config: Config, run_dir: Path, database_url: str) -> ChildSpec:
    """Kamailio for `config`; `run_dir` is its own folder, `database_url` the restricted role's (postgresql://…).

    Its files are written before every start. Raises ChildCannotStart for settings that cannot work.
    """
    user = account(config.run_as)
    _check(config)
    return ChildSpec(
        name="kamailio",
        argv=(
            program(PROGRAM, "kamailio"),
            *("-f", str(run_dir / "kamailio.cfg")),
            "-DD",  # stay in the foreground
            "-E",  # log to stderr
            *("-Y", str(run_dir)),  # runtime folder
            *("-w", str(run_dir)),
            *("-m", "64"),  # MB of shared memory, for all processes
            *("-M", "8"),  # MB of private memory, each
        ),
        # The edge's tables have a schema of their own; Kamailio knows no schemas, libpq does.
        env={
            "PGOPTIONS": "-c search_path=edge",
            "PGCONNECT_TIMEOUT": "2",
            "PGSSLMODE": _ssl_mode(database_url),
        },
        cwd=run_dir,
        run_as=user.pw_name if user else None,
        before=lambda: asyncio.to_thread(write_files, config, run_dir, database_url),
        ready=lambda: is_alive(config, run_dir),
        alive=lambda: is_alive(config, run_dir),
        alive_every_s=10.0,  # 30 s without an answer: it serves nobody any more
        stop_within_s=5.0,
    )


async def is_alive(config: Config, run_dir: Path) -> bool:
    """Whether its control socket and its SIP processes answer, each within two seconds."""
    try:
        await rpc.call(run_dir, "core.uptime", within_s=2.0)
    except rpc.RpcError:
        return False
    return await answers_options(config.edge.address, config.edge.udp_port, within_s=2.0)


async def answers_options(host: str, port: int, within_s: float) -> bool:
    """Whether a SIP OPTIONS over UDP (RFC 3261 section 11) gets any answer; asked again every 0.5 s."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bool] = loop.create_future()

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
            if data.startswith(b"SIP/2.0 ") and not answered.done():
                answered.set_result(True)

        def error_received(self, exc: Exception) -> None:
            if not answered.done():
                answered.set_result(False)

    transport, _ = await loop.create_datagram_endpoint(Asking, remote_addr=(host, port))
    try:
        own_host, own_port = transport.get_extra_info("sockname")[:2]
        tag = secrets.token_hex(8)
        request = (
            f"OPTIONS sip:{host}:{port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {own_host}:{own_port};branch=z9hG4bK{tag};rport\r\n"
            f"From: <sip:supervisor@{own_host}>;tag={tag}\r\nTo: <sip:{host}:{port}>\r\n"
            f"Call-ID: {tag}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        async with asyncio.timeout(within_s):
            while not answered.done():
                transport.sendto(request)
                await asyncio.wait({answered}, timeout=0.5)
        return answered.result()
    except TimeoutError:
        return False
    finally:
        transport.close()


def write_files(config: Config, run_dir: Path, database_url: str) -> None:
    """Write everything Kamailio reads. Blocking. Raises ChildCannotStart."""
    user = account(config.run_as)
    private_folder(run_dir, user)
    edge = config.edge
    values = _values(config, run_dir, database_url, kept_secret(run_dir / "nonce.secret", user))
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("pbx.edge", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - SIP configuration, not HTML; values are checked by pbx.config
    )
    for name in ("kamailio.cfg", "tls.cfg"):
        private_file(run_dir / name, templates.get_template(f"{name}.j2").render(values), user)
    private_file(run_dir / "dispatcher.list", _dispatcher_list(config), user)
    private_file(run_dir / "address.list", _address_list(config), user)
    if edge.tls_port or edge.wss_port:
        folder = config.state_dir / "certificates"
        host = edge.public_address or edge.address
        found = certs.pair(edge.tls_certificate, edge.tls_key, folder, host, user)
        private_file(run_dir / "certificate.pem", found.certificate, user)
        private_file(run_dir / "key.pem", found.key, user)
    if any(trunk.register_account for trunk in config.trunk):
        private_folder(run_dir / "trunks", user)
        for name, text in _registrations(config).items():
            private_file(run_dir / "trunks" / name, text, user)


def _check(config: Config) -> None:
    """What pydantic cannot see. Raises ChildCannotStart."""
    edge = config.edge
    for key, networks in (("direct_networks", edge.direct_networks), ("never_banned", edge.never_banned)):
        for network in networks:
            _network(network, f"edge.{key}")
    for trunk in config.trunk:
        for network in trunk.addresses:
            _network(network, f"trunk.{trunk.name}.addresses")
        if (trunk.username == "") != (trunk.password_file is None):
            raise ChildCannotStart(f"trunk.{trunk.name}: username and password_file go together; set both.")
        if trunk.register_account and not trunk.username:
            raise ChildCannotStart(f"trunk.{trunk.name}: register needs username and password_file.")
        if trunk.transport == "tls" and not edge.tls_port:
            raise ChildCannotStart(
                f"trunk.{trunk.name} uses tls; set edge.tls_port, which it is called from."
            )


def _network(text: str, key: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ChildCannotStart(
            f'{key}: "{text}" is not a network such as 192.0.2.0/24; correct it.'
        ) from error


def _values(config: Config, run_dir: Path, database_url: str, nonce_secret: str) -> Mapping[str, object]:
    edge = config.edge
    workers = worker_uris(config)
    registrations = [trunk for trunk in config.trunk if trunk.register_account]
    internal = edge.internal_address if edge.internal_address != edge.address else ""
    return {
        "run_dir": run_dir,
        "database_url": _kamailio_url(database_url),
        "nonce_secret": nonce_secret,
        "log_level": _LOG_LEVELS[config.log_level],
        "listeners": _listeners(config, internal),
        "internal_address": internal,
        "nowhere": internal or edge.address,  # port 9 (discard) there: a request is lost on purpose
        "processes": edge.processes,
        "tls_port": edge.tls_port,
        "ws_port": edge.ws_port,
        "wss_port": edge.wss_port,
        "ng_port": edge.ng_port,
        "realm": config.site.realm,
        "digest": edge.digest,
        "max_contacts": edge.max_contacts,
        "ban_s": edge.ban_s,
        "wrong_passwords": edge.wrong_passwords,
        "flood_requests_per_2s": edge.flood_requests_per_2s,
        "direct_networks": edge.direct_networks,
        "workers": workers,
        "worker_silence_ms": WORKER_SILENCE_MS,
        "worker_answer_ms": WORKER_ANSWER_MS,
        # at least once each, and as often as the caller may be held; each attempt is a branch, of 30
        "worker_attempts": min(24, max(len(workers), edge.wait_for_worker_s * 1000 // WORKER_SILENCE_MS)),
        "trunk_silence_ms": TRUNK_SILENCE_MS,
        "phone_silence_ms": PHONE_SILENCE_MS,
        "ring_ms": RING_MS,
        "retry_after_s": RETRY_AFTER_S,
        "contact_address": f"{edge.public_address or edge.address}:{edge.udp_port}",
        "tls_trunks": any(trunk.transport == "tls" for trunk in config.trunk),
        "verify_trunks": edge.verify_trunk_certificates,
        "registrations": registrations,
        "trunks": [
            {
                "uri": _trunk_uri(trunk),
                "username": trunk.username,
                "username_hex": trunk.username.encode().hex(),
                "password_hex": _password(trunk).encode().hex(),
            }
            for trunk in config.trunk
        ],
    }


def _listeners(config: Config, internal: str) -> list[str]:
    """Values of Kamailio's `listen`: what phones are told differs from what we bind behind NAT."""
    edge = config.edge
    wanted = [
        ("udp", edge.udp_port),
        ("tcp", edge.udp_port),
        ("tls", edge.tls_port),
        ("tcp", edge.ws_port),
        ("tls", edge.wss_port),
    ]
    found = []
    for protocol, port in wanted:
        if port:
            told = f" advertise {edge.public_address}:{port}" if edge.public_address else ""
            found.append(f"{protocol}:{edge.address}:{port}{told}")
    if internal:
        found.append(f"udp:{internal}:{edge.udp_port}")
    return found


def _kamailio_url(database_url: str) -> str:
    """postgresql://user:password@host:port/name as Kamailio's db_url. Raises ChildCannotStart."""
    found = re.fullmatch(r"postgres(?:ql)?://([^:@/]+):([^@/]+)@([^/?]+)/([^?]+)(\?.*)?", database_url)
    if found is None:
        raise ChildCannotStart(
            "The database URL for Kamailio must be postgresql://user:password@host:port/name."
        )
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", found[2]):
        raise ChildCannotStart(
            "The password of Kamailio's database role has characters that Kamailio cannot read."
        )
    return f"postgres://{found[1]}:{found[2]}@{found[3]}/{found[4]}"


def _ssl_mode(database_url: str) -> str:
    """The URL's sslmode; libpq's own default without one."""
    found = re.search(r"[?&]sslmode=([a-z-]+)", database_url)
    return found[1] if found else "prefer"


def _trunk_uri(trunk: Trunk) -> str:
    transport = "" if trunk.transport == "udp" else f";transport={trunk.transport}"
    return f"sip:{trunk.host}:{trunk.port or 5060}{transport}"


def _password(trunk: Trunk) -> str:
    if trunk.password_file is None:
        return ""
    try:
        if trunk.password_file.stat().st_mode & 0o077:
            raise ChildCannotStart(
                f"trunk.{trunk.name}: {trunk.password_file} can be read by others; chmod 600 it."
            )
        found = trunk.password_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ChildCannotStart(
            f"trunk.{trunk.name}: {trunk.password_file} cannot be read ({error.strerror}); create it."
        ) from error
    if not found:
        raise ChildCannotStart(f"trunk.{trunk.name}: {trunk.password_file} is empty; put the password there.")
    return found


def _dispatcher_list(config: Config) -> str:
    """set, URI, flags (8 probe, 16 resolve at use), priority."""
    lines = [f"{_WORKERS} {uri} 8 0" for uri in worker_uris(config)]
    lines += [f"{_TRUNKS} {_trunk_uri(trunk)} 16 {trunk.priority}" for trunk in config.trunk]
    return "\n".join(lines) + "\n"


def _address_list(config: Config) -> str:
    """group, address, mask, port, tag. A trunk we register at calls from its host if none is given."""
    lines = []
    for trunk in config.trunk:
        networks = trunk.addresses or (_resolve(trunk) if trunk.register_account else ())
        for network in networks:
            found = _network(network, f"trunk.{trunk.name}.addresses")
            lines.append(
                f"{_FROM_TRUNK} {found.network_address} {found.prefixlen} {trunk.source_port} {trunk.name}"
            )
    for group, texts in ((_DIRECT, config.edge.direct_networks), (_NEVER_BANNED, config.edge.never_banned)):
        for text in texts:
            found = _network(text, "edge")
            lines.append(f"{group} {found.network_address} {found.prefixlen}")
    return "\n".join(lines or ["# no addresses"]) + "\n"


def _resolve(trunk: Trunk) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(trunk.host, None, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        raise ChildCannotStart(
            f'trunk.{trunk.name}: the name "{trunk.host}" cannot be resolved; set addresses or mend DNS.'
        ) from error
    return tuple(sorted({str(entry[4][0]) for entry in found}))


def _registrations(config: Config) -> Mapping[str, str]:
    """Files of Kamailio's db_text, table uacreg layout 5: our accounts at trunks."""
    columns = (
        "id(int,auto) l_uuid(string) l_username(string) l_domain(string) r_username(string) r_domain(string) "
        "realm(string,null) auth_username(string) auth_password(string) auth_ha1(string,null) "
        "auth_proxy(string) expires(int) flags(int) reg_delay(int) contact_addr(string,null) "
        "socket(string,null) "
    )
    rows = [columns]
    for number, trunk in enumerate((t for t in config.trunk if t.register_account), start=1):
        user, password = _text(trunk.username), _text(_password(trunk))
        proxy = _text(_trunk_uri(trunk))
        rows.append(
            f"{number}:{trunk.name}:{user}:{config.site.realm}:{user}:{trunk.host}::{user}:{password}::{proxy}:"
            "600:0:0::"
        )
    version = "id(int,auto) table_name(string) table_version(int) \n1:version:1\n2:uacreg:5\n"
    return {"uacreg": "\n".join(rows) + "\n", "version": version}


def _text(value: str) -> str:
    """A value of a db_text file: its separator and escape characters escaped."""
    return value.replace("\\", "\\\\").replace(":", "\\:").replace("\n", "\\n")
