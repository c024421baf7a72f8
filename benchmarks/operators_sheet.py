"""The ten image operators on two built-in photographs, on one sheet: docs/operators.jpg.

python benchmarks/operators_sheet.py docs/operators.jpg
"""

from __future__ import annotations

import sys

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from compressnet import registry
from compressnet.data import sample
from compressnet.data.images import read_image, resize_short_side, to_uint8
from compressnet.models.can_released import OPERATORS
from compressnet.signature import make

PHOTOGRAPHS = ("coffee", "rocket")
COLUMNS, WIDTH, HEIGHT, CAPTION, GAP = 4, 288, 192, 20, 6


def main() -> None:
    assert set(OPERATORS) == set(registry.OPERATORS)
    files = {
        photo.path.stem: photo.path for split in ("train", "test") for photo in sample.photographs(split)
    }
    blocks = [pictures(read_image(files[stem], srgb=True).pixels) for stem in PHOTOGRAPHS]
    rows = -(-len(blocks[0]) // COLUMNS)
    size = COLUMNS * (WIDTH + GAP) - GAP, len(blocks) * rows * (HEIGHT + CAPTION + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 13)
    for block, found in enumerate(blocks):
        for number, (name, picture) in enumerate(found.items()):
            x = number % COLUMNS * (WIDTH + GAP)
            y = (block * rows + number // COLUMNS) * (HEIGHT + CAPTION + GAP)
            draw.text((x + 2, y + 2), name, fill="black", font=font)
            sheet.paste(picture, (x, y + CAPTION))
    sheet.save(sys.argv[1], quality=86)


def pictures(pixels: np.ndarray) -> dict[str, Image.Image]:
    """The photograph and what each operator makes of it."""
    small = resize_short_side(pixels, 360)
    found = {"input": small}
    for name in sorted(OPERATORS):
        found[name] = make("operator", name)(small.astype(np.float32))
    return {name: cut(picture) for name, picture in found.items()}


def cut(pixels: np.ndarray) -> Image.Image:
    """The middle, in the shape of a cell."""
    height, width = pixels.shape[:2]
    wide, high = min(width, height * WIDTH // HEIGHT), min(height, width * HEIGHT // WIDTH)
    left, top = (width - wide) // 2, (height - high) // 2
    picture = Image.fromarray(to_uint8(pixels)).crop((left, top, left + wide, top + high))
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
