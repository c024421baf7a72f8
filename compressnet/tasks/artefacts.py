"""What `apply` makes besides images, and how results are printed, told as JSON and written.

write(path)   a file of its own, in one of `suffixes`
rows()        what a table shows, and what all inputs have in one common file
as_json()     what `--json` tells
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from compressnet.errors import CompressnetError
from compressnet.source import Source

ROW_SUFFIXES = (".tsv", ".csv")


class Artefact(Protocol):
    """The result of one input."""

    suffixes: ClassVar[tuple[str, ...]]
    """The formats it can be written in; the first is the default."""
    printed: ClassVar[bool]
    """Whether it is shown where no file is named, and whether those of all inputs can share a file."""
    live: ClassVar[bool]
    """Whether what is piped in has many, each of which is shown as soon as it is there."""

    def write(self, path: Path) -> list[str]:
        """Write a file, which is a temporary of the writer's: what its format could not hold.

        Raises:
            OSError: as the system says it.
            CutShort: the file is there, and ends before it should.
            CompressnetError: the format cannot hold it at all, or what is computed on the way has failed.
        """

    def rows(self) -> list[dict[str, Any]] | None:
        """Cells by the names of their columns; None: it is no table but text, or a picture."""

    def as_json(self) -> dict[str, Any]:
        """What stands beside `input` and `output`; asked after `write`, where that is called."""


@dataclass(frozen=True)
class Text:
    """Text that a model wrote."""

    text: str
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".md")
    printed: ClassVar[bool] = True
    live: ClassVar[bool] = False

    def write(self, path: Path) -> list[str]:
        path.write_bytes(_encoded(f"{self.text}\n"))
        return []

    def rows(self) -> None:
        return None

    def as_json(self) -> dict[str, Any]:
        return {"text": self.text}


class Table:
    """What is rows: a class that has `rows` and `as_json` and inherits this is an `Artefact`."""

    suffixes: ClassVar[tuple[str, ...]] = ROW_SUFFIXES
    printed: ClassVar[bool] = True
    live: ClassVar[bool] = False

    def write(self, path: Path) -> list[str]:
        write_rows(self.rows(), path)
        return []

    def rows(self) -> list[dict[str, Any]]:
        raise NotImplementedError


@dataclass(frozen=True)
class Figures(Table):
    """What was measured on an input, by name."""

    values: Mapping[str, float]

    def rows(self) -> list[dict[str, Any]]:
        return [dict(self.values)]

    def as_json(self) -> dict[str, Any]:
        return dict(self.values)


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


@dataclass(frozen=True)
class Labels(Table):
    """The classes of the lines of a text file."""

    lines: Sequence[Label]

    def rows(self) -> list[dict[str, Any]]:
        return [line._asdict() for line in self.lines]

    def as_json(self) -> dict[str, Any]:
        return {"lines": self.rows()}


class Event(NamedTuple):
    """What was heard, and when.

    Attributes:
        start_ms, end_ms: of the sound in which it was heard, all windows that were averaged; from the
            beginning of the audio.
        label: which word.
        score: its mean probability, 0 to 1, when it passed the threshold; of a clip its probability.
    """

    start_ms: float
    end_ms: float
    label: str
    score: float


@dataclass(frozen=True)
class Events(Table):
    """What was heard in a recording, in the order of time."""

    events: Sequence[Event]
    live: ClassVar[bool] = True

    def rows(self) -> list[dict[str, Any]]:
        return [event._asdict() for event in self.events]

    def as_json(self) -> dict[str, Any]:
        return {"events": self.rows()}


def write_together(results: Iterable[tuple[Source, Artefact]], path: Path) -> None:
    """One file of all: texts one after the other, rows in one table with a column `input`."""
    texts, rows = [], []
    for source, artefact in results:
        if isinstance(artefact, Text):
            texts.append(f"{artefact.text}\n")
        rows += [{"input": source.name, **row} for row in artefact.rows() or ()]
    if texts and rows:
        raise CompressnetError("texts and rows are of two kinds, and cannot share a file")
    if texts:
        path.write_bytes(_encoded("".join(texts)))
    else:
        write_rows(rows, path)


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A heading and the rows: parted by commas where the suffix is .csv, else by tabs."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not rows:
        path.write_bytes(b"")
        return
    table = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        path.write_bytes(_encoded(text.getvalue()))
    else:
        lines = (
            "\t".join(" ".join(str(cell).splitlines()).replace("\t", " ") for cell in row) for row in table
        )
        path.write_bytes(_encoded("".join(f"{line}\n" for line in lines)))


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # a name that is no text, as it is
