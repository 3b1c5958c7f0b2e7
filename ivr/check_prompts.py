"""Proves that every prompt a flow can say exists in every language, with placeholders that have a value. Pure
but for the names of recorded files."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from jinja2 import TemplateError

from ivr.catalog import Catalog, PromptText
from ivr.flow import (
    RUNNER_PROMPTS,
    WALK_PROMPTS,
    Consent,
    Emergency,
    Flow,
    HangUp,
    Menu,
    OnCall,
    Say,
    Voicemail,
)
from ivr.problems import Problem, nearest
from ivr.wording import placeholders

LINE_VALUES = frozenset({"emergency", "line"})  # what `ivr.flow.line_values` knows
SCREEN_VALUES = frozenset({"language", "line"})  # what `Dialplans.offer` knows


def prompts_of(flow: Flow) -> Mapping[str, str]:
    """Prompts a flow names, each with the path of the first place that does."""
    named: dict[str, str] = {}
    for name, node in flow.node.items():
        match node:
            case OnCall():
                keys = {"prompt": node.prompt, "waiting": node.waiting}
            case Voicemail():
                keys = {"greeting": node.greeting}
            case HangUp(prompt=None):
                keys = {}
            case Emergency() | Say() | Menu() | Consent() | HangUp():
                keys = {"prompt": node.prompt or ""}
        for key, prompt in keys.items():
            named.setdefault(prompt, f"node.{name}.{key}")
    return named


def check_prompts(folder: Path, catalogs: Mapping[str, Catalog], flows: Mapping[str, Flow]) -> list[Problem]:
    """Faults of the prompt texts, of what flows ask of them and of the recorded files, for all languages."""
    used: dict[str, str] = {}
    for name, flow in flows.items():
        for prompt, path in prompts_of(flow).items():
            used.setdefault(prompt, f"{name}.toml: {path}")
    for prompt in (*RUNNER_PROMPTS, *WALK_PROMPTS):
        used.setdefault(prompt, "every line")
    emergency = {n.prompt for flow in flows.values() for n in flow.node.values() if isinstance(n, Emergency)}
    written = {name for catalog in catalogs.values() for name in catalog.prompts}
    misnamed = set(used) - written - {*RUNNER_PROMPTS, *WALK_PROMPTS}  # more likely than untranslated
    problems: list[Problem] = []
    for language, catalog in catalogs.items():
        file = f"prompts/{language}.toml"
        problems += _languages(file, catalog, catalogs)
        problems += _used(file, catalog, used, misnamed)
        for name, text in catalog.prompt.items():
            problems += _template(file, name, text)
        for name in sorted(emergency | {"emergency"}):
            if name in catalog.prompt and "emergency" not in catalog.prompt[name].values:
                problems.append(
                    _fault(file, name, "An emergency sentence must name the number: use {{ emergency }}.")
                )
        problems += _recorded(folder, language, catalog)
    return [*problems, *_alike(catalogs)]


def _fault(file: str, prompt: str, sentence: str) -> Problem:
    return Problem(file=file, path=f"prompt.{prompt}", sentence=sentence)


def _languages(file: str, catalog: Catalog, catalogs: Iterable[str]) -> Iterator[Problem]:
    for other in sorted(set(catalogs) - set(catalog.languages)):
        yield Problem(file=file, path="languages", sentence=f'There is no name for the language "{other}".')


def _used(
    file: str, catalog: Catalog, used: Mapping[str, str], misnamed: Collection[str]
) -> Iterator[Problem]:
    for name, place in used.items():
        if name not in catalog.prompts:
            hint = nearest(name, catalog.prompts) if name in misnamed else ""
            yield _fault(file, name, f"This prompt is missing; it is used by {place}.{hint}")
            continue
        known = SCREEN_VALUES if name == "screen" else LINE_VALUES
        for value in sorted(set(catalog.prompts[name].values) - known):
            yield _fault(
                file,
                name,
                f'Nothing gives "{value}" a value where {place} says this; '
                f"known are {', '.join(sorted(known))}.",
            )


def _template(file: str, name: str, prompt: PromptText) -> Iterator[Problem]:
    try:
        asked = placeholders(prompt.text)
    except TemplateError as error:
        yield _fault(file, name, f"The text is not a valid template: {str(error).rstrip('.')}.")
        return
    for value in sorted(asked - set(prompt.values)):
        yield _fault(file, name, f'The text has the placeholder "{value}", which is not listed under values.')
    for value in sorted(set(prompt.values) - asked):
        yield _fault(file, name, f'The value "{value}" is not in the text.')


def _alike(catalogs: Mapping[str, Catalog]) -> Iterator[Problem]:
    """A prompt needs the same values in every language, or some callers would miss a part of it."""
    first: dict[str, str] = {}
    for language, catalog in sorted(catalogs.items()):
        for name, prompt in catalog.prompt.items():
            model = first.setdefault(name, language)
            if prompt.values != catalogs[model].prompt[name].values:
                yield _fault(
                    f"prompts/{language}.toml", name, f"The values differ from those in prompts/{model}.toml."
                )


def _recorded(folder: Path, language: str, catalog: Catalog) -> Iterator[Problem]:
    for path in sorted((folder / "prompts" / "recorded" / language).glob("*")):
        file = f"prompts/recorded/{language}/{path.name}"
        prompt = catalog.prompts.get(path.stem)
        if path.suffix != ".wav":
            yield Problem(file=file, path="", sentence="A recorded prompt must be a .wav file.")
        elif prompt is None:
            hint = nearest(path.stem, catalog.prompts)
            yield Problem(
                file=file, path="", sentence=f'There is no prompt "{path.stem}" to be replaced.{hint}'
            )
        elif prompt.values:
            yield Problem(
                file=file,
                path="",
                sentence=f'"{path.stem}" has placeholders, so it cannot be recorded whole.',
            )
