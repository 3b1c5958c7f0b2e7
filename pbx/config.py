"""The one configuration tree of careline: every key typed and documented, unknown keys refused.

Not here: what a clinic edits daily (flows, numbers, roster: `dialplans/`) and what lives in the database
(phone accounts). A relative path is relative to the folder of careline.toml.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ivr.problems import Problem, from_validation

Port = Annotated[int, Field(ge=0, le=65535)]  # 0 switches a listener off


class Table(BaseModel):
    """A table of the tree: frozen, strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(Table):
    """The clinic."""

    name: str = Field("careline", description="Name of the hotline, shown to staff and written into notes.")
    country: str = Field(
        "US", min_length=2, max_length=2, description="ISO 3166 code; decides the emergency number."
    )
    time_zone: str = Field("UTC", description="IANA zone of rosters and opening hours.")
    realm: str = Field(
        "careline",
        pattern="^[A-Za-z0-9_.-]{1,64}$",
        description="SIP realm of phone accounts; changing it voids every password.",
    )
    default_country_code: str = Field("1", description="Country calling code of numbers dialled without one.")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f'"{value}" is not an IANA time zone such as "America/Chicago"') from error
        return value


class Database(Table):
    """PostgreSQL: our own child by default, an external server when `url` is given."""

    url: str = Field("", description="postgresql://… of an external server; empty: the embedded one.")
    port: Port = Field(5433, description="Port of the embedded server on 127.0.0.1.")


class Edge(Table):
    """Kamailio, rtpengine and coturn: what phones and trunks see."""

    address: str = Field("127.0.0.1", description="Address the edge listens on.")
    public_address: str = Field(
        "", description="Address phones reach it at when NAT lies between; empty: `address`."
    )
    udp_port: Port = Field(5060, description="SIP over UDP and TCP.")
    tls_port: Port = Field(5061, description="SIP over TLS; 0 switches it off.")
    ws_port: Port = Field(0, description="SIP over WebSocket for browsers behind a TLS proxy; 0: off.")
    wss_port: Port = Field(5443, description="SIP over secure WebSocket; 0: off.")
    tls_certificate: Path | None = Field(
        None, description="PEM chain; without one a self-signed pair is made."
    )
    tls_key: Path | None = Field(None, description="PEM key of the certificate.")
    rtp_first: Port = Field(30000, description="First media port of rtpengine.")
    rtp_last: Port = Field(34999, description="Last media port of rtpengine.")
    ng_port: Port = Field(22222, description="rtpengine's control port on 127.0.0.1.")
    turn_port: Port = Field(0, description="coturn's port; 0: no TURN server.")
    turn_first: Port = Field(49152, description="First relay port of coturn.")
    turn_last: Port = Field(49999, description="Last relay port of coturn.")
    internal_address: str = Field(
        "", description="Address of the edge on the workers' network; empty: the same `address`."
    )
    digest: Literal["md5", "sha-256"] = Field(
        "md5", description="Digest algorithm of phones; sha-256 only when every phone knows RFC 8760."
    )
    max_contacts: int = Field(10, ge=1, le=20, description="Phones registered at once for one account.")
    processes: int = Field(
        4, ge=1, le=64, description="Kamailio processes a UDP listener, and as many for TCP."
    )
    wait_for_worker_s: int = Field(
        8, ge=2, le=30, description="Seconds a caller is held while no worker answers; then 503."
    )
    never_banned: tuple[str, ...] = Field(
        (), description="Networks (CIDR) never banned: a proxy before `ws_port`, a clinic's NAT address."
    )
    verify_trunk_certificates: bool = Field(
        True, description="Refuse a TLS trunk whose certificate no authority of this machine signed."
    )
    direct_networks: tuple[str, ...] = Field(
        (),
        description="Networks (CIDR) whose phones exchange media with workers without rtpengine.",
    )
    flood_requests_per_2s: int = Field(
        60, ge=1, description="Requests from one address in 2 s before it is banned."
    )
    ban_s: int = Field(300, ge=1, description="Seconds a flooding or password-guessing address stays banned.")
    wrong_passwords: int = Field(
        20, ge=1, description="Wrong passwords from one address before it is banned."
    )


class Trunk(Table):
    """One way to the telephone network."""

    name: str = Field(
        pattern="^[A-Za-z0-9_.-]{1,32}$", description="Short name, used in logs and caller-ID rules."
    )
    host: str = Field(pattern=r"^[A-Za-z0-9.-]+$", description="Host name or address calls are sent to.")
    port: Port = Field(5060, description="Port calls are sent to.")
    transport: Literal["udp", "tcp", "tls"] = Field("udp", description="Transport towards the trunk.")
    addresses: tuple[str, ...] = Field(
        (), description="Networks (CIDR) its calls come from; they need no password."
    )
    source_port: Port = Field(0, description="Port its calls come from; 0: any.")
    username: str = Field("", description="Account for trunks that authenticate by password.")
    password_file: Path | None = Field(
        None, description="File with the password, readable by careline alone."
    )
    register_account: bool = Field(
        False, alias="register", description="Register there, for trunks without a fixed address."
    )
    priority: int = Field(0, description="Higher is tried first; the next one on failure.")


class Workers(Table):
    """Call-handling processes, one a core."""

    count: int = Field(1, ge=1, le=64, description="How many on this machine.")
    address: str = Field("127.0.0.1", description="Address they listen on; loopback or a private network.")
    first_port: Port = Field(
        5071, description="SIP port of worker 1; worker n listens on first_port + n - 1."
    )
    rtp_first: Port = Field(10000, description="First media port of worker 1.")
    rtp_ports_each: int = Field(4000, ge=100, description="Media ports a worker; a leg takes two.")
    max_calls: int = Field(
        250, ge=1, le=500, description="Callers one worker admits; beyond it 503 with Retry-After."
    )
    drain_s: int = Field(
        300, ge=0, description="Seconds a stopping worker lets running calls end by themselves."
    )


class Connector(Table):
    """One EMR that notes are delivered to."""

    name: str = Field(description="Short name, part of the delivery key.")
    kind: Literal["fhir"] = Field("fhir", description="How notes are delivered.")
    base_url: str = Field(description="FHIR base, for example https://emr.example/fhir/R4.")
    token_file: Path | None = Field(None, description="File with a bearer token.")
    timeout_s: float = Field(10.0, gt=0, description="Bound on one request.")
    conditional_create: bool = Field(
        True, description="The server honours If-None-Exist, so a repeat is harmless."
    )


class Emr(Table):
    """Where call notes go."""

    connectors: tuple[Connector, ...] = Field((), description="Every note goes to each of these.")


class Hunt(Table):
    """How a clinician is found for a waiting caller."""

    ring_s: float = Field(
        25.0, gt=0, le=120, description="Seconds a clinician's phones ring before the next is tried."
    )
    accept_s: float = Field(15.0, gt=0, le=60, description="Seconds from pick-up to the accepting key.")
    rounds: int = Field(2, ge=1, le=10, description="Times the whole list is tried before the last resort.")
    voicemail_s: float = Field(180.0, gt=0, le=900, description="Longest message a caller can leave.")
    max_call_s: float = Field(7200.0, gt=0, description="Longest call; a bound, not a habit.")


class Config(Table):
    """careline.toml."""

    site: Site = Field(default_factory=lambda: Site.model_validate({}))
    database: Database = Field(default_factory=lambda: Database.model_validate({}))
    edge: Edge = Field(default_factory=lambda: Edge.model_validate({}))
    workers: Workers = Field(default_factory=lambda: Workers.model_validate({}))
    trunk: tuple[Trunk, ...] = ()
    emr: Emr = Field(default_factory=lambda: Emr.model_validate({}))
    hunt: Hunt = Field(default_factory=lambda: Hunt.model_validate({}))
    state_dir: Path = Field(
        Path("/var/lib/careline"), description="Database, recordings, spool, generated configuration."
    )
    dialplans: Path = Field(Path("dialplans"), description="Folder of flows, numbers, roster and prompts.")
    prompts_cache: Path = Field(Path("/var/cache/careline/prompts"), description="Rendered prompts.")
    run_as: str = Field(
        "", description="User the children become when started as root; empty: careline, else nobody."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe line logged."
    )

    @model_validator(mode="after")
    def _media_ports_are_apart(self) -> "Config":
        """Two programs on one port would hear each other's calls."""
        edge, workers = self.edge, self.workers
        first, last = workers.rtp_first, workers.rtp_first + workers.count * workers.rtp_ports_each - 1
        if last > 65535:
            raise ValueError(
                f"the media ports of {workers.count} workers would end at {last}, beyond 65535; "
                "lower workers.rtp_first or workers.rtp_ports_each"
            )
        shared = workers.address in (edge.address, edge.internal_address)
        if shared and first <= edge.rtp_last and edge.rtp_first <= last:
            raise ValueError(
                f"the workers' media ports {first} to {last} overlap those of the edge, {edge.rtp_first} to "
                f"{edge.rtp_last}, on the same address; move workers.rtp_first or edge.rtp_first"
            )
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Config":
        for what, names in (
            ("trunk", [t.name for t in self.trunk]),
            ("emr.connectors", [c.name for c in self.emr.connectors]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f'{what} has two entries named "{twice[0]}"; give each its own name')
        return self


class ConfigError(Exception):
    """careline.toml cannot be used; `problems` holds one sentence each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


def load(path: Path) -> Config:
    """Read careline.toml strictly. Raises ConfigError with every fault at once."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            [Problem(file=str(path), path="", sentence="There is no such file; name one with --config.")]
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Problem(file=str(path), path="", sentence=f"This is not valid TOML: {error}.")]
        ) from error
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(from_validation(str(path), error, Config)) from error
    base = path.resolve().parent
    edge = config.edge.model_copy(
        update={
            "tls_certificate": config.edge.tls_certificate and base / config.edge.tls_certificate,
            "tls_key": config.edge.tls_key and base / config.edge.tls_key,
        }
    )
    trunks = (
        t.model_copy(update={"password_file": t.password_file and base / t.password_file})
        for t in config.trunk
    )
    return config.model_copy(
        update={
            "edge": edge,
            "trunk": tuple(trunks),
            "state_dir": base / config.state_dir,
            "dialplans": base / config.dialplans,
            "prompts_cache": base / config.prompts_cache,
        }
    )
