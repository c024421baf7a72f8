"""MIT-Adobe FiveK (Bychkovsky et al. 2011): 5000 photographs, of which only the inputs are used.

Found by itself, below `root`:
    the archive      [fivek_dataset/]raw_photos/HQa*/photos/a0001-*.dng           (needs the extra `raw`)
    FIP's folders    [data/]MIT-Adobe_train_480p, ..._train_random, ..._test_1080p /000001.png
    exported files   inputs/ or input/ or the root itself: a0001-*.{png,jpg,tif,...}, 8 or 16 bit

No official split of 2500 + 2500 photographs exists. Ours ranks the 5000 ids by their SHA-256 and trains on
the first half, so that any part of the set is split like the whole. FIP's folders carry their own split,
whose ids are not public; other people's come as lists (`train_list`, `test_list`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from compressnet.bounds import HeldOut, Repeats, Size
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
from compressnet.errors import BadFiles, CompressnetError, UsageError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter

COUNT = 5000
HOW_TO_OBTAIN = (
    "the photographs come from https://data.csail.mit.edu/graphics/fivek/ (fivek_dataset.tar, about 50 GB): "
    "give the folder that holds raw_photos/, or inputs/ with exported files named a0001-*"
)
_ID = re.compile(r"^a(\d{4})")


class Found(NamedTuple):
    """The photographs of a layout on disk.

    Attributes:
        layout: `archive`, `FIP` or `exported`.
        by_id: photographs by FiveK id; by FIP's folder and number for FIP's layout.
        problems: files without an id, and ids with several files.
    """

    layout: str
    by_id: dict[str, Photograph]
    problems: list[str]


class FiveK:
    """The MIT-Adobe FiveK photographs.

    Args:
        root: its folder, in any of the layouts above.
        train_list: the ids to train on, one a line (`a0001`, `1`, a file's name, or a CSV's first column).
        test_list: the ids to test on; one list alone leaves the rest to the other split.
        min_side: smallest short side to train at.
        max_side: largest short side to train at; pictures are never enlarged.
        sizes: how many sizes each picture is trained at.
        crop: side of the squares to train on; whole pictures without.
        test_side: short side for validation and test; the file's own without.
        val_percent: how much of the training half is held out for validation, by a hash of the id.
    """

    sample_type: ClassVar[str] = "photograph"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        root: str = "fivek",
        train_list: str | None = None,
        test_list: str | None = None,
        min_side: Size = 320,
        max_side: Size = 1440,
        sizes: Repeats = 4,
        crop: Size | None = None,
        test_side: Size | None = None,
        val_percent: HeldOut = 5.0,
    ) -> None:
        self._root = root
        self._lists = {"train": train_list, "test": test_list}
        self._sizes = Sizes(min_side, max_side, sizes, crop, test_side)
        self._val_percent = val_percent

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> PhotographSplit:
        photographs, about = self.photographs(split)
        left_out = self._left_out() if split == "train" else []
        return PhotographSplit(photographs, self._sizes, split == "train", assets, seed, about, left_out)

    def photographs(self, split: str) -> tuple[list[Photograph], dict[str, Any]]:
        """The files of a split, and whose split it is."""
        if split not in ("train", "val", "test"):
            raise NoSuchSplit(f"fivek has no split '{split}': only train, val and test")
        found = self._find()
        if found.problems:
            raise BadFiles(*found.problems)
        half, whose = self._half("test" if split == "test" else "train", found)
        if split == "test":
            chosen = sorted(half)
        else:
            chosen = [name for name in sorted(half) if self._held_out(name) == (split == "val")]
        if not chosen and split == "val":
            raise NoSuchSplit("none of the photographs is held out for validation")
        if not chosen:
            raise CompressnetError(f"data.root '{self._root}' holds no photograph of the split '{split}'")
        return [found.by_id[name] for name in chosen], {"split": whose, "layout": found.layout}

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            found = self._find()
            problems = found.problems + self._list_problems(found)
        except CompressnetError as error:
            return [str(error)]
        tell_left_out(self._left_out(), reporter)
        return problems + unreadable(found.by_id.values(), headers, reporter)

    def _left_out(self) -> list[str]:
        return left_out([resolve(self._root)])

    def _held_out(self, name: str) -> bool:
        return held_out(name.rpartition("/")[2], self._val_percent)

    def _find(self) -> Found:
        root = resolve(self._root)
        found = _find_layout(root) if root.is_dir() else None
        if found is None:
            state = "holds none of FiveK's layouts" if root.is_dir() else "is not there"
            raise CompressnetError(
                f"data.root '{self._root}' {state} (looked in {root.absolute()}; relative roots stand below "
                f"--data-root or {DATA_VARIABLE}): {HOW_TO_OBTAIN}; "
                "`train --smoke` runs without it, on the built-in photographs"
            )
        return found

    def _half(self, half: str, found: Found) -> tuple[set[str], str]:
        """The ids on disk that are for training (validation included) or for testing, and who says so."""
        if any(self._lists.values()):
            listed = self._listed(found)
            return listed[half] & found.by_id.keys(), "the user's lists"
        if found.layout == "FIP":
            return {name for name in found.by_id if f"_{half}_" in name}, "FIP's folders"
        chosen = {name for name in found.by_id if (name in training_ids()) == (half == "train")}
        return chosen, f"ours, hashed {COUNT // 2}/{COUNT // 2}"

    def _listed(self, found: Found) -> dict[str, set[str]]:
        if found.layout == "FIP":
            raise UsageError(
                "data.train_list and data.test_list are of no use with FIP's folders: they are a split"
            )
        given = {half: read_ids(resolve(path)) for half, path in self._lists.items() if path is not None}
        everything = {_id(number) for number in range(1, COUNT + 1)}
        train = given["train"] if "train" in given else everything - given["test"]
        test = given["test"] if "test" in given else everything - given["train"]
        if both := sorted(train & test):
            raise CompressnetError(
                f"data.train_list and data.test_list share {len(both)} photographs, {both[0]} for one"
            )
        return {"train": train, "test": test}

    def _list_problems(self, found: Found) -> list[str]:
        problems = []
        if any(self._lists.values()):
            self._listed(found)
        for half, path in self._lists.items():
            if path is not None:
                missing = sorted(read_ids(resolve(path)) - found.by_id.keys())
                problems += [f"data.{half}_list names {name}, which is not on disk" for name in missing]
        return problems


@cache
def training_ids() -> frozenset[str]:
    """Our training half: of the 5000 ids, the 2500 whose SHA-256 comes first."""
    ids = [_id(number) for number in range(1, COUNT + 1)]
    return frozenset(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[: COUNT // 2])


def read_ids(path: Path) -> set[str]:
    """The ids of a list: `a0001`, `1`, a file's name or path, or the first column of a CSV.

    Raises:
        CompressnetError: no such file, or a line that names no photograph.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CompressnetError(f"{path}: the list of photographs cannot be read: {error}") from None
    ids = set()
    for number, line in enumerate(lines, 1):
        cell = line.split(",")[0].strip().strip('"')
        if (
            not cell
            or cell.startswith("#")
            or (number == 1 and cell.lower() in ("input", "id", "name", "file"))
        ):
            continue
        ids.add(_listed_id(cell, f"{path}:{number}"))
    return ids


def _listed_id(cell: str, place: str) -> str:
    stem = cell.replace("\\", "/").rpartition("/")[2]
    if match := _ID.match(stem):
        number = int(match[1])
    else:
        bare = stem.rpartition(".")[0] or stem
        number = int(bare) if bare.isascii() and bare.isdigit() else 0
    if not 1 <= number <= COUNT:
        raise CompressnetError(
            f"{place}: '{cell}' names no FiveK photograph (a0001 to a{COUNT}, or 1 to {COUNT})"
        )
    return _id(number)


def _id(number: int) -> str:
    return f"a{number:04d}"


def _find_layout(root: Path) -> Found | None:
    for base in (root, root / "data"):
        folders = sorted(base.glob("MIT-Adobe_train_*")) + sorted(base.glob("MIT-Adobe_test_*"))
        if folders:
            return _fip(folders)
    for base in (root, root / "fivek_dataset"):
        if (base / "raw_photos").is_dir():
            return _by_id("archive", base / "raw_photos")
    for folder in (root / "inputs", root / "input", root):
        if folder.is_dir() and (folder != root or any(_ID.match(path.name) for path in find_images(root))):
            return _by_id("exported", folder)
    return None


def _fip(folders: list[Path]) -> Found:
    by_id = {}
    for folder in folders:
        for path in find_images(folder):
            name = f"{folder.name}/{path.stem}"
            by_id[name] = Photograph(path, name)
    return Found("FIP", by_id, [])


def _by_id(layout: str, folder: Path) -> Found:
    by_id: dict[str, Photograph] = {}
    problems = []
    for path in find_images(folder):
        match = _ID.match(path.name)
        if match is None or not 1 <= int(match[1]) <= COUNT:
            problems.append(f"{path}: its name does not start with a FiveK id (a0001 to a{COUNT})")
        elif match[0] in by_id:
            problems.append(f"{path}: a second file for {match[0]}, beside {by_id[match[0]].path.name}")
        else:
            by_id[match[0]] = Photograph(path, match[0])
    return Found(layout, by_id, problems)
