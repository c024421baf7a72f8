"""Label maps to look at: in the colours of their classes, over the photograph, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from compressnet.data.label_classes import IGNORED, LabelClasses

_GAP = 4  # white pixels between panes
_SQUARE = 14  # pixels of a colour in a legend
_LINE = 20


def palette(classes: LabelClasses) -> np.ndarray:
    """The colour of every value of a map of outputs, uint8 (256, 3); black where it is none."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)] = classes.colours
    return colours


def coloured(labels: Tensor, classes: LabelClasses) -> np.ndarray:
    """uint8 (H, W) to uint8 (H, W, 3)."""
    return palette(classes)[labels.numpy()]


def overlay(
    image: Tensor, labels: Tensor, classes: LabelClasses, opacity: float, shown: Tensor
) -> np.ndarray:
    """Colours over a photograph.

    Args:
        image: uint8 (3, H, W).
        labels: uint8 (H, W).
        opacity: of the colours, 0 to 1.
        shown: bool (H, W): where they are.

    Returns:
        uint8 (H, W, 3).
    """
    below = image.permute(1, 2, 0).numpy()
    where = shown.numpy()
    mixed = below.copy()
    colours = palette(classes).astype(np.float32)[labels.numpy()[where]]
    mixed[where] = np.rint(below[where] * (1 - opacity) + colours * opacity).astype(np.uint8)
    return mixed


def with_legend(pixels: np.ndarray, classes: LabelClasses, there: Sequence[int]) -> np.ndarray:
    """A picture with the colours and names of some classes in a strip below it; too narrow a one without."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    widths = [_SQUARE + 10 + int(font.getlength(classes.names[number])) + 10 for number in there]
    width = pixels.shape[1]
    if not there or max(widths) > width:
        return pixels
    places, left, top = [], 4, 2
    for entry in widths:
        if left + entry > width and left > 4:
            left, top = 4, top + _LINE
        places.append((left, top))
        left += entry
    strip = PILImage.new("RGB", (width, top + _LINE + 2), "white")
    draw = ImageDraw.Draw(strip)
    for number, (x, y) in zip(there, places, strict=True):
        colour = tuple(classes.colours[number])
        draw.rectangle((x, y + 2, x + _SQUARE, y + 2 + _SQUARE), fill=colour, outline="black")
        draw.text((x + _SQUARE + 6, y), classes.names[number], fill="black", font=font)
    return np.concatenate([pixels, np.asarray(strip)])


def comparison(image: Tensor, labels: Tensor, found: Tensor, classes: LabelClasses) -> PILImage.Image:
    """`photograph | labels` above `found | errors`, which are red, what is not labelled black.

    Args:
        image: uint8 (3, H, W); labels, found: uint8 (H, W).
    """
    photograph = image.permute(1, 2, 0).numpy()
    wrong = (labels != found) & (labels != IGNORED)
    errors = (photograph // 2).copy()
    errors[wrong.numpy()] = (255, 40, 40)
    errors[(labels == IGNORED).numpy()] = 0
    gap = np.full((photograph.shape[0], _GAP, 3), 255, np.uint8)
    rows = [
        np.concatenate([photograph, gap, coloured(labels, classes)], axis=1),
        np.concatenate([coloured(found, classes), gap, errors], axis=1),
    ]
    between = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    there = torch.unique(torch.cat([labels.flatten(), found.flatten()])).tolist()
    whole = np.concatenate([rows[0], between, rows[1]])
    return PILImage.fromarray(with_legend(whole, classes, [number for number in there if number != IGNORED]))
