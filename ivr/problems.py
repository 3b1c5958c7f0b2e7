"""Problems found in files people write, each as one sentence that says what, where and what to do. Pure.

The shape is `file: path: sentence`, where path names the table and key ("node.greeting.next").
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class Problem:
    """One fault, or a warning that does not stop a reload."""

    file: str  # as the reader would open it, relative to the folder checked
    path: str  # dotted path inside the file; empty for the file as a whole
    sentence: str  # full sentence, ends with a period
    warning: bool = False

    def __str__(self) -> str:
        where = f"{self.file}: {self.path}: " if self.path else f"{self.file}: "
        return where + ("warning: " if self.warning else "") + self.sentence


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ` Did you mean "menu"?`, or an empty string when nothing is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""


def from_validation(
    file: str, error: ValidationError, model: type[BaseModel], prefix: str = ""
) -> list[Problem]:
    """Pydantic's findings as our sentences, with the nearest known key for an unknown one."""
    errors = error.errors(include_url=False)
    inner = {found["loc"][:depth] for found in errors for depth in range(len(found["loc"]))}
    return [
        Problem(
            file=file,
            path=".".join([*([prefix] if prefix else []), *(str(part) for part in _place(found["loc"]))]),
            sentence=_sentence(found, model),
        )
        for found in errors
        if found["type"] != "too_short" or found["loc"] not in inner  # an entry that failed was left out
    ]


def _place(loc: Sequence[int | str]) -> list[int | str]:
    """Where the reader finds it: without the mark that pydantic puts behind the key of a mapping."""
    return [part for part in loc if part != "[key]"]


def _sentence(found: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, loc = found["type"], found["loc"]
    if kind == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        return f'Unknown key "{loc[-1]}".{nearest(str(loc[-1]), known)}'
    if kind == "missing":
        return f'The key "{loc[-1]}" is missing.'
    if kind == "too_short":
        return f"It needs at least {found['ctx']['min_length']} and has {found['ctx']['actual_length']}."
    if kind == "literal_error":
        expected = str(found["ctx"]["expected"]).replace("'", '"')
        return f'"{found["input"]}" is not one of {expected}.'
    message = (
        str(found["msg"])
        .removeprefix("Value error, ")
        .replace("Input should", "The value should")
        .rstrip(".")
    )
    return f"{message}."


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Known keys of the table at `loc`; an empty list where the path leads through a union."""
    current: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue
        current = _model_in(field.annotation)
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
