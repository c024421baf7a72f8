"""RAISE (Dang-Nguyen, Pasquini, Conotter, Boato 2015): 8156 raw photographs of three Nikon cameras.

Found below `root`:
    lists     RAISE_{1k,2k,4k,6k,all}.csv: column `File`, perhaps others
    files     <File>.{NEF,TIF,PNG,...} in NEF/, TIFF/, TIF/, PNG/ or the root; of several the first kind
              of TIFF, PNG, NEF (which needs the extra `raw`)

No official split exists: ours is by a hash of the name, so that any part of the set is split like the whole.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from compressnet.bounds import HeldOut, Repeats, Size
from compressnet.data.photographs import (
    Photograph,
    PhotographSplit,
    Sizes,
    hash_of,
    held_out,
    tell_left_out,
    unreadable,
)
from compressnet.data.protocol import NoSuchSplit
from compressnet.errors import CompressnetError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter

HOW_TO_OBTAIN = (
    "lists and photographs come from https://loki.disi.unitn.it/RAISE/ (for research, not for trade): give "
    "the folder that holds RAISE_1k.csv or another list, and the files in NEF/ or TIFF/ or beside it"
)
_FOLDERS = ("TIFF", "TIF", "PNG", "NEF", ".")
_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".nef")  # in the order in which they are taken
_LARGEST_LIST = 50 << 20  # bytes
_SHOWN = 5  # missing files that one message names


class Listed(NamedTuple):
    """A line of a list: a photograph's name, and what is on it in lower case (empty without that column)."""

    name: str
    keywords: frozenset[str]


class Raise:
    """The RAISE photographs.

    Args:
        root: its folder.
        subset: which list; `any` takes the only one that is there, or every file without one.
        keywords: photographs that have one of them (`indoor`, `outdoor`, `landscape`, `nature`, `people`,
            `objects`, `buildings`); all without. It takes a list with that column.
        min_side: smallest short side to train at.
        max_side: largest short side to train at; pictures are never enlarged.
        sizes: how many sizes each picture is trained at.
        crop: side of the squares to train on; whole pictures without.
        test_side: short side for validation and test; the file's own without.
        test_percent: how much is for testing, by a hash of the name.
        val_percent: how much of the rest is held out for validation, by another hash.
    """

    sample_type: ClassVar[str] = "photograph"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        root: str = "raise",
        subset: Literal["any", "1k", "2k", "4k", "6k", "all"] = "any",
        keywords: list[str] | None = None,
        min_side: Size = 320,
        max_side: Size = 1440,
        sizes: Repeats = 4,
        crop: Size | None = None,
        test_side: Size | None = None,
        test_percent: HeldOut = 20.0,
        val_percent: HeldOut = 5.0,
    ) -> None:
        self._root, self._subset = root, subset
        self._keywords = frozenset(word.strip().lower() for word in keywords or ())
        self._sizes = Sizes(min_side, max_side, sizes, crop, test_side)
        self._test_percent, self._val_percent = test_percent, val_percent

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> PhotographSplit:
        path, (found, missing) = self._list_of(), self._find()
        about = {"split": f"ours, hashed, {self._test_percent:g} % for testing"}
        about["list"] = path.stem if path else "every file"
        if self._keywords:
            about["keywords"] = ", ".join(sorted(self._keywords))
        absent = []
        if missing and split == "train":
            names = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            absent = [
                f"{len(missing):,} of {len(found) + len(missing):,} photographs are not on disk: {names}"
            ]
        photographs = self.photographs(split)
        return PhotographSplit(photographs, self._sizes, split == "train", assets, seed, about, absent)

    def photographs(self, split: str) -> list[Photograph]:
        """The files of a split that are on disk, sorted by name.

        Raises:
            NoSuchSplit: nothing is held out for validation, or there is no split of this name.
            CompressnetError: the folder, the list or every photograph of the split is missing.
        """
        if split not in ("train", "val", "test"):
            raise NoSuchSplit(f"raise has no split '{split}': only train, val and test")
        found, _ = self._find()
        chosen = [photo for photo in found if self._split_of(photo.name) == split]
        if not chosen and split == "val":
            raise NoSuchSplit("none of the photographs is held out for validation")
        if not chosen:
            raise CompressnetError(f"data.root '{self._root}' holds no photograph of the split '{split}'")
        return chosen

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            found, missing = self._find()
        except CompressnetError as error:
            return [str(error)]
        if not self._keywords and not self._list_of():
            tell_left_out([f"data.root '{self._root}' has no list: all its photographs are taken"], reporter)
        problems = [f"{name}: in the list, and not on disk" for name in missing]
        return problems + unreadable(found, headers, reporter)

    def _split_of(self, name: str) -> str:
        if hash_of("test:" + name) % 10_000 < self._test_percent * 100:
            return "test"
        return "val" if held_out(name, self._val_percent) else "train"

    def _find(self) -> tuple[list[Photograph], list[str]]:
        """What is on disk, sorted by name, and names of the list that are not."""
        root = resolve(self._root)
        files = _files(root)
        path = self._list_of()
        if path is None:
            if self._keywords:
                raise CompressnetError(f"data.keywords: data.root '{self._root}' has no list that tells them")
            names = sorted(files)
        else:
            names = self._chosen(path)
        found = [Photograph(files[name], name) for name in names if name in files]
        missing = [name for name in names if name not in files]
        if not found:
            state = "is not there" if not root.is_dir() else "holds no photographs of RAISE"
            some = f" ({', '.join(missing[:_SHOWN])}, ... of {path.name})" if missing and path else ""
            raise CompressnetError(
                f"data.root '{self._root}' {state}{some} (looked in {root.absolute()}; relative roots stand "
                f"below --data-root or {DATA_VARIABLE}): {HOW_TO_OBTAIN}; `train --smoke` runs without it, "
                "on the built-in photographs"
            )
        return found, missing

    def _list_of(self) -> Path | None:
        """The list to go by; None: every file is taken."""
        root = resolve(self._root)
        lists = {path.stem.lower(): path for path in sorted(root.glob("*.csv")) if path.is_file()}
        if self._subset == "any":
            if len(lists) > 1:
                there = ", ".join(path.name for path in lists.values())
                raise CompressnetError(
                    f"data.root '{self._root}' has several lists ({there}): set data.subset"
                )
            return next(iter(lists.values()), None)
        path = lists.get(f"raise_{self._subset}")
        if path is None:
            raise CompressnetError(
                f"data.subset '{self._subset}': {root.absolute()} has no RAISE_{self._subset}.csv: "
                f"{HOW_TO_OBTAIN}"
            )
        return path

    def _chosen(self, path: Path) -> list[str]:
        lines, has_keywords = read_list(path)
        if self._keywords and not has_keywords:
            raise CompressnetError(f"{path}: it has no column 'Keywords', which data.keywords asks for")
        names = sorted({line.name for line in lines if not self._keywords or self._keywords & line.keywords})
        if not names:
            known = sorted(frozenset[str]().union(*(line.keywords for line in lines)))
            raise CompressnetError(
                f"{path}: no photograph has one of data.keywords {', '.join(sorted(self._keywords))} "
                f"(there are: {', '.join(known[:20])})"
            )
        return names


def read_list(path: Path) -> tuple[list[Listed], bool]:
    """The photographs of a list, and whether it has keywords.

    Columns go by their names, whatever else there is; UTF-8, with or without a byte order mark.

    Raises:
        CompressnetError: it cannot be read, has no column `File`, or a line has no name; it is named.
    """
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise CompressnetError(f"{path}: above {_LARGEST_LIST >> 20} MB: this is no list of RAISE")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
            if "file" not in columns:
                there = ", ".join(str(name) for name in (rows.fieldnames or ())[:10])
                raise CompressnetError(f"{path}: it has no column 'File' (there are: {there or 'none'})")
            lines = [_listed(row, columns, f"{path}:{rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CompressnetError(f"{path}: the list of photographs cannot be read: {error}") from None
    if not lines:
        raise CompressnetError(f"{path}: the list names no photograph")
    return lines, "keywords" in columns


def _listed(row: Mapping[str, Any], columns: Mapping[str, str], place: str) -> Listed:
    name = (row[columns["file"]] or "").strip()
    stem = name if Path(name).suffix.lower() not in _SUFFIXES else Path(name).stem
    if not stem or stem != Path(stem).name:
        raise CompressnetError(f"{place}: '{name:.80}' is no photograph's name, as in r000da54ft")
    words = (row[columns["keywords"]] or "") if "keywords" in columns else ""
    return Listed(stem, frozenset(word.strip().lower() for word in words.split(";") if word.strip()))


def _files(root: Path) -> dict[str, Path]:
    """The file of each photograph on disk."""
    found: dict[str, Path] = {}
    for folder in (root / name for name in _FOLDERS):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            kind = path.suffix.lower()
            if kind not in _SUFFIXES or path.name.startswith(".") or not path.is_file():
                continue
            known = found.get(path.stem)
            if known is None or _SUFFIXES.index(kind) < _SUFFIXES.index(known.suffix.lower()):
                found[path.stem] = path
    return found
