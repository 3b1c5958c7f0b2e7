"""A worker whose prompts are rendered loads nothing that only rendering needs: 100 MB a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivr.load import load_dialplans
from ivr.prompts import prepare

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("CARELINE_PROMPTS", Path.home() / ".cache" / "careline" / "prompts"))
HEAVY = ("numpy", "scipy", "pyloudnorm", "onnxruntime", "piper", "ttspico")
PROGRAM = f"""
import sys
from pathlib import Path
import pbx.__main__, pbx.app.worker
from ivr.load import load_dialplans
from ivr.prompts import prepare
library = prepare(load_dialplans(Path(sys.argv[1])), Path(sys.argv[2]))
assert library.tone("hold_music").exists() and len(library) > 20
print(*(name for name in {HEAVY} if name in sys.modules))
"""


def test_a_worker_with_a_full_cache_loads_no_renderer() -> None:
    prepare(load_dialplans(ROOT / "dialplans"), CACHE)
    command = [sys.executable, "-c", PROGRAM, str(ROOT / "dialplans"), str(CACHE)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


def test_tones_are_rendered_into_an_empty_cache_too(tmp_path: Path) -> None:
    dialplans = load_dialplans(ROOT / "dialplans")
    before = prepare(dialplans, CACHE)
    for path in before.files:
        if path.parent.name != "tones":
            target = tmp_path / path.relative_to(CACHE)
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(path)
    after = prepare(dialplans, tmp_path)
    for name in ("silence", "beep", "connected", "hold_music", "ringback_US"):
        assert after.tone(name).read_bytes() == before.tone(name).read_bytes()


def test_a_cache_that_cannot_hold_tones_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tones").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="is not in the cache"):
        prepare(load_dialplans(ROOT / "dialplans"), tmp_path)
