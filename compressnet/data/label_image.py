"""Pictures and their label maps: the samples of segmentation, and what training makes of them.

    photograph, labels -> a window of both -> scaled -> mirrored, recoloured, padded     LabelledImage
                       -> as they are                                                    WholeImage

A window is cut at whole pixels of the photograph and scaled to the size that is trained on, so that nothing
is computed that no network sees; the labels are those of the nearest pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compressnet.data.label_classes import IGNORED
from compressnet.errors import CompressnetError

_TRIES = 10  # places at which a crop of several classes is looked for
_HUE = math.pi / 6  # the largest turn of hues, at `colour` 1
_GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601
# RGB to luma and two axes of colour (NTSC's YIQ), of which a turn of hues is a rotation.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


class LabelledImage(NamedTuple):
    """A sample to train on.

    Attributes:
        image: float32 (3, h, w) RGB in [0, 1].
        labels: uint8 (h, w): outputs, 255 where ignored.
        name: which picture, for reports: unique in its split, no absolute path.
    """

    image: Tensor
    labels: Tensor
    name: str


class LabelledBatch(NamedTuple):
    """Samples of one size, stacked: float32 (B, 3, h, w) and int64 (B, h, w)."""

    images: Tensor
    labels: Tensor
    names: list[str]


class WholeImage(NamedTuple):
    """A sample to measure on, upright.

    Attributes:
        image: uint8 (3, H, W) RGB, of the photograph's own size.
        labels: uint8 (H, W): outputs, 255 where ignored.
        instances: int32 (H, W), objects as Cityscapes numbers them, or None.
        name: which picture, for reports: unique in its split, no absolute path.
    """

    image: Tensor
    labels: Tensor
    instances: Tensor | None
    name: str


class WholeBatch(NamedTuple):
    """Samples to measure on, of any sizes."""

    images: list[Tensor]
    labels: list[Tensor]
    instances: list[Tensor | None]
    names: list[str]


class Augmentation(NamedTuple):
    """What training makes of a photograph.

    Attributes:
        size: short side to which photographs are scaled first, or None.
        crop: (height, width) of what is trained on, or None: whole photographs.
        scale: bounds of a further factor.
        flip: mirror every second left to right.
        colour: how far brightness, contrast, saturation and hue vary, 0 to 1.
        most_of_one_class: the largest share that one class may have of a crop; ten places are tried.
    """

    size: int | None
    crop: tuple[int, int] | None
    scale: tuple[float, float]
    flip: bool
    colour: float
    most_of_one_class: float

    def whole(self, height: int, width: int) -> tuple[int, int]:
        """The size of what is trained on of a photograph of a size."""
        if self.crop is not None:
            return self.crop
        factor = self._factor(height, width)
        return _at_least_one(height * factor), _at_least_one(width * factor)

    def __call__(
        self, pixels: np.ndarray, labels: np.ndarray, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """A part of a photograph, as training sees it.

        Args:
            pixels: float32 (H, W, 3) in [0, 1].
            labels: uint8 (H, W).

        Returns:
            float32 (3, h, w) in [0, 1] and uint8 (h, w); where the scaled photograph is smaller, its mean
            colour and 255.
        """
        height, width = labels.shape
        sides = self.whole(height, width)
        factor = self._factor(height, width) * random.uniform(*self.scale)
        down, across = _Axis.of(height, sides[0], factor), _Axis.of(width, sides[1], factor)
        for _ in range(_TRIES):
            rows, columns = down.placed(random), across.placed(random)
            part = labels[rows.nearest()][:, columns.nearest()]
            if not (rows.free or columns.free) or _one_class(part) <= self.most_of_one_class:
                break
        image = _scaled(pixels[rows.window, columns.window], part.shape)
        marks = torch.from_numpy(part)
        if self.flip and random.integers(2):
            image, marks = image.flip(2), marks.flip(1)
        if self.colour:
            image = recoloured(image, self.colour, random)
        return _padded(image, marks, sides, random)

    def _factor(self, height: int, width: int) -> float:
        return 1.0 if self.size is None else self.size / min(height, width)


class _Axis(NamedTuple):
    """A window along one side of a photograph.

    Attributes:
        length: of the photograph.
        begin, size: of the window, in its pixels.
        out: pixels to which the window is scaled.
    """

    length: int
    begin: int
    size: int
    out: int

    @classmethod
    def of(cls, length: int, side: int, factor: float) -> _Axis:
        scaled = _at_least_one(length * factor)
        if scaled <= side:
            return cls(length, 0, length, scaled)
        return cls(length, 0, min(length, _at_least_one(side / factor)), side)

    @property
    def free(self) -> int:
        return self.length - self.size

    @property
    def window(self) -> slice:
        return slice(self.begin, self.begin + self.size)

    def placed(self, random: np.random.Generator) -> _Axis:
        return self._replace(begin=int(random.integers(self.free + 1)))

    def nearest(self) -> np.ndarray:
        """The photograph's pixel below the middle of each."""
        return self.begin + ((np.arange(self.out) + 0.5) * (self.size / self.out)).astype(np.int64)


def collate_labelled(samples: list[LabelledImage]) -> LabelledBatch:
    """Stack samples of one size.

    Raises:
        CompressnetError: photographs of several sizes, taken whole: which key to set.
    """
    images, labels, names = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        sizes = sorted({f"{image.shape[2]}x{image.shape[1]}" for image in images})
        raise CompressnetError(
            f"photographs of several sizes ({', '.join(sizes[:3])}) make no batch: set data.crop, "
            "the height and width to train on"
        )
    return LabelledBatch(torch.stack(images), torch.stack(labels).long(), list(names))


def collate_whole(samples: list[WholeImage]) -> WholeBatch:
    """Samples of any sizes, listed."""
    images, labels, instances, names = zip(*samples, strict=True)
    return WholeBatch(list(images), list(labels), list(instances), list(names))


def recoloured(image: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """A picture in other light.

    Args:
        image: float32 (3, h, w) in [0, 1].
        strength: brightness, contrast and saturation are multiplied by 1 - strength to 1 + strength, hues
            turned by up to 30 degrees times it.

    Returns:
        a new picture, clipped to [0, 1].
    """
    bright, contrast, saturation = random.uniform(1 - strength, 1 + strength, 3)
    turn = random.uniform(-_HUE, _HUE) * strength
    yiq = np.array(_YIQ)
    mixed = np.diag([1.0, saturation, saturation])
    cos, sin = math.cos(turn), math.sin(turn)
    mixed = mixed @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = np.linalg.inv(yiq) @ mixed @ yiq * bright * contrast
    planes = image.reshape(3, -1)
    middle = float(torch.tensor(_GRAY) @ planes.mean(1)) * bright * (1 - contrast)
    shifted = torch.full((3, 1), middle)
    changed = torch.addmm(shifted, torch.tensor(matrix, dtype=torch.float32), planes)
    return changed.clamp_(0, 1).reshape(image.shape)


def _one_class(labels: np.ndarray) -> float:
    """The largest share that a class has of what is labelled, of every second pixel; 1 where nothing is."""
    counts = np.bincount(labels[::2, ::2].reshape(-1), minlength=256)[:IGNORED]
    return float(counts.max() / total) if (total := counts.sum()) else 1.0


def _scaled(pixels: np.ndarray, size: tuple[int, ...]) -> Tensor:
    """float32 (H, W, 3) to (3, h, w), antialiased where it is made smaller; as uint8, which is faster."""
    octets = torch.from_numpy((pixels * np.float32(255) + np.float32(0.5)).astype(np.uint8)).permute(2, 0, 1)
    if octets.shape[1:] != size:
        octets = F.interpolate(octets[None], size, mode="bilinear", antialias=True)[0]
    return octets.contiguous().float().div_(255)


def _padded(
    image: Tensor, labels: Tensor, sides: tuple[int, int], random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    height, width = labels.shape
    if (height, width) == tuple(sides):
        return image, labels
    top, left = (
        int(random.integers(side - own + 1)) for side, own in zip(sides, (height, width), strict=True)
    )
    whole = image.mean((1, 2), keepdim=True).repeat(1, *sides)
    wide = torch.full(sides, IGNORED, dtype=torch.uint8)
    whole[:, top : top + height, left : left + width] = image
    wide[top : top + height, left : left + width] = labels
    return whole, wide


def _at_least_one(size: float) -> int:
    return max(1, round(size))
