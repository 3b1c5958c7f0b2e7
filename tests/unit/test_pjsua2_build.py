"""What the pjsua2 build decides: which wheel fits, what a tool's output means, what a wheel lacks."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from build_rules import (
    BuildError,
    Inputs,
    advice,
    cached_wheel,
    compilations,
    debian_mirror,
    foreign_libraries,
    missing_package,
    parse_version,
    planned_objects,
)

pytestmark = pytest.mark.unit

INPUTS = Inputs(
    source="debian-sid", recipe=b"#define PJSUA_MAX_CALLS 1024", abi="cpython-311-x86_64-linux-gnu"
)


@pytest.mark.parametrize(
    "other",
    [
        replace(INPUTS, source="0" * 64),
        replace(INPUTS, recipe=b"#define PJSUA_MAX_CALLS 4"),
        replace(INPUTS, abi="cpython-312-x86_64-linux-gnu"),
        Inputs(source="debian-si", recipe=b"d" + INPUTS.recipe, abi=INPUTS.abi),
    ],
)
def test_every_input_changes_the_key(other: Inputs) -> None:
    assert other.key != INPUTS.key
    assert replace(INPUTS).key == INPUTS.key


def test_the_cache_gives_the_newest_wheel_of_the_same_inputs(tmp_path: Path) -> None:
    assert cached_wheel(tmp_path, INPUTS.key) is None
    made = {}
    for age_s, folder in (
        (300, f"2.17-aaaaaaaa-{INPUTS.key}"),
        (100, f"2.18-bbbbbbbb-{INPUTS.key}"),
        (1, "2.19-c-0"),
    ):
        wheel = tmp_path / folder / "pjsua2.whl"
        wheel.parent.mkdir()
        wheel.touch()
        os.utime(wheel, (1_700_000_000 - age_s, 1_700_000_000 - age_s))
        made[age_s] = wheel
    assert cached_wheel(tmp_path, INPUTS.key) == made[100]


VERSION_MAK = """# Don't change the "export PJ_VERSION_xxx" style
export PJ_VERSION_MAJOR  := 2
export PJ_VERSION_MINOR  := {minor}
export PJ_VERSION_REV    :={rev}
export PJ_VERSION_SUFFIX :={suffix}

export PJ_VERSION := $(PJ_VERSION_MAJOR).$(PJ_VERSION_MINOR)
"""


@pytest.mark.parametrize(
    ("minor", "rev", "suffix", "number", "text"),
    [
        ("17", "", "", (2, 17), "2.17"),
        ("17", " 1", "", (2, 17), "2.17.1"),
        ("18", "", " -dev", (2, 18), "2.18-dev"),
        ("9", "", "", (2, 9), "2.9"),
    ],
)
def test_the_version_of_the_source(
    minor: str, rev: str, suffix: str, number: tuple[int, int], text: str
) -> None:
    assert parse_version(VERSION_MAK.format(minor=minor, rev=rev, suffix=suffix)) == (number, text)


def test_a_source_without_version_is_not_pjproject() -> None:
    with pytest.raises(BuildError) as caught:
        parse_version("VERSION = 3")
    assert str(caught.value) == "version.mak names no version: the tarball is not pjproject's source."


@pytest.mark.parametrize(
    ("log", "package"),
    [
        ("ssl_sock_ossl.c:48:10: fatal error: openssl/ssl.h: No such file or directory", "libssl-dev"),
        ("../src/opus.c:31:10: fatal error: opus/opus.h: No such file or directory", "libopus-dev"),
        ("/usr/bin/ld: cannot find -lspeexdsp: No such file or directory", "libspeexdsp-dev"),
        ("pjsua2_wrap.cpp:174:11: fatal error: Python.h: No such file or directory", "python3-dev"),
        ("/bin/sh: 1: swig: not found", "swig"),
        ("swig: not found", "swig"),
        ("configure: error: no acceptable C compiler found in $PATH", "build-essential"),
        ("checking for -lopus: not found", None),
        ("warning: swig: deprecated option", None),
        ("fatal error: my_own.h: No such file or directory", None),
        ("", None),
    ],
)
def test_the_missing_package_is_named(log: str, package: str | None) -> None:
    assert missing_package(f"gcc -c x.c\n{log}\nmake: *** [Makefile:3] Error 1") == package


def test_advice_says_what_to_do() -> None:
    assert advice("swig: not found") == "The Debian package swig is missing: apt-get install swig"
    assert "out of date" in advice("E: Release file for …/sid/InRelease is expired (invalid since 17d).")
    assert "cannot be reached" in advice("Err:1 … Temporary failure resolving 'mirror'")
    assert advice("segmentation fault") == ""


def test_the_mirror_is_the_one_this_machine_uses() -> None:
    targets = (
        "http://mirror/debian-security/ main\nhttp://mirror/debian/ contrib\nhttp://mirror/debian/ main\n"
    )
    assert debian_mirror(targets) == "http://mirror/debian"
    with pytest.raises(BuildError, match="PJPROJECT_TARBALL"):
        debian_mirror("file:/media/cdrom/ main\n")


def test_what_the_wheel_lacks() -> None:
    shown = """\
\tlinux-vdso.so.1 (0x00007ffd)
\tlibssl-cab3f5b0.so.3 => /tmp/proof/pjsua2.libs/libssl-cab3f5b0.so.3 (0x00007f46)
\tlibopus.so.0 => /lib/x86_64-linux-gnu/libopus.so.0 (0x00007f47)
\tlibsrtp2.so.1 => not found
\tlibstdc++.so.6 => /lib/x86_64-linux-gnu/libstdc++.so.6 (0x00007f46)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f46)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f46)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f46)
"""
    lacking = foreign_libraries(shown, Path("/tmp/proof"))
    assert [line.split()[0] for line in lacking] == ["libopus.so.0", "libsrtp2.so.1"]
    assert foreign_libraries("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n", Path("/tmp/proof")) == []


def test_progress_counts_what_make_compiles() -> None:
    depend = "output/x/a.o: ../src/a.c \\\n ../include/a.h\noutput/x/b.o: ../src/b.c\n../include/a.h:\n"
    made = (
        "gcc -Wall -I../include \\\n\t-c -o output/x/a.o \\\n\t../src/a.c\nar rv ../lib/libx.a output/x/a.o\n"
    )
    assert planned_objects(depend) == 2
    assert len(compilations(made)) == 1
