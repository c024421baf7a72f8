"""Colour images of 16 bits a channel, which Pillow silently cuts to 8.

Pillow's decoders keep all 16 bits up to the last step, where the "raw mode" picks one byte of each sample:
`RGB;16B` the first (high when stored big-endian), `RGB;16L` the second. So decoding twice, with the raw mode
of the tile exchanged, gives both halves at C speed with every filter, compression and interlacing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

_EXCHANGED = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}


def raw_mode(handle: Pillow.Image) -> str:
    """Pillow's name of the sample layout on disk, such as `RGB;16B` (empty: not known)."""
    tiles = getattr(handle, "tile", None)
    if not tiles:
        return ""
    args = tiles[0].args
    mode = args[0] if isinstance(args, tuple) and args else args
    return mode if isinstance(mode, str) else ""


def read_halves(open_handle: Callable[[], Pillow.Image]) -> np.ndarray:
    """The pixels as stored, uint16 (H, W, C), C = 2, 3 or 4.

    Args:
        open_handle: opens the same file anew; called twice.
    """
    with open_handle() as handle:
        mode = raw_mode(handle).replace("RGBa", "RGBA")  # what is premultiplied stays so here
        if mode == "LA;16B":  # two samples of two bytes: exactly an RGBA pixel of 8 bits
            return _as_gray_alpha(handle)
        set_raw_mode(handle, mode)
        whole = _pixels(handle).astype(np.uint16)
    whole <<= 8
    with open_handle() as handle:
        set_raw_mode(handle, exchanged_raw_mode(mode))
        whole |= _pixels(handle)
    return whole


def exchanged_raw_mode(mode: str) -> str:
    """The raw mode that gives the other byte of each sample."""
    layout, _, order = mode.partition(";")
    return f"{layout};{_EXCHANGED[order]}"


def _pixels(handle: Pillow.Image) -> np.ndarray:
    handle.load()
    return np.asarray(handle)


def set_raw_mode(handle: Pillow.Image, mode: str) -> None:
    if not isinstance(handle, ImageFile.ImageFile):
        raise TypeError("not an image file")
    handle.tile = [
        tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode)
        for tile in handle.tile
    ]


def _as_gray_alpha(handle: Pillow.Image) -> np.ndarray:
    set_raw_mode(handle, "RGBA")
    octets = _pixels(handle)
    return np.ascontiguousarray(octets).view(">u2").astype(np.uint16)
