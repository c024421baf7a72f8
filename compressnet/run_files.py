"""The forms of what a run directory holds as JSON: run.json, and the lines of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from compressnet import json_file
from compressnet.errors import CompressnetError
from compressnet.json_file import Form
from compressnet.regular_file import open_regular

Count = Annotated[int, Field(ge=0)]
COMPRESSION = "compress.json"
_MAX_LINE = 1 << 20  # bytes of a line of metrics.jsonl


class Matmul(Form):
    """The CPU settings that a run was begun with."""

    matmul: str
    malloc: bool
    kernels: bool = False


class Parent(Form):
    """The weights that training started from, that were compressed, or that it learned from."""

    run: str
    digest: str


class Facts(Form):
    """run.json: what was trained, on what, how far it came."""

    recipe: str
    smoke: bool
    seed: Count
    status: Literal["created", "running", "done", "interrupted", "failed"]
    started: str
    ended: str = ""
    reason: str | None = None
    step: Count = 0
    total_steps: Count = 0
    train_seconds: float = 0.0
    best: float | str | None = None  # one that is not finite is a text
    digest: str = ""
    command: list[str] = Field(default_factory=list)
    resumed_with: list[list[str]] = Field(default_factory=list)
    device: str = ""
    threads: Annotated[int, Field(ge=1, le=65536)] = 1
    cpu: Matmul | None = None
    world: Annotated[int, Field(ge=1)] = 1
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    data_root: str | None = None  # where relative roots were looked up
    data: dict[str, Any] = Field(default_factory=dict)
    parent: Parent | None = None
    teacher: Parent | None = None
    compressed: bool = False


class Compression(Form):
    """compress.json, as far as a run adds to it: the metric on validation data by stage."""

    validation: dict[str, float | str]


class Row(Form):
    """A line of metrics.jsonl; the other keys are figures."""

    event: str
    step: Count


def read_facts(path: Path) -> dict[str, Any]:
    """run.json as it is written.

    Raises:
        CompressnetError: missing or damaged.
    """
    value: dict[str, Any] = json_file.read(path)
    json_file.check(Facts, value, str(path))
    return value


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl, in order; one that is torn or damaged is left out.

    Raises:
        CompressnetError: the file cannot be read.
    """
    for line in _lines(path):
        try:
            row = json_file.parse(line, str(path))
            json_file.check(Row, row, str(path))
        except CompressnetError:
            continue
        yield row


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that are no longer than a log's; it is read piece by piece."""
    try:
        with open_regular(path) as file:
            begins = True
            while piece := file.readline(_MAX_LINE):
                ends = piece.endswith(b"\n")
                if begins and (ends or len(piece) < _MAX_LINE):
                    yield piece
                begins = ends
    except FileNotFoundError:
        return
    except OSError as error:
        raise CompressnetError(f"cannot read {path}: {error.strerror}") from error
