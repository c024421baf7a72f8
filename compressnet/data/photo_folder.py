"""Any folder of photographs, searched recursively: the task's image operator, if any, makes the targets.

<root>/**/*.{png,jpg,jpeg,tif,tiff,webp,bmp,dng,nef}          training, and validation by a hash of the name
<val_root>/**/*...                                           validation, in the place of that hash
<test_root>/**/*...                                          test
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from compressnet.bounds import HeldOut, Repeats, Size
from compressnet.data import sample
from compressnet.data.images import find_images
from compressnet.data.photographs import (
    Photograph,
    PhotographSplit,
    Sizes,
    held_out,
    left_out,
    tell_left_out,
    unreadable,
)
from compressnet.data.protocol import NoSuchSplit
from compressnet.errors import CompressnetError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter


class PhotoFolder:
    """Photographs of one or several folders.

    Args:
        root: folder or folders to train on; relative ones are looked up below `--data-root`.
        test_root: folder to test on.
        builtin: train on the built-in photographs as well.
        min_side: smallest short side to train at.
        max_side: largest short side to train at; pictures are never enlarged.
        sizes: how many sizes each picture is trained at.
        crop: side of the squares to train on; whole pictures without.
        test_side: short side for validation and test; the file's own without.
        val_percent: how much of `root` is held out for validation, by a hash of the file's name.
        val_root: folder to validate on; nothing of `root` is held out then.
        flip: mirror every second training picture left to right.
    """

    sample_type: ClassVar[str] = "photograph"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        root: str | list[str],
        test_root: str | None = None,
        builtin: bool = False,
        min_side: Size = 320,
        max_side: Size = 1440,
        sizes: Repeats = 4,
        crop: Size | None = None,
        test_side: Size | None = None,
        val_percent: HeldOut = 5.0,
        val_root: str | None = None,
        flip: bool = False,
    ) -> None:
        self._roots = [root] if isinstance(root, str) else list(root)
        self._test_root = test_root
        self._builtin = builtin
        self._sizes = Sizes(min_side, max_side, sizes, crop, test_side, flip)
        self._val_percent = val_percent
        self._val_root = val_root

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> PhotographSplit:
        photographs = self.photographs(split)
        others = left_out([resolve(root) for root in self._roots]) if split == "train" else []
        return PhotographSplit(photographs, self._sizes, split == "train", assets, seed, left_out=others)

    def photographs(self, split: str) -> list[Photograph]:
        """The files of a split, sorted by root and name."""
        if split == "test":
            if self._test_root is None:
                raise NoSuchSplit("photo_folder has a test split only with data.test_root")
            return photographs_below([self._test_root], "test_root")
        if split not in ("train", "val"):
            raise NoSuchSplit(f"photo_folder has no split '{split}': only train, val and test")
        if self._val_root is not None and split == "val":
            return photographs_below([self._val_root], "val_root")
        everything = photographs_below(self._roots)
        if self._val_root is not None:
            return everything + (sample.photographs("train") if self._builtin else [])
        held = [photo for photo in everything if held_out(photo.path.stem, self._val_percent)]
        if len(held) == len(everything):  # a handful of files may all hash to validation
            held = []
        if split == "val":
            if not held:
                raise NoSuchSplit("none of the photographs is held out for validation")
            return held
        names = {photo.name for photo in held}
        rest = [photo for photo in everything if photo.name not in names]
        return rest + (sample.photographs("train") if self._builtin else [])

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        roots = [("root", root) for root in self._roots]
        others = {"val_root": self._val_root, "test_root": self._test_root}
        roots += [(argument, root) for argument, root in others.items() if root is not None]
        problems: list[str] = []
        found: dict[Path, Photograph] = {}  # one folder may be val_root and test_root
        for argument, root in roots:
            try:
                photographs = {photo.path: photo for photo in photographs_below([root], argument)}
                if not photographs.keys() <= found.keys():
                    tell_left_out(left_out([resolve(root)]), reporter)
                found |= photographs
            except CompressnetError as error:
                problems.append(str(error))
        return problems + unreadable(found.values(), headers, reporter)


def photographs_below(roots: list[str], argument: str = "root") -> list[Photograph]:
    """Every photograph below the roots of a recipe.

    Args:
        argument: what the recipe calls the roots, for messages.

    Raises:
        CompressnetError: a root that is not there or holds no image: where it was looked for, what to do.
    """
    folders = [resolve(root) for root in roots]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise CompressnetError(f"data.{argument} names the same folder twice: {', '.join(roots)}")
    found: list[Photograph] = []
    for root, folder, prefix in zip(roots, folders, _prefixes(folders), strict=True):
        paths = find_images(folder) if folder.is_dir() else []
        if not paths:
            raise CompressnetError(_missing(root, folder, argument))
        found += [Photograph(path, prefix + path.relative_to(folder).as_posix()) for path in paths]
    return found


def _prefixes(folders: list[Path]) -> list[str]:
    """What tells equal names of several folders apart: the folder's name, numbered where that repeats."""
    if len(folders) == 1:
        return [""]
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return [f"{name}/" for name in names]
    return [f"{number}-{name}/" for number, name in enumerate(names, 1)]


def _missing(root: str, folder: Path, argument: str) -> str:
    others = "".join(f"; {line}" for line in left_out([folder]))
    state = "holds no images" if folder.is_dir() else "is not there"
    return (
        f"data.{argument} '{root}' {state} (looked in {folder.absolute()}; relative roots stand below "
        f"--data-root or {DATA_VARIABLE}): any folder of photographs will do, sub-folders included; "
        f"`train --smoke` runs without data, on the built-in photographs{others}"
    )
