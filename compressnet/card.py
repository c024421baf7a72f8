"""How weights came about, as cards of the zoo and records of results tell it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from compressnet.json_file import Form
from compressnet.run_files import Count, Parent

Figure = float | Literal["nan", "inf", "-inf"]  # JSON has no numbers that are not finite


def _words(command: str) -> str:
    shlex.split(command)  # raises ValueError
    return command


def _has_figure(point: list[int | float | str | None]) -> list[int | float | str | None]:
    if None in point[:2]:
        raise ValueError("a point of a curve has a step and a figure")
    return point


Command = Annotated[str, AfterValidator(_words)]
Point = Annotated[
    list[Count | Figure | None], Field(min_length=3, max_length=3), AfterValidator(_has_figure)
]  # step, figure, that of doing nothing


class Data(Form):
    """What was evaluated on, or trained on."""

    name: str
    count: Count
    fingerprint: str
    set: str | None = None
    fold: Count | None = None

    @property
    def title(self) -> str:
        """`sentences TREC`, `cifar10 (JPEG copy)`, `glyphs (synthetic)`: what stands over figures."""
        return title(self.model_dump())


def title(data: Mapping[str, Any]) -> str:
    """What stands over figures that were measured on `data`: its name and `marks`."""
    return " ".join(str(word) for word in (data["name"], data.get("set")) if word) + marks(data)


def marks(data: Mapping[str, Any]) -> str:
    """What must not go unsaid of `data`, behind its name: ` (JPEG copy)`, or nothing.

    `copy` says how it differs from the set of that name; what is `synthetic` says nothing of real data.
    """
    said = ", ".join(str(mark) for mark in (data.get("copy"), data.get("synthetic") and "synthetic") if mark)
    return f" ({said})" if said else ""


class Training(Form):
    """How the weights came about."""

    command: Command
    train_seconds: float
    step: Count
    device: str
    data: Data | None = None
    commit: str | None = None
    resumed_with: list[str] = Field(default_factory=list)
    metric: str = ""
    curve: list[Point] = Field(default_factory=list)
    parent: Parent | None = None


class Card(Form):
    """What is said of a network of the zoo."""

    about: str
    result: str
    model: str
    parameters: Count
    data: str
    licence: str
    example: Command
    training: Training
