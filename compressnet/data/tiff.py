"""TIFF files as samples: tifffile reads what it can undo, Pillow (libtiff) the other compressions.

The tags say what samples mean, whoever decodes them.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from compressnet.data import pillow_files, sixteen_bit
from compressnet.data.interpretation import ASSOCIATED, CHANNELS, REC_601, Samples, Space, unspecified
from compressnet.data.metadata import Metadata, lost_pages, orientation_of, read_tiff_metadata, upright
from compressnet.errors import CompressnetError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SPACES: dict[int, Space] = {
    0: "white is zero", 1: "gray", 2: "rgb", 3: "palette", 5: "cmyk", 6: "ycbcr", 8: "cielab", 9: "icclab",
}  # fmt: skip
_OTHER_SPACES = {4: "a transparency mask", 10: "ITU Lab", 32803: "raw sensor data", 34892: "linear raw data"}
_NUMBERS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_PLAIN, _DEFLATE, _PACKBITS = (1,), (8, 32946), (32773,)
_MOST_EXTRA = 12
_COLOURS = (301, 318, 319)  # TransferFunction, WhitePoint, PrimaryChromaticities
_FULL = (0, 255)  # DotRange of CMYK
_RATIO = 1032  # what deflate makes of a byte at the most
_MOST_TAG = 64 << 20  # bytes
_BLOCK, _SEGMENT = 1 << 20, 1 << 28  # bytes: unpacked at once by the check; may be unpacked unchecked


def is_tiff(path: Path) -> bool:
    """By the file's first bytes."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The first page (tifffile.TiffPage) of a file whose samples are of a kind that is read.

    Raises:
        CompressnetError: floating-point, signed or 32-bit samples, a colour space of another kind, ...
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else Python prints its warnings
    with tifffile.TiffFile(path, _multifile=False) as file:
        page = file.pages[0]
        _refuse_large_tags(page, path)
        _refuse_unclear(page, path)
        yield page


def _refuse_large_tags(page: Any, path: Path) -> None:
    """Before a value is read: a sparse file may claim gigabytes of profile or EXIF."""
    for tag in page.tags:
        if int(tag.valuebytecount) > _MOST_TAG:
            size = f"{int(tag.valuebytecount) / 1e6:.0f} MB"
            raise CompressnetError(f"{path}: damaged or not supported: {size} in tag {int(tag.code)}")


def size(page: Any) -> tuple[int, int]:
    """Width and height, upright."""
    return upright((int(page.imagewidth), int(page.imagelength)), orientation(page))


def orientation(page: Any) -> int:
    value = _tag(page, 274)
    return orientation_of(value[0] if isinstance(value, bytes) and value else value)


def metadata(page: Any) -> Metadata:
    """EXIF, resolution, and the pages that are left out."""
    file = page.parent
    found = read_tiff_metadata(file.filehandle, page.offset, file.is_bigtiff, size(page), orientation(page))
    found.lost += lost_pages(len(file.pages))
    if not _profile(page) and any(_tag(page, code) is not None for code in _COLOURS):
        found.lost.append("TIFF's primaries and transfer function ignored: read as sRGB")
    if int(page.photometric) == 5 and tuple(np.atleast_1d(_tag(page, 336) or _FULL)) != _FULL:
        found.lost.append("TIFF's range of ink (DotRange) ignored")
    return found


def decode(page: Any, path: Path) -> Samples:
    """The samples of a page, as stored.

    Raises:
        CompressnetError: a layout that neither library reads in this compression.
    """
    compression, bits = int(page.compression), _bits(page)
    if compression in _PLAIN + _PACKBITS:
        page.predictor = 1  # of these it means nothing, as in libtiff
    subsampled = int(page.photometric) == 6 and tuple(page.subsampling or (2, 2)) != (1, 1)
    known = compression in _PLAIN + _DEFLATE + _PACKBITS and int(page.predictor) in (1, 2)
    if known and bits in (8, 16) and int(page.fillorder) == 1 and not subsampled:
        samples = _by_tifffile(page, path)
    else:
        samples = _by_pillow(page, path)
    samples.icc = _profile(page)
    return samples


def _refuse_unclear(page: Any, path: Path) -> None:
    """One line for samples whose range or meaning the file does not state."""
    bits = _bits(page)
    number = {int(value) for value in np.atleast_1d(_tag(page, 339) or 1)}
    photometric = int(page.photometric)
    kind = next((name for code, name in _NUMBERS.items() if code in number), None)
    if kind == "signed" and photometric == 8:  # so are CIELab's a and b, by definition
        kind = None
    said = (
        _OTHER_SPACES.get(photometric, f"colour space {photometric}") if photometric not in _SPACES else None
    )
    if kind or bits > 16:
        said = f"{kind or 'unsigned'} samples of {bits} bit"
    elif bits == 0:
        said = "samples of different depths"
    elif photometric == 5 and _tag(page, 332) == 2:
        said = "inks other than cyan, magenta, yellow and black"
    elif int(page.imagedepth) != 1:
        said = "a volume"
    if said:
        raise CompressnetError(
            f"{path}: a TIFF of {said} is not read, its range or colours are not clear: "
            "use 8 or 16 bit, gray or RGB"
        )
    extra = int(page.samplesperpixel) - CHANNELS[_SPACES[photometric]]
    if not 0 <= extra <= _MOST_EXTRA:
        raise CompressnetError(
            f"{path}: damaged or not supported: a TIFF of {page.samplesperpixel} samples a pixel"
        )


def _bits(page: Any) -> int:
    """Bits of every sample; 0: they differ."""
    stored = {int(value) for value in np.atleast_1d(_tag(page, 258) or 1)}
    return stored.pop() if len(stored) == 1 else 0


def _tag(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _profile(page: Any) -> bytes | None:
    value = _tag(page, 34675)
    return bytes(value) if isinstance(value, bytes) and value else None


def _extra(page: Any) -> tuple[int, ...]:
    return tuple(int(kind) for kind in page.extrasamples or ())


# --- tifffile --------------------------------------------------------------------------------------------


def _by_tifffile(page: Any, path: Path) -> Samples:
    _refuse_bad_segments(page, path)
    stored = page.asarray(squeeze=False, maxworkers=1)  # (planes, 1, H, W, samples)
    values = stored[:, 0].transpose(1, 2, 0, 3).reshape(page.imagelength, page.imagewidth, -1)
    bits = _bits(page)
    values = values.astype(f"uint{bits}", copy=False)
    samples = Samples(values, _SPACES[int(page.photometric)], bits, _extra(page))
    if samples.space == "palette":
        samples.palette = _palette(page)
    if samples.space == "ycbcr":
        samples.luma = _luma(page, path)
    return samples


def _refuse_bad_segments(page: Any, path: Path) -> None:
    """What tifffile would fill with zeros (strips that are not there) or unpack without a bound."""
    offsets, counts = (np.asarray(list(table), np.int64) for table in (page.dataoffsets, page.databytecounts))
    expected = int(np.prod(page.chunked))
    length = path.stat().st_size
    if len(offsets) != expected or len(counts) != expected:
        raise CompressnetError(f"{path}: damaged or not supported: {len(offsets)} strips of {expected}")
    if (counts <= 0).any() or (offsets <= 0).any() or (offsets + counts > length).any():
        raise CompressnetError(f"{path}: damaged or not supported: truncated, or strips outside of the file")
    room = int(np.prod(page.chunks)) * (_bits(page) // 8)
    known = int(page.compression) in _PLAIN + _DEFLATE + _PACKBITS
    if known and (counts > room + room // 64 + _BLOCK).any():
        raise CompressnetError(
            f"{path}: damaged or not supported: a strip of {int(counts.max())} bytes for {room} of pixels"
        )
    if int(page.compression) in _PLAIN:
        if int(counts.sum()) < page.imagelength * page.imagewidth * page.samplesperpixel * (_bits(page) // 8):
            raise CompressnetError(f"{path}: damaged or not supported: truncated")
    elif int(page.compression) in _DEFLATE:
        large = counts * _RATIO > max(room, _SEGMENT)
        for offset, count in {(int(o), int(c)) for o, c in zip(offsets[large], counts[large], strict=True)}:
            _refuse_bomb(page, offset, count, room, path)


def _refuse_bomb(page: Any, offset: int, count: int, room: int, path: Path) -> None:
    """Unpack a strip without keeping it."""
    unpacked, inflate = 0, zlib.decompressobj()
    page.parent.filehandle.seek(offset)
    data = page.parent.filehandle.read(count)
    while data and not inflate.eof:
        unpacked += len(inflate.decompress(data, _BLOCK))
        data = inflate.unconsumed_tail
        if unpacked > room + _BLOCK:
            raise CompressnetError(f"{path}: a strip unpacks to more than its picture: a decompression bomb")


def _palette(page: Any) -> np.ndarray:
    """TIFF's table is 16 bit, planar; files exist whose values are 8 bit (as libtiff does it)."""
    table = np.asarray(page.colormap, np.uint16).reshape(3, -1).T
    return (table if int(table.max(initial=0)) < 256 else table >> 8).astype(np.uint8)


def _luma(page: Any, path: Path) -> tuple[float, ...]:
    reference = _rationals(page, 532) or (0, 255, 128, 255, 128, 255)
    if _bits(page) != 8 or tuple(reference) != (0, 255, 128, 255, 128, 255):
        raise CompressnetError(
            f"{path}: a TIFF of YCbCr with another range than 8 bit is not read; save it as RGB"
        )
    luma = _rationals(page, 529) or REC_601
    if len(luma) != 3 or not all(0 < share < 1 for share in luma):
        raise CompressnetError(f"{path}: damaged or not supported: the coefficients of YCbCr")
    return tuple(luma)


def _rationals(page: Any, code: int) -> list[float]:
    values = np.atleast_1d(_tag(page, code) or ())
    return [float(top) / float(bottom) for top, bottom in values.reshape(-1, 2)]


# --- Pillow ----------------------------------------------------------------------------------------------

_stderr_lock = threading.Lock()


@contextmanager
def _quiet_libtiff() -> Iterator[None]:
    """It prints what is wrong to the process's stderr, past Python; Pillow raises it too."""
    with _stderr_lock, ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:  # closed
            yield
            return
        stack.callback(os.close, kept)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        stack.callback(os.dup2, kept, 2)
        yield


def _by_pillow(page: Any, path: Path) -> Samples:
    bits, extra = _bits(page), _extra(page)
    planar = int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1
    try:
        with _quiet_libtiff(), pillow_files.opened(path, ("TIFF",)) as handle:
            if bits == 16 and planar:
                raise SyntaxError("planar")
            mode = sixteen_bit.raw_mode(handle)
            if ";16" in mode and not handle.mode.startswith("I;16"):
                values = sixteen_bit.read_halves(lambda: Pillow.open(path, formats=("TIFF",)))
                samples = Samples(values, _SPACES[int(page.photometric)], 16, extra)
            elif handle.mode == "P":  # Pillow's own table makes one of 8 bits black
                samples = Samples(np.asarray(handle)[..., None], "palette", 8, extra)
                samples.palette = _palette(page)
            else:
                if is_premultiplied := mode == "RGBa":  # Pillow would divide, and lose what is transparent
                    sixteen_bit.set_raw_mode(handle, "RGBA")
                samples = pillow_files.decode(handle, path)
                if is_premultiplied:
                    samples.extra = (ASSOCIATED,)
                if samples.extra and (not extra or extra[0] not in (1, 2)):
                    samples.extra = ()
                if handle.mode.startswith("I;16"):
                    samples.bits, samples.space = bits, _SPACES[int(page.photometric)]
    except (SyntaxError, UnidentifiedImageError):
        raise CompressnetError(
            f"{path}: a TIFF of this layout ({page.samplesperpixel} samples of {bits} bit, "
            f"{page.photometric.name}{', planar' if planar else ''}) is not read in compression "
            f"{page.compression.name}: "
            "save it with 8 or 16 bit, in deflate (ZIP) or without compression"
        ) from None
    if samples.values.shape[:2] != size(page)[::-1]:
        raise CompressnetError(f"{path}: damaged or not supported: two sizes")
    samples.upright = True
    kept = samples.values.shape[2] - CHANNELS[samples.space]
    if samples.space != "palette" and _SPACES[int(page.photometric)] != "palette":
        missing = int(page.samplesperpixel) - CHANNELS[_SPACES[int(page.photometric)]] - kept
        samples.lost += [unspecified(missing)] if missing > 0 else []
    return samples
