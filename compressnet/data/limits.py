"""How large a picture or a text may be: asked before anything is read or decoded."""

from __future__ import annotations

import os
from pathlib import Path

from compressnet.errors import CompressnetError
from compressnet.free_memory import SAFE_SHARE, free_memory
from compressnet.regular_file import open_regular

MAX_PIXELS = 250_000_000
# A picture of fewer bytes is read without asking what is free.
_SMALL = 100_000_000
_SMALL_TEXT = 10_000_000
# What a byte of text takes with its symbols and their numbers, measured: 18 of words, 24 of characters.
_BYTES_TEXT = 25
# Deflate makes 1032 bytes of one at the most, up to 8256 pixels of one bit. Only blank pages come near.
_BOMB_PIXELS, _BOMB_RATIO = 100_000_000, 2000


def refuse_many_pixels(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    """Check the number of pixels.

    Raises:
        CompressnetError: more than `max_pixels`.
    """
    if size[0] * size[1] > max_pixels:
        raise CompressnetError(
            f"{path}: {size[0]} x {size[1]} pixels are more than the limit of {max_pixels / 1e6:g} million: "
            "a damaged file or a decompression bomb"
        )


def refuse_large(path: Path, size: tuple[int, int], max_pixels: int, pixel_bytes: int) -> None:
    """Check pixels, memory, and what the file's length makes plausible.

    Args:
        pixel_bytes: what a pixel takes while the picture is read and a result of its size is made.

    Raises:
        CompressnetError: too many pixels, or more than 70 % of the free memory: how much is needed.
    """
    refuse_many_pixels(path, size, max_pixels)
    needed = size[0] * size[1] * pixel_bytes
    if needed < _SMALL:
        return
    free = free_memory()
    if free is not None and needed > SAFE_SHARE * free:
        raise CompressnetError(
            f"{path}: {size[0]} x {size[1]} pixels need about {_gigabytes(needed)}, {_gigabytes(free)} are "
            f"free, of which at most {SAFE_SHARE:.0%} are taken: make the picture smaller or free memory"
        )
    length = path.stat().st_size
    if size[0] * size[1] > max(_BOMB_PIXELS, _BOMB_RATIO * length):
        raise CompressnetError(
            f"{path}: {size[0]} x {size[1]} pixels in a file of {length} bytes: a decompression bomb"
        )


def read_text_file(path: Path) -> bytes:
    """The bytes of a file of text that memory can hold as symbols.

    Raises:
        OSError: missing, unreadable, no plain file.
        CompressnetError: too large: how much is needed.
    """
    with open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        needed, free = length * _BYTES_TEXT, free_memory() if length > _SMALL_TEXT else None
        if free is not None and needed > SAFE_SHARE * free:
            raise CompressnetError(
                f"{path}: {_gigabytes(length)} of text need about {_gigabytes(needed)}, {_gigabytes(free)} "
                f"are free, of which at most {SAFE_SHARE:.0%} are taken: split the file"
            )
        return file.read()


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
