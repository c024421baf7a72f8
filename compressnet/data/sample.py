"""The built-in photographs: six that the installed scikit-image wheel ships, split by picture.

Only those that scikit-image itself states to be public domain or CC0. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from compressnet.bounds import Repeats, Size
from compressnet.data.photographs import Photograph, PhotographSplit, Sizes, unreadable
from compressnet.data.protocol import NoSuchSplit
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter


class Credit(NamedTuple):
    """A built-in photograph: its file in the wheel and what scikit-image says of it."""

    file: str
    title: str
    rights: str


# From the docstrings of skimage.data (scikit-image 0.26).
TRAIN = (
    Credit("coffee.png", "Coffee cup, Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0"),
    Credit("rocket.jpg", "Launch of DSCOVR on Falcon 9, SpaceX", "public domain"),
    Credit("retina.jpg", "Fundus photograph of a left eye, Mikael Häggström, 2014", "CC0 1.0"),
    Credit("hubble_deep_field.jpg", "Hubble eXtreme Deep Field, NASA", "public domain"),
)
TEST = (
    Credit("astronaut.png", "Eileen Collins, NASA Great Images", "public domain"),
    Credit("chelsea.png", "Chelsea the cat, Stefan van der Walt", "CC0"),
)


class Sample:
    """Photographs that are always there: four to train on, two to test on, none for validation.

    Args:
        min_side: smallest short side to train at.
        max_side: largest short side to train at; pictures are never enlarged.
        sizes: how many sizes each picture is trained at.
        crop: side of the squares to train on; whole pictures without.
        test_side: short side to test at; the file's own without.
    """

    sample_type: ClassVar[str] = "photograph"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        min_side: Size = 320,
        max_side: Size = 1440,
        sizes: Repeats = 4,
        crop: Size | None = None,
        test_side: Size | None = None,
    ) -> None:
        self._sizes = Sizes(min_side, max_side, sizes, crop, test_side)

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> PhotographSplit:
        return PhotographSplit(photographs(split), self._sizes, split == "train", assets, seed)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            return unreadable(photographs("train") + photographs("test"), headers, reporter)
        except CompressnetError as error:
            return [str(error)]


def photographs(split: str) -> list[Photograph]:
    """The files of `train` or `test`.

    Raises:
        NoSuchSplit: any other split.
        CompressnetError: this scikit-image does not ship them.
    """
    credits_of = {"train": TRAIN, "test": TEST}.get(split)
    if credits_of is None:
        raise NoSuchSplit(f"the built-in photographs have no split '{split}': only train and test")
    folder = _folder()
    found = [Photograph(folder / credit.file, Path(credit.file).stem) for credit in credits_of]
    if missing := [photograph.path.name for photograph in found if not photograph.path.is_file()]:
        raise CompressnetError(
            f"{folder}: the built-in photographs {', '.join(missing)} are missing: reinstall scikit-image"
        )
    return found


def credits() -> list[str]:
    """One line for each built-in photograph: name, what and by whom, rights."""
    return [f"{Path(file).stem}: {title} ({rights})" for file, title, rights in TRAIN + TEST]


def _folder() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise CompressnetError("the built-in photographs come with scikit-image, which is not installed")
    return Path(found.origin).parent / "data"
