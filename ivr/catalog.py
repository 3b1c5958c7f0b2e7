"""Prompt texts of one language. Pure; `ivr.wording` turns them into the words that are said."""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ValueKind = Literal["text", "digits"]
"""`text` is said as it stands, `digits` one by one ("nine, one, one")."""


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
