"""Where things are: folders under state_dir, the database's URL, the names processes go by."""

import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from pbx.config import Config
from pbx.edge.files import account
from pbx.edge.postgres import EmbeddedPostgres


def utc_now() -> datetime:
    """The clock every runner is given."""
    return datetime.now(UTC)  # noqa: TID251  # the composition root is where clocks are read


def run_dir(config: Config, part: str) -> Path:
    """Runtime folder of one part."""
    return config.state_dir / "run" / part


def control_socket(config: Config, number: int) -> Path:
    """Unix socket on which worker `number` answers questions about itself."""
    return run_dir(config, f"worker-{number}") / "control.sock"


def worker_name(config: Config, number: int) -> str:
    """Name of worker `number` of this machine in the database."""
    return f"{socket.gethostname()}/worker-{number}"


def message_dir(config: Config) -> Path:
    """Folder of voicemail files."""
    return config.state_dir / "voicemail"


def embedded(config: Config) -> EmbeddedPostgres:
    """Our own PostgreSQL as `config` wants it."""
    user = account(config.run_as)
    return EmbeddedPostgres(
        config.state_dir, config.database.port, run_as=user.pw_name if user is not None else None
    )


def database_url(config: Config, role: str = "careline") -> str:
    """URL of the database for `role`. Raises OSError when the embedded server's password cannot be read."""
    return config.database.url or embedded(config).url(role)


def python_user(config: Config) -> str | None:
    """The user a Python child becomes: as configured, or None (stays as it is) when that user cannot run us.

    A virtual environment below a root-only home cannot be read by anybody else.
    """
    user = account(config.run_as)
    if user is None:
        return None
    needed = {Path(sys.executable), Path(sys.base_prefix), Path(__file__)}
    reachable = all(_passable(path.resolve(), user.pw_uid) for path in needed)
    return user.pw_name if reachable else None


def _passable(path: Path, uid: int) -> bool:
    """Whether a user who owns none of it can reach `path`."""
    for part in (path, *path.parents):
        mode = os.stat(part)
        needed = 0o5 if part == path or part.is_dir() else 0o4
        if mode.st_uid == uid:
            continue
        if mode.st_mode & (needed & 0o1 if part != path else needed & 0o4) == 0:
            return False
    return True
