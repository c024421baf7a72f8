"""The forms of recorded figures: what `eval --record`, `bench --record` and `bench --json` write."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from compressnet.json_file import Form
from compressnet.run_files import Count, Parent

Figure = float | Literal["nan", "inf", "-inf"]  # JSON has no numbers that are not finite
Seconds = Annotated[float, Field(gt=0)]


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


class Versions(Form):
    """Of what figures depend on."""

    torch: str


class Data(Form):
    """What was evaluated on, or trained on."""

    name: str
    count: Count
    fingerprint: str
    set: str | None = None
    fold: Count | None = None


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


class Cost(Form):
    """What a network takes: bytes of weights, bytes that a stream carries, MACs of one `unit` of its task."""

    weights_bytes: Count
    state_bytes: Count | None = None
    macs: Annotated[float, Field(ge=0)]
    unit: str


class Evaluation(Form):
    """A record of `eval`."""

    name: str
    subject: str
    smoke: bool
    data: Data
    split: str
    seed: Count
    device: str
    metrics: dict[str, Figure]
    rows: dict[str, dict[str, Figure]]
    command: str
    versions: Versions
    commit: str | None
    parameters: Count
    model: str
    digest: str | None
    released: bool
    operator: str | None = None
    recipe: str | None = None
    task: str | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    training: Training | None = None
    cost: Cost | None = None
    edits: list[dict[str, Any]] = Field(default_factory=list)
    measures: dict[str, Any] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)


class Card(Form):
    """What is said of a network of the zoo."""

    about: str
    result: str
    training: Training


class Ratio(Form):
    """How many times as fast, with its interval."""

    value: float
    low: float
    high: float


class Settings(Form):
    """What a process was set to (`training.cpu_settings`)."""

    matmul: Literal["exact", "fast"]
    malloc: bool


class Timed(Form):
    """A row of a benchmark: one way to run one side."""

    name: str
    side: str
    occurrence: Annotated[int, Field(ge=1)]
    mode: Literal["forward", "forward+backward", "train-step", "stream-step"]
    backend: str
    dtype: str
    threads: Annotated[int, Field(ge=1)]
    cpu: str
    batch: Annotated[int, Field(ge=1)]
    inputs: list[list[Count]]
    channels_last: bool
    clock: Literal["wall", "cpu"]
    median_ms: Seconds
    ratio: Ratio
    seconds: Annotated[list[Seconds], Field(min_length=2)]


class Report(Form):
    """What `bench --json` prints, of a format that this version writes."""

    format: int
    machine: dict[str, Any]  # see `analysis.machine.Machine.from_dict`
    cpu_settings: dict[str, Settings]
    kernels: list[str]
    processes: Annotated[int, Field(ge=1)]
    load: list[Annotated[list[float], Field(min_length=2, max_length=2)] | None]
    rows: list[Timed]
    warnings: list[str]

    @model_validator(mode="after")
    def _one_load_a_group(self) -> Report:
        if len({(row.mode, row.threads) for row in self.rows}) != len(self.load):
            raise ValueError("'load' has not one entry for each mode and number of threads")
        return self


class SpeedRecord(Report):
    """A record of `bench`."""

    name: str
    kind: Literal["speed"]
    command: str
    device: str
    date: str
    versions: Versions
    commit: str | None


class Published(Form):
    """Others' figures: of an operator or of a recipe."""

    what: str
    operator: str | None = None
    recipe: str | None = None
    psnr: float | None = None
    ssim: float | None = None
    figure: float | str | None = None
