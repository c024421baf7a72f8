"""One split of photographs with label maps, wherever a data set has found them.

pairs of files -> all decoded once: faults, pixels of each class (kept in the cache) -> samples
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from compressnet.data.cache import Cache
from compressnet.data.class_image import planes, rgb
from compressnet.data.images import image_size, read_image
from compressnet.data.label_classes import IGNORED, LabelClasses
from compressnet.data.label_image import (
    Augmentation,
    LabelledBatch,
    LabelledImage,
    WholeBatch,
    WholeImage,
    collate_labelled,
    collate_whole,
)
from compressnet.data.label_maps import read_instances, read_labels
from compressnet.data.photographs import Photograph, fingerprint, tell_left_out
from compressnet.data.prepare import each
from compressnet.data.protocol import Key
from compressnet.data.sampler import generator
from compressnet.errors import BadFiles, CompressnetError, UsageError
from compressnet.reporter import Reporter, Silent

# Raised when reading changes what is counted: older cache entries are then left alone.
READER_VERSION = 1


class LabelPair(NamedTuple):
    """A photograph and its labels.

    Attributes:
        name: unique in the set.
        instances: the map of its objects, if there is one.
    """

    image: Path
    labels: Path
    name: str
    instances: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return self.image, self.labels, *([] if self.instances is None else [self.instances])


class Looked(NamedTuple):
    """What a look at a pair has shown.

    Attributes:
        problems: one line each.
        size: width and height of the photograph, upright; None if it cannot be read.
        pixels: int64 (classes + 1,), those of each output, the ignored ones last; zeros if not counted.
    """

    problems: list[str]
    size: tuple[int, int] | None
    pixels: np.ndarray


class LabelSplit:
    """One split.

    Args:
        pairs: its files, in a fixed order.
        classes: of the outputs.
        stored: the same, as the values of these files have them.
        augmentation: how training looks at a photograph; None: validation, test.
        size: short side that `short_side` tells, or None: that of the photographs.
        left_out: one line for each folder that holds pictures of kinds that are not read.
        called: what tells it from others of its kind in records; None: there is one.
    """

    continuous = False
    derives = True  # nothing, but `prepare` looks whether all can be read
    has_targets = True

    def __init__(
        self,
        pairs: Sequence[LabelPair],
        classes: LabelClasses,
        stored: LabelClasses,
        augmentation: Augmentation | None,
        size: int | None,
        seed: int,
        left_out: Sequence[str] = (),
        called: str | None = None,
    ) -> None:
        self.pairs, self.classes = list(pairs), classes
        self._stored, self._augmentation, self._size = stored, augmentation, size
        self._seed, self._left_out, self._called = seed, left_out, called

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> LabelledImage | WholeImage:
        pair = self.pairs[key.index]
        picture = read_image(pair.image, srgb=True)
        labels = read_labels(pair.labels, self._stored)
        if picture.pixels.shape[:2] != labels.shape:
            raise CompressnetError(f"{pair.labels}: no longer of its photograph's size")
        if self._augmentation is not None:
            pixels = np.broadcast_to(picture.pixels, (*labels.shape, 3))
            random = generator(self._seed, key.epoch, key.index, key.draw)
            return LabelledImage(*self._augmentation(pixels, labels, random), pair.name)
        objects = None if pair.instances is None else torch.from_numpy(read_instances(pair.instances))
        if objects is not None and objects.shape != labels.shape:
            raise CompressnetError(f"{pair.instances}: not of the size of {pair.labels}")
        return WholeImage(planes(rgb(picture)), torch.from_numpy(labels), objects, pair.name)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        """Decode everything once: a bad file would end the training in its middle.

        Raises:
            BadFiles: all that cannot be used.
        """
        tell_left_out(self._left_out, reporter)
        self.class_pixels(processes, reporter)

    def class_pixels(self, processes: int | None = None, reporter: Reporter | None = None) -> np.ndarray:
        """The pixels of each output over all of the split, the ignored ones last: int64 (classes + 1,).

        Counted once: the cache keeps it until a file changes.

        Raises:
            BadFiles: files that cannot be used, all of them.
        """
        key = {
            "kind": "class-pixels",
            "reader": READER_VERSION,
            "classes": self._stored.to_assets(),
            "files": _state(self.pairs),
        }
        counted = Cache().get(key, lambda: {"pixels": self._counted(processes, reporter or Silent())})
        return counted["pixels"]

    def short_side(self) -> int:
        """The short side of photographs at which the network is trained, before any random factor."""
        if self._size is not None:
            return self._size
        return int(np.median([min(size) for size in self._sizes()]))

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of what is trained on; without `crop`, of the photographs.

        Raises:
            UsageError: photographs of several sizes, taken whole: which key to set.
        """
        assert self._augmentation is not None, "of training only"
        sizes = {(0, 0)} if self._augmentation.crop is not None else set(self._sizes())
        wholes = sorted({self._augmentation.whole(height, width) for width, height in sizes})
        if len(wholes) > 1:
            some = ", ".join(f"{width}x{height}" for height, width in wholes[:3])
            raise UsageError(
                f"the photographs are of {len(wholes)} sizes ({some}...): set data.crop, the height and "
                "width to train on"
            )
        return wholes[0]

    def collate(self, samples: list[Any]) -> LabelledBatch | WholeBatch:
        return collate_whole(samples) if self._augmentation is None else collate_labelled(samples)

    def facts(self) -> dict[str, Any]:
        files = [
            Photograph(path, f"{kind}/{pair.name}")
            for pair in self.pairs
            for kind, path in zip(("image", "labels", "instances"), pair.files, strict=False)
        ]
        called = {} if self._called is None else {"set": self._called}
        return {"count": len(self), "fingerprint": fingerprint(files), **called}

    def _sizes(self) -> list[tuple[int, int]]:
        return [image_size(pair.image) for pair in self.pairs]

    def _counted(self, processes: int | None, reporter: Reporter) -> np.ndarray:
        looked = look_at(self.pairs, self._stored, reporter, processes)
        if problems := [problem for one in looked for problem in one.problems]:
            raise BadFiles(*problems)
        return np.sum([one.pixels for one in looked], axis=0)


def look_at(
    pairs: Sequence[LabelPair], stored: LabelClasses, reporter: Reporter, processes: int | None = None
) -> list[Looked]:
    """Decode photographs and labels as training will, several at once."""
    reporter.stage("decoding", len(pairs), "pairs")
    return each(look, [(pair, stored) for pair in pairs], processes, reporter, "decodes pictures")


def look(pair: LabelPair, stored: LabelClasses) -> Looked:
    """Decode one photograph and its labels."""
    problems: list[str] = []
    size = labels = None
    pixels = np.zeros(len(stored) + 1, np.int64)
    try:
        height, width = read_image(pair.image, srgb=True).pixels.shape[:2]
        size = width, height
    except CompressnetError as error:
        problems += error.problems
    try:
        labels = read_labels(pair.labels, stored)
        counts = np.bincount(labels.reshape(-1), minlength=256)
        pixels = np.append(counts[: len(stored)], counts[IGNORED])
    except CompressnetError as error:
        problems += error.problems
    if size is not None and labels is not None:
        problems += other_size(pair.labels, labels.shape[::-1], size)
    if pair.instances is not None and labels is not None:
        try:
            objects = read_instances(pair.instances)
            if objects.shape != labels.shape:
                problems.append(f"{pair.instances}: not of the size of {pair.labels.name}")
        except CompressnetError as error:
            problems += error.problems
    return Looked(problems, size, pixels)


def look_at_headers(pair: LabelPair) -> list[str]:
    """One line for each fault of a pair that headers tell."""
    problems, sizes = [], []
    for path in pair.files:
        try:
            sizes.append(image_size(path))
        except CompressnetError as error:
            problems += error.problems
    if problems:
        return problems
    return [
        line
        for path, own in zip(pair.files[1:], sizes[1:], strict=True)
        for line in other_size(path, own, sizes[0])
    ]


def other_size(path: Path, own: Sequence[int], photograph: Sequence[int]) -> list[str]:
    """A line, if labels of a width and height do not fit their photograph."""
    if tuple(own) == tuple(photograph):
        return []
    turned = tuple(own) == tuple(photograph)[::-1]
    hint = " (its EXIF turns the photograph, and nothing the labels)" if turned else ""
    return [
        f"{path}: {own[0]}x{own[1]} pixels, its photograph {photograph[0]}x{photograph[1]}{hint}: "
        "label the photograph at its own size"
    ]


def _state(pairs: Sequence[LabelPair]) -> str:
    """Changes with any file: a digest of names, sizes and times."""
    digest = hashlib.sha256()
    for path in (path for pair in pairs for path in pair.files):
        stat = path.stat()
        name = str(path.absolute())
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
