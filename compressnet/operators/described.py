"""What the docstrings and signatures of operators say, as data: for `compressnet operators show`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from compressnet import registry, signature

CONFIRMED = (
    "at the defaults, PSNR to the output of the network released for arXiv 1709.00643 is 35 dB or more"
)
_NOT = "Not confirmed: "
_SECTION = re.compile(r"^(Args|Raises|Returns|Attributes):$")
_ARGUMENT = re.compile(r"^    (\w+): (.*)$")


class Described(NamedTuple):
    """An operator in words.

    Attributes:
        about: what it computes, a line.
        notes: the rest of its description, by paragraphs.
        source: the papers, and what was written from them.
        unconfirmed: why its settings are not known to be those of arXiv 1709.00643; empty: they are.
        keys: of each argument the JSON schema, and in `about` what it means.
        example: a command.
    """

    name: str
    about: str
    notes: list[str]
    source: str
    unconfirmed: str
    keys: dict[str, dict[str, Any]]
    example: str


def described(name: str) -> Described:
    """What is known of a registered operator.

    Raises:
        UsageError: there is none of that name.
    """
    operator = registry.find("operator", name)
    about, *rest = _paragraphs(inspect.getdoc(operator) or "")
    notes = [text for text in rest if not text.startswith(_NOT)]
    doubts = [text.removeprefix(_NOT) for text in rest if text.startswith(_NOT)]
    _, source, *_ = _paragraphs(inspect.cleandoc(sys.modules[operator.__module__].__doc__ or ""))
    return Described(name, about, notes, source, " ".join(doubts), _keys(operator), _example(name, operator))


def _keys(operator: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    meanings = _meanings(inspect.getdoc(operator) or "")
    schema, _ = signature.json_schema(operator)
    return {key: {**entry, "about": meanings.get(key, "")} for key, entry in schema.items()}


def _example(name: str, operator: Callable[..., Any]) -> str:
    """With the first argument, at its default."""
    key, parameter = next(iter(signature.parameters(operator).items()))
    value = "FILE" if parameter.file else parameter.default
    return f"compressnet apply operator:{name}:{key}={value} photo.jpg -o {name}.png"


def _paragraphs(text: str) -> list[str]:
    """Before the first section, each as one line."""
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    return [" ".join(part.split()) for part in "\n".join(lines[:end]).split("\n\n") if part.strip()]


def _meanings(text: str) -> dict[str, str]:
    """The arguments of a docstring as Google writes it, by the names that YAML uses."""
    found: dict[str, str] = {}
    _, _, section = text.partition("Args:\n")
    key = ""
    for line in section.splitlines():
        if not line.startswith("    "):  # the next section
            break
        if begin := _ARGUMENT.match(line):
            key, line = begin[1].removesuffix("_"), begin[2]
            found[key] = ""
        found[key] = f"{found[key]} {line.strip()}".strip()
    return found
