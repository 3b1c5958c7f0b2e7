"""Every test module declares the category of its folder, or collection fails. Nothing else lives here."""

from collections.abc import Iterable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CATEGORIES = ("unit", "flows", "integration", "e2e")


def category_fault(module: Path, declared: Iterable[str]) -> str | None:
    """What is wrong with the category markers of a test module, as one sentence; None when they are right.

    `module` is relative to tests/; `declared` are the marker names of the module's own `pytestmark`.
    """
    folder = module.parts[0]
    found = sorted(set(declared) & set(CATEGORIES))
    if folder not in CATEGORIES:
        return f"tests/{module}: tests live in tests/{{{','.join(CATEGORIES)}}}; move it there."
    if found != [folder]:
        what = f"declares {' and '.join(found)}" if found else "declares no category"
        return f'tests/{module}: {what}; write "pytestmark = pytest.mark.{folder}" at its top.'
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fail the whole run, naming every module whose category is missing or wrong."""
    modules: dict[Path, set[str]] = {}
    for item in items:
        module = item.getparent(pytest.Module)
        if module is not None and module.path.is_relative_to(TESTS):
            modules[module.path.relative_to(TESTS)] = {mark.name for mark in module.own_markers}
    faults = [fault for path, marks in sorted(modules.items()) if (fault := category_fault(path, marks))]
    if faults:
        raise pytest.UsageError("\n".join(faults))
