"""Whether a PNG is whole: what a decoder that fills up with zeros would not tell.

    signature, chunks of (length, kind, data, CRC-32), the data of all IDAT one zlib stream of every row

W3C: Portable Network Graphics (PNG) Specification, third edition.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from compressnet.regular_file import open_regular

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
_PIECE = 1 << 16  # bytes that are looked at at once
# Adam7: the first pixel and the step, across and down, of each pass.
_PASSES = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))


def fault(path: Path) -> str:
    """What is wrong with a PNG, in words; empty if it is whole, and of other files.

    Raises:
        OSError: it cannot be read, or is a pipe.
    """
    with open_regular(path) as file:
        if file.read(8) != _SIGNATURE:
            return ""
        return _fault(file)


def _fault(file: BinaryIO) -> str:
    inflate, length, wanted = zlib.decompressobj(), 0, 0
    while len(head := file.read(8)) == 8:
        left, kind = struct.unpack(">I4s", head)
        checksum = zlib.crc32(kind)
        first = b""
        while left and (data := file.read(min(left, _PIECE))):
            left -= len(data)
            checksum = zlib.crc32(data, checksum)
            first = first or data
            if kind == b"IDAT":
                try:
                    length += _inflated(inflate, data, wanted - length)
                except zlib.error:
                    return "its compressed rows are damaged"
        if left or struct.pack(">I", checksum) != file.read(4):
            return f"its part {kind.decode('latin-1')!r} is cut short or has another checksum than it says"
        if kind == b"IHDR":
            wanted = _bytes_of_rows(first)
        if kind == b"IEND":
            return "" if length == wanted and inflate.eof else "rows are missing, or too many"
    return "cut short"


def _inflated(inflate: zlib._Decompress, data: bytes, room: int) -> int:
    """Bytes that come of `data`; a little more than there is room for is enough to know."""
    length = 0
    while data and length <= room:
        length += len(inflate.decompress(data, _PIECE))
        data = inflate.unconsumed_tail
    return length


def _bytes_of_rows(header: bytes) -> int:
    """Of all rows, each with the byte that says how it is filtered; 0 of a header that is none."""
    if len(header) != 13:
        return 0
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits *= _SAMPLES.get(colour, 0)
    sizes = [(width, height)]
    if interlaced:
        sizes = [
            (-(-(width - left) // across), -(-(height - top) // down)) for left, across, top, down in _PASSES
        ]
    return sum((1 + -(-w * bits // 8)) * h for w, h in sizes if w > 0 and h > 0)
