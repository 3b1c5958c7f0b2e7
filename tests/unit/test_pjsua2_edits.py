"""Edits of pjproject: made exactly once or not at all, and each says why."""

import re
from pathlib import Path

import pytest
from build_edits import EDITS, Edit, EditError, apply

pytestmark = pytest.mark.unit

EDIT = Edit(name="limit", reason="It is too low.", file="a/b.c", place=r"LIMIT = 100\b", words="LIMIT = 5000")


def source(tmp_path: Path, text: bytes) -> Path:
    """A source folder with the one file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.c").write_bytes(text)
    return tmp_path / "a/b.c"


def test_an_edit_changes_its_place_and_nothing_else(tmp_path: Path) -> None:
    file = source(tmp_path, b"x = 1;\r\nLIMIT = 100\r\n\xe9\n")
    apply(EDIT, tmp_path)
    assert file.read_bytes() == b"x = 1;\r\nLIMIT = 5000\r\n\xe9\n"


@pytest.mark.parametrize(("text", "times"), [(b"LIMIT = 1000", 0), (b"LIMIT = 100 LIMIT = 100", 2)])
def test_a_place_that_is_not_there_once_stops_the_build_and_changes_nothing(
    tmp_path: Path, text: bytes, times: int
) -> None:
    file = source(tmp_path, text)
    with pytest.raises(EditError, match=f'The edit "limit" found its place {times} times in a/b.c'):
        apply(EDIT, tmp_path)
    assert file.read_bytes() == text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EditError, match=re.escape('The edit "limit" needs a/b.c: No such file')):
        apply(EDIT, tmp_path)


def test_every_edit_has_its_reason_and_a_name_of_its_own() -> None:
    assert len({edit.name for edit in EDITS}) == len(EDITS)
    assert all(edit.reason.endswith((".", "…")) for edit in EDITS)
