"""Every golden path of the shipped flows says and does exactly what its transcript holds.

A transcript is golden/<line>.<name>.txt: `# keys: …` and `# language: …` first, then what `simulate` prints.
To accept a change that is meant, run this module as a program: `python -m tests.flows.test_golden`.
"""

from pathlib import Path

import pytest

from ivr.load import load_dialplans
from ivr.simulate import simulate, simulate_flow

pytestmark = pytest.mark.flows

GOLDEN = Path(__file__).parent / "golden"
SHIPPED = load_dialplans(Path(__file__).parents[2] / "dialplans")
BENCH = load_dialplans(Path(__file__).parents[1] / "data" / "dialplans")


def transcript(path: Path) -> tuple[str, str]:
    """What the file holds and what the flow does now."""
    text = path.read_text(encoding="utf-8")
    head = dict(line[2:].split(": ", 1) for line in text.splitlines() if line.startswith("# "))
    line = path.name.split(".")[0]
    keys = [key for key in head["keys"].split(",") if key != "none"]
    walked = simulate(BENCH if line.startswith("bench") else SHIPPED, line, keys, head["language"])
    return text, "\n".join([f"# keys: {head['keys']}", f"# language: {head['language']}", *walked, ""])


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    golden, now = transcript(path)
    assert now == golden


def test_every_line_and_language_has_a_golden_path() -> None:
    covered = {path.name.split(".")[0] for path in GOLDEN.glob("*.txt")}
    assert covered == {*SHIPPED.lines, *BENCH.lines}
    languages = {line for path in GOLDEN.glob("*.txt") for line in path.read_text().splitlines()[1:2]}
    assert languages == {"# language: en", "# language: es"}


def test_every_golden_call_ends_with_a_person_a_message_or_advice() -> None:
    for path in GOLDEN.glob("hotline*.txt"):
        text = path.read_text(encoding="utf-8")
        assert text.splitlines()[3].startswith("  says: "), "something is said before the emergency sentence"
        assert any(end in text for end in ("outcome: answered", "outcome: taken", "emergency-advice")), (
            path.name
        )


def test_a_flow_can_be_walked_by_its_name() -> None:
    assert simulate_flow(SHIPPED, "after_hours", ["2"], "es") == simulate(SHIPPED, "hotline", ["2"], "es")
    with pytest.raises(KeyError):
        simulate_flow(SHIPPED, "none")


def test_an_outcome_that_cannot_happen_is_said_and_left_out() -> None:
    said = simulate(SHIPPED, "hotline", ["2", "answered", "failed"])
    assert said[-5:] == (
        "(no place for the outcome answered)",
        "outcome: failed",
        "  says: I am sorry, your message could not be recorded.",
        "  says: If this is an emergency, hang up now and dial nine, one, one.",
        "  hangs up: emergency-advice",
    )


if __name__ == "__main__":
    for golden_path in GOLDEN.glob("*.txt"):
        golden_path.write_text(transcript(golden_path)[1], encoding="utf-8")
