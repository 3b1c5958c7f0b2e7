"""The words of a prompt: Jinja2 templates in a sandbox, with typed placeholders.

A value is spoken, never evaluated: it is put into the text as a plain string and stripped of the marks that a
speech engine would take for its own commands.
"""

from collections.abc import Mapping

from jinja2 import StrictUndefined
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ivr.catalog import Catalog, PromptText, ValueKind

# Autoescape would turn an apostrophe into "&#39;", which a speech engine reads aloud: there is no HTML here.
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)

_COMMAND_MARKS = str.maketrans({mark: " " for mark in "<>[]{}&\\`"})


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
