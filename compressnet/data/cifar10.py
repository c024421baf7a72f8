"""CIFAR-10: 60,000 pictures of 32x32 pixels in ten classes, in its binary files or in mosaics.

    ROOT/data_batch_{1..5}.bin, test_batch.bin   records: a byte of label, 1024 red, 1024 green, 1024 blue
    ROOT/{train,test}/<class>.jpg (or .png)      32x32 pictures row by row, 50 a row, 5,000 and 1,000 a class

A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009. The Python version of the set is
pickles, which can run code when they are read: it is refused.

There are 50,000 pictures to train on and 10,000 to test. Of each class 500 are held out of training for
validation, those with the smallest hash of class and position: the same for every seed. A JPEG copy is not
the set itself, and says so wherever its figures stand.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from compressnet.bounds import OptionalSize
from compressnet.data import pillow_files
from compressnet.data.class_image import (
    ClassImage,
    ClassImageBatch,
    Preparation,
    check_classes,
    collate_class_images,
    mirrored,
    shifted,
)
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.errors import BadFiles, CompressnetError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.regular_file import open_regular
from compressnet.reporter import Reporter

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
_RECORD = 1 + 3 * SIDE**2
_A_FILE = 10_000
_A_ROW = 50
_A_CLASS = {"train": 5_000, "test": 1_000}
_HELD_OUT = 500  # of a class
_BINARY = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
_PICKLES = ("data_batch_1", "test_batch")
_BELOW = ("", "cifar-10-batches-bin", "cifar-10-batches-py")  # as the archives unpack
_MOSAICS = (".png", ".jpg", ".jpeg")
_MEAN, _STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
_OBTAIN = "cifar-10-binary.tar.gz from cs.toronto.edu/~kriz/cifar.html"


class _Stored(NamedTuple):
    """Where the pictures of train or test are.

    Attributes:
        kind: "binary", "PNG" or "JPEG".
        each: pictures in each of the files.
    """

    kind: str
    files: list[Path]
    each: int

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (N, 3, 32, 32) and labels (N,).

        Raises:
            BadFiles: every file that cannot be read.
        """
        problems, pixels, labels = [], [], []
        for number, file in enumerate(self.files):
            try:
                if self.kind == "binary":
                    some, theirs = _binary(file)
                else:
                    some = _pictures(file, self.each)
                    theirs = np.full(len(some), number, np.uint8)
            except CompressnetError as error:
                problems.append(str(error))
                continue
            pixels.append(some)
            labels.append(theirs)
        if problems:
            raise BadFiles(*problems)
        return np.concatenate(pixels), np.concatenate(labels)


class CIFAR10:
    """CIFAR-10.

    Args:
        root: the folder of the binary files (or the one above it), or of the mosaics `train` and `test`.
        shift: pixels by which training pictures are moved, at random; they are mirrored at random too.
    """

    sample_type: ClassVar[str] = "class_image"
    test_split: ClassVar[str] = "test"

    def __init__(self, root: str = "cifar10", shift: OptionalSize = 4) -> None:
        self._root, self._shift = root, shift

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> CIFAR10Split:
        if split not in ("train", "val", "test"):
            raise NoSuchSplit(f"cifar10 has no split '{split}': only train, val and test")
        stored = self._files("test" if split == "test" else "train")
        pixels, labels = stored.read()
        chosen = np.arange(len(labels)) if split == "test" else _part(labels, split == "val")
        return CIFAR10Split(pixels, labels, chosen, split, seed, self._shift, stored.kind, assets)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        problems = []
        for split in ("train", "test"):
            try:
                stored = self._files(split)
                if not headers:
                    stored.read()
            except CompressnetError as error:
                problems.append(str(error))
        return problems

    def _files(self, split: str) -> _Stored:
        root = resolve(self._root)
        for below in _BELOW:
            files = [root / below / name for name in _BINARY[split]]
            if any(file.exists() for file in files):
                missing = [f"{file}: missing" for file in files if not file.exists()]
                if missing:
                    raise BadFiles(*missing)
                return _Stored("binary", files, _A_FILE)
        if (root / split).is_dir():
            found = [_mosaic(root / split, name) for name in CLASSES]
            pairs = zip(CLASSES, found, strict=True)
            if missing := [f"{root / split / name}.jpg: missing" for name, file in pairs if file is None]:
                raise BadFiles(*missing)
            files = [file for file in found if file]
            kind = "PNG" if all(file.suffix == ".png" for file in files) else "JPEG"
            return _Stored(kind, files, _A_CLASS[split])
        for below in _BELOW:
            if any((root / below / name).exists() for name in _PICKLES):
                raise CompressnetError(
                    f"{root / below}: these are the Python version's pickles, which can run code when they "
                    f"are read: take the binary version, {_OBTAIN}"
                )
        raise CompressnetError(
            f"data.root '{self._root}': {root.absolute()} holds no CIFAR-10 (relative roots stand below "
            f"--data-root or {DATA_VARIABLE}): unpack {_OBTAIN} there; `train --smoke` runs without data"
        )


class CIFAR10Split:
    """One split, in memory.

    Args:
        pixels: uint8 (N, 3, 32, 32), of which `chosen` are this split's.
        kind: how they are stored.

    Raises:
        CompressnetError: `assets` know other classes.
    """

    continuous = False
    derives = False
    has_targets = True
    classes = CLASSES
    preparation = Preparation(resize=SIDE, side=SIDE, mean=_MEAN, std=_STD)

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        chosen: np.ndarray,
        split: str,
        seed: int,
        shift: int,
        kind: str,
        assets: Mapping[str, Any],
    ) -> None:
        self._pixels, self._labels, self._chosen = pixels, labels, chosen
        self._split, self._seed, self._shift, self._kind = split, seed, shift, kind
        check_classes(self.classes, assets)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, key: Key) -> ClassImage:
        number = self._chosen[key.index]
        pixels = self._pixels[number]
        if self._split == "train" and self._shift:
            random = generator(self._seed, key.epoch, key.index, key.draw)
            pixels = mirrored(shifted(pixels, self._shift, random), random)
        planes = torch.from_numpy(np.ascontiguousarray(pixels))
        return ClassImage(planes, int(self._labels[number]), self.name(key.index))

    def name(self, index: int) -> str:
        number = self._chosen[index]
        part = "test" if self._split == "test" else "train"
        return f"{part}/{CLASSES[self._labels[number]]}-{number}"

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def collate(self, samples: list[ClassImage]) -> ClassImageBatch:
        return collate_class_images(samples)

    def facts(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._labels[self._chosen].tobytes())
        digest.update(np.ascontiguousarray(self._pixels[self._chosen]).tobytes())
        facts = {"count": len(self), "fingerprint": digest.hexdigest()[:16]}
        return facts if self._kind != "JPEG" else {**facts, "copy": "JPEG copy"}


def _mosaic(folder: Path, name: str) -> Path | None:
    return next((path for s in _MOSAICS if (path := folder / f"{name}{s}").exists()), None)


def _binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with open_regular(path) as file:
            length = os.fstat(file.fileno()).st_size
            if length != _A_FILE * _RECORD:
                raise CompressnetError(
                    f"{path}: {length:,} bytes, and not {_A_FILE:,} records of {_RECORD:,}: get it again "
                    f"({_OBTAIN})"
                )
            records = np.frombuffer(file.read(), np.uint8).reshape(_A_FILE, _RECORD)
    except OSError as error:
        raise CompressnetError(f"{path}: cannot be read: {error.strerror or error}") from error
    labels = records[:, 0]
    if labels.max() >= len(CLASSES):
        raise CompressnetError(f"{path}: a label is {labels.max()}: there are 0 to 9 (is it CIFAR-100?)")
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), labels


def _pictures(path: Path, count: int) -> np.ndarray:
    """The pictures of a mosaic, row by row."""
    wanted = (SIDE * _A_ROW, SIDE * count // _A_ROW)
    with pillow_files.explained(path), pillow_files.opened(path) as picture:
        if picture.size != wanted:
            raise CompressnetError(
                f"{path}: {picture.width} x {picture.height} pixels, and not {wanted[0]} x {wanted[1]}: "
                f"{count:,} pictures of {SIDE}x{SIDE}, {_A_ROW} a row"
            )
        pixels = np.asarray(picture.convert("RGB"))  # (H, W, 3)
    tiles = pixels.reshape(count // _A_ROW, SIDE, _A_ROW, SIDE, 3)
    return np.ascontiguousarray(tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE))


def _part(labels: np.ndarray, held_out: bool) -> np.ndarray:
    """Which pictures are held out for validation, or the others: sorted positions in the training set."""
    held = []
    for number, name in enumerate(CLASSES):
        places = np.flatnonzero(labels == number)
        if len(places) <= _HELD_OUT:
            raise CompressnetError(f"cifar10: {len(places)} pictures of class {name}: 5,000 are expected")
        order = sorted(range(len(places)), key=lambda place: _hash(name, place))
        held.append(places[order[:_HELD_OUT]])
    chosen = np.sort(np.concatenate(held))
    return chosen if held_out else np.setdiff1d(np.arange(len(labels)), chosen)


def _hash(name: str, place: int) -> bytes:
    return hashlib.sha256(f"val:{name}:{place}".encode()).digest()
