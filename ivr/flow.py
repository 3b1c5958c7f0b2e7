"""Node types of the flow language and the checked dialplans made of them. Pure values.

A flow is a graph of named nodes without expressions. Reading the files is `ivr.load`, walking a flow is
`ivr.interpreter`. A `Dialplans` that exists has passed every check: its references can be followed blindly.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ivr.catalog import Catalog
from ivr.problems import Problem

REPEAT_KEY = "*"  # at every prompt: say it again. No menu may use it for a choice.


def of_form(pattern: str, what: str) -> AfterValidator:
    """A check of whole strings; its sentence reads `"value" is not {what}`."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f'"{value}" is not {what}')
        return value

    return AfterValidator(check)


Name = Annotated[
    str, of_form(r"[a-z][a-z0-9_-]{0,63}", 'a name: use small letters, digits, "-" and "_", a letter first')
]
Key = Annotated[str, of_form(r"[0-9#*]", "a key: use one of 0 to 9, # and *")]
LanguageTag = Annotated[
    str, of_form(r"[a-z]{2}", 'a language: use two small letters such as "en"')
]  # ISO 639-1
CountryCode = Annotated[str, of_form(r"[A-Z]{2}", 'a country: use two capitals such as "US"')]  # ISO 3166-1
EmergencyNumber = Annotated[str, of_form(r"[0-9]{2,6}", "an emergency number: use two to six digits")]


class Table(BaseModel):
    """A table of a dialplan file: frozen, strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Emergency(Table):
    """Says the emergency sentence of the line's country. The first time in a call no key can skip it."""

    type: Literal["emergency"]
    prompt: Name = Field("emergency", description="Prompt with the emergency number.")
    next: Name = Field(description="Node that follows.")


class Say(Table):
    """Says a prompt. A key skips it and is kept for the menu that follows."""

    type: Literal["say"]
    prompt: Name = Field(description="What is said.")
    next: Name = Field(description="Node that follows.")


class Menu(Table):
    """Asks for one key, while the prompt plays or after it."""

    type: Literal["menu"]
    prompt: Name = Field(description="The question.")
    choices: Mapping[Key, Name] = Field(description="Key to node.", min_length=1)
    timeout_s: float = Field(
        6.0, gt=0, le=60, description="Seconds of silence after the prompt that count as a failure."
    )
    retries: int = Field(1, ge=0, le=5, description="Times the question is asked again after a failure.")
    on_timeout: Name | None = Field(
        None, description="Node after the last silence; without it the flow's `human`."
    )
    on_invalid: Name | None = Field(
        None, description="Node after the last wrong key; without it the flow's `human`."
    )


class Consent(Table):
    """Asks permission and records the answer. Silence and wrong keys mean no; the call always goes on."""

    type: Literal["consent"]
    kind: Literal["recording"] = Field("recording", description="What is permitted.")
    prompt: Name = Field("consent_recording", description="The question; it must name both keys.")
    yes: Key = Field("1", description="Key that permits.")
    no: Key = Field("2", description="Key that refuses.")
    timeout_s: float = Field(
        6.0, gt=0, le=60, description="Seconds of silence after the prompt that count as a failure."
    )
    retries: int = Field(1, ge=0, le=5, description="Times the question is asked again after a failure.")
    next: Name = Field(description="Node that follows.")
    on_no: Name | None = Field(None, description="Node after a refusal; without it `next`.")


class OnCall(Table):
    """Finds the clinician on call. The caller hears `prompt`, then music with `waiting` said now and then."""

    type: Literal["on_call"]
    roster: Name | None = Field(None, description="Who is called; without it the line's own roster.")
    prompt: Name = Field("connecting", description="Said while the first phone rings.")
    waiting: Name = Field("still_trying", description="Said again and again while nobody has answered.")
    waiting_every_s: float = Field(20.0, ge=5, le=120, description="Seconds of music between two of them.")
    on_nobody: Name = Field(description="Node when nobody took the call.")


class Voicemail(Table):
    """Takes a message that a roster owns. `#` skips the greeting and ends the message."""

    type: Literal["voicemail"]
    owner: Name | None = Field(None, description="Roster that is paged; without it the line's own roster.")
    greeting: Name = Field("voicemail_greeting", description="Said before the beep.")
    max_s: float = Field(180.0, gt=0, le=900, description="Longest message.")
    next: Name = Field(description="Node after the message.")


class HangUp(Table):
    """Ends the call."""

    type: Literal["hangup"]
    prompt: Name | None = Field(None, description="Last words.")
    emergency: bool = Field(False, description="Says the emergency sentence as the very last thing.")


Node = Emergency | Say | Menu | Consent | OnCall | Voicemail | HangUp
NODE_TYPES: Mapping[str, type[Node]] = {
    "emergency": Emergency,
    "say": Say,
    "menu": Menu,
    "consent": Consent,
    "on_call": OnCall,
    "voicemail": Voicemail,
    "hangup": HangUp,
}


RUNNER_PROMPTS = ("screen", "caller_gone", "call_taken", "fault")
"""Said by whoever runs the call; no node names them. All but `fault` are for clinicians."""

WALK_PROMPTS = ("emergency", "confused", "no_key", "wrong_key", "message_failed", "clinician_dropped")
"""Said to callers by the interpreter on its own."""


class Flow(Table):
    """One flow: a file of the dialplans folder, named after it."""

    start: Name = Field(description="First node.")
    human: Name = Field(description="on_call or voicemail node for callers who get stuck.")
    node: Mapping[Name, Node] = Field(description="The nodes by name.")


class Country(Table):
    """What the law of a country decides."""

    emergency: EmergencyNumber = Field(description="Emergency number, spoken digit by digit.")


class Line(Table):
    """One line of the hotline: the numbers that reach it and what happens to their callers."""

    name: Mapping[LanguageTag, str] = Field(
        description="Name by language, said to the clinician.", min_length=1
    )
    numbers: tuple[str, ...] = Field((), description="DIDs (+E.164), SIP names and extensions that reach it.")
    flow: Name = Field(description="Flow its callers walk through.")
    language: LanguageTag = Field("en", description="Language it starts in.")
    country: CountryCode = Field("US", description="Decides the emergency sentence.")
    roster: Name | None = Field(None, description="Who answers and who owns its voicemail.")
    site: str = Field("", description="Clinic site, written into the note.")
    public: bool = Field(True, description="Patients can dial it; false for lines of staff and of tests.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRef:
    """One spoken prompt: a key of `ivr.prompts.PromptLibrary`."""

    id: str  # name in prompts/<language>.toml, or a tone of ivr.tones such as "beep"
    language: str  # ISO 639-1
    values: tuple[tuple[str, str], ...] = ()  # placeholder and value, sorted by placeholder


@dataclass(frozen=True, kw_only=True)
class Dialplans:
    """Everything a worker needs to talk to callers, checked as a whole."""

    folder: Path  # where they were read; recorded prompts lie in it
    flows: Mapping[str, Flow]  # by file name without .toml
    lines: Mapping[str, Line]  # by name in numbers.toml
    by_number: Mapping[str, str]  # normalised number to line name
    default_line: str  # line of numbers nobody listed
    countries: Mapping[str, Country]  # by ISO code
    catalogs: Mapping[str, Catalog]  # by language
    default_language: str  # language of the default line; missing prompts fall back to it
    rosters: frozenset[str]  # names in roster.toml
    warnings: tuple[Problem, ...] = field(default=())  # what the checker found but did not refuse

    def line_for(self, dialled: str) -> str:
        """Name of the line that a dialled number, SIP name or extension reaches."""
        return self.by_number.get(normalise_number(dialled), self.default_line)

    def prompt(self, line: str, language: str, prompt: str) -> PromptRef:
        """The prompt with the placeholders filled in that `line` decides: `emergency` and `line`."""
        catalog = self.catalogs.get(language)
        text = catalog.prompts.get(prompt) if catalog else None
        if text is None or not text.values:
            return PromptRef(id=prompt, language=language)
        values = line_values(self, line, language)
        return PromptRef(
            id=prompt,
            language=language,
            values=tuple((n, values[n]) for n in sorted(text.values) if n in values),
        )

    def offer(self, line: str, caller_language: str, clinician_language: str) -> PromptRef:
        """What a clinician hears on pick-up: which line, which language, which key accepts."""
        language = clinician_language if clinician_language in self.catalogs else self.default_language
        spoken = self.catalogs[language].languages.get(caller_language, caller_language)
        name = line_values(self, line, language)["line"]
        return PromptRef(id="screen", language=language, values=(("language", spoken), ("line", name)))


def line_values(dialplans: Dialplans, line: str, language: str) -> Mapping[str, str]:
    """Placeholder values that a line decides, before the caller has said anything."""
    entry = dialplans.lines[line]
    name = entry.name.get(language) or entry.name.get(entry.language) or next(iter(entry.name.values()))
    return {"emergency": dialplans.countries[entry.country].emergency, "line": name}


def normalise_number(dialled: str) -> str:
    """A DID without plus and separators, a SIP name in lower case: what `Dialplans.by_number` is keyed by."""
    name = dialled.strip().lower()
    digits = name.translate(str.maketrans("", "", "+-(). "))
    return digits if digits.isdecimal() else name
