"""Runtime files of the edge's programs: private folders and files of the user a program runs as."""

import os
import pwd
import secrets
from pathlib import Path

from pbx.edge.child import ChildCannotStart


def account(run_as: str) -> pwd.struct_passwd | None:
    """The user root becomes: `run_as`, or if that is empty careline, else nobody; None when we are not root.

    Raises ChildCannotStart for an unknown user or for root itself.
    """
    if os.geteuid() != 0:
        return None
    for name in (run_as,) if run_as else ("careline", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid == 0:
            raise ChildCannotStart("The edge must not run as root; set run_as to an unprivileged user.")
        return found
    raise ChildCannotStart(
        f'There is no system user "{run_as or "nobody"}"; create it or set another run_as.'
    )


def program(path: Path, package: str) -> str:
    """The path as text. Raises ChildCannotStart when nothing is installed there."""
    if not os.access(path, os.X_OK):
        raise ChildCannotStart(f"The program {path} is missing; install the Debian package {package}.")
    return str(path)


def private_folder(path: Path, user: pwd.struct_passwd | None) -> None:
    """Make `path` (0700) and give it to `user`. Its parents stay passable. Raises ChildCannotStart."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True)
        path.chmod(0o700)
        if user:
            os.chown(path, user.pw_uid, user.pw_gid)
    except OSError as error:
        raise ChildCannotStart(
            f"The folder {path} cannot be made ({error.strerror}); run as root or set another state_dir."
        ) from error


def private_file(path: Path, content: str | bytes, user: pwd.struct_passwd | None) -> None:
    """Write `path` whole or not at all, 0600, owned by `user`. Raises ChildCannotStart."""
    half = path.with_name(path.name + ".new")
    raw = content.encode() if isinstance(content, str) else content
    try:
        half.unlink(missing_ok=True)
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if user:
                os.fchown(file.fileno(), user.pw_uid, user.pw_gid)
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        half.rename(path)
    except OSError as error:
        raise ChildCannotStart(
            f"{path} cannot be written ({error.strerror}); is the disk full or the folder another user's?"
        ) from error


def kept_secret(path: Path, user: pwd.struct_passwd | None) -> str:
    """A random secret (43 URL-safe characters), made at first use and kept 0600. Raises ChildCannotStart."""
    try:
        found = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        found = ""
    except OSError as error:
        raise ChildCannotStart(
            f"{path} cannot be read ({error.strerror}); run as root or its owner."
        ) from error
    if not found:
        found = secrets.token_urlsafe(32)
        private_file(path, found + "\n", user)
    return found
