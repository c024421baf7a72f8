"""Cityscapes (Cordts et al. 2016) as distributed: streets of 50 cities, 2048x1024, 19 classes to be scored.

<root>/leftImg8bit/{train,val}/<city>/<name>_leftImg8bit.png      leftImg8bit_trainvaltest.zip
<root>/gtFine/{train,val}/<city>/<name>_gtFine_labelIds.png       gtFine_trainvaltest.zip
                                  ..._gtFine_labelTrainIds.png    where there are no labelIds
                                  ..._gtFine_instanceIds.png      where present: iIoU of validation
<root>/leftImg8bit/train_extra, <root>/gtCoarse/train_extra       with `coarse`: leftImg8bit_trainextra.zip,
                                                                  gtCoarse.zip
It is scored on val: the labels of test are with the benchmark's server alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from compressnet.bounds import Share, Size
from compressnet.data.label_check import check_pairs
from compressnet.data.label_classes import LabelClasses, label_classes
from compressnet.data.label_folder import Crop, Part, Scale, augmentation
from compressnet.data.label_split import LabelPair, LabelSplit
from compressnet.data.protocol import NoSuchSplit
from compressnet.errors import BadFiles, CompressnetError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter

_PHOTOGRAPH = "_leftImg8bit.png"
_HALF_TO_TWICE = [0.5, 2.0]
_TEST = (
    "cityscapes has no labels of its test split: `compressnet apply RUN .../leftImg8bit/test -o DIR "
    "--set output=label_ids` writes what the benchmark's server takes"
)


class Cityscapes:
    """Streets, with 19 classes.

    Args:
        root: the folder that holds leftImg8bit and gtFine.
        coarse: train on the 19,998 photographs of train_extra too, whose labels are coarse.
        size: short side to which photographs are scaled; without, their own.
        crop: height and width of what is trained on; without, whole photographs.
        scale: bounds of a random factor by which training photographs are scaled.
        flip: mirror every second training photograph left to right.
        colour: how far brightness, contrast, saturation and hue of training photographs vary, 0 to 1.
        most_of_one_class: the largest share of a crop that one class may have; ten places are tried.
    """

    sample_type: ClassVar[str] = "labelled_image"
    test_split: ClassVar[str] = "val"

    def __init__(
        self,
        root: str = "cityscapes",
        coarse: bool = False,
        size: Size | None = None,
        crop: Crop | None = None,
        scale: Scale = _HALF_TO_TWICE,
        flip: bool = True,
        colour: Share = 0.4,
        most_of_one_class: Share = 0.75,
    ) -> None:
        self._root, self._coarse, self._size = root, coarse, size
        self._augmentation = augmentation(size, crop, scale, flip, colour, most_of_one_class)

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> LabelSplit:
        classes, stored = self._known()
        classes.check(assets)
        part = self._part(split)
        if part.problems:
            raise BadFiles(*part.problems)
        how = self._augmentation if split == "train" else None
        return LabelSplit(part.pairs, classes, stored, how, self._size, seed)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            stored = self._known()[1]
            found = {split: self._part(split) for split in ("train", "val")}
        except CompressnetError as error:
            return error.problems
        problems = [problem for part in found.values() for problem in part.problems]
        pairs = {split: part.pairs for split, part in found.items()}
        return problems + check_pairs(pairs, stored, headers, reporter)

    def _known(self) -> tuple[LabelClasses, LabelClasses]:
        """The classes, and how the files number them."""
        classes = label_classes("cityscapes", resolve(self._root))
        return classes, classes if self._kind() == "labelIds" else classes.renumbered()

    def _kind(self) -> str:
        folder = resolve(self._root) / "gtFine"
        by_id = next(folder.glob("*/*/*_labelIds.png"), None)
        by_train_id = next(folder.glob("*/*/*_labelTrainIds.png"), None)
        return "labelTrainIds" if by_id is None and by_train_id is not None else "labelIds"

    def _part(self, split: str) -> Part:
        if split == "test":
            raise NoSuchSplit(_TEST)
        if split not in ("train", "val"):
            raise NoSuchSplit(f"cityscapes has no split '{split}': only train and val")
        fine = self._pairs(split, "gtFine")
        if split != "train" or not self._coarse:
            return fine
        extra = self._pairs("train_extra", "gtCoarse")
        return Part(fine.pairs + extra.pairs, fine.problems + extra.problems)

    def _pairs(self, folder: str, truth: str) -> Part:
        root, kind = resolve(self._root), self._kind()
        images, labels = root / "leftImg8bit" / folder, root / truth / folder
        photographs = _by_name(images, _PHOTOGRAPH)
        ending = f"_{truth}_{kind}.png"
        maps = _by_name(labels, ending)
        objects = _by_name(labels, f"_{truth}_instanceIds.png") if folder == "val" else {}
        for found, place in ((photographs, images), (maps, labels)):
            if not found:
                raise CompressnetError(self._missing(place))
        problems = [
            f"{photographs[name]}: no labels {name}{ending} in {labels}"
            for name in sorted(photographs.keys() - maps.keys())
        ]
        problems += [
            f"{maps[name]}: no photograph {name}{_PHOTOGRAPH} in {images}"
            for name in sorted(maps.keys() - photographs.keys())
        ]
        if objects:  # iIoU of some photographs would look like that of all
            problems += [
                f"{maps[name]}: no {name}_{truth}_instanceIds.png beside it, as others have: unpack "
                "gtFine_trainvaltest.zip again"
                for name in sorted(maps.keys() - objects.keys())
            ]
        common = sorted(photographs.keys() & maps.keys())
        return Part(
            [LabelPair(photographs[name], maps[name], name, objects.get(name)) for name in common], problems
        )

    def _missing(self, folder: Path) -> str:
        state = "holds none of Cityscapes' files" if folder.is_dir() else "is not there"
        return (
            f"data.root '{self._root}': {folder.absolute()} {state} (relative roots stand below "
            f"--data-root or {DATA_VARIABLE}): unpack leftImg8bit_trainvaltest.zip and "
            "gtFine_trainvaltest.zip, with coarse leftImg8bit_trainextra.zip and gtCoarse.zip, into root: "
            "they are at https://www.cityscapes-dataset.com; `train --smoke` runs without data"
        )


def _by_name(folder: Path, ending: str) -> dict[str, Path]:
    """Files of the cities, by city and what stands before an ending."""
    return {
        path.relative_to(folder).as_posix().removesuffix(ending): path
        for path in sorted(folder.glob(f"*/*{ending}"))
        if not path.name.startswith(".")
    }
