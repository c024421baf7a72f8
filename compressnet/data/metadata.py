"""What a picture carries besides pixels: orientation, EXIF, resolution; and what of it cannot be kept."""

from __future__ import annotations

import math
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import ExifTags
from PIL import Image as Pillow

from compressnet.data.pillow_files import DECODE_ERRORS

ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_X_RESOLUTION, _Y_RESOLUTION = 282, 283
_X_SIZE, _Y_SIZE, _INTEROPERABILITY = 40962, 40963, 40965
_XMP, _IPTC, _PHOTOSHOP = 700, 33723, 34377
# What tifffile and ImageJ write of how a file stores its pixels, in the place of a description.
_DESCRIPTION, _LAYOUTS = 270, ('{"shape"', "ImageJ=")
# sRGB, as PNG's gAMA, cHRM and cICP (primaries, transfer; matrix and range are RGB's own) have it.
_GAMMA, _PRIMARIES = 0.45455, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_CICP_SRGB = (1, 13)
_MOST_CHUNK = 64 << 20  # bytes
# Of a TIFF: how this file stores its pixels, previews, its profile. No part of what a camera says.
_STRUCTURE = {
    *range(254, 267),
    273,
    277,
    278,
    279,
    280,
    281,
    284,
    *range(288, 293),
    297,
    301,
    317,
    318,
    319,
    320,
}
_STRUCTURE |= {*range(322, 326), 330, *range(332, 348), *range(512, 522), *range(529, 533), 34675, _XMP}
_STRUCTURE |= {_IPTC, _PHOTOSHOP}


@dataclass
class Metadata:
    """Of one file.

    Attributes:
        orientation: 1..8, as EXIF numbers them; still to be applied.
        exif: a block without orientation, thumbnail and XMP, or None.
        dpi: dots an inch of the upright picture, across and down, or None.
        lost: what the file has and a result will not have, one phrase each.
    """

    orientation: int = 1
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    lost: list[str] = field(default_factory=list)


def read_metadata(handle: Pillow.Image, path: Path) -> Metadata:
    """Of a file that Pillow has opened, without decoding it. Damaged EXIF is left out, and that is said."""
    found = Metadata(dpi=_clean_dpi(handle.info.get("dpi")))
    if handle.format == "PNG" and "exif" not in handle.info and (late := _late_exif(path)):
        handle.info["exif"] = late
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exif = Pillow.Image.getexif(handle)  # the method of PNG files decodes the picture
            found.orientation = orientation_of(exif.get(ORIENTATION))
            if (block := handle.info.get("exif")) and not set(exif) - {ORIENTATION}:
                Pillow.Exif().load(block)  # once more: on opening, a JPEG keeps quiet of what is damaged
        except DECODE_ERRORS:
            found.lost.append("EXIF damaged: dropped")
            exif = Pillow.Exif()
    keep_exif(found, exif, upright(handle.size, found.orientation), damaged=bool(caught))
    found.lost += _lost_animation(handle) + _lost_colours(handle, path)
    if handle.info.get("xmp") or handle.info.get("XML:com.adobe.xmp"):
        found.lost.append("XMP dropped")
    if handle.info.get("photoshop"):
        found.lost.append("IPTC data dropped")
    return found


def keep_exif(found: Metadata, exif: Pillow.Exif, size: tuple[int, int], damaged: bool = False) -> None:
    """Put what is kept of `exif` into `found`.

    Args:
        size: of the upright picture.
        damaged: parts of it could not be read.
    """
    try:
        kept = _carried(exif, size, found.orientation in _TURNED)
        found.exif = kept.tobytes() if set(kept) - {ORIENTATION} else None
    except (*DECODE_ERRORS, RuntimeError):
        damaged = True
    if damaged and "EXIF damaged: dropped" not in found.lost:
        found.lost.append("EXIF damaged: " + ("a part of it dropped" if found.exif else "dropped"))
    if found.dpi and found.orientation in _TURNED:
        found.dpi = found.dpi[::-1]


def orientation_of(value: Any) -> int:
    """1..8; whatever else a file says means nothing."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height after turning."""
    return (size[1], size[0]) if orientation in _TURNED else size


def read_tiff_metadata(
    handle: Any, offset: int, big: bool, size: tuple[int, int], orientation: int
) -> Metadata:
    """Of the directory at `offset` of an open TIFF.

    Args:
        handle: the file, seekable.
        big: BigTIFF.
        size: of the upright picture.
    """
    found = Metadata(orientation)
    exif = Pillow.Exif()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            handle.seek(0)
            exif.endian = "<" if handle.read(2) == b"II" else ">"
            exif.bigtiff = big
            exif.load_from_fp(handle, offset)
            resolution = [exif[tag] for tag in (_X_RESOLUTION, _Y_RESOLUTION) if tag in exif]
            scale = {None: 1, 2: 1, 3: 2.54}.get(exif.get(296))
            if scale and len(resolution) == 2:
                found.dpi = _clean_dpi(tuple(float(value) * scale for value in resolution))
            found.lost += [
                f"{name} dropped" for tag, name in ((_XMP, "XMP"), (_IPTC, "IPTC data")) if exif.get(tag)
            ]
        except DECODE_ERRORS:
            exif = Pillow.Exif()
    keep_exif(found, exif, size, damaged=bool(caught))
    return found


def _carried(exif: Pillow.Exif, size: tuple[int, int], turned: bool) -> Pillow.Exif:
    kept = Pillow.Exif()
    kept.endian = exif.endian
    for tag, value in exif.items():
        described = tag == _DESCRIPTION and str(value).startswith(_LAYOUTS)
        if tag not in (*_STRUCTURE, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ORIENTATION) and not described:
            kept[tag] = value
    if turned and _X_RESOLUTION in kept and _Y_RESOLUTION in kept:
        kept[_X_RESOLUTION], kept[_Y_RESOLUTION] = kept[_Y_RESOLUTION], kept[_X_RESOLUTION]
    for place in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if place not in exif:
            continue
        inner = dict(exif.get_ifd(place))
        if inner.pop(_INTEROPERABILITY, None) and (deeper := exif.get_ifd(_INTEROPERABILITY)):
            inner[_INTEROPERABILITY] = dict(deeper)
        inner.update(
            {tag: value for tag, value in zip((_X_SIZE, _Y_SIZE), size, strict=True) if tag in inner}
        )
        if inner:
            kept[place] = inner
    kept[ORIENTATION] = 1
    return kept


def _clean_dpi(value: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(part) for part in value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    known = all(math.isfinite(part) and 0 < part <= 1e6 for part in (across, down))
    return (across, down) if known else None


def _late_exif(path: Path) -> bytes | None:
    """The eXIf chunk of a PNG, which may also stand behind the pixels."""
    return _png_chunk(path, b"eXIf", until=b"IEND")


def _png_chunk(path: Path, wanted: bytes, until: bytes) -> bytes | None:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == wanted:
                return file.read(min(length, _MOST_CHUNK))
            if name == until:
                return None
            file.seek(length + 4, 1)
    return None


def _lost_colours(handle: Pillow.Image, path: Path) -> list[str]:
    """What a PNG says of its colours in another way than by a profile, where that is not sRGB."""
    if handle.format != "PNG":
        return []
    if (coded := _png_chunk(path, b"cICP", until=b"IDAT")) and tuple(coded[:2]) != _CICP_SRGB:
        return [f"PNG's colour space (cICP {', '.join(map(str, coded[:4]))}) ignored: read as sRGB"]
    if handle.info.get("icc_profile") or "srgb" in handle.info or coded:
        return []
    lost = []
    if abs((gamma := handle.info.get("gamma", _GAMMA)) - _GAMMA) > 0.005:
        lost.append(f"PNG's gamma ({gamma:.5g}) ignored: read as sRGB")
    stated = handle.info.get("chromaticity", _PRIMARIES)
    if any(abs(mine - theirs) > 0.005 for mine, theirs in zip(stated, _PRIMARIES, strict=True)):
        lost.append("PNG's primaries (cHRM) ignored: read as sRGB")
    return lost


def _lost_animation(handle: Pillow.Image) -> list[str]:
    """The second view of an MPO (a depth map, a gain map) is no frame."""
    if handle.format not in ("GIF", "PNG", "WEBP", "AVIF"):
        return []
    try:
        count = getattr(handle, "n_frames", 1)
    except DECODE_ERRORS:  # the first frame may be good nevertheless
        count = 2
    return [f"animation: only the first of {count} frames is kept"] if count > 1 else []


def lost_pages(count: int) -> list[str]:
    """The phrase for a TIFF of `count` pages."""
    return [f"only the first of {count} pages is kept"] if count > 1 else []
