"""Named SQL: every query lives in `queries/<noun>.sql` as `-- name: x` blocks, never inside Python.

A block runs from its name line to the next one; comment lines after the name describe it and stay in it.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

QUERIES = Path(__file__).parent / "queries"
_NAME = re.compile(r"^--[ \t]*name:[ \t]*(\S*)[ \t]*$", re.MULTILINE)


def parse(text: str, source: str = "SQL") -> Mapping[str, str]:
    """Split text into blocks by name. Raises ValueError for bad or repeated names and for unnamed SQL."""
    marks = list(_NAME.finditer(text))
    head = text[: marks[0].start()] if marks else text
    if any(line.strip() and not line.lstrip().startswith("--") for line in head.splitlines()):
        raise ValueError(f'{source} has SQL before its first "-- name:" line; give the statement a name.')
    blocks: dict[str, str] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        name = mark[1]
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f'{source} has the query name "{name}"; use lower-case letters, digits and "_".')
        if name in blocks:
            raise ValueError(f'{source} has two queries named "{name}"; give each its own name.')
        body = text[mark.end() : following.start() if following else len(text)].strip()
        if not re.sub(r"--[^\n]*", "", body).strip():
            raise ValueError(
                f'{source} has no SQL under the name "{name}"; write the statement or remove the name.'
            )
        blocks[name] = body
    return MappingProxyType(blocks)


@cache
def queries(noun: str) -> Mapping[str, str]:
    """The blocks of `queries/<noun>.sql`, read once. Raises FileNotFoundError or ValueError."""
    path = QUERIES / f"{noun}.sql"
    return parse(path.read_text(encoding="utf-8"), path.name)
