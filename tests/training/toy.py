"""A problem that uses everything the loop offers: carried state, dropout, per-step work, a float buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from compressnet.data.protocol import Key
from compressnet.data.sampler import generator
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Artefact, Text
from compressnet.tasks.protocol import Answers, Loss, Outputs, State

RECIPE = """\
version: 1
task: {name: toy}
model: {name: toy}
data: {name: toy}
train: {steps: 12, batch: 2, lr: 1e-2, checkpoint_every: 4, evaluate_every: 5, log_every: 1, previews: 0}
"""


class Batch(NamedTuple):
    x: Tensor
    y: Tensor


class Recurrent(nn.Module):
    """h = tanh(W x + U h); its output weight is kept positive after every step."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, size)
        self.dropout = nn.Dropout(0.3)
        self.last = nn.Linear(size, 1)
        self.last.weight.data.clamp_(min=0)
        self.register_buffer("seen", torch.zeros(()))
        self.steps_done: list[int] = []

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        if self.training:
            self.get_buffer("seen").add_(x.mean().detach())
        return self.last(self.dropout(h)), h

    def before_save(self) -> None:
        self.last.bias.data.mul_(64).round_().div_(64)  # published weights differ from those trained on

    def after_step(self, step: int, total_steps: int) -> None:
        self.steps_done.append(step)
        self.last.weight.data.clamp_(min=0)


def make_model(size: int = 4) -> Recurrent:
    """A small recurrent network."""
    return Recurrent(size)


@dataclass(frozen=True)
class Options:
    pass


class ToyMetrics:
    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, output: Tensor, batch: Batch) -> None:
        self.errors += (output - batch.y).square().mean(1).tolist()

    def state(self) -> list[float]:
        return self.errors

    def merge(self, states: list[list[float]]) -> None:
        self.errors = [error for state in states for error in state]

    def compute(self) -> dict[str, float]:
        return {"mse": sum(self.errors) / len(self.errors), "count": float(len(self.errors))}

    def details(self) -> dict[str, Any]:
        return {}

    def pictures(self) -> Iterator[tuple[str, Image.Image]]:
        yield from ()


class ToyTask:
    """Regression with a state that is carried from batch to batch."""

    sample_types: ClassVar[tuple[str, ...]] = ("toy",)
    reads: ClassVar[tuple[str, ...]] = ("text",)
    best: ClassVar[tuple[str, str]] = ("mse", "min")
    options: ClassVar[type] = Options
    measures: ClassVar[type] = Options
    needs_targets: ClassVar[bool] = True
    loss_of = None
    unit: ClassVar[str] = "step"

    def prepare(
        self, train_data: Any, parent: Any = None, model: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"offset": 0.5}, {}

    def use(self, assets: Mapping[str, Any]) -> None:
        pass

    def sizes(self) -> dict[str, Any]:
        return {}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return len(inputs[0])

    def loss(self, model: nn.Module, batch: Batch, state: State) -> Loss:
        h = state[0] if state else torch.zeros(len(batch.x), 4, device=batch.x.device)
        y, h = model(batch.x, h)
        error = (y - batch.y).square()
        return Loss(error.mean(), error.numel(), {"largest": error.max()}, (h,))

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> Outputs:
        h = state[0] if state else torch.zeros(len(batch.x), 4, device=batch.x.device)
        y, h = model(batch.x, h)
        return Outputs(y, "values", (h,))

    def predict(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        return model(batch.x, torch.zeros(len(batch.x), 4, device=batch.x.device))[0], ()

    def measure(self, settings: Mapping[str, Any]) -> None:
        pass

    def metrics(self) -> ToyMetrics:
        return ToyMetrics()

    def preview(self, model: nn.Module, samples: list[Any]) -> Iterator[tuple[str, Image.Image]]:
        yield from ()

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Artefact]:
        return Text

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        yield from ()


class ToySplit:
    continuous = False
    derives = True
    has_targets = True

    def __init__(self, count: int, assets: Mapping[str, Any], seed: int) -> None:
        self.count, self.assets, self.seed = count, assets, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> Batch:
        random = generator(self.seed, key.epoch, key.index, key.draw)
        x = torch.from_numpy(random.standard_normal(2)).float()
        return Batch(x, x.sum()[None] + self.assets["offset"])

    def collate(self, samples: list[Batch]) -> Batch:
        return Batch(torch.stack([s.x for s in samples]), torch.stack([s.y for s in samples]))

    def name(self, index: int) -> str:
        return f"toy {index}"

    def prepare(self, keys: Sequence[Key], processes: int, reporter: Reporter) -> None:
        self.prepared = list(keys)

    def facts(self) -> dict[str, Any]:
        return {"count": self.count, "fingerprint": "toy"}


class ToyData:
    """Random pairs."""

    sample_type: ClassVar[str] = "toy"
    test_split: ClassVar[str] = "test"

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> ToySplit:
        return ToySplit({"train": 7, "val": 5, "test": 5}[split], assets, seed)

    def check(self) -> list[str]:
        return []
