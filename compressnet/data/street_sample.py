"""Streets that are drawn, with the class of every pixel: a sample of segmentation. Synthetic.

A scene (`street_scene`) is a pure function of the seed, the split and a number; in training the number is
the draw, so that no scene comes twice; those of validation and test are the same for every seed. Built in, to
see that everything works: its figures say nothing of photographs, and `facts()` call it synthetic wherever
they stand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from compressnet.bounds import Count, Repeats
from compressnet.data.class_image import planes
from compressnet.data.label_classes import IGNORED, LabelClasses
from compressnet.data.label_image import (
    LabelledBatch,
    LabelledImage,
    WholeBatch,
    WholeImage,
    collate_labelled,
    collate_whole,
)
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.data.street_scene import CLASSES, MOST, scene
from compressnet.reporter import Reporter

Side = Annotated[int, Field(ge=16, le=MOST)]
HeightWidth = Annotated[list[Side], Field(min_length=2, max_length=2)]
_SIZE = [128, 192]
_SPLITS = ("train", "val", "test")
_OWN = 1863  # keeps the random choices made here apart from those of the sampler
_COUNTED = 64  # scenes whose pixels stand for those of all
STREETS = LabelClasses(
    names=CLASSES,
    ids=tuple(range(len(CLASSES))),
    colours=(
        (70, 130, 180),
        (70, 70, 70),
        (128, 64, 128),
        (244, 35, 232),
        (107, 142, 35),
        (0, 0, 142),
        (220, 20, 60),
        (250, 220, 0),
    ),
    ignored_ids=(IGNORED,),
    source="street_sample",
)


class StreetSplit:
    """One split.

    Args:
        length: scenes of an epoch.
        size: height and width of each.

    Raises:
        CompressnetError: `assets` know other classes.
    """

    continuous = False
    derives = False
    has_targets = True
    classes = STREETS

    def __init__(
        self, split: str, length: int, size: tuple[int, int], seed: int, assets: Mapping[str, Any]
    ) -> None:
        self.classes.check(assets)
        self.crop = size
        self._split, self._length = split, length
        self._seed = seed if split == "train" else 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Key) -> LabelledImage | WholeImage:
        train = self._split == "train"
        pixels, labels = self._scene(key.draw if train else key.index)
        image, name = planes(pixels), self.name(key.index)
        if train:
            return LabelledImage(image.float().div_(255), torch.from_numpy(labels), name)
        return WholeImage(image, torch.from_numpy(labels), None, name)

    def name(self, index: int) -> str:
        return f"{self._split}/street-{index}"

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def class_pixels(self, processes: int | None = None, reporter: Reporter | None = None) -> np.ndarray:
        """The pixels of each class in as many scenes as tell its share, 0 that are ignored: int64 (9,)."""
        return _pixels(self.crop)

    def short_side(self) -> int:
        return min(self.crop)

    def collate(self, samples: list[Any]) -> LabelledBatch | WholeBatch:
        return collate_labelled(samples) if self._split == "train" else collate_whole(samples)

    def facts(self) -> dict[str, Any]:
        """How many, and the beginning of the SHA-256 of what they are and of one scene."""
        digest = hashlib.sha256(json.dumps([self._split, self._length, self.crop]).encode())
        for array in self._scene(0):
            digest.update(array.tobytes())
        return {"count": len(self), "fingerprint": digest.hexdigest()[:16], "synthetic": True}

    def _scene(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return scene(*self.crop, generator(self._seed, _OWN, _SPLITS.index(self._split), number))


class StreetSample:
    """Streets, drawn.

    Args:
        count: scenes of an epoch of training.
        val_count, test_count: scenes to validate and to test on, always the same.
        size: their height and width.
    """

    sample_type: ClassVar[str] = "labelled_image"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        count: Count = 1_000,
        val_count: Repeats = 50,
        test_count: Repeats = 200,
        size: HeightWidth = _SIZE,
    ) -> None:
        self._counts = {"train": count, "val": val_count, "test": test_count}
        self._size = size[0], size[1]

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> StreetSplit:
        if split not in _SPLITS:
            raise NoSuchSplit(f"street_sample has no split '{split}': only train, val and test")
        return StreetSplit(split, self._counts[split], self._size, seed, assets)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        return []


@cache
def _pixels(size: tuple[int, int]) -> np.ndarray:
    total = np.zeros(len(CLASSES) + 1, np.int64)
    for number in range(_COUNTED):
        labels = scene(*size, generator(_OWN, number))[1]
        total += np.bincount(labels.reshape(-1), minlength=len(total))
    return total
