"""Installing careline: what the build refuses, locks, type stubs, and the category rule in a real run."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "docker/source-builds.lock", "docker/node.lock", "docker/pjsua2/tools.lock"]


def run_build(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run docker/pjsua2/build.py with an empty cache and no way to a package index."""
    env = dict(os.environ) | {
        "CARELINE_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, str(ROOT / "docker/pjsua2/build.py"), *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def tarball(folder: Path, version_mak: str) -> Path:
    """A tarball in the layout of pjproject's releases with nothing but its version."""
    tree = folder / "pjproject-x"
    tree.mkdir()
    (tree / "version.mak").write_text(version_mak)
    path = folder / "pjproject.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tree, arcname=tree.name)
    return path


def test_an_old_pjproject_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    old = "export PJ_VERSION_MAJOR  := 2\nexport PJ_VERSION_MINOR  := 16\nexport PJ_VERSION_REV    :=\n"
    ran = run_build(tmp_path, "--tarball", tarball(tmp_path, old))
    assert ran.returncode == 1
    assert "pjproject.tar.gz is pjproject 2.16; careline needs 2.17 or later" in ran.stderr
    assert ran.stdout == ""


def test_a_foreign_tarball_is_refused(tmp_path: Path) -> None:
    ran = run_build(tmp_path, "--tarball", tarball(tmp_path, "VERSION := 9\n"))
    assert ran.returncode == 1
    assert "the tarball is not pjproject's source" in ran.stderr


def test_a_missing_tarball_is_named(tmp_path: Path) -> None:
    ran = run_build(tmp_path, "--tarball", tmp_path / "nowhere.tar.gz")
    assert ran.returncode == 1
    assert f"There is no file {tmp_path / 'nowhere.tar.gz'}" in ran.stderr


def test_a_broken_tarball_shows_what_tar_said(tmp_path: Path) -> None:
    path = tmp_path / "half.tar.gz"
    path.write_bytes(b"\x1f\x8b not really")
    ran = run_build(tmp_path, "--tarball", path)
    assert ran.returncode == 1
    assert "The stage 'unpack half.tar.gz' failed" in ran.stderr
    assert "not in gzip format" in ran.stderr or "tar: " in ran.stderr


def test_a_cached_wheel_needs_no_network(tmp_path: Path) -> None:
    assert run_build(tmp_path, "--cached").returncode == 1
    key = subprocess.run(
        [sys.executable, "-c", "import build; print(build.gather(None).key)"],
        cwd=ROOT / "docker/pjsua2",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    wheel = tmp_path / "cache/pjsua2" / f"2.17-00000000-{key}" / "pjsua2-2.17-cp311-cp311-linux_x86_64.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    for arguments in (["--cached"], []):
        ran = run_build(tmp_path, *arguments)
        assert (ran.returncode, ran.stdout.strip()) == (0, str(wheel)), ran.stderr


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_checksums_and_no_addresses(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text)
    pinned = [block for block in blocks if "==" in block.split("\n")[0]]
    assert pinned
    assert [block.split("\n")[0] for block in pinned if "--hash=sha256:" not in block] == []


def test_the_lock_covers_what_careline_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["tts"], *extras["dev"]]
    names = {re.split(r"[^A-Za-z0-9._-]", entry)[0].lower() for entry in wanted}
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {name.replace("_", "-").replace(".", "-") for name in names} <= locked
    assert not {"torch", "pjsua2"} & locked


def test_the_npm_lock_has_checksums_and_no_addresses() -> None:
    lock = json.loads((ROOT / "tests/peers/fhir_server/package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name and not entry.get("link")}
    assert packages
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
    assert [
        name for name, entry in packages.items() if "integrity" not in entry and not entry.get("inBundle")
    ] == []


@pytest.mark.parametrize("module", ["pjsua2", "opuslib"])
def test_stubs_name_nothing_the_module_lacks(module: str) -> None:
    real = importlib.import_module(module)
    tree = ast.parse((ROOT / f"tests/stubs/{module}.pyi").read_text())
    lacking = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            kind = getattr(real, node.name, None)
            names = [
                member.name if isinstance(member, ast.FunctionDef) else getattr(member.target, "id", "")
                for member in node.body
                if isinstance(member, ast.FunctionDef | ast.AnnAssign)
            ]
            lacking += [node.name] if kind is None else []
            # opuslib sets `code` in __init__, everything else is visible on the class
            lacking += [
                f"{node.name}.{name}" for name in names if kind and not hasattr(kind, name) and name != "code"
            ]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lacking += (
                [] if node.target.id.startswith("_") or hasattr(real, node.target.id) else [node.target.id]
            )
    assert lacking == []


def test_a_module_without_category_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "tests/unit").mkdir(parents=True)
    (tmp_path / "tests/conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "tests/unit/test_bare.py").write_text("def test_nothing() -> None: ...\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "tests/unit/test_bare.py: declares no category" in ran.stdout + ran.stderr


@pytest.mark.skipif(
    not (ROOT / ".venv/.setup/careline").exists(), reason="this .venv was not made by make setup"
)
def test_a_second_setup_is_quick() -> None:
    started = time.monotonic()
    ran = subprocess.run(
        ["docker/setup.sh"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "Debian packages: all there" in ran.stdout
    assert ran.stdout.splitlines()[-1].endswith("ready")
    assert time.monotonic() - started < 20
