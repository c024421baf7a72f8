"""Colour images of 16 bits a channel, which Pillow silently cuts to 8.

Reading: Pillow's decoders keep all 16 bits up to the last step, where the "raw mode" picks one byte of each
sample: `RGB;16B` the first (high when stored big-endian), `RGB;16L` the second. So decoding twice, with the
raw mode of the tile exchanged, gives both halves at C speed with every filter, compression and interlacing
that Pillow knows. Planar TIFF is the exception (Pillow takes the bytes of 16 bits for pixels): tifffile.
Writing: PNG by hand (the Up filter and zlib), TIFF by tifffile.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

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


def is_planar_16(handle: Pillow.Image) -> bool:
    """True for a TIFF whose channels are stored one after the other with 16 bits a sample."""
    tags = getattr(handle, "tag_v2", None)
    return tags is not None and tags.get(284) == 2 and 16 in tuple(tags.get(258, ()))


def read_planar_tiff(path: Path) -> np.ndarray:
    """The first page of a planar TIFF as uint16 (H, W, C).

    Raises:
        ValueError: a compression that tifffile alone cannot undo.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        return np.moveaxis(file.pages[0].asarray(), 0, -1)


def read_halves(open_handle: Callable[[], Pillow.Image]) -> np.ndarray:
    """The pixels as uint16 (H, W, C), C = 2, 3 or 4 as stored.

    Args:
        open_handle: opens the same file anew; called twice.
    """
    with open_handle() as handle:
        mode = raw_mode(handle)
        if mode == "LA;16B":  # two samples of two bytes: exactly an RGBA pixel of 8 bits
            return _as_gray_alpha(handle)
        premultiplied = mode.startswith("RGBa")
        if premultiplied:
            _set_raw_mode(handle, mode.replace("RGBa", "RGBA"))
        first = _pixels(handle)
    with open_handle() as handle:
        _set_raw_mode(handle, exchanged_raw_mode(mode).replace("RGBa", "RGBA"))
        second = _pixels(handle)
    whole = (first.astype(np.uint16) << 8) | second
    return _divided_by_alpha(whole) if premultiplied else whole


def exchanged_raw_mode(mode: str) -> str:
    """The raw mode that gives the other byte of each sample."""
    layout, _, order = mode.partition(";")
    return f"{layout};{_EXCHANGED[order]}"


def _pixels(handle: Pillow.Image) -> np.ndarray:
    handle.load()
    return np.asarray(handle)


def _set_raw_mode(handle: Pillow.Image, mode: str) -> None:
    if not isinstance(handle, ImageFile.ImageFile):
        raise TypeError("not an image file")
    handle.tile = [
        tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode)
        for tile in handle.tile
    ]


def _as_gray_alpha(handle: Pillow.Image) -> np.ndarray:
    _set_raw_mode(handle, "RGBA")
    octets = _pixels(handle)
    return np.ascontiguousarray(octets).view(">u2").astype(np.uint16)


def _divided_by_alpha(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[..., 3:].astype(np.float64)
    colour = pixels[..., :3] * 65535.0 / np.maximum(alpha, 1)
    return np.concatenate([np.minimum(np.rint(colour), 65535).astype(np.uint16), pixels[..., 3:]], axis=2)


def encode_png(pixels: np.ndarray, icc: bytes | None) -> bytes:
    """A PNG file of uint16 (H, W, C), C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA."""
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # Up: the difference to the row above, modulo 256
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">2I5B", width, height, 16, colour_type, 0, 0, 0)),
    ]
    if icc:
        parts.append(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc)))
    parts.append(_chunk(b"IDAT", zlib.compress(filtered.data, 6)))
    parts.append(_chunk(b"IEND", b""))
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def encode_tiff(pixels: np.ndarray, icc: bytes | None) -> bytes:
    """A TIFF file (deflate) of uint16 (H, W, C), C = 1 gray, 3 RGB, 4 RGBA."""
    import tifffile

    channels = pixels.shape[2]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels[..., 0] if channels == 1 else pixels,
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels == 4 else None,
        compression="zlib",
        predictor=True,
        iccprofile=icc,
        metadata=None,
        software=False,
    )
    return buffer.getvalue()
