"""A picture and its class: the sample of image classification; how pictures are prepared for a network.

Pictures are uint8 here; the task normalises them, as `Preparation` says, in training and in use alike.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from compressnet import json_file
from compressnet.bounds import Size

Level = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]
_Mean = Annotated[list[Level], Field(min_length=3, max_length=3)]
_Deviation = Annotated[list[Deviation], Field(min_length=3, max_length=3)]


class Preparation(json_file.Form):
    """How a photograph becomes what the network is given; stored with its weights.

    Attributes:
        resize: the short side that it is scaled to.
        side: of the square that is cut from its middle.
        mean, std: of red, green and blue in [0, 1]: what is subtracted, what the rest is divided by.
    """

    resize: Size
    side: Size
    mean: _Mean
    std: _Deviation


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


def shifted(pixels: np.ndarray, margin: int, random: np.random.Generator) -> np.ndarray:
    """A picture (3, H, W) moved by up to `margin` pixels, black where nothing was, half of them mirrored."""
    _, height, width = pixels.shape
    top, left = (int(n) for n in random.integers(2 * margin + 1, size=2))
    wide = np.zeros((3, height + 2 * margin, width + 2 * margin), np.uint8)
    wide[:, margin : margin + height, margin : margin + width] = pixels
    moved = wide[:, top : top + height, left : left + width]
    return moved[:, :, ::-1] if random.integers(2) else moved
