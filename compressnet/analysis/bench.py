"""A benchmark as data: what is timed, and how each case is made ready to run, here or in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.analysis.count import rate_of
from compressnet.analysis.example import example, example_step
from compressnet.analysis.forms import Form, make_form, runs_as, what_runs
from compressnet.analysis.memory import peak_bytes
from compressnet.analysis.rounds import Effort, Sampler
from compressnet.analysis.timing import Clock, Comparison, compare, sampler
from compressnet.errors import UsageError, told
from compressnet.side import Side, read_sides
from compressnet.user_module import Shapes
from compressnet.weights import raw_tensors

IMAGE_SIZE = 512  # pixels along each axis, where nothing else is asked for
SEQUENCE_LENGTH = 35  # steps, the usual unrolling of language models


@dataclass(frozen=True)
class Case:
    """One row of a benchmark.

    Attributes:
        side: index of the side.
        threads: of torch within an operation.
        cpu: the CPU settings it runs with: "auto" (the project's) or "torch".
    """

    side: int
    mode: str = "forward"
    backend: str = "eager"
    dtype: str = "float32"
    threads: int = 1
    cpu: str = "auto"


@dataclass(frozen=True)
class Plan:
    """A whole benchmark.

    Attributes:
        words: the sides as they were typed.
        settings, inputs: those of `--set` and `--input`.
        image_size: (height, width) of images.
        seq_len: steps of sequences.
    """

    words: tuple[str, ...]
    cases: tuple[Case, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    image_size: tuple[int, int] | None = None
    seq_len: int | None = None
    channels_last: bool = False
    device: str = "cpu"
    inputs: tuple[str, ...] = ()

    def sides(self) -> list[Side]:
        return read_sides(self.words, self.settings, self.inputs)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that `as_dict` wrote."""
        cases = tuple(Case(**case) for case in values["cases"])
        size = values["image_size"]
        texts = {key: tuple(values[key]) for key in ("words", "inputs")}
        known = {**values, "cases": cases, **texts}
        return cls(**{**known, "image_size": tuple(size) if size else None})


@dataclass(frozen=True)
class Facts:
    """What a case runs.

    Attributes:
        inputs: shapes of the inputs.
        unit, amount: what a pass processes: 0.26 "megapixel", 35 "token".
        parameters: of what the back end runs: fewer, where it folds.
        tensor_bytes: of parameters and stored buffers: the size of a weights file.
        runs_as: the back end that runs, where the case's own chooses one.
    """

    inputs: tuple[tuple[int, ...], ...]
    unit: str
    amount: float
    parameters: int
    tensor_bytes: int
    runs_as: str = "eager"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "inputs": [list(shape) for shape in self.inputs]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Facts:
        """The facts that `as_dict` wrote."""
        return cls(**{**values, "inputs": tuple(tuple(shape) for shape in values["inputs"])})


@dataclass(frozen=True)
class Prepared:
    """A case ready to run."""

    form: Form
    facts: Facts


class Session:
    """Runs the cases of a plan, by their numbers, in this process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._ready: dict[int, Prepared] = {}

    def facts(self, number: int) -> Facts:
        """What a case runs."""
        return self._prepared(number).facts

    def sampler(self, number: int) -> Sampler:
        """A callable that runs a case once: its seconds."""
        return sampler(self._prepared(number).form, self.plan.device)

    def compare(self, names: Mapping[int, str], effort: Effort, clock: Clock = "wall") -> Comparison:
        """Time cases against the first of them, under these names."""
        forms = {name: self._prepared(number).form for number, name in names.items()}
        return compare(forms, effort, self.plan.device, clock)

    def peak(self, number: int) -> int | None:
        """Bytes that a case takes at its peak (see `peak_bytes`); what it holds is let go afterwards."""
        form = self._prepared(number).form
        del self._ready[number]
        return peak_bytes(form, torch.device(self.plan.device))

    def _prepared(self, number: int) -> Prepared:
        if number not in self._ready:
            self._ready[number] = prepare(self.plan, self.plan.cases[number])
        return self._ready[number]


def prepare(plan: Plan, case: Case) -> Prepared:
    """Build the module of a case, with its weights where it has some, and inputs from a fixed seed.

    Raises:
        UsageError: the side cannot be run that way.
        CompressnetError: its files are missing or damaged; of the form: it failed, one line says how.
    """
    side = plan.sides()[case.side]
    with told(side.text):
        torch.manual_seed(0)
        module = side.module(plan.device, with_weights=True)
        streams = case.mode == "stream-step"
        inputs = example_step(module, plan.batch) if streams else example_inputs(module, plan)
        if plan.channels_last:
            module, inputs = _channels_last(module, inputs, side.text)
        unit, amount = rate_of(module, inputs)
        runs = what_runs(module, case.backend)
        tensors = raw_tensors(runs)
        facts = Facts(
            inputs=tuple(tuple(x.shape) for x in inputs),
            unit=unit,
            amount=amount,
            parameters=sum(p.numel() for p in runs.parameters()),
            tensor_bytes=sum(t.numel() * t.element_size() for t in tensors.values()),
            runs_as=runs_as(module, case.backend),
        )
        form = make_form(module, inputs, case.mode, case.backend, case.dtype, side.text, plan.batch)
    return Prepared(_ready_form(form, case.threads, side.text), facts)


def example_inputs(module: nn.Module, plan: Plan) -> tuple[Tensor, ...]:
    """Inputs of the size that was asked for, else of a usual one."""
    if isinstance(getattr(module, "example", None), Shapes):
        return example(module, plan.batch)
    unit, _ = rate_of(module, example(module))
    if unit == "megapixel":
        return example(module, plan.batch, plan.image_size or (IMAGE_SIZE, IMAGE_SIZE))
    return example(module, plan.batch, plan.seq_len or usual_length(unit))


def usual_length(unit: str) -> int | None:
    """How long inputs are where nobody says it, by what they are (`rate_of`); None: the module knows it."""
    return SEQUENCE_LENGTH if unit in ("step", "token") else None


def _ready_form(form: Form, threads: int, name: str) -> Form:
    """`form` with a number of threads of its own and errors of one line."""

    def run() -> object:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with told(name):
            return form()

    return run


def _channels_last(
    module: nn.Module, inputs: tuple[Tensor, ...], name: str
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    if not any(x.ndim == 4 for x in inputs):
        raise UsageError(f"--channels-last: {name} takes no images")
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs)
    return module, last
