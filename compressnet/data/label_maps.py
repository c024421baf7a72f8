"""Label maps as files: PNGs of indices, of palettes or of colours, to the outputs of a network and 255.

    8-bit gray, palette -> the value of each pixel  \\
                                                     -> class file -> uint8 (H, W), 255 where ignored
    RGB                 -> the colour of each pixel /

What the class file does not know is an error: nothing is learnt from a value by mistake.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from compressnet.data import pillow_files, png_file, sixteen_bit
from compressnet.data.label_classes import IGNORED, LabelClasses
from compressnet.data.limits import MAX_PIXELS, refuse_large
from compressnet.errors import CompressnetError

_UNKNOWN = 254  # one more than the last output there may be
_NAMED = 3  # values of a message
_PIXEL_BYTES = 16
_SCALES = {"L;2": 85, "L;4": 17}  # of grays of few bits: Pillow spreads them over 0 to 255


def read_labels(path: Path, classes: LabelClasses) -> np.ndarray:
    """The outputs of each pixel.

    Returns:
        uint8 (H, W), 255 where the class file says `ignore`.

    Raises:
        CompressnetError: not a PNG of 8 bits, damaged, or values that the class file does not know: which,
            and on how many pixels.
    """
    _check_whole(path)
    with pillow_files.explained(path), pillow_files.opened(path) as handle:
        values = _values(handle, path)
    if values.ndim == 2:
        labels = _table(classes)[values]
    else:
        codes = _codes(values)
        known, outputs = _colours(classes)
        places = np.searchsorted(known, codes).clip(max=len(known) - 1)
        labels = np.where(known[places] == codes, outputs[places], np.uint8(_UNKNOWN))
    unknown = labels == _UNKNOWN
    if unknown.any():
        raise CompressnetError(_not_known(path, values[unknown], classes))
    return labels


def read_instances(path: Path) -> np.ndarray:
    """The objects of each pixel: int32 (H, W), as the file numbers them.

    Raises:
        CompressnetError: not a gray PNG, or damaged.
    """
    _check_whole(path)
    with pillow_files.explained(path), pillow_files.opened(path) as handle:
        refuse_large(path, handle.size, MAX_PIXELS, _PIXEL_BYTES)
        if handle.format != "PNG" or not (handle.mode == "L" or handle.mode.startswith("I")):
            raise CompressnetError(f"{path}: instance ids have to be a gray PNG of 16 bits")
        return np.asarray(handle).astype(np.int32)


def _check_whole(path: Path) -> None:
    """Pillow fills rows that are missing with zeros, which are a class."""
    try:
        fault = png_file.fault(path)
    except OSError as error:
        raise CompressnetError(f"{path}: cannot be read: {error.strerror or error}") from error
    if fault:
        raise CompressnetError(f"{path}: a damaged PNG: {fault}: get it again")


def _values(handle: PILImage.Image, path: Path) -> np.ndarray:
    """What is stored: uint8 (H, W) of values, or (H, W, 3) of colours."""
    if handle.format != "PNG":
        raise CompressnetError(f"{path}: is {handle.format}: labels have to be PNG, which keeps every value")
    raw = sixteen_bit.raw_mode(handle)
    if ";16" in raw or handle.mode.startswith("I"):
        raise CompressnetError(f"{path}: has 16 bits a pixel: labels have 8: save it as 8-bit gray")
    refuse_large(path, handle.size, MAX_PIXELS, _PIXEL_BYTES)
    if handle.mode in ("RGB", "RGBA"):
        return np.asarray(handle)[..., :3]
    if handle.mode == "1":
        return np.asarray(handle).astype(np.uint8)
    if handle.mode not in ("L", "P"):
        raise CompressnetError(
            f"{path}: is a PNG of Pillow's mode {handle.mode}: labels are gray, palette or RGB"
        )
    return np.asarray(handle) // np.uint8(_SCALES.get(raw, 1))


def _table(classes: LabelClasses) -> np.ndarray:
    """The output of each value of a byte."""
    table = np.full(256, _UNKNOWN, np.uint8)
    table[list(classes.ids)] = np.arange(len(classes))
    table[list(classes.ignored_ids)] = IGNORED
    return table


def _colours(classes: LabelClasses) -> tuple[np.ndarray, np.ndarray]:
    """Known colours as sorted numbers, and the output of each."""
    codes = _codes(np.array([*classes.colours, *classes.ignored_colours], np.uint8))
    outputs = [*range(len(classes)), *[IGNORED] * len(classes.ignored_colours)]
    order = np.argsort(codes)
    return codes[order], np.array(outputs, np.uint8)[order]


def _codes(colours: np.ndarray) -> np.ndarray:
    """(..., 3) to one number each."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def _not_known(path: Path, values: np.ndarray, classes: LabelClasses) -> str:
    """`values`: those that are not known, (N,) or (N, 3)."""
    coloured = values.ndim == 2
    found, counts = np.unique(_codes(values) if coloured else values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    texts = [
        f"{f'#{found[n]:06x}' if coloured else found[n]} ({counts[n]:,} pixel{'' if counts[n] == 1 else 's'})"
        for n in order[:_NAMED]
    ]
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    what = ("colour" if coloured else "value") + "s" * (len(found) > 1)
    verb = "are" if len(found) > 1 else "is"
    return (
        f"{path}: {what} {', '.join(texts)}{more} {verb} not in {classes.source}: "
        "add a row, with ignore 1 where it means nothing"
    )
