"""Forward-only schema changes: `migrations/NNNN_name.sql`, each applied once, in order, in its transaction.

An applied file never changes: it is known by its checksum, and a changed file is refused. Many processes may
call `migrate` at once; an advisory lock lets one of them work while the others wait.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pbx.store.db import Database
from pbx.store.sql import queries

log = logging.getLogger("careline.store")

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x63_61_72_65  # "care": one number for all careline migrations of a database
_FILE = re.compile(r"(\d{4})_([a-z][a-z0-9_]*)\.sql")


class MigrationError(Exception):
    """The database and the migration files do not fit; the message says which and what to do."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file of the folder."""

    version: int  # 1, 2, 3 … without gaps
    name: str  # "calls" of 0001_calls.sql
    sql: str  # the whole file

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(folder: Path = MIGRATIONS) -> list[Migration]:
    """The files in order. Raises MigrationError for a strange name, a number used twice or a gap."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise MigrationError(f'{path.name} is not named like "0001_calls.sql"; rename it.')
        found.append(Migration(version=int(match[1]), name=match[2], sql=path.read_text(encoding="utf-8")))
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise MigrationError(
                f"{folder} has migration {migration.version:04d} where {expected:04d} must come; "
                "numbers have no gaps and no repeats."
            )
    return found


async def migrate(
    database: Database, at: datetime, migrations: Sequence[Migration] | None = None
) -> list[str]:
    """Apply what is missing; returns the names applied, such as ["0001_calls"]. `at` (aware UTC) is recorded.

    Raises MigrationError when an applied file was changed or the database is newer than this program, and
    asyncpg.PostgresError when a file's SQL fails (that file is then rolled back; earlier ones stay).
    """
    files = load() if migrations is None else migrations
    sql = queries("schema_version")
    applied = []
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL lock_timeout = '60s'")
        await connection.execute(sql["lock"], _LOCK)
        await connection.execute(sql["create"])
    for migration in files:
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL lock_timeout = '60s'")
            await connection.execute(sql["lock"], _LOCK)
            known = {row["version"]: row for row in await connection.fetch(sql["applied"])}
            _check(files, {version: row["checksum"] for version, row in known.items()})
            if migration.version in known:
                continue
            await connection.execute(migration.sql)
            await connection.execute(sql["record"], migration.version, migration.name, migration.checksum, at)
        applied.append(f"{migration.version:04d}_{migration.name}")
        log.info("migration applied", extra={"action": "migrated", "migration": applied[-1]})
    return applied


def _check(files: Sequence[Migration], known: dict[int, str]) -> None:
    newest = max((migration.version for migration in files), default=0)
    if known and max(known) > newest:
        raise MigrationError(
            f"The database is at version {max(known)} and this careline knows only up to {newest}; "
            "run the careline release that made it, or a newer one."
        )
    for migration in files:
        if migration.version in known and known[migration.version] != migration.checksum:
            raise MigrationError(
                f"Migration {migration.version:04d}_{migration.name}.sql was changed after this database "
                "applied it; put the released file back and make the change in a new migration."
            )
