"""Whether a PNG is whole."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet.data import png_file
from compressnet.data.label_classes import LabelClasses
from compressnet.data.label_maps import read_labels
from compressnet.errors import CompressnetError

CLASSES = LabelClasses(("a", "b"), (0, 1), ((0, 0, 0), (1, 1, 1)))
SIZES = [(1, 1), (7, 5), (8, 8), (33, 17)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def drawn(mode: str, size: tuple[int, int], bits: int = 8) -> bytes:
    random = np.random.default_rng(0)
    channels = {"L": (), "P": (), "1": (), "RGB": (3,), "RGBA": (4,), "I;16": ()}[mode]
    values = random.integers(0, 2, (*size[::-1], *channels)).astype(np.uint16 if mode == "I;16" else np.uint8)
    picture = Pillow.fromarray(values * 255).convert("1") if mode == "1" else Pillow.fromarray(values)
    if mode == "P":
        picture = picture.convert("P")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", bits=bits) if mode == "P" else picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "I;16"])
def test_whole_files(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(drawn(mode, size))
    assert png_file.fault(path) == ""


@pytest.mark.parametrize("size", SIZES)
def test_interlaced_files(tmp_path: Path, size: tuple[int, int]) -> None:
    """Rows of seven passes, by a count of pixels of each."""
    width, height = size
    rows = b""
    for left, across, top, down in ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)):  # fmt: skip # noqa: E501
        for _ in range(top, height, down):
            if pixels := len(range(left, width, across)):
                rows += bytes(1 + pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert png_file.fault(path) == ""
    assert read_labels(path, CLASSES).shape == (height, width)


def test_every_flipped_bit_and_every_cut_is_told(tmp_path: Path) -> None:
    whole, path = drawn("L", (8, 8)), tmp_path / "a.png"
    for place in range(8, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert png_file.fault(path) != "", place
        path.write_bytes(whole[:place])
        assert png_file.fault(path) != "", place


@pytest.mark.parametrize("rows", [0, 4, 9])
def test_rows_that_are_missing_are_no_class(tmp_path: Path, rows: int) -> None:
    """A stream that ends as it should, with fewer rows than the header says, or more."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    data = zlib.compress((b"\0" + b"\1" * 8) * rows)
    path = tmp_path / "a.png"
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(CompressnetError, match=r"a\.png: (a damaged PNG: rows are missing|damaged)"):
        read_labels(path, CLASSES)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    os.mkfifo(path)
    with pytest.raises(CompressnetError, match=r"a\.png: cannot be read: not a plain file"):
        read_labels(path, CLASSES)
