"""A picture as the bytes of a file; what the format cannot hold is said.

Pillow writes 8 bits a channel. PNG of 16 bits (the Up filter and zlib) and TIFF are written here: Pillow has
no 16-bit colour, and of a compressed TIFF it keeps no EXIF.
"""

from __future__ import annotations

import io
import struct
import zlib
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image as Pillow
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from compressnet.errors import CompressnetError


class Picture(Protocol):
    """What of an `images.Image` is written."""

    pixels: np.ndarray
    bits: int
    alpha: np.ndarray | None
    icc: bytes | None
    exif: bytes | None
    dpi: tuple[float, float] | None

    @property
    def gray(self) -> bool: ...


_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
_FORMATS |= {".webp": "WEBP", ".bmp": "BMP"}
_HOLDS_ALPHA = {"PNG", "TIFF", "WEBP"}
_HOLDS_16_BIT = {"PNG", "TIFF"}
_MOST_EXIF = 65533  # bytes of a JPEG segment
_BAND = 1 << 18  # pixels that are rounded at once
_STRIP = 1 << 18  # bytes of a strip of a TIFF


def encode(image: Picture, path: Path, suffix: str, quality: int | None, lost: list[str]) -> bytes:
    """The file of a picture, in the format that `suffix` names.

    Args:
        path: what to call it in messages.
        lost: takes what the format cannot hold, one phrase each.

    Raises:
        CompressnetError: too large for the format.
    """
    kind = _FORMATS[suffix]
    lost += _not_held(image, kind)
    deep = image.bits == 16 and kind in _HOLDS_16_BIT
    samples = _samples(image, 16 if deep else 8, kind)
    try:
        if kind == "TIFF":
            return _encode_tiff(samples, image)
        if deep:
            return _encode_png(samples, image)
        buffer = io.BytesIO()
        handle = Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        handle.save(buffer, kind, **_save_options(image, kind, quality))
    except (OSError, ValueError, struct.error) as error:
        height, width = samples.shape[:2]
        raise CompressnetError(f"{path}: {kind} cannot hold {width} x {height} pixels: {error}") from None
    return buffer.getvalue()


def quantised(pixels: np.ndarray, bits: int) -> np.ndarray:
    """[0, 1] to uint8 or uint16, rounded and clipped."""
    scaled = np.clip(pixels, 0, 1)
    scaled = np.multiply(scaled, 2**bits - 1, out=scaled if scaled.dtype.kind == "f" else None)
    return np.rint(scaled, out=scaled).astype(f"uint{bits}")


def _samples(image: Picture, bits: int, kind: str) -> np.ndarray:
    """(H, W, C), alpha last, made in bands: a picture of floats is large enough once."""
    channels = [image.pixels]
    if kind == "TIFF" and bits == 16 and image.gray and image.alpha is not None:
        channels *= 3
    if image.alpha is not None and kind in _HOLDS_ALPHA:
        channels.append(image.alpha[..., None])
    height, width = image.pixels.shape[:2]
    samples = np.empty((height, width, sum(part.shape[2] for part in channels)), f"uint{bits}")
    rows = max(1, _BAND // max(1, width))
    for top in range(0, height, rows):
        place = 0
        for part in channels:
            band = quantised(part[top : top + rows], bits)
            samples[top : top + rows, :, place : place + part.shape[2]] = band
            place += part.shape[2]
    return samples


def _not_held(image: Picture, kind: str) -> list[str]:
    lost = []
    if image.alpha is not None and kind not in _HOLDS_ALPHA:
        lost.append(f"{kind} has no transparency: alpha dropped")
    if image.bits == 16 and kind not in _HOLDS_16_BIT:
        lost.append(f"{kind} has 8 bits a channel: 16 bit reduced to 8")
    if image.icc and kind == "BMP":
        lost.append("BMP has no colour profile: profile dropped")
    if kind == "TIFF" and image.bits == 16 and image.gray and image.alpha is not None:
        lost.append("TIFF of 16 bit gray with transparency: stored as RGB")  # Pillow cannot read the other
    if image.exif and kind == "BMP":
        lost.append("BMP has no EXIF: EXIF dropped")
    if image.exif and kind == "JPEG" and len(image.exif) > _MOST_EXIF:
        lost.append(f"JPEG holds {_MOST_EXIF} bytes of EXIF: {len(image.exif)} dropped")
    if image.dpi and kind == "WEBP":
        lost.append("WEBP has no resolution: resolution dropped")
    if image.dpi and kind == "JPEG" and not _dpi_of_jpeg(image):
        lost.append(f"JPEG holds 1 to 65535 dots an inch: {image.dpi[0]:g} x {image.dpi[1]:g} dropped")
    return lost


def _dpi_of_jpeg(image: Picture) -> bool:
    return image.dpi is not None and all(1 <= round(value) <= 65535 for value in image.dpi)


def _save_options(image: Picture, kind: str, quality: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"icc_profile": image.icc} if image.icc and kind != "BMP" else {}
    if image.exif and kind != "BMP" and not (kind == "JPEG" and len(image.exif) > _MOST_EXIF):
        options |= {"exif": image.exif}
    if image.dpi and (kind in ("PNG", "BMP") or (kind == "JPEG" and _dpi_of_jpeg(image))):
        options |= {"dpi": image.dpi}
    if kind == "JPEG":
        options |= {"quality": quality or 95, "subsampling": 0 if (quality or 95) >= 90 else 2}
    if kind == "WEBP":
        options |= {"quality": quality} if quality else {"lossless": True}
    if kind == "PNG":  # measured on photographs: level 4 is 3-4 times faster than 6, and no larger
        options |= {"compress_level": 4}
    return options


def _encode_png(pixels: np.ndarray, image: Picture) -> bytes:
    """A PNG file of uint16 (H, W, C), C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA."""
    height, width, channels = pixels.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">2I5B", width, height, 16, colour_type, 0, 0, 0)),
    ]
    if image.icc:
        parts.append(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(image.icc)))
    if image.dpi:  # dots a metre
        across, down = (round(value / 0.0254) for value in image.dpi)
        parts.append(_chunk(b"pHYs", struct.pack(">2IB", across, down, 1)))
    if image.exif:
        parts.append(_chunk(b"eXIf", image.exif.removeprefix(b"Exif\0\0")))
    parts.append(_chunk(b"IDAT", _filtered(pixels)))
    parts.append(_chunk(b"IEND", b""))
    return b"".join(parts)


def _filtered(pixels: np.ndarray) -> bytes:
    """Rows as the differences to the ones above, modulo 256 (the filter Up), deflated in bands."""
    height, width = pixels.shape[:2]
    deflate, parts = zlib.compressobj(6), []
    above = np.zeros((1, width * pixels.shape[2] * 2), np.uint8)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        band = pixels[top : top + rows].astype(">u2").view(np.uint8).reshape(-1, above.shape[1])
        filtered = np.full((len(band), above.shape[1] + 1), 2, np.uint8)
        np.subtract(band, np.concatenate([above, band[:-1]]), out=filtered[:, 1:])
        parts.append(deflate.compress(filtered.data))
        above = band[-1:]
    return b"".join([*parts, deflate.flush()])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _encode_tiff(samples: np.ndarray, image: Picture) -> bytes:
    """A TIFF file (deflate, horizontal differences) of uint8 or uint16 (H, W, C), C = 1, 2, 3 or 4."""
    height, width, channels = samples.shape
    rows = max(1, min(height, _STRIP // (width * channels * samples.itemsize)))
    strips = []
    for top in range(0, height, rows):
        strip = samples[top : top + rows].copy()
        strip[:, 1:] -= samples[top : top + rows, :-1]  # modulo 2 ** bits
        strips.append(zlib.compress(strip.astype(strip.dtype.newbyteorder("<"), copy=False).data, 4))
    counts = [len(strip) for strip in strips]
    directory = _directory(image)
    directory[256], directory[257], directory[277] = width, height, channels
    directory[258] = (8 * samples.itemsize,) * channels
    directory[259], directory[317], directory[284] = 8, 2, 1  # Adobe deflate, differences, chunky
    directory[262] = 2 if channels > 2 else 1
    directory[278], directory[279] = rows, tuple(counts)
    directory[273] = tuple(accumulate(counts, initial=0))[:-1]  # counted from its own end
    if channels in (2, 4):
        directory[338] = 2  # alpha that is not multiplied in
    if image.icc:
        directory[34675] = image.icc
    return b"".join([b"II*\0", struct.pack("<I", 8), directory.tobytes(8), *strips])


def _directory(image: Picture) -> ImageFileDirectory_v2:
    """The tags of a TIFF that come from EXIF and resolution."""
    directory = ImageFileDirectory_v2(prefix=b"II")
    if image.exif:
        exif = Pillow.Exif()
        exif.load(image.exif)
        for tag, value in exif.items():
            directory[tag] = dict(exif.get_ifd(tag)) if tag in (0x8769, 0x8825) else value
        if (inner := directory.get(0x8769)) and 0xA005 in inner:
            inner[0xA005] = dict(exif.get_ifd(0xA005))
    if image.dpi:
        directory[282], directory[283], directory[296] = *image.dpi, 2
    return directory
