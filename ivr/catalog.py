"""Prompt texts of one language. Pure.

Texts are Jinja2 templates in a sandbox with typed placeholders. A value is spoken, never evaluated: it is put
into the text as a plain string and stripped of the marks that a speech engine would take for its own
commands.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from jinja2 import StrictUndefined
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field

ValueKind = Literal["text", "digits"]
"""`text` is said as it stands, `digits` one by one ("nine one one")."""

# Autoescape would turn an apostrophe into "&#39;", which a speech engine reads aloud: there is no HTML here.
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)

_COMMAND_MARKS = str.maketrans({mark: " " for mark in "<>[]{}&\\`"})


class PromptText(BaseModel):
    """One prompt: its text and the placeholders in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1, description="What is said; {{ name }} is a placeholder.")
    values: Mapping[str, ValueKind] = Field(
        default_factory=dict, description="Placeholders and how they are said."
    )


class Voice(BaseModel):
    """Which engine speaks a language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["piper", "pico"] = Field(description="Speech engine.")
    voice: str = Field(description="Voice of the engine, or the path of a Piper voice (.onnx).")


class Catalog(BaseModel):
    """prompts/<language>.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    voice: Voice
    languages: Mapping[str, str] = Field(description="Names of the languages in this language.")
    digits: tuple[str, ...] = Field(min_length=10, max_length=10, description="The words for 0 to 9.")
    prompt: Mapping[str, PromptText] = Field(description="The prompts by name.")

    @cached_property
    def prompts(self) -> Mapping[str, PromptText]:
        """The prompts by name, with the ten digits as `digit_0` to `digit_9`."""
        spoken = {f"digit_{n}": PromptText(text=word) for n, word in enumerate(self.digits)}
        return {**spoken, **self.prompt}


def placeholders(template: str) -> frozenset[str]:
    """Names a template asks for. Raises jinja2.TemplateError when it is not a template."""
    return frozenset(find_undeclared_variables(_ENVIRONMENT.parse(template)))


def spoken_text(catalog: Catalog, prompt: PromptText, values: Mapping[str, str]) -> str:
    """The words of a prompt. Raises jinja2.TemplateError when a placeholder lacks a value."""
    said = {
        name: _spoken_value(catalog, prompt.values.get(name, "text"), value) for name, value in values.items()
    }
    words = _ENVIRONMENT.from_string(prompt.text).render(said).translate(_COMMAND_MARKS)
    return " ".join(words.split())


def _spoken_value(catalog: Catalog, kind: ValueKind, value: str) -> str:
    if kind == "digits":
        return ", ".join(catalog.digits[int(digit)] for digit in value if digit in "0123456789")
    return value
