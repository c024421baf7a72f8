"""What a section is made of. Nothing here imports torch: the parent and the tests do without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

ROOT = Path(__file__).parents[2]
State = Literal["ok", "failed", "skipped", "not reached"]


class Skip(Exception):
    """What is to be checked is not here; the message says what."""


class Failed(Exception):
    """A check does not hold; the message says how in one line."""


class Finding(NamedTuple):
    """What a case that holds has found."""

    figure: str = ""
    message: str = ""


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        seconds: after so many it counts as hung.
    """

    name: str
    run: Callable[[], Finding | None]
    seconds: float = 60.0


@dataclass(frozen=True)
class Cases:
    """All of a section.

    Attributes:
        parallel: cases at a time, in threads: for those that only wait for processes.
    """

    cases: Sequence[Case]
    parallel: int = 1


@dataclass(frozen=True)
class Settings:
    """What was typed.

    Attributes:
        out: the folder of the results.
        train, checkpoint: the recipe to train at the end, and the run to go on with.
    """

    out: str
    device: str = "cuda"
    quick: bool = False
    train: str | None = None
    checkpoint: str | None = None

    @property
    def work(self) -> Path:
        """Runs, the cache and other files that are no results."""
        return Path(self.out) / "work"

    @property
    def kind(self) -> str:
        """`cuda` or `cpu`."""
        return self.device.partition(":")[0]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Section:
    """A process.

    Attributes:
        place: `module:function`, called with (settings, seconds) and returning `Cases`.
        weight: its share of the time, beside those of the sections after it.
    """

    name: str
    place: str
    weight: float


@dataclass(frozen=True)
class Row:
    """A finding, as results.jsonl has it."""

    section: str
    case: str
    state: State
    figure: str = ""
    message: str = ""
    seconds: float = 0.0


def one_line(error: BaseException | str) -> str:
    """The first line that says something, of an error with its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no reason given"
    if isinstance(error, str | Failed | Skip):
        return text[:300]
    return f"{type(error).__name__}: {text}"[:300]
