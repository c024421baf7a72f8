"""Two systems as a later one comes: a task, a model and a data set each, and not a line of the program's.

clips   arrays (T, H, W, 3) in files named .mp4  -> a sentence: does it get brighter or darker?
sounds  files that soundfile reads               -> events: from when to when it is loud
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.data.protocol import Key
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Artefact, Table, Text
from compressnet.tasks.protocol import Answers, Loss, Outputs, State, answers

REGISTERED = {
    "TASKS": {"toy_clips": "Clips", "toy_sounds": "Sounds"},
    "MODELS": {"toy_linear": "Linear"},
    "DATASETS": {"toy_folder": "Folder"},
}
RECIPE = """\
version: 1
task: {{name: {task}}}
model: {{name: toy_linear}}
data: {{name: toy_folder, root: data}}
train: {{steps: 200, batch: 4, lr: 0.1, previews: 0, log_every: 100, evaluate_every: 100}}
"""
RATE, FRAME = 1000, 100  # samples a second, and of a frame


class Linear(nn.Module):
    """Scores of two classes from one figure."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1) to (B, 2)."""
        return self.last(x)

    def example(self, batch: int = 1, size: int = 1) -> tuple[Tensor]:
        return (torch.rand(batch, 1),)


class Batch(NamedTuple):
    figures: Tensor
    labels: Tensor


class Folder:
    """root/{train,test}/CLASS_*.*: the class stands in the name, the figure is the task's."""

    sample_type: ClassVar[str] = "toy"
    test_split: ClassVar[str] = "test"

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> Split:
        return Split(sorted((self.root / ("train" if split == "train" else "test")).iterdir()))

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        return []


class Split:
    continuous = False
    derives = False
    has_targets = True

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.classes = sorted({path.name.partition("_")[0] for path in paths})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> tuple[float, int]:
        path = self.paths[key.index]
        read = brighter if path.suffix == ".mp4" else loudest
        return read(Source.of(path)), self.classes.index(path.name.partition("_")[0])

    def name(self, index: int) -> str:
        return self.paths[index].name

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def collate(self, samples: list[tuple[float, int]]) -> Batch:
        figures, labels = zip(*samples, strict=True)
        return Batch(torch.tensor(figures)[:, None], torch.tensor(labels))

    def facts(self) -> dict[str, Any]:
        return {"count": len(self.paths), "fingerprint": "toy"}


def brighter(source: Source) -> float:
    """How much brighter the last frame of a clip is than the first; of a clip its bytes can be wound back."""
    with source.open() as file:
        file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            clip = np.load(file, allow_pickle=False)
        except ValueError as error:
            raise CompressnetError(f"{source}: no clip can be read from it") from error
    return float(clip[-1].mean() - clip[0].mean()) / 255


def heard(source: Source) -> np.ndarray:
    """A sound's samples, from the stream itself."""
    with source.open() as file:
        try:
            samples, rate = soundfile.read(io.BytesIO(file.read()), dtype="float32")
        except soundfile.LibsndfileError as error:
            raise CompressnetError(f"{source}: no sound can be read from it") from error
    if rate != RATE:
        raise CompressnetError(f"{source}: has {rate} samples a second, the network takes {RATE}")
    return samples


def loudness(samples: np.ndarray) -> np.ndarray:
    """Of each frame."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return np.abs(frames).mean(axis=1)


def loudest(source: Source) -> float:
    return float(loudness(heard(source)).max())


@dataclass(frozen=True)
class Measures:
    """How to measure.

    Attributes:
        sure: the least probability of an answer that counts.
    """

    sure: float = 0.0


class Metrics:
    def __init__(self, least: float) -> None:
        self.least = least
        self.right: list[float] = []

    def update(self, output: Tensor, batch: Batch) -> None:
        probability, best = output.softmax(-1).max(-1)
        self.right += ((best == batch.labels) & (probability >= self.least)).float().tolist()

    def state(self) -> list[float]:
        return self.right

    def merge(self, states: list[list[float]]) -> None:
        self.right = [right for state in states for right in state]

    def compute(self) -> dict[str, float]:
        return {"accuracy": sum(self.right) / len(self.right)}

    def details(self) -> dict[str, Any]:
        return {"answers": self.right}

    def pictures(self) -> Iterator[tuple[str, Image.Image]]:
        yield "right", Image.new("L", (8, 8), 255)


class Classifier:
    """What both have in common."""

    sample_types: ClassVar[tuple[str, ...]] = ("toy",)
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    measures: ClassVar[type] = Measures
    needs_targets: ClassVar[bool] = True
    loss_of = None
    unit: ClassVar[str] = "file"

    def prepare(
        self, train_data: Any, parent: Any = None, model: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"classes": train_data.classes}, {}

    def use(self, assets: Mapping[str, Any]) -> None:
        self.classes: list[str] = assets["classes"]

    def sizes(self) -> dict[str, Any]:
        return {}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return len(inputs[0])

    def loss(self, model: nn.Module, batch: Batch, state: State) -> Loss:
        return Loss(F.cross_entropy(model(batch.figures), batch.labels), len(batch.labels), {}, ())

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> Outputs:
        return Outputs(model(batch.figures), "logits", ())

    def predict(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        return model(batch.figures), ()

    def measure(self, settings: Mapping[str, Any]) -> None:
        self._least = Measures(**settings).sure

    def metrics(self) -> Metrics:
        return Metrics(getattr(self, "_least", 0.0))

    def preview(self, model: nn.Module, samples: list[Any]) -> Iterator[tuple[str, Image.Image]]:
        yield from ()

    @torch.inference_mode()
    def classes_of(self, model: nn.Module, figures: Iterable[float]) -> list[str]:
        best = model(torch.tensor(list(figures))[:, None]).argmax(-1)
        return [self.classes[number] for number in best.tolist()]


class Clips(Classifier):
    """Say what happens in a clip."""

    reads: ClassVar[tuple[str, ...]] = ("video",)

    @dataclass(frozen=True)
    class options:
        """What `apply` takes.

        Attributes:
            subject: of the sentence.
        """

        subject: str = "it"

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Artefact]:
        return Text

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        subject = self.options(**options).subject
        return answers(
            inputs, lambda source: Text(f"{subject} gets {self.classes_of(model, [brighter(source)])[0]}")
        )


class Event(NamedTuple):
    begin: float
    end: float
    label: str


@dataclass(frozen=True)
class Events(Table):
    """What was heard, in seconds."""

    events: Sequence[Event]

    def rows(self) -> list[dict[str, Any]]:
        return [event._asdict() for event in self.events]

    def as_json(self) -> dict[str, Any]:
        return {"events": self.rows()}


class Sounds(Classifier):
    """Say what is heard, frame by frame."""

    reads: ClassVar[tuple[str, ...]] = ("audio",)

    @property
    def options(self) -> type:
        """They follow from the assets: the names of classes."""
        names = ("all", *self.classes)
        return make_dataclass("Options", [("only", Literal[names], "all")], frozen=True)

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Artefact]:
        return Events

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        only = self.options(**options).only

        def answer(source: Source) -> Events:
            events: list[Event] = []
            for number, label in enumerate(self.classes_of(model, loudness(heard(source)))):
                begin, end = number * FRAME / RATE, (number + 1) * FRAME / RATE
                if events and events[-1].label == label:
                    events[-1] = events[-1]._replace(end=end)
                else:
                    events.append(Event(begin, end, label))
            return Events([event for event in events if only in ("all", event.label)])

        return answers(inputs, answer)
