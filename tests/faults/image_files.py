"""Mutants of small pictures through `image_size`, `read_image`, and `write_image` of what could be read.

python -m tests.faults.image_files [COUNT] [FIRST]
"""

from __future__ import annotations

import io
import os
import random
import struct
import sys
import zlib
from typing import Any

import numpy as np
from PIL import Image as Pillow

from compressnet.data.images import image_size, read_image, write_image

from .common import arguments, work
from .fuzzing import Case, Wrong, campaign

NUMBERS = np.random.default_rng(0)
RGB = NUMBERS.integers(0, 255, (19, 23, 3), dtype=np.uint8)
RGBA = NUMBERS.integers(0, 255, (19, 23, 4), dtype=np.uint8)
GRAY16 = NUMBERS.integers(0, 65535, (19, 23), dtype=np.uint16)
Named = tuple[str, bytes]  # a suffix and what is in the file


def stored(pixels: np.ndarray | Pillow.Image, kind: str, **more: Any) -> bytes:
    """A picture as a file of Pillow's."""
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels)
    image.save(out, kind, **more)
    return out.getvalue()


def png(width: int, height: int, depth: int, colour: int, data: bytes, chunks: bytes = b"") -> bytes:
    """A PNG of any header."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + chunks + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def repaired(data: bytes) -> bytes:
    """A PNG with right checksums, so that a mutation gets to the decoder."""
    out, position = data[:8], 8
    while position + 12 <= len(data):
        size = int(struct.unpack(">I", data[position : position + 4])[0])
        body = data[position + 4 : position + 8 + size]
        out += data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + size
    return out


def rgb16_tiff(planar: bool) -> bytes:
    """An uncompressed 16-bit RGB TIFF, chunky or planar."""
    height, width = 5, 7
    plane, parts = width * height * 2, 3 if planar else 1
    begin = 8 + 2 + 12 * 10 + 4
    offsets, counts, data = begin + 6, begin + 18, begin + 30
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, begin), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, parts, offsets if planar else data),
            (277, 3, 1, 3), (278, 4, 1, height), (279, 4, parts, counts if planar else plane * 3),
            (284, 3, 1, 2 if planar else 1)]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    places = struct.pack("<III", data, data + plane, data + 2 * plane) + struct.pack("<III", *[plane] * 3)
    return head + struct.pack("<IHHH", 0, 16, 16, 16) + places + NUMBERS.bytes(plane * 3)


def pictures() -> dict[str, bytes]:
    """Files of every layout that is read; the first word of a name is the suffix."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    turned, palette, gray = exif.tobytes(), Pillow.fromarray(RGB).convert("P"), RGB[..., 0]
    colours = Pillow.fromarray(RGB)
    deep = png(4, 4, 16, 2, zlib.compress(NUMBERS.bytes(4 * (1 + 4 * 6))))
    return {
        "png": stored(RGB, "PNG"), "png alpha": stored(RGBA, "PNG"), "png 16": stored(GRAY16, "PNG"),
        "png palette": stored(palette, "PNG", transparency=3),
        "png exif": stored(RGB, "PNG", exif=turned), "png rgb16": deep,
        "jpg": stored(RGB, "JPEG"), "jpg gray": stored(gray, "JPEG"),
        "jpg cmyk": stored(colours.convert("CMYK"), "JPEG"), "jpg progressive": stored(RGB, "JPEG",
            progressive=True, exif=turned),
        "tif": stored(RGB, "TIFF"), "tif lzw": stored(RGB, "TIFF", compression="tiff_lzw"),
        "tif deflate": stored(RGBA, "TIFF", compression="tiff_adobe_deflate"),
        "tif 16": stored(GRAY16, "TIFF"),
        "tif palette": stored(palette, "TIFF"),
        "tif float": stored(Pillow.fromarray(gray.astype(np.float32)), "TIFF"),
        "tif 1": stored(colours.convert("1"), "TIFF", compression="group4"),
        "tif rgb16": rgb16_tiff(False), "tif rgb16 planar": rgb16_tiff(True),
        "webp": stored(RGB, "WEBP"), "webp lossless": stored(RGBA, "WEBP", lossless=True),
        "bmp": stored(RGB, "BMP"), "bmp palette": stored(palette, "BMP"),
    }  # fmt: skip


def special() -> list[Named]:
    """Files that somebody thought of."""
    tiff = b"II*\0" + struct.pack("<I", 8)
    bad_profile = struct.pack(">I", 10) + b"iCCPabcdefghij" + bytes(4)
    return [
        ("png", png(16000, 16000, 1, 0, zlib.compress(bytes(16000 * (1 + 2000))))),
        ("png", png(2**31 - 1, 2**31 - 1, 8, 2, b"")), ("png", png(0, 5, 8, 2, b"")),
        ("png", png(1, 1, 8, 2, zlib.compress(bytes(10**8)))),
        ("png", png(4, 4, 8, 2, zlib.compress(bytes(52)), bad_profile)), ("png", stored(RGB, "GIF")),
        ("jpg", stored(RGB, "PNG")),
        ("png", b"<svg/>"), ("png", b"%PDF-1.4"),
        ("png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), ("png", b""),
        ("tif", tiff + b"\xff\xff" + bytes(60)),
        ("tif", tiff + struct.pack("<HI", 0, 8)), ("tif", b"II+\0\x08\0\0\0" + struct.pack("<Q",
            16) + bytes(8)),
    ]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A file with some bytes changed, and how."""
    new, how = bytearray(data), rng.choice(["bytes", "bytes", "bytes", "head", "cut", "grow", "ff",
                                            "number", "swap"])  # fmt: skip
    at = rng.randrange(len(new) - 4)
    if how in ("bytes", "head"):
        end = min(len(new), 120) if how == "head" else len(new)
        for _ in range(rng.choice([1, 1, 2, 5, 20])):
            new[rng.randrange(end)] = rng.randrange(256)
    elif how == "cut":
        del new[at:]
    elif how == "grow":
        new[at:at] = rng.randbytes(rng.choice([1, 9, 1000]))
    elif how == "ff":
        new[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
    elif how == "number":
        value = rng.choice([0, 1, 2**16, 2**31, 2**32 - 1, 10**6])
        struct.pack_into(f"{rng.choice('<>')}I", new, at, value)
    else:
        begin, end = sorted(rng.randrange(len(new)) for _ in range(2))
        new[begin:end] = new[begin:end][::-1]
    return how, bytes(new)


def tried(suffix: str, data: bytes, written: str) -> str:
    """Read a file twice over and write what was read."""
    path = work() / f"mutant-{os.getpid()}.{suffix}"
    path.write_bytes(data)
    size = image_size(path)
    image = read_image(path)
    pixels = image.pixels
    if pixels.shape[1::-1] != size:
        raise Wrong("another size than in the header", f"{size} in the header, {pixels.shape} read")
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise Wrong("values out of [0, 1]")
    if pixels.size < 10**7:
        write_image(image, work() / f"written-{os.getpid()}.{written}")
    return "read"


def case(number: int, files: dict[str, bytes]) -> Case:
    """The case of a number: a mutant of one of the files."""
    rng = random.Random(number)
    kind = rng.choice(list(files))
    how, data = mutated(files[kind], rng)
    if kind.startswith("png") and rng.random() < 0.7:
        data = repaired(data)
    written = rng.choice(["png", "tif", "jpg", "webp"])
    return Case(f"{kind}, {how}", lambda: tried(kind.split()[0], data, written))


def main() -> int:
    """The campaign; its exit code."""
    given, files = arguments(2000), pictures()
    chosen = special()

    def numbered(number: int) -> Case:
        at = number - given.first
        if at >= len(chosen):
            return case(number, files)
        suffix, data = chosen[at]
        return Case(f"special {at}", lambda: tried(suffix, data, "png"))

    return campaign("images", numbered, given).finish()


if __name__ == "__main__":
    sys.exit(main())
