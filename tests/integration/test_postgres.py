"""The embedded PostgreSQL: what it makes, how it refuses, and that kill -9 loses nothing."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from pbx.edge import pgbin
from pbx.edge import postgres as module
from pbx.edge.pgbin import PostgresError
from pbx.edge.postgres import EmbeddedPostgres
from pbx.edge.supervisor import Backoff, Supervisor
from pbx.store.db import Database
from tests.integration.pgrig import RunningPostgres, free_port, short_folder

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def supervised(server: EmbeddedPostgres) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor([server.child()], backoff=Backoff(first_s=0.05))
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def test_roles_have_their_own_secrets_and_rights(folder: Path) -> None:
    server = EmbeddedPostgres(folder, free_port())
    async with supervised(server):
        passwords = {server.password(role) for role in module.ROLES}
        assert len(passwords) == 3
        async with Database(server.url()) as database:
            assert (
                await database.fetchval("SELECT current_user || '@' || current_database()")
                == "careline@careline"
            )
            assert not await database.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            await database.execute("CREATE TABLE thing (n integer)")
            settings = {
                row["name"]: row["setting"]
                for row in await database.fetch("SELECT name, setting FROM pg_settings")
            }
            assert {settings[name] for name in ("fsync", "synchronous_commit", "full_page_writes")} == {"on"}
            assert (settings["max_connections"], settings["data_checksums"]) == ("200", "on")
        async with Database(server.url("kamailio")) as edge:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await edge.fetchval("SELECT n FROM thing")
        by_socket = await asyncpg.connect(
            host=str(server.socket_dir),
            port=server.port,
            user="kamailio",
            password=server.password("kamailio"),
            database="careline",
        )
        await by_socket.close()
        for host in ("127.0.0.1", str(server.socket_dir)):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(
                    host=host, port=server.port, user="careline", password="wrong", database="careline"
                )
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.2", server.port)
    for role in module.ROLES:
        about = (folder / "secrets" / f"{role}.password").stat()
        assert stat.S_IMODE(about.st_mode) == 0o600
        if os.geteuid() == 0:
            assert about.st_uid == server.data.stat().st_uid != 0
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


async def test_the_supervisor_brings_it_back_with_all_that_was_committed(folder: Path) -> None:
    server = EmbeddedPostgres(folder, free_port())
    async with supervised(server) as supervisor, Database(server.url(), acquire_within_s=1.0) as database:
        await database.execute("CREATE TABLE thing (n integer)")
        for number in range(50):
            await database.execute("INSERT INTO thing VALUES ($1)", number)
        pid = supervisor.status()[0].pid
        assert pid is not None
        os.killpg(pid, 9)
        await asyncio.sleep(0.3)
        await database.wait(30)
        assert supervisor.status()[0].restarts == 1
        assert await database.fetchval("SELECT count(*) FROM thing") == 50


async def test_a_second_start_keeps_data_and_passwords(folder: Path) -> None:
    server = EmbeddedPostgres(folder, free_port())
    async with supervised(server), Database(server.url()) as database:
        await database.execute("CREATE TABLE thing (n integer)")
    again = EmbeddedPostgres(folder, free_port())
    assert again.password("careline") == server.password("careline")
    (folder / "secrets" / "kamailio.password").unlink()  # a lost secret is made anew
    async with supervised(again), Database(again.url()) as database:
        assert await database.fetchval("SELECT count(*) FROM thing") == 0
        async with Database(again.url("kamailio")) as edge:
            assert await edge.fetchval("SELECT 1") == 1


async def test_a_half_made_database_is_made_anew(folder: Path) -> None:
    server = EmbeddedPostgres(folder, free_port())
    server._make_folders()
    half = server.home / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")  # initdb was killed here
    async with supervised(server), Database(server.url()) as database:
        assert await database.fetchval("SELECT 1") == 1
    assert not half.exists()


def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PostgresError) as refused:
            EmbeddedPostgres(folder, port).prepare()
    assert str(refused.value) == (
        f"PostgreSQL's port {port} on 127.0.0.1 is not free (Address already in use); stop the program "
        f"that uses it (ss -ltnp 'sport = :{port}' names it) or set another database.port."
    )


def test_data_of_another_major_version_is_left_alone(folder: Path) -> None:
    server = EmbeddedPostgres(folder, free_port())
    server.prepare()
    (server.data / "PG_VERSION").write_text("15\n")
    with pytest.raises(
        PostgresError, match=r"was made by PostgreSQL 15 and this careline brings PostgreSQL 18\. Nothing"
    ):
        server.prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_named(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", str(small)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not allow mounting")
    try:
        with pytest.raises(
            PostgresError, match=r"has 24 MB left and PostgreSQL needs 256 MB; free some room"
        ):
            EmbeddedPostgres(small, free_port()).prepare()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "FREE_BYTES_NEEDED", 0)  # it fills up meanwhile
            with pytest.raises(
                PostgresError, match=r"No space left on device.* Free some room on the disk\."
            ):
                EmbeddedPostgres(small, free_port()).prepare()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    deep = folder / ("x" * 90)
    with pytest.raises(PostgresError, match=r"socket would have .* choose a shorter state_dir"):
        EmbeddedPostgres(deep, 5433).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_a_folder_the_user_cannot_enter_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PostgresError, match=r"The user nobody cannot enter .*closed/state/postgres"):
        EmbeddedPostgres(closed / "state", free_port(), run_as="nobody").prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_users_that_cannot_be_used_are_named(folder: Path) -> None:
    with pytest.raises(PostgresError, match="refuses to run as root"):
        EmbeddedPostgres(folder, 5433, run_as="root")
    with pytest.raises(PostgresError, match='no system user "no-such-user"'):
        EmbeddedPostgres(folder, 5433, run_as="no-such-user")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_binaries_the_user_cannot_read_are_copied_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a virtual environment under /root: the same binaries in a closed folder."""
    found = pgbin.find_binaries()
    package = found.folder.parent.parent
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for name in (package.name, package.name + ".libs"):
        shutil.copytree(package.with_name(name), closed / name, symlinks=True)
    hidden = pgbin.Binaries(folder=closed / found.folder.relative_to(package.parent), major=found.major)
    monkeypatch.setattr(module, "find_binaries", lambda: hidden)
    state = folder / "state"
    running = RunningPostgres(state)
    running.start()
    try:
        assert str(running.server.binaries.folder).startswith(str(state / "pg-bin"))
        assert asyncio.run(_one(running.server.url())) == 1
        copied = running.server.binaries.folder.stat().st_ino
        assert EmbeddedPostgres(state, 5433).binaries.folder.stat().st_ino == copied
    finally:
        running.stop()


async def _one(url: str) -> object:
    async with Database(url) as database:
        return await database.fetchval("SELECT 1")


async def test_its_log_holds_no_values(folder: Path) -> None:
    running = RunningPostgres(folder)
    await asyncio.to_thread(running.start)
    try:
        async with Database(running.server.url()) as database:
            await database.execute("CREATE TABLE thing (number text UNIQUE)")
            await database.execute("INSERT INTO thing VALUES ('15550100123')")
            with pytest.raises(asyncpg.UniqueViolationError):
                await database.execute("INSERT INTO thing VALUES ('15550100123')")
        assert "duplicate key value" in running.log()
        assert "15550100123" not in running.log()
    finally:
        await asyncio.to_thread(running.stop)
