"""ICC colour profiles: pixels brought to sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

from compressnet.errors import CompressnetError

_BAND = 1 << 20  # pixels at once


def to_srgb(colour: np.ndarray, icc: bytes, path: Path) -> np.ndarray:
    """uint8 (H, W, 3) in sRGB; samples that are sRGB already come back as they are, 16 bit included.

    Args:
        colour: uint8 or uint16 (H, W, 1 or 3).

    Raises:
        CompressnetError: the profile is damaged or belongs to another colour space.
    """
    convert = to_srgb_bands("L" if colour.shape[2] == 1 else "RGB", icc, path)
    if _changes_nothing(convert, colour.shape[2]):
        return colour
    height, width = colour.shape[:2]
    converted = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // max(1, width))
    for top in range(0, height, rows):
        band = colour[top : top + rows]
        if band.dtype == np.uint16:
            band = np.rint(band / np.float32(257)).astype(np.uint8)
        converted[top : top + rows] = convert(band)
    return converted


def _changes_nothing(convert: Callable[[np.ndarray], np.ndarray], channels: int) -> bool:
    """Whether a profile is sRGB, by what it does to some colours: names lie ("Linear sRGB")."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), axis=-1).reshape(1, -1, channels)
    off = convert(grid).astype(np.int16) - grid
    return int(np.abs(off).max()) <= 1


def to_srgb_bands(mode: str, icc: bytes, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What brings uint8 (H, W, C) of Pillow's `mode` to uint8 (H, W, 3) in sRGB.

    Raises:
        CompressnetError: the profile is damaged or belongs to another colour space.
    """
    try:
        transform = ImageCms.buildTransform(
            _opened(icc, path),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
    except ImageCms.PyCMSError as error:
        raise CompressnetError(f"{path}: its colour profile does not fit its pixels: {error}") from None

    def convert(band: np.ndarray) -> np.ndarray:
        size = (band.shape[1], band.shape[0])
        converted = ImageCms.applyTransform(Pillow.frombytes(mode, size, band.tobytes()), transform)
        if converted is None:
            raise CompressnetError(f"{path}: its colour profile cannot be applied")
        return np.asarray(converted)

    return convert


def _opened(icc: bytes, path: Path) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except (OSError, ImageCms.PyCMSError):
        raise CompressnetError(f"{path}: its colour profile is damaged; remove or replace it") from None
