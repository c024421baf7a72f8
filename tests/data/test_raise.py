"""RAISE as it is distributed: lists by the names of their columns, files in folders or flat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.raise_ import Raise, read_list
from compressnet.errors import CompressnetError

ASSETS = {"operator": "rof:max_iterations=2"}
NAMES = [f"r{number:03x}da54ft" for number in range(60)]
HEADER = "File,NEF,TIFF,Device,Keywords\n"


def rows(names: list[str], words: str = "outdoor;nature") -> str:
    return "".join(f'{name},http://x/{name}.NEF,http://x/{name}.TIF,Nikon D90,"{words}"\n' for name in names)


@pytest.fixture
def folder(home: Path, make_photo: Any) -> Path:
    """Sixty photographs in TIFF/, and their list."""
    for name in NAMES:
        make_photo(home / "raise" / "TIFF" / f"{name}.TIF", 12, 18)
    (home / "raise" / "RAISE_1k.csv").write_text(HEADER + rows(NAMES), encoding="utf-8-sig")
    return home / "raise"


def names(data: Raise, split: str) -> list[str]:
    return [photo.name for photo in data.photographs(split)]


def test_splits_share_nothing_and_do_not_depend_on_what_else_is_there(folder: Path) -> None:
    whole = {split: names(Raise(), split) for split in ("train", "val", "test")}
    assert sorted(name for found in whole.values() for name in found) == NAMES
    assert len(whole["test"]) in range(4, 24)
    (folder / "RAISE_1k.csv").write_text(HEADER + rows(NAMES[::2]))
    for split, before in whole.items():
        assert names(Raise(), split) == [name for name in before if name in NAMES[::2]]


def test_samples_and_facts(folder: Path) -> None:
    opened = Raise(min_side=8, max_side=12, crop=8).open("train", ASSETS, 0)
    assert opened.collate([opened[Key(0, index, index)] for index in range(5)]).inputs.shape == (5, 3, 8, 8)
    assert opened.facts()["split"] == "ours, hashed, 20 % for testing"


def test_training_says_what_is_not_there(folder: Path) -> None:
    for name in NAMES[:7]:
        (folder / "TIFF" / f"{name}.TIF").unlink()
    (line,) = Raise().open("train", ASSETS, 0)._left_out
    assert line == f"7 of 60 photographs are not on disk: {', '.join(NAMES[:5])}, ..."
    assert Raise().open("test", ASSETS, 0).facts()["list"] == "RAISE_1k"


def test_columns_may_be_absent_and_in_any_order(folder: Path) -> None:
    (folder / "RAISE_1k.csv").write_text("Device, file\n" + "".join(f"D40,{name}\n" for name in NAMES[:9]))
    found = [name for split in ("train", "val", "test") for name in _names_or_none(Raise(), split)]
    assert sorted(found) == NAMES[:9]


def _names_or_none(data: Raise, split: str) -> list[str]:
    try:
        return names(data, split)
    except (NoSuchSplit, CompressnetError):
        return []


def test_keywords(folder: Path) -> None:
    text = HEADER + rows(NAMES[:30], "Indoor; people") + rows(NAMES[30:])
    (folder / "RAISE_1k.csv").write_text(text)
    indoor = Raise(keywords=["indoor"], test_percent=0, val_percent=0)
    assert names(indoor, "train") == NAMES[:30]
    assert indoor.open("train", ASSETS, 0).facts()["keywords"] == "indoor"
    with pytest.raises(
        CompressnetError, match=r"no photograph has one of data.keywords sea \(there are: indoor, "
    ):
        Raise(keywords=["sea"]).photographs("train")


def test_flat_files_without_a_list(home: Path, make_photo: Any) -> None:
    for name in NAMES[:5]:
        make_photo(home / "raise" / f"{name}.png", 9, 9)
    make_photo(home / "raise" / "NEF" / f"{NAMES[5]}.png", 9, 9)
    assert names(Raise(test_percent=0, val_percent=0), "train") == NAMES[:6]


def test_of_several_files_the_one_that_needs_least(folder: Path, make_photo: Any) -> None:
    (folder / "NEF").mkdir()
    (folder / "NEF" / f"{NAMES[0]}.NEF").write_bytes(b"raw")
    make_photo(folder / "PNG" / f"{NAMES[0]}.png", 9, 9)
    (photograph,) = [
        p for s in ("train", "val", "test") for p in Raise().photographs(s) if p.name == NAMES[0]
    ]
    assert photograph.path.suffix == ".TIF"


def test_check_lists_what_is_missing(folder: Path) -> None:
    (folder / "TIFF" / f"{NAMES[3]}.TIF").unlink()
    (folder / "TIFF" / f"{NAMES[4]}.TIF").write_bytes(b"II*\0")
    problems = Raise().check()
    assert problems[0] == f"{NAMES[3]}: in the list, and not on disk"
    assert NAMES[4] in problems[1]
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Name,NEF\na,b\n", r"it has no column 'File' \(there are: Name, NEF\)"),
        ("", "it has no column 'File'"),
        (HEADER, "the list names no photograph"),
        (HEADER + ",,,,\n", "RAISE_1k.csv:2: '' is no photograph's name"),
        (HEADER + rows(["../../etc/passwd"]), "RAISE_1k.csv:2: '../../etc/passwd' is no photograph's name"),
        ("File,a\n\udcff,b\n", "cannot be read"),
    ],
    ids=["no File", "empty", "no lines", "no name", "a path", "not UTF-8"],
)
def test_a_bad_list_is_one_line(folder: Path, text: str, message: str) -> None:
    (folder / "RAISE_1k.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CompressnetError, match=message):
        Raise().photographs("train")
    assert len(Raise().check()) == 1


def test_several_lists(folder: Path) -> None:
    (folder / "RAISE_2k.csv").write_text(HEADER + rows(NAMES[:20]))
    with pytest.raises(CompressnetError, match="several lists .*: set data.subset"):
        Raise().photographs("train")
    assert names(Raise(subset="2k", test_percent=0, val_percent=0), "train") == NAMES[:20]
    with pytest.raises(CompressnetError, match=r"has no RAISE_6k.csv"):
        Raise(subset="6k").photographs("train")


def test_keywords_take_a_list_that_has_them(folder: Path) -> None:
    (folder / "RAISE_1k.csv").write_text("File\n" + "\n".join(NAMES))
    assert read_list(folder / "RAISE_1k.csv")[1] is False
    with pytest.raises(CompressnetError, match="no column 'Keywords'"):
        Raise(keywords=["indoor"]).photographs("train")
    (folder / "RAISE_1k.csv").unlink()
    with pytest.raises(CompressnetError, match="no list that tells them"):
        Raise(keywords=["indoor"]).photographs("train")


def test_nothing_there(home: Path) -> None:
    with pytest.raises(CompressnetError, match=r"is not there \(looked in .*loki.disi.unitn.it"):
        Raise().photographs("train")
