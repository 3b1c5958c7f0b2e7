"""Where pjproject's source comes from: a tarball the user named, or Debian's source packages through apt."""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from build_rules import NAME_A_TARBALL, BuildError, debian_mirror
from build_stages import Runner

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The tarballs of one build."""

    pjproject: Path
    srtp: Path | None  # libsrtp 2, for a pjproject whose third_party/srtp was taken out (as Debian does)


class DebianSource:
    """Source packages through apt with a list and an index of our own; the machine's stay untouched."""

    def __init__(self, work: Path, runner: Runner) -> None:
        self._folder, self._runner = work / "apt", runner
        (self._folder / "lists" / "partial").mkdir(parents=True)
        self._options = [
            *("-o", f"Dir::Etc::sourcelist={self._folder / 'sources.list'}"),
            *("-o", "Dir::Etc::sourceparts=-"),
            *("-o", f"Dir::State::lists={self._folder / 'lists'}"),
            *("-o", "Dir::Cache::srcpkgcache="),
            *("-o", "Dir::Cache::pkgcache="),
            *("-o", "Acquire::Retries=3"),
        ]
        if os.geteuid() == 0:
            self._options += ["-o", "APT::Sandbox::User=root"]
        self._updated = False

    def fetch(self, package: str, suite: str, name: str) -> Path:
        """Download a source package and return its file whose name matches the glob `name`."""
        if not shutil.which("apt-get") or not KEYRING.exists():
            raise BuildError(
                "Fetching the source needs apt and Debian's archive keys (package debian-archive-keyring). "
                + NAME_A_TARBALL
            )
        if not self._updated:
            targets = subprocess.run(
                ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            mirror = debian_mirror(targets)
            suites = dict.fromkeys(("sid", stable_suite()))
            lines = [f"deb-src [signed-by={KEYRING}] {mirror} {name} main\n" for name in suites]
            (self._folder / "sources.list").write_text("".join(lines))
            self._runner.run("apt source index", ["apt-get", *self._options, "update", "-q"], self._folder)
            self._updated = True
        source = [*self._options, "source", "--download-only", "-q", f"{package}/{suite}"]
        self._runner.run(f"fetch {package}", ["apt-get", *source], self._folder)
        files = sorted(self._folder.glob(name))
        if not files:
            raise BuildError(
                f"Debian's source package {package} ({suite}) no longer has a file {name}. " + NAME_A_TARBALL
            )
        return files[-1]


def stable_suite() -> str:
    """Code name of the Debian this machine runs, "stable" when it does not say."""
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return "stable"
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE)
    return found[1] if found else "stable"


def sha256(path: Path) -> str:
    """Checksum of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpack(tarball: Path, into: Path, runner: Runner) -> Path:
    """Unpack a tarball without its top folder; returns `into`."""
    into.mkdir()
    runner.run(f"unpack {tarball.name}", ["tar", "-xf", tarball, "-C", into, "--strip-components=1"], into)
    return into
