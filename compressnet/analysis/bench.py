"""A benchmark as data: what is timed, and how each case is made ready to run, here or in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.analysis.count import rate_of
from compressnet.analysis.example import example
from compressnet.analysis.forms import Form, make_form
from compressnet.errors import UsageError
from compressnet.side import Side, read_sides
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
        settings: those of `--set`.
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

    def sides(self) -> list[Side]:
        return read_sides(self.words, self.settings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that `as_dict` wrote."""
        cases = tuple(Case(**case) for case in values["cases"])
        size = values["image_size"]
        known = {**values, "cases": cases, "words": tuple(values["words"])}
        return cls(**{**known, "image_size": tuple(size) if size else None})


@dataclass(frozen=True)
class Facts:
    """What a case runs.

    Attributes:
        inputs: shapes of the inputs.
        unit, amount: what a pass processes: 0.26 "megapixel", 35 "token".
        tensor_bytes: of parameters and stored buffers: the size of a weights file.
    """

    inputs: tuple[tuple[int, ...], ...]
    unit: str
    amount: float
    parameters: int
    tensor_bytes: int

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


def prepare(plan: Plan, case: Case) -> Prepared:
    """Build the module of a case, with its weights where it has some, and inputs from a fixed seed.

    Raises:
        UsageError: the side cannot be run that way.
        CompressnetError: its files are missing or damaged.
    """
    side = plan.sides()[case.side]
    device = torch.device(plan.device)
    torch.manual_seed(0)
    module = side.module(str(device), with_weights=True)
    inputs = example_inputs(module, plan, streaming=case.mode == "stream-step")
    if plan.channels_last:
        module, inputs = _channels_last(module, inputs, side.text)
    unit, amount = rate_of(module, inputs)
    tensors = raw_tensors(module)
    facts = Facts(
        inputs=tuple(tuple(x.shape) for x in inputs),
        unit=unit,
        amount=amount,
        parameters=sum(p.numel() for p in module.parameters()),
        tensor_bytes=sum(t.numel() * t.element_size() for t in tensors.values()),
    )
    form = make_form(module, inputs, case.mode, case.backend, case.dtype, side.text)
    return Prepared(with_threads(form, case.threads), facts)


def example_inputs(module: nn.Module, plan: Plan, *, streaming: bool = False) -> tuple[Tensor, ...]:
    """Inputs of the size that was asked for, else of a usual one."""
    unit, _ = rate_of(module, example(module))
    if unit == "megapixel":
        return example(module, plan.batch, plan.image_size or (IMAGE_SIZE, IMAGE_SIZE))
    if streaming:
        return example(module, plan.batch, 1)
    length = SEQUENCE_LENGTH if unit in ("step", "token") else None
    return example(module, plan.batch, plan.seq_len or length)


def with_threads(form: Form, threads: int) -> Form:
    """`form` with a number of threads of its own."""

    def run() -> object:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
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
