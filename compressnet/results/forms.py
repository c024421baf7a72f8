"""The forms of recorded figures: what `eval --record`, `bench --record` and `bench --json` write."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from compressnet.card import Data, Figure, Training
from compressnet.json_file import Form
from compressnet.run_files import Count
from compressnet.signature import Named, check_named

Seconds = Annotated[float, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _operator(text: str) -> str:
    if problems := check_named(Named("operator"), text):
        raise ValueError(problems[0])
    return text


Operator = Annotated[str, AfterValidator(_operator)]
Dial = Annotated[dict[str, Annotated[list[Finite], Field(min_length=2, max_length=2)]], Field(max_length=1)]


class Versions(Form):
    """Of what figures depend on."""

    torch: str


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
    operator: Operator | None = None
    operators: Annotated[list[Operator], Field(min_length=1)] | None = None
    dial: Dial | None = None
    recipe: str | None = None
    task: str | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    training: Training | None = None
    cost: Cost | None = None
    edits: list[dict[str, Any]] = Field(default_factory=list)
    measures: dict[str, Any] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rows_are_of_operators(self) -> Evaluation:
        if self.dial and len(self.operators or ()) != 1:
            raise ValueError("a dial is of one operator")
        if self.operators and (not self.rows or self.data.count % len(self.rows)):
            raise ValueError("rows: each is of as many images")
        return self


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


class Size(Form):
    """What a layer or a network takes."""

    parameters: Count
    bytes: Count
    macs: Count


class TimedNetwork(Form):
    """A network of a compression: "before", "after", and the same in ONNX Runtime."""

    name: str
    median: Seconds
    ratio: Ratio


class Timings(Form):
    """Of both networks."""

    timings: list[TimedNetwork]

    @model_validator(mode="after")
    def _both(self) -> Timings:
        if not {"before", "after"} <= {timing.name for timing in self.timings}:
            raise ValueError("'timings' has not both 'before' and 'after'")
        return self


class CalibrationData(Form):
    """The training data that factors were chosen on."""

    name: str
    copy_: str | None = Field(default=None, alias="copy")


class Calibration(Form):
    """What factors were chosen on."""

    data_free: bool
    samples: Count | None = None
    data: CalibrationData | None = None

    @model_validator(mode="after")
    def _counted(self) -> Calibration:
        if not self.data_free and self.samples is None:
            raise ValueError("'calibration' says neither 'samples' nor that it is 'data_free'")
        return self


class OnTest(Form):
    """The metric on test data."""

    parent: Figure
    compressed: Figure


class CompressionRecord(Form):
    """A record of `compress`."""

    name: str
    kind: Literal["compression"]
    subject: str
    methods: list[str]
    metric: str
    validation: dict[str, Figure]
    test: OnTest | None = None
    before: Size
    after: Size
    layers: list[dict[str, Any]]
    timing: Timings | None
    calibration: Calibration
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    peak_bytes: Count | None = None
    command: str
    device: str
    threads: Annotated[int, Field(ge=1)]
    date: str
    versions: Versions
    commit: str | None


class Published(Form):
    """Others' figures: of an operator or of a recipe.

    Attributes:
        data: the data set beside whose figures it stands; None: any that the recipe was measured on.
    """

    what: str
    operator: str | None = None
    recipe: str | None = None
    data: str | None = None
    psnr: float | None = None
    ssim: float | None = None
    figure: float | str | None = None
