"""Pictures in a folder for each class, as torchvision's ImageFolder has them, ImageNet among them.

<root>/train/<class>/**/*.{png,jpg,...}     training; without `train`, <root>/<class>/**/* itself
<root>/val/<class>/**/*                     validation; without `val` a share of `train`, by hash of name
<root>/test/<class>/**/*                    test

The classes are those of training, sorted by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from compressnet.bounds import HeldOut, Size
from compressnet.data.class_image import (
    ClassImage,
    ClassImageBatch,
    Deviations,
    Mean,
    Preparation,
    check_classes,
    collate_class_images,
    middle,
    mirrored,
    planes,
    random_part,
    rgb,
    shifted,
)
from compressnet.data.images import find_images, read_image
from compressnet.data.photographs import (
    Photograph,
    fingerprint,
    held_out,
    left_out,
    tell_left_out,
    unreadable,
)
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.errors import BadFiles, CompressnetError, named
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter
from compressnet.source import OTHER_PICTURES, SUFFIXES

Crop = Literal["resized", "padded", "middle"]
_SPLITS = ("train", "val", "test")
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's
_PICTURES = (*SUFFIXES["image"], *OTHER_PICTURES)
_MARGIN = 8  # the share of the side, one to so many, by which pictures are moved


class Folder(NamedTuple):
    """The folders of classes in one place.

    Attributes:
        classes: their names, sorted.
        pictures: those of each class, sorted by name.
        problems: one line each.
    """

    classes: list[str]
    pictures: list[list[Photograph]]
    problems: list[str]


class ClassFolder:
    """Pictures in a folder for each class.

    Args:
        root: relative ones are looked up below `--data-root`.
        side: of the square that the network is given.
        resize: the short side to which pictures are scaled before that square is cut from their middle.
        crop: of training pictures: "resized" takes a random part of 8 to 100 % of the area; "padded" moves
            the middle by up to an eighth of `side`, black where nothing was; "middle" changes nothing.
        flip: mirror every second training picture left to right.
        mean, std: of red, green and blue in [0, 1], by which the network's inputs are normalised.
        val_percent: how much is held out for validation, by a hash of the name, where `root` has no `val`.
    """

    sample_type: ClassVar[str] = "class_image"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        root: str,
        side: Size = 224,
        resize: Size = 256,
        crop: Crop = "resized",
        flip: bool = True,
        mean: Mean = _MEAN,
        std: Deviations = _STD,
        val_percent: HeldOut = 5.0,
    ) -> None:
        self._root = root
        self._preparation = Preparation(resize=resize, side=side, mean=mean, std=std)
        self._crop: Crop = crop
        self._flip = flip
        self._val_percent = val_percent

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> ClassFolderSplit:
        if split not in _SPLITS:
            raise NoSuchSplit(f"class_folder has no split '{split}': only train, val and test")
        classes, pictures, problems = self._part(split)
        if problems:
            raise BadFiles(*problems)
        others = left_out([self._base(split)]) if split == "train" else []
        crop = self._crop if split == "train" else "middle"
        flip = self._flip and split == "train"
        check_classes(classes, assets)
        return ClassFolderSplit(classes, pictures, self._preparation, crop, flip, seed, others)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        problems: list[str] = []
        found: dict[Path, Photograph] = {}  # train and val may be parts of one folder
        for split in _SPLITS:
            try:
                _, pictures, faults = self._part(split)
            except NoSuchSplit:
                continue
            except CompressnetError as error:
                return [str(error)]
            problems += faults
            found |= {photo.path: photo for photos in pictures for photo in photos}
        tell_left_out(left_out(dict.fromkeys(map(self._base, _SPLITS))), reporter)
        return list(dict.fromkeys(problems)) + unreadable(found.values(), headers, reporter)

    def _base(self, split: str) -> Path:
        """Where the classes of a split are."""
        root = resolve(self._root)
        if split != "train" and (root / split).is_dir():
            return root / split
        return root / "train" if (root / "train").is_dir() else root

    def _part(self, split: str) -> Folder:
        """The classes of training, this split's pictures of each, and the faults of its folder."""
        base, own = self._base("train"), self._base(split)
        if split == "test" and own == base:
            raise NoSuchSplit("class_folder has a test split only with a folder `test`")
        known = self._read(base)
        if own != base:
            return _fitted(known.classes, self._read(own), own, base)
        if self._base("val") != base:
            return known
        pictures = [self._halves(photos)[split == "val"] for photos in known.pictures]
        if split == "val" and not any(pictures):
            raise NoSuchSplit("none of the pictures is held out for validation")
        return known._replace(pictures=pictures)

    def _halves(self, photos: list[Photograph]) -> tuple[list[Photograph], list[Photograph]]:
        """What of a class is trained on, and what is held out."""
        held = [photo for photo in photos if held_out(photo.name, self._val_percent)]
        if len(held) == len(photos):  # a handful of files may all hash to validation
            held = []
        names = {photo.name for photo in held}
        return [photo for photo in photos if photo.name not in names], held

    def _read(self, base: Path) -> Folder:
        """All below one folder of classes.

        Raises:
            CompressnetError: there is none; where it was looked for.
        """
        splits = _SPLITS if base == resolve(self._root) else ()
        entries = sorted(os.scandir(base), key=lambda entry: entry.name) if base.is_dir() else []
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        folders = [base / entry.name for entry in entries if entry.is_dir() and entry.name not in splits]
        if not folders:
            raise CompressnetError(self._missing(base))
        problems = [
            f"{base / entry.name}: beside the folders of the classes: move it into one of them"
            for entry in entries
            if not entry.is_dir() and Path(entry.name).suffix.lower() in _PICTURES
        ]
        pictures = []
        for folder in folders:
            if not _is_text(folder.name):
                problems.append(f"{folder}: the name of a class has to be UTF-8: rename the folder")
            paths = find_images(folder)
            if not paths:
                problems.append(_empty(folder))
            pictures.append([Photograph(path, path.relative_to(base).as_posix()) for path in paths])
        return Folder([folder.name for folder in folders], pictures, problems)

    def _missing(self, base: Path) -> str:
        state = "holds no folders of classes" if base.is_dir() else "is not there"
        return (
            f"data.root '{self._root}': {base.absolute()} {state} (relative roots stand below --data-root or "
            f"{DATA_VARIABLE}): put the pictures of each class into a folder of its name, "
            "below train/, val/ and test/ or all below root; `train --smoke` runs without data"
        )


class ClassFolderSplit:
    """One split.

    Args:
        pictures: of each of the classes.
        left_out: one line for each folder that holds pictures of kinds that are not read.
    """

    continuous = False
    derives = True  # nothing, but `prepare` looks whether all can be read
    has_targets = True

    def __init__(
        self,
        classes: list[str],
        pictures: list[list[Photograph]],
        preparation: Preparation,
        crop: Crop,
        flip: bool,
        seed: int,
        left_out: Sequence[str] = (),
    ) -> None:
        self.classes, self.preparation = classes, preparation
        self._photographs = [photo for photos in pictures for photo in photos]
        self._labels = [label for label, photos in enumerate(pictures) for _ in photos]
        self._crop, self._flip, self._seed, self._left_out = crop, flip, seed, left_out

    def __len__(self) -> int:
        return len(self._photographs)

    def __getitem__(self, key: Key) -> ClassImage:
        photograph = self._photographs[key.index]
        random = generator(self._seed, key.epoch, key.index, key.draw)
        pixels = rgb(read_image(photograph.path, srgb=True))
        side = self.preparation.side
        if self._crop == "resized":
            square = random_part(pixels, side, random)
        else:
            square = middle(pixels, self.preparation.resize, side)
        channels = planes(square).numpy()
        if self._crop == "padded":
            channels = shifted(channels, side // _MARGIN, random)
        if self._flip:
            channels = mirrored(channels, random)
        return ClassImage(planes(channels.transpose(1, 2, 0)), self._labels[key.index], photograph.name)

    def name(self, index: int) -> str:
        return self._photographs[index].name

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        """Decode the pictures that will be drawn, once: a bad one would end the training in its middle.

        Raises:
            BadFiles: all that cannot be read.
        """
        tell_left_out(self._left_out, reporter)
        drawn = [self._photographs[index] for index in sorted({key.index for key in keys})]
        if problems := unreadable(drawn, reporter=reporter, processes=processes):
            raise BadFiles(*problems)

    def collate(self, samples: list[ClassImage]) -> ClassImageBatch:
        return collate_class_images(samples)

    def facts(self) -> dict[str, Any]:
        return {"count": len(self), "fingerprint": fingerprint(self._photographs)}


def _fitted(classes: list[str], found: Folder, own: Path, base: Path) -> Folder:
    """The pictures of another folder, by the classes of training."""
    unknown = [
        f"{own / name}: {base} has no class '{named(name)}'" for name in found.classes if name not in classes
    ]
    theirs = dict(zip(found.classes, found.pictures, strict=True))
    return Folder(classes, [theirs.get(name, []) for name in classes], found.problems + unknown)


def _empty(folder: Path) -> str:
    others = "".join(f" ({line.partition(': ')[2]})" for line in left_out([folder]))
    return f"{folder}: a class without pictures{others}: fill it or remove it"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
