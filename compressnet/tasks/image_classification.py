"""Image classification: which of many classes a picture belongs to.

loss                  cross-entropy, nats, mean over pictures; in training with smoothed labels, if asked
figures               those of `class_metrics`: accuracy (top 1), accuracy_top5, recall of every class

Pictures are normalised here, with the mean and deviation of the training data's, which are stored with the
weights: what the model and an exported file are given is normalised already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image as PILImage
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import finite, json_file
from compressnet.bounds import Probability, Size
from compressnet.data.class_image import ClassImage, ClassImageBatch, Preparation, middle, planes, rgb
from compressnet.data.images import Image, read_image
from compressnet.errors import CompressnetError, NotFinite
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Table
from compressnet.tasks.class_metrics import ClassMetrics
from compressnet.tasks.protocol import Answers, Loss, NoMeasures, Outputs, State, answers
from compressnet.weights import Architecture

_TOP = 5
_TALLEST = 256  # preview pictures are enlarged by whole factors up to about so many pixels


@dataclass(frozen=True)
class Options:
    """What `apply` takes.

    Attributes:
        top: how many of the most probable classes to list.
    """

    top: Size = _TOP


class Assets(json_file.Form):
    """What is stored with weights: the names of the classes, and how pictures are prepared."""

    classes: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1)]
    preparation: Preparation


class Guess(NamedTuple):
    """A class with its probability, 0 to 1."""

    rank: int
    label: str
    probability: float


@dataclass(frozen=True)
class Guesses(Table):
    """The most probable classes of a picture, the best first."""

    guesses: list[Guess]

    def rows(self) -> list[dict[str, Any]]:
        return [guess._asdict() for guess in self.guesses]

    def as_json(self) -> dict[str, Any]:
        return {"classes": self.rows()}


class ImageClassification:
    """Tell the class of a picture.

    Args:
        label_smoothing: share of the target that is spread over all classes, in training.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("class_image",)
    size_names: ClassVar[tuple[str, ...]] = ("num_classes",)
    reads: ClassVar[tuple[str, ...]] = ("image",)
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    options: ClassVar[type] = Options
    measures: ClassVar[type] = NoMeasures
    needs_targets: ClassVar[bool] = True
    unit: ClassVar[str] = "image"

    def __init__(self, label_smoothing: Probability = 0.0) -> None:
        self._smoothing = label_smoothing

    def prepare(
        self, train_data: Any, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The classes of the training data, and how its pictures are prepared.

        Weights that training starts from keep their normalisation.
        """
        preparation: Preparation = train_data.preparation
        if parent is not None and "preparation" in parent.assets:
            theirs = json_file.check(Assets, parent.assets, "the stored assets").preparation
            preparation = preparation.model_copy(update={"mean": theirs.mean, "std": theirs.std})
        assets = {"classes": list(train_data.classes), "preparation": preparation.model_dump()}
        self.use(assets)
        return assets, self.sizes()

    def use(self, assets: Mapping[str, Any]) -> None:
        stored = json_file.check(Assets, assets, "the stored assets")
        self.classes, self.preparation = stored.classes, stored.preparation
        twice = [name for name, times in Counter(self.classes).items() if times > 1]
        if twice:
            raise CompressnetError(f"the list of classes has {twice[0]!r} twice")

    def sizes(self) -> dict[str, Any]:
        return {"num_classes": len(self.classes)}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return len(inputs[0])

    def loss(self, model: nn.Module, batch: ClassImageBatch, state: State) -> Loss:
        return self.loss_of(self.outputs(model, batch, state), batch)

    def loss_of(self, outputs: Outputs, batch: ClassImageBatch) -> Loss:
        mean = F.cross_entropy(outputs.values, batch.labels, label_smoothing=self._smoothing)
        return Loss(mean, len(batch.labels), {}, ())

    def outputs(self, model: nn.Module, batch: ClassImageBatch, state: State) -> Outputs:
        """Scores of the classes, (B, K), in float32."""
        return Outputs(model(self._normalised(batch.pixels)).float(), "logits", ())

    def predict(self, model: nn.Module, batch: ClassImageBatch, state: State) -> tuple[Tensor, State]:
        """ln p of the classes, (B, K)."""
        return model(self._normalised(batch.pixels)).float().log_softmax(-1), ()

    def measure(self, settings: Mapping[str, Any]) -> None:
        pass

    def metrics(self) -> ClassMetrics:
        return ClassMetrics(self.classes, top=_TOP if len(self.classes) > _TOP else 0)

    def preview(self, model: nn.Module, samples: list[ClassImage]) -> Iterator[tuple[str, PILImage.Image]]:
        """The picture, its class, and the three that the model takes it for."""
        for sample in samples:
            guesses = self._classify(model, sample.pixels, 3)
            lines = [f"true: {self.classes[sample.label]}"]
            lines += [f"{guess.probability:.3f} {guess.label}" for guess in guesses]
            yield sample.name, captioned(sample.pixels.permute(1, 2, 0).numpy(), lines)

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Guesses]:
        return Guesses

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """List the most probable classes of photographs of any size and mode."""
        top = min(Options(**options).top, len(self.classes))

        def answer(source: Source) -> Guesses:
            with source.file() as path:
                image = read_image(path, srgb=True)
            try:
                return Guesses(self._classify(model, self._prepared(image), top))
            except NotFinite as error:
                raise NotFinite(f"{source}: {error}") from error

        return answers(inputs, answer)

    def _prepared(self, image: Image) -> Tensor:
        """The middle of a photograph, at the size that the network learned from: uint8 (3, side, side)."""
        return planes(middle(rgb(image), self.preparation.resize, self.preparation.side))

    @torch.inference_mode()
    def _classify(self, model: nn.Module, pixels: Tensor, top: int) -> list[Guess]:
        """The most probable classes of one picture, uint8 (3, H, W)."""
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        scores = model(self._normalised(pixels[None].to(device))).float()[0]
        scores = finite.checked(scores, "the network's output")
        best = scores.softmax(-1).topk(min(top, len(self.classes)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [Guess(rank, self.classes[number], p) for rank, (number, p) in enumerate(pairs, 1)]

    def _normalised(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to what the network takes."""
        scale, shift = (
            pixels.new_tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            for values in (self.preparation.std, self.preparation.mean)
        )
        return (pixels.float() / 255 - shift) / scale


def captioned(pixels: np.ndarray, lines: list[str]) -> PILImage.Image:
    """A picture (H, W, 3), enlarged by a whole factor, above lines of text."""
    from PIL import ImageDraw, ImageFont

    factor = max(1, _TALLEST // max(pixels.shape[:2]))
    picture = PILImage.fromarray(pixels).resize(
        (pixels.shape[1] * factor, pixels.shape[0] * factor), PILImage.Resampling.NEAREST
    )
    font = ImageFont.load_default(14)
    width = max(picture.width, *(int(font.getlength(line)) + 8 for line in lines))
    whole = PILImage.new("RGB", (width, picture.height + 20 * len(lines) + 4), "white")
    whole.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        draw.text((4, picture.height + 2 + 20 * number), line, fill="black", font=font)
    return whole
