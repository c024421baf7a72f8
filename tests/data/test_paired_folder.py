from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet.data.paired_folder import PairedFolder
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import CompressnetError
from compressnet.reporter import Silent


def invert(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(255 - np.asarray(Pillow.open(source))).save(target)


@pytest.fixture
def pairs(home: Path, make_photo: Any) -> Path:
    """Forty pairs whose targets are the negatives of the inputs."""
    for i in range(40):
        source = make_photo(home / "pairs" / "inputs" / f"{i:02d}.png")
        invert(source, home / "pairs" / "targets" / f"{i:02d}.bmp")
    return home / "pairs"


def names(data: PairedFolder, split: str) -> list[str]:
    opened = data.open(split, {}, 0)
    return [opened.name(index) for index in range(len(opened))]


def test_pairs_by_stem_whatever_the_format(pairs: Path) -> None:
    opened = PairedFolder("pairs").open("train", {}, 0)
    opened.prepare([Key(0, 0, 0)], 1, Silent())
    pair = opened[Key(0, 3, 3)]
    np.testing.assert_array_equal(pair.target.numpy(), 255 - pair.input.numpy())
    assert pair.name == opened.name(3)
    assert opened.facts()["count"] == len(opened)


def test_train_and_val_are_disjoint_and_complete(pairs: Path) -> None:
    data = PairedFolder("pairs", val_percent=10)
    train, val = names(data, "train"), names(data, "val")
    assert val
    assert sorted(train + val) == [f"{i:02d}" for i in range(40)]
    with pytest.raises(NoSuchSplit):
        names(PairedFolder("pairs", val_percent=0), "val")
    with pytest.raises(NoSuchSplit):
        names(data, "test")
    assert len(names(PairedFolder("pairs", test_root="pairs"), "test")) == 40


def test_folders_of_splits(home: Path, make_photo: Any) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        for i in range(count):
            source = make_photo(home / "set" / split / "inputs" / f"{split}{i}.png")
            invert(source, home / "set" / split / "targets" / f"{split}{i}.png")
    data = PairedFolder("set")
    assert [len(names(data, split)) for split in ("train", "val", "test")] == [5, 2, 3]
    assert data.check() == []


def test_suffix_and_other_folders(home: Path, make_photo: Any) -> None:
    source = make_photo(home / "set" / "input" / "sub" / "x.png")
    invert(source, home / "elsewhere" / "sub" / "x_pencil.png")
    data = PairedFolder("set", inputs="input", targets=str(home / "elsewhere"), suffix="_pencil")
    assert names(data, "train") == ["sub/x"]


def test_crop_takes_the_same_place(pairs: Path) -> None:
    opened = PairedFolder("pairs", crop=10).open("train", {}, 0)
    seen = [opened[Key(0, 0, draw)] for draw in range(8)]
    for pair in seen:
        assert pair.input.shape == (3, 10, 10)
        np.testing.assert_array_equal(pair.target.numpy(), 255 - pair.input.numpy())
    assert len({pair.input.numpy().tobytes() for pair in seen}) > 1
    assert opened[Key(0, 0, 3)].input.equal(seen[3].input)


def test_every_defect_at_once(pairs: Path, make_photo: Any) -> None:
    inputs, targets = pairs / "inputs", pairs / "targets"
    make_photo(inputs / "alone.png")
    make_photo(targets / "lonely.png")
    make_photo(targets / "03.tif")
    make_photo(targets / "04.bmp", 24, 35)
    make_photo(targets / "05.bmp", 12, 18)
    (targets / "06.bmp").write_text("no image")
    (targets / "07.bmp").unlink()
    shutil.copy(inputs / "07.png", targets / "07.png")
    problems = PairedFolder("pairs").check()
    expected = {
        "alone.png": "no target",
        "lonely.png": "no input",
        "03.tif": "a second file",
        "04.bmp": "off by one pixel: 35x24, its input 36x24",
        "05.bmp": "of another size",
        "06.bmp": "not an image",
        "07.png": "identical to its input",
    }
    assert len(problems) == len(expected)
    for name, reason in expected.items():
        assert any(name in problem and reason in problem for problem in problems), (name, problems)


def test_open_refuses_unequal_sizes_and_unpaired_files(pairs: Path, make_photo: Any) -> None:
    make_photo(pairs / "targets" / "04.bmp", 24, 35)
    with pytest.raises(CompressnetError, match=r"04\.bmp: off by one pixel"):
        names(PairedFolder("pairs", val_percent=0), "train")
    make_photo(pairs / "inputs" / "alone.png")
    with pytest.raises(CompressnetError, match=r"(?s)alone\.png: no target.*\n.*04\.bmp: off by one"):
        names(PairedFolder("pairs", val_percent=0), "train")


def test_missing_data(home: Path, make_photo: Any) -> None:
    make_photo(home / "set" / "inputs" / "a.png")
    with pytest.raises(CompressnetError, match=r"set.targets is not there .*--data-root .*inputs/.*--smoke"):
        PairedFolder("set").open("train", {}, 0)
    assert len(PairedFolder("set").check()) == 1


def test_a_folder_that_is_not_there_is_told_before_its_missing_split(home: Path) -> None:
    with pytest.raises(CompressnetError, match=r"nosuch/inputs is not there"):
        PairedFolder("nosuch").open("test", {}, 0)
