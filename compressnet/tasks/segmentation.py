"""Segmentation: which class every pixel of a photograph belongs to.

loss       cross-entropy over pixels, weighted by class (`segmentation_loss`)
figures    those of `segmentation_metrics`, at the size of the labels: mIoU, accuracy, IoU of every class

    training     images (B, 3, h, w), labels (B, h, w) -> model -> scores (B, K, h, w) -> loss
    evaluation   photographs of any size -> `segmentation_labelling` -> label maps -> one confusion

Outputs are the classes of the class file in its order. Ignored pixels do not count; the authors of ShuffleSeg
train them as one more output, the last (`ignore_output`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal

import torch
from PIL import Image as PILImage
from pydantic import Field
from torch import Tensor, nn

from compressnet import json_file
from compressnet.bounds import Share, Size
from compressnet.data.class_image import planes, rgb
from compressnet.data.images import read_image
from compressnet.data.label_classes import IGNORED, LabelClasses
from compressnet.data.label_image import LabelledBatch, LabelledImage, WholeBatch, WholeImage
from compressnet.errors import CompressnetError, UsageError
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.protocol import Answers, Loss, Outputs, State, answers
from compressnet.tasks.segmentation_labelling import Labeller, Upsample
from compressnet.tasks.segmentation_loss import Kind, Weights, class_weights, dice, pixel_loss
from compressnet.tasks.segmentation_map import LabelMap, Output, check_only
from compressnet.tasks.segmentation_metrics import SegmentationMetrics
from compressnet.tasks.segmentation_pictures import comparison
from compressnet.tasks.segmentation_video import FrameDrawing, refuse_clip_output
from compressnet.tasks.video import Video
from compressnet.weights import Architecture

Scales = Annotated[list[Annotated[float, Field(ge=0.1, le=4)]], Field(min_length=1, max_length=10)]


@dataclass(frozen=True)
class Options:
    """What `apply` takes.

    Attributes:
        output: the photograph under the colours of the classes; these alone, as a palette PNG; the ids of the
            class file, as the Cityscapes server takes them; or a mask, white where a class of `only` is: name
            some. Of clips all but the ids.
        only: names of classes; the others are left out.
        opacity: of the colours over the photograph.
        legend: name the classes that are there, in a strip below the overlay; below a clip, all of them.
        size: the short side to which photographs are scaled for the network: that of training, their own
            ("native"), or any. The result has the photograph's size, and a legend is below it.
        dtype: arithmetic of the network; bfloat16 is faster where the processor has it.
    """

    output: Output = "overlay"
    only: list[str] | None = None
    opacity: Share = 0.5
    legend: bool = True
    size: Literal["training", "native"] | Size = "training"
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Measures:
    """How label maps are made that are measured.

    Attributes:
        upsample: scores to the size of the labels; or the labels that were found, by the nearest, as the
            authors of ShuffleSeg measured.
        flip: average with the mirrored photograph.
        scales: average over photographs scaled by these factors; None: as they are.
    """

    upsample: Upsample = "logits"
    flip: bool = False
    scales: Scales | None = None


class Assets(json_file.Form):
    """What is stored with weights beside the classes: the short side of training, pixels of each class."""

    short_side: Size
    class_pixels: list[Annotated[int, Field(ge=0)]]


class Segmentation:
    """Tell the class of every pixel.

    Args:
        weights: of classes, from the training labels: see `segmentation_loss`.
        loss: over all pixels, over the worst quarter of each picture (bootstrap, as released), or over those
            whose true class has less than 0.7 (ohem).
        dice: factor of the overlap with every class, which is added to the loss.
        ignore_output: the ignored pixels are a class too, the last output, as released; what is taken for it
            is a miss.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("labelled_image",)
    size_names: ClassVar[tuple[str, ...]] = ("num_classes",)
    reads: ClassVar[tuple[str, ...]] = ("image", "video")
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("mIoU", "max")
    options: ClassVar[type] = Options
    measures: ClassVar[type] = Measures
    needs_targets: ClassVar[bool] = True
    unit: ClassVar[str] = "megapixel"

    def __init__(
        self,
        weights: Weights = "enet_sqrt",
        loss: Kind = "plain",
        dice: Annotated[float, Field(ge=0, le=100)] = 0.0,
        ignore_output: bool = False,
    ) -> None:
        self._weights_kind, self._kind, self._dice, self._ignore_output = weights, loss, dice, ignore_output
        self._measures = Measures()
        self._ready: tuple[nn.Module, Labeller] | None = None

    def prepare(
        self, train_data: Any, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The classes of the training data, how many pixels each has, and the size of photographs."""
        assets = {
            **train_data.classes.to_assets(),
            "short_side": int(train_data.short_side()),
            "class_pixels": [int(count) for count in train_data.class_pixels()],
        }
        self.use(assets)
        return assets, self.sizes()

    def use(self, assets: Mapping[str, Any]) -> None:
        self.classes = LabelClasses.from_assets(assets)
        own = {key: assets[key] for key in Assets.model_fields if key in assets}
        stored = json_file.check(Assets, own, "the stored assets")
        self.short_side = stored.short_side
        if len(stored.class_pixels) != len(self.classes) + 1:
            raise CompressnetError(
                "the stored assets: 'class_pixels' has to count each class, and what is ignored"
            )
        self._weights = class_weights(stored.class_pixels, self._weights_kind, self._ignore_output)
        self._ready = None

    def sizes(self) -> dict[str, Any]:
        return {"num_classes": len(self.classes) + self._ignore_output}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return float(inputs[0].numel() / 3e6)

    def loss(self, model: nn.Module, batch: LabelledBatch, state: State) -> Loss:
        return self.loss_of(self.outputs(model, batch, state), batch)

    def loss_of(self, outputs: Outputs, batch: LabelledBatch) -> Loss:
        count, height, width = batch.labels.shape
        scores = outputs.values.unflatten(0, (count, height, width)).permute(0, 3, 1, 2)
        labels = batch.labels
        if self._ignore_output:
            labels = labels.masked_fill(labels == IGNORED, len(self.classes))
        mean, pixels = pixel_loss(scores, labels, self._weights, self._kind)
        logs = {}
        if self._dice:
            logs["dice"] = dice(scores, labels)
            mean = mean + self._dice * logs["dice"]
        return Loss(mean, max(pixels, 1), {name: value.detach() for name, value in logs.items()}, ())

    def outputs(self, model: nn.Module, batch: LabelledBatch, state: State) -> Outputs:
        """Scores of the classes of every pixel, (B·h·w, K), in float32."""
        scores = model(batch.images).float()  # (B, K, h, w)
        return Outputs(scores.permute(0, 2, 3, 1).flatten(0, 2), "logits", ())

    def predict(self, model: nn.Module, batch: WholeBatch, state: State) -> tuple[list[Tensor], State]:
        """The best output of every pixel, uint8 (H, W) each, 255 where it is "ignored"."""
        labeller = self._labeller(model)
        found: list[Tensor] = []
        for _, some in groupby(batch.images, lambda image: image.shape):
            found += labeller(torch.stack(list(some))).unbind(0)
        return found, ()

    def measure(self, settings: Mapping[str, Any]) -> None:
        self._measures = Measures(**settings)
        self._ready = None

    def metrics(self) -> SegmentationMetrics:
        self._ready = None  # what comes may have other weights than it had the last time
        return SegmentationMetrics(self.classes)

    def preview(
        self, model: nn.Module, samples: list[LabelledImage] | list[WholeImage]
    ) -> Iterator[tuple[str, PILImage.Image]]:
        """Photograph, labels, what the network says, and where that is wrong."""
        labeller = self._new_labeller(model)
        for sample in samples:
            image = sample.image
            if image.is_floating_point():
                image = (image * 255).round().to(torch.uint8)
            device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
            found = labeller(image[None].to(device))[0].cpu()
            yield sample.name, comparison(image, sample.labels, found, self.classes)

    def makes(self, options: Mapping[str, Any], kind: str) -> type[LabelMap | Video]:
        if kind == "image":
            return LabelMap
        refuse_clip_output(options.get("output"))
        return Video

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """Label photographs of any size and mode, and the frames of clips."""
        settings = Options(**options)
        if settings.output == "mask" and not settings.only:
            raise UsageError("output=mask: name the classes that it shows, as in --set only='[car]'")
        only = check_only(settings.only, self.classes)
        sides = {"training": self.short_side, "native": None}
        side = settings.size if isinstance(settings.size, int) else sides[settings.size]
        labeller = Labeller(model, side, self._ignored, dtype=settings.dtype)
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

        def answer(source: Source) -> LabelMap | Video:
            source = source.held()
            if source.kind(self.reads) == "video":
                refuse_clip_output(settings.output)
                drawing = FrameDrawing(
                    labeller,
                    self.classes,
                    settings.output,
                    only,
                    settings.opacity,
                    settings.legend,
                    device,
                )
                return Video(source, drawing, reporter, drawing.facts)
            with source.file() as path:
                pixels = planes(rgb(read_image(path, srgb=True)))
            try:
                labels = labeller(pixels[None].to(device))[0].cpu()
            except CompressnetError as error:
                raise type(error)(f"{source}: {error}") from error
            return LabelMap(
                pixels, labels, self.classes, settings.output, only, settings.opacity, settings.legend
            )

        return answers(inputs, answer, "set a smaller size, as in --set size=360")

    @property
    def _ignored(self) -> int | None:
        return len(self.classes) if self._ignore_output else None

    def _labeller(self, model: nn.Module) -> Labeller:
        """The model made ready, once for an evaluation."""
        if self._ready is None or self._ready[0] is not model:
            self._ready = model, self._new_labeller(model)
        return self._ready[1]

    def _new_labeller(self, model: nn.Module) -> Labeller:
        how = self._measures
        return Labeller(model, self.short_side, self._ignored, how.upsample, how.flip, how.scales or (1.0,))
