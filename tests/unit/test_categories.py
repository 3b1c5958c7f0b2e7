"""A test module declares the category of its folder."""

from pathlib import Path

import pytest

from tests.conftest import category_fault

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("module", "declared", "fault"),
    [
        ("unit/test_a.py", ["unit"], None),
        ("e2e/phones/test_a.py", ["e2e", "timeout"], None),
        (
            "unit/test_a.py",
            [],
            'tests/unit/test_a.py: declares no category; write "pytestmark = pytest.mark.unit" at its top.',
        ),
        (
            "unit/test_a.py",
            ["integration"],
            'tests/unit/test_a.py: declares integration; write "pytestmark = pytest.mark.unit" at its top.',
        ),
        (
            "flows/test_a.py",
            ["unit", "e2e"],
            "tests/flows/test_a.py: declares e2e and unit; "
            'write "pytestmark = pytest.mark.flows" at its top.',
        ),
        (
            "peers/test_a.py",
            ["unit"],
            "tests/peers/test_a.py: tests live in tests/{unit,flows,integration,e2e}; move it there.",
        ),
    ],
)
def test_the_category_is_the_folder(module: str, declared: list[str], fault: str | None) -> None:
    assert category_fault(Path(module), declared) == fault
