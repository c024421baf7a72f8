"""What `apply` makes besides images."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """Text that a model wrote."""

    text: str


class Figures(NamedTuple):
    """What was measured on an input, by name."""

    values: dict[str, float]
