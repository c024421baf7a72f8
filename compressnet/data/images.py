"""Photographs and pictures as arrays: reading, writing and resizing, 8 and 16 bit, with profile and alpha.

`read_image` turns the picture upright (the EXIF orientation is applied and reset) and keeps gray images gray.
`write_image` is atomic and says what the format could not hold, and what reading left out.

    limits (the header)   ->  pillow_files, tiff, raw  ->  Samples  ->  interpretation  ->  Image
    metadata: EXIF, dpi, frames, orientation
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image as Pillow

from compressnet import source
from compressnet.data import colour_profiles, encoding, pillow_files, tiff
from compressnet.data.interpretation import Samples, interpret
from compressnet.data.limits import MAX_PIXELS, refuse_large, refuse_many_pixels
from compressnet.data.metadata import Metadata, read_metadata, upright
from compressnet.data.raw import develop, raw_size
from compressnet.errors import CompressnetError, UsageError
from compressnet.files import write_bytes
from compressnet.source import OTHER_PICTURES, RASTER_SUFFIXES, RAW_SUFFIXES

# Bytes a pixel that `apply` takes at its peak, activations apart, measured on 12-megapixel files: 24.7 gray,
# 29.6 RGB, 31.4 progressive JPEG, 33.8 RGBA, 37.1 RGB of 16 bits. Reading takes 5, 15, 18, 20, 18 of these.
_BYTES_GRAY, _BYTES_COLOUR, _BYTES_ALPHA, _BYTES_DEEP = 24, 32, 4, 8


@dataclass
class Image:
    """A picture, upright.

    Attributes:
        pixels: float32 (H, W, 3) RGB or (H, W, 1) gray, in [0, 1], not linearised.
        bits: 8 or 16 a channel, as stored or to be stored.
        alpha: float32 (H, W) in [0, 1], not multiplied into the pixels, or None.
        icc: the colour profile that the pixels are in, or None (sRGB by convention).
        exif: an EXIF block whose orientation is 1, without thumbnail and XMP, or None.
        dpi: dots an inch, across and down, or None.
        lost: what the file had that this picture has not, one phrase each.
        backend: how a network that made it was run, of `registry.BACKENDS`, or None.
    """

    pixels: np.ndarray
    bits: int = 8
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    lost: tuple[str, ...] = ()
    backend: str | None = None
    suffixes: ClassVar[tuple[str, ...]] = RASTER_SUFFIXES
    printed: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def write(self, path: Path) -> list[str]:
        """Write it in the format that the suffix names (see `write_image`, which is atomic)."""
        data, lost = _encoded(self, path, path.suffix.lower(), None)
        path.write_bytes(data)
        return lost

    def rows(self) -> None:
        return None

    def as_json(self) -> dict[str, Any]:
        return {} if self.backend is None else {"backend": self.backend}

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
        CompressnetError: missing, not an image, truncated, larger than `max_pixels` or than 70 % of the free
            memory can hold, samples whose meaning is not clear.
    """
    path = _existing_file(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        refuse_large(path, raw_size(path), max_pixels, _BYTES_COLOUR)
        return Image(_unit(develop(path), 16), bits=16)
    with pillow_files.explained(path):
        samples, metadata = _decode(path, max_pixels)
        turned = 1 if samples.upright else metadata.orientation
        picture = interpret(samples, path)
        del samples
    colour, bits, icc = picture.colour, picture.colour_bits, picture.icc
    lost = (*metadata.lost, *picture.lost)
    if srgb and icc:
        colour, icc = colour_profiles.to_srgb(colour, icc, path), None
    pixels = _unit(_turned(colour, turned), 8 if colour.dtype == np.uint8 else bits)
    alpha = None if picture.alpha is None else _unit(_turned(picture.alpha, turned), picture.alpha_bits)
    return Image(pixels, 8 if bits <= 8 else 16, alpha, icc, metadata.exif, metadata.dpi, lost)


def image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright picture, from the file's header.

    Raises:
        CompressnetError: missing, not an image, too large.
    """
    path = _existing_file(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        size = raw_size(path)
    else:
        with pillow_files.explained(path):
            if _is_tiff(path):
                with tiff.opened(path) as page:
                    size = tiff.size(page)
            else:
                with pillow_files.opened(path) as handle:
                    size = upright(handle.size, read_metadata(handle, path).orientation)
    refuse_many_pixels(path, size, max_pixels)
    return size


def find_images(folder: str | Path) -> list[Path]:
    """Every image below a folder (see `source.find`).

    Raises:
        CompressnetError: no such folder.
    """
    return source.find(Path(folder), ("image",))


def unread_pictures(folder: str | Path) -> str:
    """What other pictures are below a folder (see `source.left_out`).

    Raises:
        CompressnetError: no such folder.
    """
    return source.left_out(Path(folder), ("image",))


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
    return encoding.quantised(pixels, 8)


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """0..255 to float32 in [0, 1], as `read_image` gives it."""
    return _unit(pixels, 8)


def write_image(image: Image, path: str | Path, quality: int | None = None) -> list[str]:
    """Write atomically: the target is the whole new file, or what it was before.

    Args:
        path: its suffix names the format.
        quality: 1..100 of JPEG (default 95) and WebP (default: lossless).

    Returns:
        what the format could not hold, one phrase each: nothing is lost silently.

    Raises:
        UsageError: a suffix that names no format.
        CompressnetError: the file cannot be written (full disk, read-only folder, too large for the format).
    """
    path = Path(path)
    if path.suffix.lower() not in RASTER_SUFFIXES:
        raise UsageError(f"{path}: cannot write this format; use one of {' '.join(RASTER_SUFFIXES)}")
    if path.is_dir():
        raise CompressnetError(f"{path}: is a folder; name a file")
    data, lost = _encoded(image, path, path.suffix.lower(), quality)
    write_bytes(path, data)
    return lost


def _encoded(image: Image, path: Path, kind: str, quality: int | None) -> tuple[bytes, list[str]]:
    """The bytes of a file, and what it does not hold."""
    lost = list(image.lost)
    return encoding.encode(image, path, kind, quality, lost), lost


# --- reading ---------------------------------------------------------------------------------------------


def _existing_file(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise CompressnetError(f"{path}: is a folder, not an image")
    if not path.exists():
        raise CompressnetError(f"{path}: no such file")
    if not path.is_file():
        raise CompressnetError(f"{path}: is no plain file: write its content to one first")
    if path.stat().st_size == 0:
        raise CompressnetError(f"{path}: is empty (0 bytes)")
    return path


def _is_tiff(path: Path) -> bool:
    """Raw photographs of other suffixes are TIFFs that hold a preview: not the photograph."""
    if not tiff.is_tiff(path):
        return False
    if path.suffix.lower() in OTHER_PICTURES:
        raise pillow_files.unread(path)
    return True


def _decode(path: Path, max_pixels: int) -> tuple[Samples, Metadata]:
    """In a function of its own: what decoders hold is free again when floats are made."""
    if _is_tiff(path):
        with tiff.opened(path) as page:
            channels, bits = int(page.samplesperpixel), int(np.max(page.bitspersample))
            refuse_large(path, tiff.size(page), max_pixels, _pixel_bytes(channels, bits))
            return tiff.decode(page, path), tiff.metadata(page)
    with pillow_files.opened(path) as handle:
        metadata = read_metadata(handle, path)
        channels = 1 if handle.mode == "1" or handle.mode.startswith("I") else len(handle.getbands())
        colour = channels if handle.mode not in ("P", "PA") else 4
        refuse_large(path, handle.size, max_pixels, _pixel_bytes(colour, pillow_files.stored_bits(handle)))
        return pillow_files.decode(handle, path), metadata


def _pixel_bytes(channels: int, bits: int) -> int:
    basis = _BYTES_GRAY if channels < 3 else _BYTES_COLOUR
    many = max(0, channels - 4) * bits // 8  # samples that are read and dropped
    return basis + _BYTES_ALPHA * (channels in (2, 4)) + _BYTES_DEEP * (bits > 8) + many


def _unit(samples: np.ndarray, bits: int) -> np.ndarray:
    """float32 in [0, 1]."""
    return np.divide(samples, np.float32(2**bits - 1), dtype=np.float32)


def _turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Upright (EXIF 2.3, tag 274)."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)
