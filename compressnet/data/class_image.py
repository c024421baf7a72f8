"""A picture and its class: the sample of image classification; how pictures are prepared for a network.

    photograph -> uint8 RGB -> scaled, a square cut from its middle       validation, test, use
                            -> a random part of it, moved, mirrored       training

Pictures are uint8 here; the task normalises them, as `Preparation` says, in training and in use alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from PIL import Image as PILImage
from pydantic import Field
from torch import Tensor

from compressnet import json_file
from compressnet.bounds import Size
from compressnet.data.images import Image, to_uint8
from compressnet.errors import CompressnetError

Level = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]
Mean = Annotated[list[Level], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Deviation], Field(min_length=3, max_length=3)]

_AREA, _SHAPE = (0.08, 1.0), (3 / 4, 4 / 3)


class Preparation(json_file.Form):
    """How a photograph becomes what the network is given; stored with its weights.

    Attributes:
        resize: the short side that it is scaled to.
        side: of the square that is cut from its middle.
        mean, std: of red, green and blue in [0, 1]: what is subtracted, what the rest is divided by.
    """

    resize: Size
    side: Size
    mean: Mean
    std: Deviations


class ClassImage(NamedTuple):
    """One sample.

    Attributes:
        pixels: uint8 (3, H, W) RGB.
        label: number of its class.
        name: which picture, for reports: unique in its split, no absolute path.
    """

    pixels: Tensor
    label: int
    name: str


class ClassImageBatch(NamedTuple):
    """Samples of one size, stacked: uint8 (B, 3, H, W) and int64 (B,)."""

    pixels: Tensor
    labels: Tensor
    names: list[str]


def collate_class_images(samples: list[ClassImage]) -> ClassImageBatch:
    """Stack samples of one size."""
    pixels, labels, names = zip(*samples, strict=True)
    return ClassImageBatch(torch.stack(pixels), torch.tensor(labels), list(names))


def check_classes(classes: Iterable[str], assets: Mapping[str, Any]) -> None:
    """Refuse data of other classes than those that stored assets name.

    Raises:
        CompressnetError: they are others.
    """
    if assets and assets["classes"] != list(classes):
        raise CompressnetError(
            f"the data has the classes {_some(classes)}; the network knows {_some(assets['classes'])}"
        )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def rgb(image: Image) -> np.ndarray:
    """A photograph of any mode as uint8 (H, W, 3): gray in all channels, without its alpha."""
    return to_uint8(np.broadcast_to(image.pixels, (*image.pixels.shape[:2], 3)))


def planes(pixels: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) as a network takes it, (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def middle(pixels: np.ndarray, resize: int, side: int) -> np.ndarray:
    """The square in the middle of a picture whose short side is scaled to `resize`, as torchvision cuts it.

    Only what is seen is computed: of a panorama of one row, the rest would fill the memory.

    Args:
        pixels: uint8 (H, W, 3).
        side: of the square; where the scaled picture is smaller, black surrounds it.

    Returns:
        uint8 (side, side, 3).
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    sizes = int(resize * width / short), int(resize * height / short)
    corner = [round((size - side) / 2) for size in sizes]
    begins = [max(place, 0) for place in corner]
    ends = [min(place + side, size) for place, size in zip(corner, sizes, strict=True)]
    across, down = width / sizes[0], height / sizes[1]
    box = begins[0] * across, begins[1] * down, min(ends[0] * across, width), min(ends[1] * down, height)
    part = _scaled(pixels, (ends[0] - begins[0], ends[1] - begins[1]), box)
    square = np.zeros((side, side, 3), np.uint8)
    left, top = begins[0] - corner[0], begins[1] - corner[1]
    square[top : top + part.shape[0], left : left + part.shape[1]] = part
    return square


def random_part(pixels: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """8 to 100 % of a picture's area, 3:4 to 4:3 in shape, at any place, scaled to a square.

    C. Szegedy et al.: Going Deeper with Convolutions. CVPR 2015, section 6. As torchvision does it: ten
    tries, then the largest part in the middle whose shape is allowed.

    Args:
        pixels: uint8 (H, W, 3).

    Returns:
        uint8 (side, side, 3).
    """
    height, width = pixels.shape[:2]
    for _ in range(10):
        area = width * height * random.uniform(*_AREA)
        shape = math.exp(random.uniform(math.log(_SHAPE[0]), math.log(_SHAPE[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            break
    else:
        shape = min(max(width / height, _SHAPE[0]), _SHAPE[1])
        w, h = min(width, max(1, round(height * shape))), min(height, max(1, round(width / shape)))
        left, top = (width - w) // 2, (height - h) // 2
    return _scaled(pixels, (side, side), (left, top, left + w, top + h))


def shifted(pixels: np.ndarray, margin: int, random: np.random.Generator) -> np.ndarray:
    """A picture (3, H, W) moved by up to `margin` pixels, black where nothing was."""
    _, height, width = pixels.shape
    top, left = (int(n) for n in random.integers(2 * margin + 1, size=2))
    wide = np.zeros((3, height + 2 * margin, width + 2 * margin), np.uint8)
    wide[:, margin : margin + height, margin : margin + width] = pixels
    return wide[:, top : top + height, left : left + width]


def mirrored(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A picture (3, H, W), half of them left to right."""
    return pixels[:, :, ::-1] if random.integers(2) else pixels


def _scaled(pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """What lies in a box (left, top, right, bottom), antialiased, of another width and height."""
    picture = PILImage.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(size, PILImage.Resampling.BILINEAR, box=box))
