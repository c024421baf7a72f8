"""What `apply` makes besides images."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """Text that a model wrote."""

    text: str


class Figures(NamedTuple):
    """What was measured on an input, by name."""

    values: dict[str, float]


class Label(NamedTuple):
    """What a model takes a line of text for.

    Attributes:
        line: its number, from 1.
        label: the most probable class.
        probability: 0 to 1.
    """

    line: int
    label: str
    probability: float
    text: str


class Labels(NamedTuple):
    """The classes of the lines of a text file."""

    lines: list[Label]
