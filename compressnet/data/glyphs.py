"""Glyphs: the letters A to J in the fonts that come with matplotlib, drawn anew for every sample. Synthetic.

    letter in a font -> turned, scaled, slanted, moved -> in two colours, with noise -> uint8 (3, 32, 32)

Validation and test have fonts that training has not. A picture is a pure function of the seed, the split and
a number; in training the number is the draw, so that no picture comes twice; those of validation and test are
the same for every seed. Built in, to see that everything works: its figures say nothing of photographs, and
`facts()` call it synthetic wherever they stand.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from compressnet.bounds import Count, Repeats
from compressnet.data.class_image import (
    ClassImage,
    ClassImageBatch,
    Preparation,
    check_classes,
    collate_class_images,
    planes,
)
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter

CLASSES = tuple("ABCDEFGHIJ")
SIDE = 32
FONTS = {
    "train": (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSans-Oblique",
        "DejaVuSans-BoldOblique",
        "DejaVuSerif",
        "DejaVuSerif-Bold",
        "DejaVuSerif-Italic",
        "DejaVuSerif-BoldItalic",
        "cmr10",
        "cmss10",
    ),
    "val": ("cmb10", "cmti10", "cmtt10"),
    "test": (
        "DejaVuSansMono",
        "DejaVuSansMono-Bold",
        "DejaVuSansMono-Oblique",
        "DejaVuSansMono-BoldOblique",
        "STIXGeneral",
        "STIXGeneralBol",
        "STIXGeneralItalic",
        "STIXGeneralBolIta",
    ),
}
_SPLITS = ("train", "val", "test")
_OWN = 2025  # keeps the random choices made here apart from those of the sampler
_DRAWN = 64  # side at which a letter is drawn, once
_HEIGHT = 40  # of its font
_TURN = math.radians(20)
_SCALE = (1.6, 2.4)  # drawn pixels a pixel
_WIDE, _SLANT = 1.25, 0.2  # fonts differ in these too
_MOVE = 4.0  # pixels
_CONTRAST = 64  # levels between letter and ground, in every channel at least
_NOISE = 16.0  # levels: the largest deviation


class GlyphSplit:
    """One split.

    Args:
        length: samples of an epoch.

    Raises:
        CompressnetError: `assets` know other classes, or matplotlib has not its fonts.
    """

    continuous = False
    derives = False
    has_targets = True
    classes = CLASSES
    preparation = Preparation(resize=SIDE, side=SIDE, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])

    def __init__(self, split: str, length: int, seed: int, assets: Mapping[str, Any]) -> None:
        self._split, self._length = split, length
        self._seed = seed if split == "train" else 0
        check_classes(self.classes, assets)
        self._letters = letters(split)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Key) -> ClassImage:
        number = key.draw if self._split == "train" else key.index
        random = generator(self._seed, _OWN, _SPLITS.index(self._split), number)
        label = key.index % len(CLASSES)
        letter = self._letters[random.integers(len(self._letters)), label]
        return ClassImage(planes(_coloured(_placed(letter, random), random)), label, self.name(key.index))

    def name(self, index: int) -> str:
        return f"{self._split}/{CLASSES[index % len(CLASSES)]}-{index}"

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def collate(self, samples: list[ClassImage]) -> ClassImageBatch:
        return collate_class_images(samples)

    def facts(self) -> dict[str, Any]:
        """How many, and the beginning of the SHA-256 of what makes them: letters as drawn here, a picture."""
        digest = hashlib.sha256(json.dumps([self._split, self._length, FONTS[self._split]]).encode())
        digest.update(self._letters.tobytes())
        digest.update(self[Key(0, 0, 0)].pixels.numpy().tobytes())
        return {"count": len(self), "fingerprint": digest.hexdigest()[:16], "synthetic": True}


class Glyphs:
    """Letters, drawn.

    Args:
        count: pictures of an epoch of training.
        val_count, test_count: pictures to validate and to test on, always the same.
    """

    sample_type: ClassVar[str] = "class_image"
    test_split: ClassVar[str] = "test"

    def __init__(
        self, count: Count = 10_000, val_count: Repeats = 1_000, test_count: Repeats = 2_000
    ) -> None:
        self._counts = {"train": count, "val": val_count, "test": test_count}

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> GlyphSplit:
        if split not in _SPLITS:
            raise NoSuchSplit(f"glyphs has no split '{split}': only train, val and test")
        return GlyphSplit(split, self._counts[split], seed, assets)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            for split in _SPLITS:
                letters(split)
        except CompressnetError as error:
            return [str(error)]
        return []


@cache
def letters(split: str) -> np.ndarray:
    """Every letter in every font of a split: how much of each pixel it covers, uint8 (fonts, 10, 64, 64).

    Raises:
        CompressnetError: fonts are missing.
    """
    files = [_folder() / f"{name}.ttf" for name in FONTS[split]]
    if missing := [file.name for file in files if not file.is_file()]:
        raise CompressnetError(f"{_folder()}: {', '.join(missing)} missing: reinstall matplotlib")
    return np.stack([[_drawn(font, letter) for letter in CLASSES] for font in map(_font, files)])


def _folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _font(file: Path) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(file), _HEIGHT, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise CompressnetError(f"{file}: {error}: reinstall matplotlib") from error


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray:
    picture = PILImage.new("L", (_DRAWN, _DRAWN))
    left, top, right, bottom = font.getbbox(letter)
    place = (_DRAWN - left - right) / 2, (_DRAWN - top - bottom) / 2
    ImageDraw.Draw(picture).text(place, letter, fill=255, font=font)
    return np.asarray(picture)


def _placed(letter: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A drawn letter turned, scaled, slanted and moved: what it covers of each pixel, 0 to 1, (32, 32)."""
    turn, scale = random.uniform(-_TURN, _TURN), random.uniform(*_SCALE)
    wide, slant = random.uniform(1 / _WIDE, _WIDE), random.uniform(-_SLANT, _SLANT)
    x, y = SIDE / 2 + random.uniform(-_MOVE, _MOVE, 2)
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    a, b = (cos - slant * sin) / wide, (sin + slant * cos) / wide
    matrix = (a, b, _DRAWN / 2 - a * x - b * y, -sin, cos, _DRAWN / 2 + sin * x - cos * y)
    picture = PILImage.fromarray(letter).transform(
        (SIDE, SIDE), PILImage.Transform.AFFINE, matrix, PILImage.Resampling.BILINEAR
    )
    return np.asarray(picture) / np.float32(255)


def _coloured(covered: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A letter in one colour on ground of another, with noise: uint8 (32, 32, 3)."""
    dark = random.integers(256 - _CONTRAST, size=3)
    light = random.integers(dark + _CONTRAST, 256)
    ground, colour = (dark, light) if random.integers(2) else (light, dark)
    noise = random.standard_normal((SIDE, SIDE, 3), np.float32) * np.float32(random.uniform(0, _NOISE))
    pixels = ground + covered[..., None] * (colour - ground).astype(np.float32) + noise
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
