"""Reads a dialplans folder, strictly and as a whole: everything in it works together, or nothing is used.

Files: numbers.toml (lines, countries), roster.toml (only the roster names are read here; `pbx.rosters` reads
the rest), prompts/<language>.toml, and one <flow>.toml a flow. A caller that fails to reload keeps what it
had.
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ivr.catalog import Catalog
from ivr.check_prompts import check_prompts
from ivr.flow import (
    NODE_TYPES,
    Country,
    CountryCode,
    Dialplans,
    Flow,
    LanguageTag,
    Line,
    Name,
    Node,
    OnCall,
    Table,
    Voicemail,
    normalise_number,
)
from ivr.graph import check_flow
from ivr.problems import Problem, from_validation, nearest

NUMBERS, ROSTER, PROMPTS = "numbers.toml", "roster.toml", "prompts"

Model = TypeVar("Model", bound=BaseModel)


class DialplanError(Exception):
    """The dialplans cannot be used; `problems` holds one sentence each, warnings among them."""

    def __init__(self, problems: Collection[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class NumbersFile(Table):
    """numbers.toml; its lines are read one by one, so that one fault does not hide another."""

    default: Name = Field(description="Line of every number that is not listed.")
    country: Mapping[CountryCode, Country] = Field(description="Emergency numbers by country.", min_length=1)
    line: Mapping[Name, dict[str, Any]] = Field(description="The lines by name.", min_length=1)


class FlowFile(Table):
    """A flow file whose nodes are still unread."""

    start: Name
    human: Name
    node: Mapping[Name, dict[str, Any]] = Field(min_length=1)


def load_dialplans(folder: Path) -> Dialplans:
    """Read and check a dialplans folder. Raises DialplanError with every fault at once, in order of files."""
    reading = _Reading(folder)
    numbers = reading.numbers()
    rosters = reading.rosters()
    catalogs = reading.catalogs()
    flows = reading.flows()
    if numbers is not None:
        _check_lines(reading, numbers, flows, rosters, catalogs)
    _check_flows(reading, numbers, flows, rosters)
    check = check_prompts(folder, catalogs, flows)
    reading.problems += [problem for problem in check if problem.file not in reading.damaged]
    problems = sorted(set(reading.problems))
    if numbers is None or any(not problem.warning for problem in problems):
        raise DialplanError(problems)
    return Dialplans(
        folder=folder,
        flows=flows,
        lines=numbers.lines,
        by_number={normalise_number(n): name for name, line in numbers.lines.items() for n in line.numbers},
        default_line=numbers.default,
        countries=numbers.countries,
        catalogs=catalogs,
        default_language=numbers.lines[numbers.default].language,
        rosters=rosters or frozenset(),
        warnings=tuple(problems),
    )


@dataclass(frozen=True, kw_only=True)
class _Numbers:
    default: str
    countries: Mapping[str, Country]
    lines: Mapping[str, Line]  # those that could be read
    named: frozenset[str]  # all of them


@dataclass
class _Reading:
    """The files of a folder, and what is wrong with them."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)  # files that could not be read whole

    def fault(self, file: str, path: str, sentence: str, *, warning: bool = False) -> None:
        self.problems.append(Problem(file=file, path=path, sentence=sentence, warning=warning))

    def numbers(self) -> _Numbers | None:
        raw = self._toml(NUMBERS)
        read = None if raw is None else self._model(NUMBERS, NumbersFile, raw)
        if read is None:
            return None
        lines = {name: self._model(NUMBERS, Line, raw, f"line.{name}") for name, raw in read.line.items()}
        return _Numbers(
            default=read.default,
            countries=read.country,
            lines={name: line for name, line in lines.items() if line is not None},
            named=frozenset(lines),
        )

    def rosters(self) -> frozenset[str] | None:
        """Names of the rosters; None when the file cannot be read."""
        raw = self._toml(ROSTER)
        if raw is None:
            return None
        rosters = raw.get("roster", {})
        return frozenset(rosters) if isinstance(rosters, dict) else frozenset()

    def catalogs(self) -> dict[str, Catalog]:
        found: dict[str, Catalog] = {}
        for path in sorted((self.folder / PROMPTS).glob("*.toml")):
            file = f"{PROMPTS}/{path.name}"
            raw = self._toml(file)
            if not self._named(LanguageTag, path.stem):
                self.fault(file, "", 'The name must be a language of two small letters such as "en.toml".')
                self.damaged.add(file)
            elif raw is not None and (catalog := self._model(file, Catalog, raw)) is not None:
                found[path.stem] = catalog
        if not found and not self.damaged:
            self.fault(PROMPTS, "", "There are no prompts; write one file a language such as en.toml.")
        return found

    def flows(self) -> dict[str, Flow]:
        found: dict[str, Flow] = {}
        for path in sorted(self.folder.glob("*.toml")):
            if path.name in (NUMBERS, ROSTER):
                continue
            if not self._named(Name, path.stem):
                self.fault(
                    path.name, "", 'A flow is named by its file: use small letters, digits, "-" and "_".'
                )
                self.damaged.add(path.name)
                continue
            raw = self._toml(path.name)
            if raw is not None and (flow := self._flow(path.name, raw)) is not None:
                found[path.stem] = flow
        return found

    def _flow(self, file: str, raw: dict[str, Any]) -> Flow | None:
        head = self._model(file, FlowFile, raw)
        if head is None:
            return None
        nodes: dict[str, Node] = {}
        for name, table in head.node.items():
            node = self._node(file, name, table)
            if node is not None:
                nodes[name] = node
        if len(nodes) < len(head.node):  # its paths are judged once all its nodes can be read
            return None
        return Flow(start=head.start, human=head.human, node=nodes)

    def _node(self, file: str, name: str, table: dict[str, Any]) -> Node | None:
        kind = table.get("type")
        if not isinstance(kind, str) or kind not in NODE_TYPES:
            known = ", ".join(sorted(NODE_TYPES))
            said = "The type is missing" if kind is None else f'There is no node type "{kind}"'
            hint = nearest(str(kind), NODE_TYPES) or f" Known are {known}."
            self.fault(file, f"node.{name}.type", f"{said}.{hint}")
            self.damaged.add(file)
            return None
        return self._model(file, NODE_TYPES[kind], table, f"node.{name}")

    def _named(self, form: Any, name: str) -> bool:
        try:
            TypeAdapter(form).validate_python(name)
        except ValidationError:
            return False
        return True

    def _toml(self, file: str) -> dict[str, Any] | None:
        """The tables of a file; None, and a problem, when it cannot be read."""
        try:
            return tomllib.loads((self.folder / file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.fault(file, "", "There is no such file; the dialplans need it.")
        except UnicodeDecodeError:
            self.fault(file, "", "This file is not UTF-8; save it in that encoding.")
        except OSError as error:
            self.fault(file, "", f"This file cannot be read: {error.strerror}.")
        except tomllib.TOMLDecodeError as error:
            self.fault(file, "", f"This is not valid TOML: {error}.")
        self.damaged.add(file)
        return None

    def _model(self, file: str, model: type[Model], raw: object, prefix: str = "") -> Model | None:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.problems += from_validation(file, error, model, prefix)
            self.damaged.add(file)
            return None


def _check_lines(
    reading: _Reading,
    numbers: _Numbers,
    flows: Mapping[str, Flow],
    rosters: frozenset[str] | None,
    catalogs: Mapping[str, Catalog],
) -> None:
    """References of numbers.toml into the other files; what could not be read there is not reported again."""

    def unknown(path: str, what: str, name: str, known: Collection[str]) -> None:
        reading.fault(NUMBERS, path, f'There is no {what} "{name}".{nearest(name, known)}')

    if numbers.default not in numbers.named:
        unknown("default", "line", numbers.default, numbers.named)
    taken: dict[str, str] = {}
    for name, line in numbers.lines.items():
        path = f"line.{name}"
        if line.flow not in flows and f"{line.flow}.toml" not in reading.damaged:
            unknown(f"{path}.flow", "flow", line.flow, flows)
        if line.country not in numbers.countries:
            sentence = (
                f'There is no emergency number for "{line.country}"; write one under country.{line.country}.'
            )
            reading.fault(NUMBERS, f"{path}.country", sentence)
        if line.language not in catalogs and f"{PROMPTS}/{line.language}.toml" not in reading.damaged:
            unknown(f"{path}.language", "prompts file for language", line.language, catalogs)
        if rosters is not None and line.roster is not None and line.roster not in rosters:
            unknown(f"{path}.roster", "roster", line.roster, rosters)
        for language in sorted(set(catalogs) - set(line.name)):
            reading.fault(NUMBERS, f"{path}.name", f'There is no name in "{language}"; clinicians hear it.')
        for number in line.numbers:
            other = taken.setdefault(normalise_number(number), name)
            if other != name:
                sentence = f'"{number}" already belongs to line "{other}".'
                reading.fault(NUMBERS, f"{path}.numbers", sentence)


def _check_flows(
    reading: _Reading, numbers: _Numbers | None, flows: Mapping[str, Flow], rosters: frozenset[str] | None
) -> None:
    lines = numbers.lines if numbers else {}
    for name, flow in flows.items():
        file = f"{name}.toml"
        served = {line: entry for line, entry in lines.items() if entry.flow == name}
        public = next((line for line, entry in served.items() if entry.public), None)
        if not served and NUMBERS not in reading.damaged:
            reading.fault(file, "", "No line in numbers.toml leads to this flow.", warning=True)
        reading.problems += check_flow(file, flow, public)
        for node_name, node in flow.node.items():
            if not isinstance(node, OnCall | Voicemail):
                continue
            key = "owner" if isinstance(node, Voicemail) else "roster"
            roster = node.owner if isinstance(node, Voicemail) else node.roster
            path = f"node.{node_name}.{key}"
            if roster is not None and rosters is not None and roster not in rosters:
                reading.fault(file, path, f'There is no roster "{roster}".{nearest(roster, rosters)}')
            for line, entry in served.items() if roster is None else ():
                if entry.roster is None:
                    sentence = f'Name a roster here or in numbers.toml for line "{line}", which has none.'
                    reading.fault(file, path, sentence)
