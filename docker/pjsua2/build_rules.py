"""What the build of pjsua2 decides: cache keys, versions, what the output of a tool means. Pure."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

# What a failed compilation complains about, and the package that brings it.
MISSING = {
    r"openssl/\S+\.h|-lssl|-lcrypto": "libssl-dev",
    r"opus/\S+\.h|-lopus": "libopus-dev",
    r"speex/\S+\.h|-lspeexdsp": "libspeexdsp-dev",
    r"uuid/uuid\.h|-luuid": "uuid-dev",
    r"srtp2/srtp\.h|-lsrtp2": "libsrtp2-dev",
    r"Python\.h": "python3-dev",
    r"\bswig: (?:command )?not found": "swig",
    r"\b(?:gcc|g\+\+|make|cc): (?:command )?not found|no acceptable C compiler": "build-essential",
}
# Libraries every Debian has; anything else the module needs must come inside the wheel.
SYSTEM_LIBRARIES = re.compile(r"^(?:linux-vdso|ld-linux|lib(?:c|m|dl|rt|pthread|gcc_s|stdc\+\+))[-.]")


NAME_A_TARBALL = (
    "Name a tarball of pjproject 2.17 or later instead: "
    "make setup PJPROJECT_TARBALL=/path/to/pjproject.tar.gz"
)


class BuildError(Exception):
    """The wheel cannot be built; the message says at which stage, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything the wheel depends on that is known without a network."""

    source: str  # "debian-sid", or the SHA-256 of the tarballs the user named
    recipe: bytes  # the files that say how it is built, one after the other
    abi: str  # tag of the Python ABI, for example "cpython-311-x86_64-linux-gnu"

    @property
    def key(self) -> str:
        """Twelve hex digits that change with any input."""
        digest = hashlib.sha256()
        for part in (self.source.encode(), self.recipe, self.abi.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()[:12]


def cached_wheel(cache: Path, key: str) -> Path | None:
    """The newest wheel in `cache` made from these inputs, or None. A folder is `<version>-<source>-<key>`."""
    wheels = sorted(cache.glob(f"*-{key}/*.whl"), key=lambda path: path.stat().st_mtime)
    return wheels[-1] if wheels else None


def parse_version(version_mak: str) -> tuple[tuple[int, int], str]:
    """((major, minor), text) of pjproject's version.mak. Raises BuildError when it has no version."""
    found = dict(re.findall(r"^export PJ_VERSION_(\w+)\s*:=[ \t]*(\S*)", version_mak, re.MULTILINE))
    try:
        number = (int(found["MAJOR"]), int(found["MINOR"]))
    except (KeyError, ValueError) as error:
        raise BuildError("version.mak names no version: the tarball is not pjproject's source.") from error
    text = (
        f"{number[0]}.{number[1]}"
        + (f".{found['REV']}" if found.get("REV") else "")
        + found.get("SUFFIX", "")
    )
    return number, text


def missing_package(log: str) -> str | None:
    """The Debian package whose absence a compiler's or configure's output shows, or None."""
    complaint = (
        "fatal error: .*: No such file|cannot find -l|: (?:command )?not found|no acceptable C compiler"
    )
    for line in log.splitlines():
        if re.search(complaint, line) and not line.startswith("checking "):
            for pattern, package in MISSING.items():
                if re.search(pattern, line):
                    return package
    return None


def advice(log: str) -> str:
    """What to do about a failed stage, read from its log: one or more sentences, or nothing."""
    if package := missing_package(log):
        return f"The Debian package {package} is missing: apt-get install {package}"
    if "is expired" in log:
        return (
            "The Debian mirror is out of date (or this machine's clock is wrong), so apt does not trust it. "
            "Use a current mirror. " + NAME_A_TARBALL
        )
    if re.search("Could not resolve|Temporary failure resolving|Could not connect|Unable to connect", log):
        return "The Debian mirror cannot be reached. " + NAME_A_TARBALL
    return ""


def debian_mirror(index_targets: str) -> str:
    """The address of this machine's Debian archive.

    `index_targets` is what `apt-get indextargets` printed, one "<uri> <component>" a line. Raises BuildError
    when none of them is Debian's.
    """
    for line in index_targets.splitlines():
        uri, _, component = line.partition(" ")
        if (
            component == "main"
            and uri.startswith(("http://", "https://", "mirror+"))
            and "-security" not in uri
        ):
            return uri.rstrip("/")
    raise BuildError(
        "apt has no Debian archive configured (a line with component main), so the source cannot be fetched. "
        + NAME_A_TARBALL
    )


def foreign_libraries(ldd: str, bundle: Path) -> list[str]:
    """Lines of ldd's output that neither every Debian has nor `bundle` holds: what the wheel still lacks."""
    lacking = []
    for line in ldd.splitlines():
        name, _, where = line.strip().partition(" => ")
        if not name or SYSTEM_LIBRARIES.match(Path(name.split()[0]).name) or where.startswith(f"{bundle}/"):
            continue
        lacking.append(line.strip())
    return lacking


def compilations(make_output: str) -> list[str]:
    """The lines of make's output that compile one file."""
    return re.findall(r"^.*\s-c -o \S+\.o\b.*$", make_output, re.MULTILINE)


def planned_objects(depend: str) -> int:
    """How many object files one of pjproject's .depend files is about."""
    return len(re.findall(r"^\S*\.o:", depend, re.MULTILINE))
