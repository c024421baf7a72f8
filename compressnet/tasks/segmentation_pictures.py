"""Label maps to look at: in the colours of their classes, over the photograph, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from compressnet.data.label_classes import IGNORED, LabelClasses

_GAP = 4  # white pixels between panes
_PANES = (("photograph", "labels"), ("prediction", "errors"))
_LETTERS = 45  # the width of a picture in heights of its letters
_USUAL, _SMALLEST = 10, 7  # pixels of a letter: on small pictures; what cannot be read is left out


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

    width = pixels.shape[1]
    size = _text_size([classes.names[number] for number in there], width, width)
    if not there or size < _SMALLEST:
        return pixels
    font, gap = ImageFont.load_default(size), size // 2
    line = size * 3 // 4 * 2  # even, as the sides of a film are
    places, left, top = [], gap, 0
    for number in there:
        entry = _entry_width(classes.names[number], size)
        if left + entry > width and left > gap:
            left, top = gap, top + line
        places.append((left, top))
        left += entry
    strip = PILImage.new("RGB", (width, top + line), "white")
    draw = ImageDraw.Draw(strip)
    for number, (x, y) in zip(there, places, strict=True):
        square = (x, y + size // 4, x + size, y + size // 4 + size)
        draw.rectangle(square, fill=tuple(classes.colours[number]), outline="black")
        middle = (x + size + gap, y + line // 2)
        draw.text(middle, classes.names[number], fill="black", font=font, anchor="lm")
    return np.concatenate([pixels, np.asarray(strip)])


def _text_size(names: Sequence[str], width: int, room: int) -> int:
    """Pixels of text that is as easy to read in a picture of any width; less where a name has no room."""
    size = max(_USUAL, width // _LETTERS)
    widest = max((_entry_width(name, size) for name in names), default=0)
    return size if widest <= room else size * room // widest


def _entry_width(name: str, size: int) -> int:
    """Of a colour, its name and the gaps before each and behind the last."""
    from PIL import ImageFont

    return 2 * size + size // 2 + int(ImageFont.load_default(size).getlength(name))


def comparison(image: Tensor, labels: Tensor, found: Tensor, classes: LabelClasses) -> PILImage.Image:
    """`photograph | labels` above `prediction | errors`, which are red, what is not labelled black.

    Args:
        image: uint8 (3, H, W); labels, found: uint8 (H, W).
    """
    photograph = image.permute(1, 2, 0).numpy()
    wrong = (labels != found) & (labels != IGNORED)
    errors = (photograph // 2).copy()
    errors[wrong.numpy()] = (255, 40, 40)
    errors[(labels == IGNORED).numpy()] = 0
    gap = np.full((photograph.shape[0], _GAP, 3), 255, np.uint8)
    above = np.concatenate([photograph, gap, coloured(labels, classes)], axis=1)
    below = np.concatenate([coloured(found, classes), gap, errors], axis=1)
    there = torch.unique(torch.cat([labels.flatten(), found.flatten()])).tolist()
    captions = [_captions(*names, above.shape[1]) for names in _PANES]
    whole = np.concatenate([captions[0], above, captions[1], below])
    return PILImage.fromarray(with_legend(whole, classes, [number for number in there if number != IGNORED]))


def _captions(left: str, right: str, width: int) -> np.ndarray:
    """A white strip with the names of the two panes below it; where they are too narrow, a gap alone."""
    from PIL import ImageDraw, ImageFont

    size = _text_size([left, right], width, width // 2)
    if size < _SMALLEST:
        return np.full((_GAP, width, 3), 255, np.uint8)
    strip = PILImage.new("RGB", (width, size * 3 // 2), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size)
    for text, x in ((left, 0), (right, (width + _GAP) // 2)):
        draw.text((x + size // 2, size * 3 // 4), text, fill="black", font=font, anchor="lm")
    return np.asarray(strip)
