"""Numbers that depend on a whole sequence: the tasks of the paper on LSTM (see `data/synthetic.py`).

Output units are logistic or linear, by problem. Of the steps that have a target:

    loss          half the squared error, summed over steps and outputs: the mean over sequences
    mean_error    |output - target|: the mean over all outputs
    wrong         the share of sequences that are not processed correctly by the paper's criterion

In training, `error` and `wrong` of the log are those of sequences before they are learned from. With
`train.batch: 1` and `train.log_every: 100`, twenty lines in a row with `wrong` 0 are 2,000 right sequences
in a row, the paper's rule to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image as PILImage
from pydantic import Field
from torch import Tensor, nn

from compressnet import finite, json_file
from compressnet.data.limits import read_text_file
from compressnet.data.synthetic import PROBLEMS, Name, SequenceBatch, one_hot
from compressnet.errors import CompressnetError
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Figures
from compressnet.tasks.protocol import Answers, Loss, NoMeasures, Outputs, State, answers
from compressnet.weights import Architecture


@dataclass(frozen=True)
class Options:
    """What `apply` takes: nothing but files."""


class Assets(json_file.Form):
    """What is stored with weights: the problem, and what follows from it."""

    problem: Name
    input_size: int
    output_size: int
    tolerance: Annotated[float, Field(gt=0)] | None
    symbols: str
    logistic: bool


class SequenceRegression:
    """Outputs at the end of sequences, or at each of their steps.

    Args:
        logistic: whether output units are, else linear; None: as `data.synthetic.Problem` has them.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("sequence",)
    size_names: ClassVar[tuple[str, ...]] = ("input_size", "output_size", "problem")
    reads: ClassVar[tuple[str, ...]] = ("rows",)
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("wrong", "min")
    options: ClassVar[type] = Options
    measures: ClassVar[type] = NoMeasures
    needs_targets: ClassVar[bool] = True
    loss_of = None
    unit: ClassVar[str] = "step"

    def __init__(self, logistic: bool | None = None) -> None:
        self.logistic = logistic

    def prepare(
        self, train_data: Any, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the problem is, and the sizes that follow."""
        problem = train_data.problem
        known = {"input_size": problem.input_size, "output_size": problem.output_size}
        known["problem"] = train_data.problem_name
        logistic = problem.logistic if self.logistic is None else self.logistic
        assets = {"tolerance": problem.tolerance, "symbols": problem.symbols, "logistic": logistic}
        return {**known, **assets}, known

    def use(self, assets: Mapping[str, Any]) -> None:
        stored = json_file.check(Assets, assets, "the stored assets")
        problem = PROBLEMS[stored.problem]
        mine = (stored.input_size, stored.output_size, stored.symbols)
        if mine != (problem.input_size, problem.output_size, problem.symbols):
            raise CompressnetError(
                f"the stored assets are not of the problem '{stored.problem}': {mine}"[:300]
            )
        self.assets = assets
        self.tolerance = stored.tolerance

    def sizes(self) -> dict[str, Any]:
        return {key: self.assets[key] for key in ("input_size", "output_size", "problem")}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        steps, batch, _ = inputs[0].shape
        return steps * batch

    def loss(self, model: nn.Module, batch: SequenceBatch, state: State) -> Loss:
        outputs, _ = self.predict(model, batch, ())
        off = (outputs - batch.targets)[batch.scored]  # (scored, n_o)
        count = batch.inputs.shape[1]
        with torch.no_grad():
            wrong = are_wrong(outputs, batch, self.tolerance).float().mean()
            logs = {"error": off.abs().mean(), "wrong": wrong}
        return Loss(off.square().sum() / (2 * count), count, logs, ())

    def outputs(self, model: nn.Module, batch: SequenceBatch, state: State) -> Outputs:
        """The outputs of the steps that have a target, (scored, n_o)."""
        outputs, _ = self.predict(model, batch, ())
        return Outputs(outputs[batch.scored], "values", ())

    def predict(self, model: nn.Module, batch: SequenceBatch, state: State) -> tuple[Tensor, State]:
        """The outputs of all steps, (T, B, n_o)."""
        sums, _ = model(batch.inputs)
        return self._squashed(sums), ()

    def measure(self, settings: Mapping[str, Any]) -> None:
        pass

    def metrics(self) -> SequenceMetrics:
        return SequenceMetrics(self.tolerance)

    def preview(self, model: nn.Module, samples: list[SequenceBatch]) -> Iterator[tuple[str, str]]:
        """What should come out at the end, and what does."""
        for sample in samples:
            outputs = self._outputs(model, sample.inputs)
            yield "sequence", f"target {_numbers(sample.targets[-1])}, output {_numbers(outputs)}"

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Figures]:
        return Figures

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """The outputs at the end of sequences in files.

        A file has a line of numbers a step, with commas between; or, of problems with symbols, these.
        """

        def answer(source: Source) -> Figures:
            with source.file() as path:
                last = self._outputs(model, self._read(path))
            outputs = finite.checked(last, f"{source}: the network's output").tolist()
            names = PROBLEMS[self.assets["problem"]].outputs or range(len(outputs))
            return Figures({f"output_{name}": x for name, x in zip(names, outputs, strict=True)})

        return answers(inputs, answer, "cut the sequence")

    def _outputs(self, model: nn.Module, sequence: Tensor) -> Tensor:
        """Of the last step, (n_o,), of a sequence (T, n_i)."""
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        sums, _ = model(sequence.to(device).unsqueeze(1))
        return self._squashed(sums[-1, 0]).cpu()

    def _squashed(self, sums: Tensor) -> Tensor:
        return torch.sigmoid(sums) if self.assets["logistic"] else sums

    def _read(self, path: Path) -> Tensor:
        """The inputs (T, n_i) that a file has."""
        wanted, symbols = self.assets["input_size"], self.assets["symbols"]
        try:
            text = read_text_file(path).decode("utf-8").strip()
            if not text:
                raise CompressnetError("it is empty")
            rows = (
                one_hot(text, symbols) if symbols else np.loadtxt(text.splitlines(), delimiter=",", ndmin=2)
            )
        except (OSError, ValueError, CompressnetError) as error:
            raise CompressnetError(f"{path}: no sequence can be read from it: {error}") from error
        if rows.shape[1] != wanted:
            raise CompressnetError(
                f"{path}: has {rows.shape[1]} numbers a line, the network takes {wanted}, with commas between"
            )
        return torch.from_numpy(rows.astype(np.float32))


class SequenceMetrics:
    """Sums over sequences.

    Args:
        tolerance: as `data.synthetic.Problem` has it.
    """

    def __init__(self, tolerance: float | None) -> None:
        self.tolerance = tolerance
        self.squared, self.absolute, self.outputs, self.wrong, self.count = 0.0, 0.0, 0, 0, 0

    def update(self, output: Tensor, batch: SequenceBatch) -> None:
        off = (output - batch.targets)[batch.scored].double()
        self.squared += float(off.square().sum())
        self.absolute += float(off.abs().sum())
        self.outputs += off.numel()
        self.wrong += int(are_wrong(output, batch, self.tolerance).sum())
        self.count += batch.inputs.shape[1]

    def state(self) -> tuple[float, float, int, int, int]:
        return self.squared, self.absolute, self.outputs, self.wrong, self.count

    def merge(self, states: list[tuple[float, float, int, int, int]]) -> None:
        sums = (sum(values) for values in zip(*states, strict=True))
        self.squared, self.absolute, self.outputs, self.wrong, self.count = sums

    def compute(self) -> dict[str, float]:
        return {
            "loss": self.squared / (2 * self.count),
            "mean_error": self.absolute / self.outputs,
            "wrong": self.wrong / self.count,
        }

    def details(self) -> dict[str, Any]:
        return {}

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        yield from ()


def are_wrong(outputs: Tensor, batch: SequenceBatch, tolerance: float | None) -> Tensor:
    """Which sequences are not processed correctly, (B,), from the outputs (T, B, n_o).

    Args:
        tolerance: as `data.synthetic.Problem` has it.
    """
    if tolerance is not None:
        bad = (outputs - batch.targets).abs().amax(-1) >= tolerance
    else:
        assert batch.legal is not None
        least = outputs.masked_fill(~batch.legal, torch.inf).amin(-1)
        bad = least <= outputs.masked_fill(batch.legal, -torch.inf).amax(-1)
    return (bad & batch.scored).any(0)


def _numbers(values: Tensor) -> str:
    return " ".join(f"{value:.3f}" for value in values.tolist())
