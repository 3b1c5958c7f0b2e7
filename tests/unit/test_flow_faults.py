"""Every fault a dialplans folder can have is found, said in one exact sentence, and nothing else is said."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ivr.load import DialplanError, load_dialplans

pytestmark = pytest.mark.unit

SHIPPED = Path(__file__).parents[2] / "dialplans"
BENCH = Path(__file__).parents[1] / "data" / "dialplans"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped dialplans, to be spoiled."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "dialplans"))


def problems(folder: Path) -> list[str]:
    with pytest.raises(DialplanError) as caught:
        load_dialplans(folder)
    return [str(problem) for problem in caught.value.problems]


def spoil(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert text.count(old) >= 1, f"{file} has no {old!r}"
    (folder / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("good", [SHIPPED, BENCH], ids=["shipped", "bench"])
def test_good_folders_have_neither_faults_nor_warnings(good: Path) -> None:
    assert load_dialplans(good).warnings == ()


FAULTS = {
    "toml": (
        "after_hours.toml",
        'start = "emergency"',
        "start = emergency",
        ["after_hours.toml: This is not valid TOML: Invalid value (at line 2, column 9)."],
    ),
    "duplicate key": (
        "after_hours.toml",
        'next = "welcome"',
        'next = "welcome"\nnext = "menu"',
        ["after_hours.toml: This is not valid TOML: Cannot overwrite a value (at line 8, column 14)."],
    ),
    "unknown key of a flow": (
        "after_hours.toml",
        'start = "emergency"',
        'start = "emergency"\nhumans = "x"',
        ['after_hours.toml: humans: Unknown key "humans". Did you mean "human"?'],
    ),
    "unknown key of a node": (
        "after_hours.toml",
        "choices =",
        "timeout = 3\nchoices =",
        ['after_hours.toml: node.menu.timeout: Unknown key "timeout". Did you mean "timeout_s"?'],
    ),
    "missing key": (
        "after_hours.toml",
        'on_nobody = "nobody"',
        "",
        ['after_hours.toml: node.clinician.on_nobody: The key "on_nobody" is missing.'],
    ),
    "missing type": (
        "after_hours.toml",
        'type = "say"',
        "",
        [
            "after_hours.toml: node.welcome.type: The type is missing. "
            "Known are consent, emergency, hangup, menu, on_call, say, voicemail."
        ],
    ),
    "unknown type": (
        "after_hours.toml",
        'type = "voicemail"',
        'type = "voice_mail"',
        ['after_hours.toml: node.nobody.type: There is no node type "voice_mail". Did you mean "voicemail"?'],
    ),
    "wrong type of value": (
        "after_hours.toml",
        'choices = { 1 = "consent"',
        'retries = "two"\nchoices = { 1 = "consent"',
        [
            "after_hours.toml: node.menu.retries: "
            "The value should be a valid integer, unable to parse string as an integer."
        ],
    ),
    "value out of range": (
        "after_hours.toml",
        "choices =",
        "timeout_s = 0\nchoices =",
        ["after_hours.toml: node.menu.timeout_s: The value should be greater than 0."],
    ),
    "not a name": (
        "after_hours.toml",
        'human = "clinician"',
        'human = "The Clinician"',
        [
            'after_hours.toml: human: "The Clinician" is not a name: '
            'use small letters, digits, "-" and "_", a letter first.'
        ],
    ),
    "not a key": (
        "after_hours.toml",
        "2 = ",
        "22 = ",
        ['after_hours.toml: node.menu.choices.22: "22" is not a key: use one of 0 to 9, # and *.'],
    ),
    "unknown consent": (
        "after_hours.toml",
        'type = "consent"',
        'type = "consent"\nkind = "sharing"',
        ['after_hours.toml: node.consent.kind: "sharing" is not one of "recording".'],
    ),
    "unknown target": (
        "after_hours.toml",
        '1 = "consent"',
        '1 = "consnet"',
        [
            'after_hours.toml: node.menu.choices.1: There is no node "consnet" in this flow. '
            'Did you mean "consent"?'
        ],
    ),
    "unknown start": (
        "after_hours.toml",
        'start = "emergency"',
        'start = "emergencies"',
        ['after_hours.toml: start: There is no node "emergencies" in this flow. Did you mean "emergency"?'],
    ),
    "unknown human": (
        "after_hours.toml",
        'human = "clinician"',
        'human = "physician"',
        ['after_hours.toml: human: There is no node "physician" in this flow.'],
    ),
    "human is none": (
        "after_hours.toml",
        'human = "clinician"',
        'human = "welcome"',
        [
            "after_hours.toml: human: The human must be an on_call or voicemail node; "
            '"welcome" is of type say.'
        ],
    ),
    "unreachable": (
        "after_hours.toml",
        "[node.goodbye]",
        '[node.lost]\ntype = "say"\nprompt = "welcome"\nnext = "menu"\n\n[node.goodbye]',
        ["after_hours.toml: node.lost: No path leads to this node; remove it or lead one there."],
    ),
    "endless for the silent": (
        "after_hours.toml",
        "choices =",
        'on_timeout = "welcome"\nchoices =',
        [
            "after_hours.toml: node.welcome: A silent caller would go round here for ever: "
            "welcome > menu > welcome. Lead one of these nodes to a person, a voicemail or a hangup."
        ],
    ),
    "endless when nobody is found": (
        "after_hours.toml",
        'on_nobody = "nobody"',
        'on_nobody = "clinician"',
        [
            "after_hours.toml: node.clinician: A silent caller would go round here for ever: "
            "clinician > clinician. Lead one of these nodes to a person, a voicemail or a hangup.",
            "after_hours.toml: node.nobody: No path leads to this node; remove it or lead one there.",
        ],
    ),
    "bad ending": (
        "after_hours.toml",
        'on_nobody = "nobody"',
        'on_nobody = "goodbye"',
        [
            "after_hours.toml: node.goodbye: The path emergency > welcome > menu > clinician > goodbye ends "
            "without a person, a message or emergency advice; "
            "lead it to a voicemail or set emergency = true.",
            "after_hours.toml: node.nobody: No path leads to this node; remove it or lead one there.",
        ],
    ),
    "repeat key taken": (
        "after_hours.toml",
        '2 = "leave_message"',
        '2 = "leave_message", "*" = "welcome"',
        ['after_hours.toml: node.menu.choices.*: The key "*" repeats the prompt everywhere; take another.'],
    ),
    "yes is no": (
        "after_hours.toml",
        'type = "consent"',
        'type = "consent"\nno = "1"',
        ['after_hours.toml: node.consent.no: The key "1" already means yes; take another.'],
    ),
    "unknown roster of a node": (
        "after_hours.toml",
        'type = "on_call"',
        'type = "on_call"\nroster = "nigts"',
        ['after_hours.toml: node.clinician.roster: There is no roster "nigts". Did you mean "nights"?'],
    ),
    "unknown owner": (
        "after_hours.toml",
        'type = "voicemail"',
        'type = "voicemail"\nowner = "days"',
        ['after_hours.toml: node.nobody.owner: There is no roster "days".'],
    ),
    "unknown prompt": (
        "after_hours.toml",
        'prompt = "goodbye"',
        'prompt = "good_bye"',
        [
            "prompts/en.toml: prompt.good_bye: This prompt is missing; it is used by after_hours.toml: "
            'node.goodbye.prompt. Did you mean "goodbye"?',
            "prompts/es.toml: prompt.good_bye: This prompt is missing; it is used by after_hours.toml: "
            'node.goodbye.prompt. Did you mean "goodbye"?',
        ],
    ),
    "prompt missing in a language": (
        "prompts/es.toml",
        "[prompt.still_trying]",
        "[prompt.trying_still]",
        [
            "prompts/es.toml: prompt.still_trying: This prompt is missing; it is used by after_hours.toml: "
            "node.clinician.waiting."
        ],
    ),
    "prompt of the interpreter missing": (
        "prompts/es.toml",
        "[prompt.no_key]",
        "[prompt.nothing]",
        ["prompts/es.toml: prompt.no_key: This prompt is missing; it is used by every line."],
    ),
    "placeholder missing in a language": (
        "prompts/es.toml",
        'text = "Bienvenido a {{ line }}."\nvalues = { line = "text" }',
        'text = "Bienvenido."',
        ["prompts/es.toml: prompt.welcome: The values differ from those in prompts/en.toml."],
    ),
    "placeholder without a value": (
        "prompts/en.toml",
        "Thank you for calling.",
        "Thank you {{ name }} for calling.",
        [
            'prompts/en.toml: prompt.goodbye: The text has the placeholder "name", '
            "which is not listed under values."
        ],
    ),
    "value not in the text": (
        "prompts/en.toml",
        "Welcome to {{ line }}.",
        "Welcome.",
        ['prompts/en.toml: prompt.welcome: The value "line" is not in the text.'],
    ),
    "emergency sentence without number": (
        "prompts/en.toml",
        'dial {{ emergency }}."\nvalues = { emergency = "digits" }',
        'dial 911."',
        [
            "prompts/en.toml: prompt.emergency: "
            "An emergency sentence must name the number: use {{ emergency }}.",
            "prompts/es.toml: prompt.emergency: The values differ from those in prompts/en.toml.",
        ],
    ),
    "template": (
        "prompts/en.toml",
        "Welcome to {{ line }}.",
        "Welcome to {{ line.",
        ["prompts/en.toml: prompt.welcome: The text is not a valid template: expected name or number."],
    ),
    "unknown engine": (
        "prompts/es.toml",
        'engine = "pico"',
        'engine = "espeak-ng"',
        ['prompts/es.toml: voice.engine: "espeak-ng" is not one of "piper" or "pico".'],
    ),
    "too few digits": (
        "prompts/es.toml",
        'digits = ["cero", ',
        "digits = [",
        ["prompts/es.toml: digits: It needs at least 10 and has 9."],
    ),
    "unknown flow of a line": (
        "numbers.toml",
        'flow = "after_hours"',
        'flow = "after_hour"',
        ['numbers.toml: line.hotline.flow: There is no flow "after_hour". Did you mean "after_hours"?'],
    ),
    "unknown country": (
        "numbers.toml",
        'country = "US"',
        'country = "NZ"',
        [
            'numbers.toml: line.hotline.country: There is no emergency number for "NZ"; '
            "write one under country.NZ."
        ],
    ),
    "unknown language": (
        "numbers.toml",
        'language = "es"',
        'language = "fr"',
        ['numbers.toml: line.hotline_es.language: There is no prompts file for language "fr".'],
    ),
    "unknown roster of a line": (
        "numbers.toml",
        'roster = "nights"',
        'roster = "night"',
        ['numbers.toml: line.hotline.roster: There is no roster "night". Did you mean "nights"?'],
    ),
    "no name in a language": (
        "numbers.toml",
        ', es = "la línea de enfermería"',
        "",
        ['numbers.toml: line.hotline.name: There is no name in "es"; clinicians hear it.'],
    ),
    "number taken": (
        "numbers.toml",
        '"+13125550101"',
        '"1 (312) 555-0100"',
        ['numbers.toml: line.hotline_es.numbers: "1 (312) 555-0100" already belongs to line "hotline".'],
    ),
    "unknown default line": (
        "numbers.toml",
        'default = "hotline"',
        'default = "hot_line"',
        ['numbers.toml: default: There is no line "hot_line". Did you mean "hotline"?'],
    ),
    "unknown key of a line": (
        "numbers.toml",
        'site = "main"',
        'sites = "main"',
        ['numbers.toml: line.hotline.sites: Unknown key "sites". Did you mean "site"?'],
    ),
    "emergency number": (
        "numbers.toml",
        'ES.emergency = "112"',
        'ES.emergency = "one"',
        ['numbers.toml: country.ES.emergency: "one" is not an emergency number: use two to six digits.'],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_said_exactly(folder: Path, fault: str) -> None:
    file, old, new, expected = FAULTS[fault]
    spoil(folder, file, old, new)
    assert problems(folder) == expected


def test_emergency_sentence_must_be_first_on_lines_of_patients(folder: Path) -> None:
    spoil(folder, "after_hours.toml", 'start = "emergency"', 'start = "welcome"')
    spoil(
        folder,
        "after_hours.toml",
        'prompt = "welcome"\nnext = "menu"',
        'prompt = "welcome"\nnext = "emergency"',
    )
    spoil(
        folder,
        "after_hours.toml",
        'type = "emergency"\nnext = "welcome"',
        'type = "emergency"\nnext = "menu"',
    )
    assert problems(folder) == [
        'after_hours.toml: start: Patients reach this flow by line "hotline", so it must start with an '
        'emergency node; "welcome" is of type say.'
    ]


def test_lines_of_staff_may_start_without_it(folder: Path) -> None:
    test_emergency_sentence_must_be_first_on_lines_of_patients(folder)
    text = (folder / "numbers.toml").read_text()
    (folder / "numbers.toml").write_text(text.replace('site = "main"', 'site = "main"\npublic = false'))
    assert load_dialplans(folder).lines["hotline"].public is False


def test_a_line_without_roster_cannot_use_a_flow_that_leaves_it_open(folder: Path) -> None:
    spoil(folder, "numbers.toml", 'roster = "nights"\n', "")
    assert problems(folder) == [
        f"after_hours.toml: node.{node}.{key}: Name a roster here or in numbers.toml for line "
        '"hotline", which has none.'
        for node, key in (("clinician", "roster"), ("leave_message", "owner"), ("nobody", "owner"))
    ]


@pytest.mark.parametrize("file", ["numbers.toml", "roster.toml"])
def test_missing_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert problems(folder) == [f"{file}: There is no such file; the dialplans need it."]


def test_files_that_are_no_text_or_have_no_name(folder: Path) -> None:
    (folder / "prompts" / "spanish.toml").write_text("")
    (folder / "Night Shift.toml").write_text("")
    (folder / "latin.toml").write_bytes(b"start = '\xe9'")
    assert problems(folder) == [
        'Night Shift.toml: A flow is named by its file: use small letters, digits, "-" and "_".',
        "latin.toml: This file is not UTF-8; save it in that encoding.",
        'prompts/spanish.toml: The name must be a language of two small letters such as "en.toml".',
    ]


def test_no_prompts_at_all(folder: Path) -> None:
    shutil.rmtree(folder / "prompts")
    assert "prompts: There are no prompts; write one file a language such as en.toml." in problems(folder)


def test_recorded_prompts(folder: Path) -> None:
    recorded = folder / "prompts" / "recorded" / "en"
    recorded.mkdir(parents=True)
    for name in ("goodby.wav", "welcome.wav", "goodbye.mp3"):
        (recorded / name).write_bytes(b"")
    assert problems(folder) == [
        'prompts/recorded/en/goodby.wav: There is no prompt "goodby" to be replaced. Did you mean "goodbye"?',
        "prompts/recorded/en/goodbye.mp3: A recorded prompt must be a .wav file.",
        'prompts/recorded/en/welcome.wav: "welcome" has placeholders, so it cannot be recorded whole.',
    ]


def test_all_faults_are_said_at_once(folder: Path) -> None:
    for file, old, new, _ in (
        FAULTS["unknown country"],
        FAULTS["unknown target"],
        FAULTS["value not in the text"],
    ):
        spoil(folder, file, old, new)
    assert [line.split(": ")[:2] for line in problems(folder)] == [
        ["after_hours.toml", "node.menu.choices.1"],
        ["numbers.toml", "line.hotline.country"],
        ["prompts/en.toml", "prompt.welcome"],
    ]


def test_warnings_do_not_refuse(folder: Path) -> None:
    shutil.copy(folder / "after_hours.toml", folder / "spare.toml")
    spoil(
        folder,
        "spare.toml",
        '2 = "leave_message"',
        '2 = "leave_message", 3 = "consent", 4 = "consent", 5 = "consent", 6 = "consent"',
    )
    assert [str(problem) for problem in load_dialplans(folder).warnings] == [
        "spare.toml: warning: No line in numbers.toml leads to this flow.",
        "spare.toml: node.menu.choices: warning: A menu of 6 choices is hard to keep in mind; "
        "5 or fewer are better.",
    ]


@pytest.mark.parametrize(
    ("shape", "extra"),
    [(lambda n: f"n{n + 1}", []), (lambda n: f"n{(n + 1) % 2000}", ["for ever"])],
    ids=["chain", "ring"],
)
def test_a_flow_of_2000_nodes_is_checked_in_a_second(
    folder: Path, shape: Callable[[int], str], extra: list[str]
) -> None:
    nodes = [f'[node.n{n}]\ntype = "say"\nprompt = "goodbye"\nnext = "{shape(n)}"\n' for n in range(2000)]
    tail = '[node.n2000]\ntype = "voicemail"\nnext = "bye"\n[node.bye]\ntype = "hangup"\n'
    (folder / "big.toml").write_text('start = "n0"\nhuman = "n2000"\n' + "".join(nodes) + tail)
    began = time.process_time()
    try:
        said = [str(problem) for problem in load_dialplans(folder).warnings]
    except DialplanError as error:
        said = [str(problem) for problem in error.problems]
    assert time.process_time() - began < 1.0
    assert all(any(part in line for line in said) for part in ["No line in numbers.toml", *extra])
