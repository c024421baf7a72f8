"""What the core knows of the screen."""

from __future__ import annotations

from typing import Literal, Protocol

Level = Literal["info", "warning"]


class Reporter(Protocol):
    """Told of progress by anything that takes longer than two seconds; draws it, or does not."""

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        """Begin `name`: `total` units of work (None: unknown), of which `initial` are done."""

    def advance(self, n: int = 1, **scalars: float) -> None:
        """`n` more units of the current stage are done; `scalars` are its latest figures."""

    def note(self, level: Level, text: str) -> None:
        """Tell the person one line."""


class Silent:
    """A reporter that says nothing: the default of the library."""

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        pass

    def advance(self, n: int = 1, **scalars: float) -> None:
        pass

    def note(self, level: Level, text: str) -> None:
        pass
