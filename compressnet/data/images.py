"""Photographs and pictures as arrays: reading, writing and resizing, 8 and 16 bit, with profile and alpha.

`read_image` turns the picture upright (the EXIF orientation is applied, and not written again) and keeps gray
images gray. `write_image` is atomic and says what the format could not hold.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from compressnet.data import colour_modes, sixteen_bit
from compressnet.data.raw import RAW_SUFFIXES, develop, raw_size
from compressnet.errors import CompressnetError, UsageError
from compressnet.files import write_bytes

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
READ_SUFFIXES = RASTER_SUFFIXES + RAW_SUFFIXES
MAX_PIXELS = 250_000_000

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
_FORMATS |= {".webp": "WEBP", ".bmp": "BMP"}
_HOLDS_ALPHA = {"PNG", "TIFF", "WEBP"}
_HOLDS_16_BIT = {"PNG", "TIFF"}
_ORIENTATION = 0x0112
# What Pillow's decoders raise on malformed files, by experience.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    AssertionError,
    struct.error,
    zlib.error,
)


@dataclass
class Image:
    """A picture, upright.

    Attributes:
        pixels: float32 (H, W, 3) RGB or (H, W, 1) gray, in [0, 1], not linearised.
        bits: 8 or 16 a channel, as stored or to be stored.
        alpha: float32 (H, W) in [0, 1], not multiplied into the pixels, or None.
        icc: the colour profile that the pixels are in, or None (sRGB by convention).
    """

    pixels: np.ndarray
    bits: int = 8
    alpha: np.ndarray | None = None
    icc: bytes | None = None

    @property
    def gray(self) -> bool:
        """One channel."""
        return self.pixels.shape[2] == 1


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS, srgb: bool = False) -> Image:
    """Read the first picture of a file.

    Args:
        max_pixels: refuse larger ones, by their header, before anything is decoded.
        srgb: convert to sRGB where the file has another profile (at 8 bits); `icc` is then None.

    Raises:
        CompressnetError: missing, not an image, truncated, too large, a colour mode nobody knows.
    """
    path = _existing_file(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        _refuse_large(path, raw_size(path), max_pixels)
        return Image(develop(path).astype(np.float32) / 65535, bits=16)
    with _explained(path), _no_pillow_limit(), Pillow.open(path) as handle:
        _refuse_large(path, handle.size, max_pixels)
        samples, icc, orientation = _decode(handle, path)
    samples = colour_modes.upright(samples, orientation)
    channels = samples.shape[2]
    colour = samples[..., : 3 if channels >= 3 else 1]
    alpha = samples[..., -1] if channels in (2, 4) else None
    bits = 16 if samples.dtype == np.uint16 else 8
    scale = np.float32(65535 if bits == 16 else 255)
    if srgb and icc:
        colour, icc = colour_modes.to_srgb(colour, icc, path), None
    pixels = colour.astype(np.float32) / np.float32(65535 if colour.dtype == np.uint16 else 255)
    return Image(pixels, bits, None if alpha is None else alpha.astype(np.float32) / scale, icc)


def image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright picture, from the file's header.

    Raises:
        CompressnetError: missing, not an image, too large.
    """
    path = _existing_file(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        size = raw_size(path)
    else:
        with _explained(path), _no_pillow_limit(), Pillow.open(path) as handle:
            tags = getattr(handle, "tag_v2", None)  # of a TIFF: versions of Pillow differ in what size says
            size = handle.size if tags is None else (int(tags[256]), int(tags[257]))
            if handle.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
                size = (size[1], size[0])
    _refuse_large(path, size, max_pixels)
    return size


def find_images(folder: str | Path) -> list[Path]:
    """Every image below a folder, sorted; hidden files (macOS writes `._photo.jpg`) are left out.

    Raises:
        CompressnetError: no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CompressnetError(f"{root}: {'a file, not a folder' if root.exists() else 'no such folder'}")
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in READ_SUFFIXES
        ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def resize_short_side(pixels: np.ndarray, side: int) -> np.ndarray:
    """Shrink (H, W, C) in [0, 1] so that its short side is `side`; a smaller picture comes back as it is.

    Antialiased bicubic, which is what MATLAB's imresize does by default.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    if side >= short:
        return pixels
    size = (max(1, round(width * side / short)), max(1, round(height * side / short)))
    planes = [
        np.asarray(Pillow.fromarray(np.ascontiguousarray(plane)).resize(size, Pillow.Resampling.BICUBIC))
        for plane in np.moveaxis(pixels.astype(np.float32, copy=False), 2, 0)
    ]
    return np.clip(np.stack(planes, axis=2), 0, 1)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """[0, 1] to 0..255, rounded and clipped."""
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def write_image(
    image: Image, path: str | Path, quality: int | None = None, suffix: str | None = None
) -> list[str]:
    """Write atomically: the target is the whole new file, or what it was before.

    Args:
        path: its suffix names the format.
        quality: 1..100 of JPEG (default 95) and WebP (default: lossless).
        suffix: names the format in the place of that of `path`: a device has none.

    Returns:
        what the format could not hold, one phrase each: nothing is lost silently.

    Raises:
        UsageError: a suffix that names no format.
        CompressnetError: the file cannot be written (full disk, read-only folder, too large for the format).
    """
    path = Path(path)
    kind = _FORMATS.get((suffix or path.suffix).lower())
    if kind is None:
        raise UsageError(f"{path}: cannot write this format; use one of {' '.join(RASTER_SUFFIXES)}")
    if path.is_dir():
        raise CompressnetError(f"{path}: is a folder; name a file")
    lost: list[str] = []
    data = _encode(image, kind, quality, path, lost)
    write_bytes(path, data)
    return lost


# --- reading ---------------------------------------------------------------------------------------------


def _existing_file(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise CompressnetError(f"{path}: is a folder, not an image")
    if not path.exists():
        raise CompressnetError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise CompressnetError(f"{path}: is empty (0 bytes)")
    return path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise CompressnetError(
            f"{path}: not an image in any format known here, whatever its suffix"
        ) from None
    except _DECODE_ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise CompressnetError(f"{path}: damaged or not supported: {text}") from None


def _refuse_large(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise CompressnetError(
            f"{path}: {size[0]} x {size[1]} pixels are more than the limit of {max_pixels / 1e6:g} million: "
            "a damaged file or a decompression bomb"
        )


_limit_lock = threading.Lock()
_limit_users = 0
_limit_before: int | None = None


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Pillow's own limit is process-wide: lifted only while one of our reads, which check, is under way."""
    global _limit_users, _limit_before
    with _limit_lock:
        if _limit_users == 0:
            _limit_before, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, None
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0:
                Pillow.MAX_IMAGE_PIXELS = _limit_before


def _decode(handle: Pillow.Image, path: Path) -> tuple[np.ndarray, bytes | None, int]:
    """Samples (H, W, 1..4) uint8 or uint16, profile, and the orientation that is still to be applied."""
    icc = handle.info.get("icc_profile") or None
    mode = sixteen_bit.raw_mode(handle)
    if sixteen_bit.is_planar_16(handle):
        return sixteen_bit.read_planar_tiff(path), icc, handle.getexif().get(_ORIENTATION, 1)
    if ";16" in mode and not handle.mode.startswith("I;16"):
        samples = sixteen_bit.read_halves(lambda: Pillow.open(path))
        orientation = 1 if handle.format == "TIFF" else handle.getexif().get(_ORIENTATION, 1)
        return samples, icc, orientation
    handle.load()
    orientation = handle.getexif().get(_ORIENTATION, 1)  # Pillow has turned TIFFs by now, nothing else
    if handle.mode.startswith("I;16"):
        gray = np.asarray(handle).astype(np.uint16)[..., None]
        white_is_zero = getattr(handle, "tag_v2", {}).get(262) == 0
        return (65535 - gray if white_is_zero else gray), icc, orientation
    flat, icc = colour_modes.flatten_mode(handle, icc, path)
    samples = np.asarray(flat)
    return (samples[..., None] if samples.ndim == 2 else samples), icc, orientation


# --- writing ---------------------------------------------------------------------------------------------


def _encode(image: Image, kind: str, quality: int | None, path: Path, lost: list[str]) -> bytes:
    if image.alpha is not None and kind not in _HOLDS_ALPHA:
        lost.append(f"{kind} has no transparency: alpha dropped")
    if image.bits == 16 and kind not in _HOLDS_16_BIT:
        lost.append(f"{kind} has 8 bits a channel: 16 bit reduced to 8")
    if image.icc and kind == "BMP":
        lost.append("BMP has no colour profile: profile dropped")
    channels = [image.pixels]
    if kind == "TIFF" and image.bits == 16 and image.gray and image.alpha is not None:
        lost.append("TIFF of 16 bit gray with transparency: stored as RGB")  # Pillow cannot read the other
        channels = [image.pixels.repeat(3, axis=2)]
    if image.alpha is not None and kind in _HOLDS_ALPHA:
        channels.append(image.alpha[..., None])
    pixels = np.concatenate(channels, axis=2)
    if image.bits == 16 and kind in _HOLDS_16_BIT:
        samples = np.rint(np.clip(pixels, 0, 1) * 65535.0).astype(np.uint16)
        encode = sixteen_bit.encode_png if kind == "PNG" else sixteen_bit.encode_tiff
        return encode(samples, image.icc)
    samples = to_uint8(pixels)
    handle = Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    buffer = io.BytesIO()
    try:
        handle.save(buffer, kind, **_save_options(image, kind, quality))
    except (OSError, ValueError, struct.error) as error:
        height, width = samples.shape[:2]
        raise CompressnetError(f"{path}: {kind} cannot hold {width} x {height} pixels: {error}") from None
    return buffer.getvalue()


def _save_options(image: Image, kind: str, quality: int | None) -> dict[str, object]:
    options: dict[str, object] = {"icc_profile": image.icc} if image.icc and kind != "BMP" else {}
    if kind == "JPEG":
        options |= {"quality": quality or 95, "subsampling": 0 if (quality or 95) >= 90 else 2}
    if kind == "WEBP":
        options |= {"quality": quality} if quality else {"lossless": True}
    if kind == "PNG":  # measured on photographs: level 4 is 3-4 times faster than 6, and no larger
        options |= {"compress_level": 4}
    if kind == "TIFF":
        options |= {"compression": "tiff_adobe_deflate"}
    return options
