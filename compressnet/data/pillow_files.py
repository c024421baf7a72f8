"""Pictures that Pillow opens, as samples; and one line for whatever a decoder raises."""

from __future__ import annotations

import importlib.util
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from compressnet.data import sixteen_bit
from compressnet.data.interpretation import ASSOCIATED, UNASSOCIATED, Samples, Space
from compressnet.errors import CompressnetError
from compressnet.source import OTHER_PICTURES

# By content, whatever the suffix; what else Pillow opens (EPS runs Ghostscript) is not asked. The first two
# are found without loading Pillow's other plugins.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "WEBP", "AVIF", "JPEG2000", "PPM", "PCX", "SGI", "ICO")
# What Pillow's and tifffile's decoders raise on malformed files, by experience.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
_SPACES: dict[str, tuple[Space, tuple[int, ...]]] = {
    "L": ("gray", ()),
    "LA": ("gray", (UNASSOCIATED,)),
    "La": ("gray", (ASSOCIATED,)),
    "RGB": ("rgb", ()),
    "RGBA": ("rgb", (UNASSOCIATED,)),
    "RGBa": ("rgb", (ASSOCIATED,)),
    "RGBX": ("rgb", ()),
    "CMYK": ("cmyk", ()),
    "YCbCr": ("ycbcr", ()),
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """One line for what a decoder raises; its warnings reach nobody."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        if path.suffix.lower() in OTHER_PICTURES:
            raise unread(path) from None
        raise CompressnetError(
            f"{path}: not an image in any format known here, whatever its suffix"
        ) from None
    except DECODE_ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise CompressnetError(f"{path}: damaged or not supported: {text[:300]}") from None
    except MemoryError:
        raise CompressnetError(f"{path}: needs more memory than is free; make the picture smaller") from None


def unread(path: Path) -> CompressnetError:
    """What to say of a picture of a kind that is not read."""
    return CompressnetError(f"{path}: {path.suffix} is not read here; convert it to TIFF (or, raw, to DNG)")


_limit_lock = threading.Lock()
_limit_users = 0
_limit_before: int | None = None


@contextmanager
def opened(path: Path, formats: tuple[str, ...] | None = None) -> Iterator[Pillow.Image]:
    """The file, its header read.

    Pillow's own limit of pixels is process-wide: lifted only while one of our reads, which check, is at work.
    """
    global _limit_users, _limit_before
    with _limit_lock:
        if _limit_users == 0:
            _limit_before, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, None
        _limit_users += 1
    try:
        with Pillow.open(
            path, formats=formats or _formats(path.suffix.lower() in (".tga", ".icb"))
        ) as handle:
            yield handle
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0:
                Pillow.MAX_IMAGE_PIXELS = _limit_before


@cache
def _formats(targa: bool) -> tuple[str, ...]:
    """TGA has no signature: nearly anything could be one, so its suffix decides."""
    known = tuple(
        name for name in _FORMATS if name != "AVIF" or importlib.util.find_spec("PIL.AvifImagePlugin")
    )
    return (*known, "TGA") if targa else known


def decode(handle: Pillow.Image, path: Path) -> Samples:
    """The first picture of an open file.

    Raises:
        CompressnetError: 32 bits a sample, or a mode that no picture format here has.
    """
    icc = handle.info.get("icc_profile") or None
    lost = _reduced(handle, path)
    mode = sixteen_bit.raw_mode(handle)
    if ";16" in mode and not handle.mode.startswith("I;16"):
        format_ = (handle.format or "",)
        values = sixteen_bit.read_halves(lambda: Pillow.open(path, formats=format_))
        samples = sixteen_bit_samples(values, icc)
    else:
        stored_bits = int(mode.partition(";")[2]) if mode.startswith("L;") and mode[2:].isdigit() else 8
        handle.load()
        samples = _samples(handle, icc, path)
        samples.key = _key(handle, stored_bits, samples)
    if samples.key is None and samples.values.shape[2] == 3 and samples.bits == 16:
        samples.key = _key(handle, 16, samples)
    if handle.format == "TGA" and handle.mode in ("RGBA", "LA") and path.read_bytes()[17:18][0] & 15 == 0:
        samples.extra = ()  # no bit of the fourth byte is alpha, says the header
    samples.lost = lost
    return samples


def stored_bits(handle: Pillow.Image) -> int:
    """8, or 16 where that is what will be decoded."""
    return 16 if ";16" in sixteen_bit.raw_mode(handle) or handle.mode.startswith("I") else 8


def sixteen_bit_samples(values: np.ndarray, icc: bytes | None) -> Samples:
    """uint16 (H, W, C), C = 2 gray + alpha, 3 RGB, 4 RGBA."""
    channels = values.shape[2]
    extra = (UNASSOCIATED,) if channels in (2, 4) else ()
    return Samples(values, "gray" if channels < 3 else "rgb", 16, extra, icc=icc)


def _refuse_colours_that_are_not_there(handle: Pillow.Image, path: Path) -> None:
    """Pillow would make them black."""
    largest = int(np.asarray(handle).max(initial=0))
    palette = handle.palette
    colours = len(palette.palette) // len(palette.mode) if palette is not None else 0
    if largest >= colours:
        raise CompressnetError(
            f"{path}: damaged or not supported: colour {largest} of a palette that has {colours}"
        )


def _samples(handle: Pillow.Image, icc: bytes | None, path: Path) -> Samples:
    mode = handle.mode
    if mode.startswith("I;16"):
        return Samples(np.asarray(handle).astype(np.uint16, copy=False)[..., None], "gray", 16, icc=icc)
    if mode == "I" and handle.format == "PPM":  # scaled to 16 bits
        return Samples(np.asarray(handle).astype(np.uint16)[..., None], "gray", 16, icc=icc)
    if mode == "LAB":
        return Samples(np.asarray(handle), "cielab")  # as TIFF stores it: Pillow takes its offset back
    if mode == "P":
        _refuse_colours_that_are_not_there(handle, path)
    if mode in ("P", "PA"):
        handle = handle.convert("RGBA" if mode == "PA" or "transparency" in handle.info else "RGB")
    elif mode == "1":
        handle = handle.convert("L")
    if handle.mode not in _SPACES:
        raise CompressnetError(
            f"{path}: pixels of Pillow's mode {mode} (32 bit) are not supported; use 8 or 16 bit"
        )
    values = np.asarray(handle)
    space, extra = _SPACES[handle.mode]
    if handle.mode == "RGBX":
        values = values[..., :3]
    return Samples(values if values.ndim == 3 else values[..., None], space, 8, extra, icc=icc)


def _key(handle: Pillow.Image, stored_bits: int, samples: Samples) -> tuple[int, ...] | None:
    """The colour that a PNG or GIF has for transparent pixels, as its samples have it by now."""
    key = handle.info.get("transparency")
    if samples.extra or key is None or isinstance(key, bytes) or handle.mode in ("P", "PA"):
        return None
    values = key if isinstance(key, tuple) else (key,)
    if len(values) != samples.values.shape[2]:
        return None
    if handle.mode == "1":
        return (255 * (values[0] & 1),)
    stored = stored_bits if samples.bits == 8 else samples.bits
    top = 2**stored - 1  # only so many bits count (PNG, 11.3.1.1)
    return tuple((value & top) * (2**samples.bits - 1) // top for value in values)


def _reduced(handle: Pillow.Image, path: Path) -> list[str]:
    """What Pillow reads at 8 bits though the file has more: JPEG 2000, AVIF, SGI, and PPM in colour."""
    bits = 8
    if handle.format in ("JPEG2000", "AVIF") and not handle.mode.startswith("I"):
        with path.open("rb") as file:
            head = file.read(1 << 16)
        if (place := head.find(b"\xff\x4f\xff\x51")) >= 0:  # of the code stream: SIZ, its first component
            bits = (head[place + 42] & 0x7F) + 1
        elif (place := head.find(b"av1C")) >= 0 and head[place + 6] & 0x40:
            bits = 12 if head[place + 6] & 0x20 else 10
    elif handle.format == "SGI":
        with path.open("rb") as file:
            bits = 8 * file.read(4)[3]  # bytes a channel
    elif handle.format == "PPM" and handle.mode == "RGB":
        tiles = getattr(handle, "tile", None)
        most = tiles[0].args[-1] if tiles else 255
        bits = 16 if isinstance(most, int) and most > 255 else 8
    return [f"{bits} bit reduced to 8 in reading {handle.format}"] if bits > 8 else []
