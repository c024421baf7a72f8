"""Image processing: a network that maps a photograph, or every frame of a clip, to one of the same size.

Chen, Xu, Koltun, "Fast Image Processing with Fully-Convolutional Networks", ICCV 2017, arXiv 1709.00643:
mean squared error over all pixels and channels of RGB in [0, 1].

    ImageOperator     the target is a classical operator's output, computed when the data is read
    ImageTranslation  the target is on disk
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import finite, json_file, signature
from compressnet.data.image_pair import ImageBatch, ImagePair
from compressnet.data.images import Image, read_image
from compressnet.data.protocol import Split
from compressnet.errors import CompressnetError, NotFinite
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.signature import Named
from compressnet.source import Source
from compressnet.tasks.image_apply import Applier, Arithmetic, NoOptions, Options, infer
from compressnet.tasks.image_metrics import ImageMetrics
from compressnet.tasks.image_video import FrameProcessing, FrameReporter
from compressnet.tasks.protocol import Answers, Loss, NoMeasures, Outputs, State, answers
from compressnet.tasks.video import Video
from compressnet.weights import Architecture

_PANES = ("input", "target", "network", "error x 8")
_GAP = 4  # white columns between panes


class Assets(json_file.Form):
    """What is stored with weights: the operator that makes the targets, where one does."""

    operator: str | None = None


@dataclass(frozen=True)
class Measures:
    """How to measure.

    Attributes:
        arithmetic: of a CAN on the CPU, fast or precise: as `apply` has it.
    """

    arithmetic: Arithmetic = "fast"


class ImageTranslation:
    """Learn the mapping that pairs of images on disk show."""

    sample_types: ClassVar[tuple[str, ...]] = ("image_pair",)
    size_names: ClassVar[tuple[str, ...]] = ("in_channels", "out_channels")
    reads: ClassVar[tuple[str, ...]] = ("image", "video")
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("psnr", "max")
    options: type = Options
    measures: ClassVar[type] = Measures
    needs_targets: ClassVar[bool] = True
    unit: ClassVar[str] = "megapixel"
    _measures = Measures()

    def prepare(
        self, train_data: Split, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, self.sizes()

    def use(self, assets: Mapping[str, Any]) -> None:
        """The network needs nothing beside its weights; an operator that is named must be one."""
        if "operators" in assets:
            raise CompressnetError("the stored assets: operators: the network is told none")
        operator = json_file.check(Assets, assets, "the stored assets").operator
        if operator is not None and (problems := signature.check_named(Named("operator"), operator)):
            raise CompressnetError(f"the stored assets: {problems[0]}")

    def sizes(self) -> dict[str, Any]:
        return {"in_channels": 3, "out_channels": 3}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        batch, _, height, width = inputs[0].shape
        return batch * height * width / 1e6

    def loss(self, model: nn.Module, batch: ImageBatch, state: State) -> Loss:
        return self.loss_of(self.outputs(model, batch, state), batch)

    def loss_of(self, outputs: Outputs, batch: ImageBatch) -> Loss:
        mean = F.mse_loss(outputs.values, _unit(batch.targets))
        return Loss(mean, batch.targets.numel(), {}, ())

    def outputs(self, model: nn.Module, batch: ImageBatch, state: State) -> Outputs:
        """The processed images, (B, 3, H, W) in float32, neither rounded nor clipped."""
        told = () if batch.conditions is None else (batch.conditions,)
        return Outputs(model(_unit(batch.inputs), *told).float(), "values", ())

    def predict(self, model: nn.Module, batch: ImageBatch, state: State) -> tuple[Tensor, State]:
        """The processed images as uint8 (B, 3, H, W), rounded (the paper's code truncates)."""
        x = _unit(batch.inputs)
        return _to_uint8(infer(model, x, self._measures.arithmetic, batch.conditions)), ()

    def measure(self, settings: Mapping[str, Any]) -> None:
        self._measures = Measures(**settings)

    def metrics(self) -> ImageMetrics:
        return ImageMetrics()

    def preview(self, model: nn.Module, samples: list[ImagePair]) -> Iterator[tuple[str, PILImage.Image]]:
        """Strips `input | target | network | error x 8`."""
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        for sample in samples:
            told = None if sample.condition is None else sample.condition[None].to(device)
            output = _to_uint8(infer(model, _unit(sample.input[None].to(device)), condition=told))[0].cpu()
            yield sample.name, comparison(sample.input, sample.target, output)

    def condition(self, settings: Any) -> Tensor | None:
        """What `options` say to a network that does several things, (K,)."""
        return None

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Image | Video]:
        return Image if kind == "image" else Video

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """Process photographs of any size and mode, each of which comes back in its own mode and depth, and
        clips frame by frame.
        """
        within = FrameReporter(reporter)
        settings = self.options(**options)
        applier = Applier(model, settings, within, self.condition(settings))
        less = "set max_memory (--max-memory MB), or " if isinstance(settings, Options) else ""

        def answer(source: Source) -> Image | Video:
            source = source.held()
            if source.kind(self.reads) == "video":
                frames = FrameProcessing(applier, within)
                return Video(source, frames, reporter, frames.facts, f"{less}scale the clip down")
            with source.file() as path:
                image = read_image(path)
            try:
                return applier(image)
            except NotFinite as error:
                raise NotFinite(f"{source}: {error}") from error

        return answers(inputs, answer, f"{less}apply it to a smaller picture")


class ImageOperator(ImageTranslation):
    """Imitate a classical image operator.

    Args:
        operator: the operator as a subject, e.g. `rof:weight=0.1`.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("photograph",)

    def __init__(self, operator: Annotated[str, Named("operator")]) -> None:
        self.operator = operator

    def prepare(
        self, train_data: Split, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        _, model_args = super().prepare(train_data)
        return {"operator": self.operator}, model_args

    def use(self, assets: Mapping[str, Any]) -> None:
        """The operator that the targets were made with is that of the task."""
        super().use(assets)
        stored = assets.get("operator")
        mine = signature.canonical("operator", self.operator)
        if stored is not None and signature.canonical("operator", stored) != mine:
            raise CompressnetError(
                f"the stored assets: their operator is {stored!r:.80}, not {self.operator!r:.80}"
            )


class OperatorItself(ImageOperator):
    """An operator in the place of its network: measured on pairs, as it is the target of photographs.

    There is no arithmetic and no memory to choose.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("image_pair",)
    options: type = NoOptions
    measures: ClassVar[type] = NoMeasures


def comparison(source: Tensor, target: Tensor, output: Tensor, gain: int = 8) -> PILImage.Image:
    """`input | target | output | error x gain`, side by side.

    Args:
        source, target, output: uint8 (3, H, W).
        gain: what the absolute error is multiplied with.
    """
    error = (target.int() - output.int()).abs().mul(gain).clamp(max=255).to(torch.uint8)
    gap = torch.full((3, source.shape[1], _GAP), 255, dtype=torch.uint8)
    strip = torch.cat([source, gap, target, gap, output, gap, error], dim=2)
    return PILImage.fromarray(strip.permute(1, 2, 0).contiguous().numpy())


def panes_of(strip: PILImage.Image) -> dict[str, PILImage.Image]:
    """A strip that `comparison` made, cut: {"input": ..., "target": ..., "network": ..., "error x 8": ...}.

    Raises:
        CompressnetError: no such strip: its width is not that of four panes and three gaps.
    """
    width, rest = divmod(strip.width - 3 * _GAP, len(_PANES))
    if rest or width < 1:
        raise CompressnetError(f"a picture {strip.width} wide is no strip of {' | '.join(_PANES)}")
    lefts = [place * (width + _GAP) for place in range(len(_PANES))]
    panes = [strip.crop((left, 0, left + width, strip.height)) for left in lefts]
    return dict(zip(_PANES, panes, strict=True))


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255


def _to_uint8(images: Tensor) -> Tensor:
    images = finite.checked(images, "the network's output")
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8)
