from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from compressnet.data.class_folder import ClassFolder
from compressnet.data.class_image import middle, planes
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import BadFiles, CompressnetError
from compressnet.reporter import Silent


@pytest.fixture
def splits(home: Path, make_photo: Any) -> Path:
    """train, val and test of two classes, pictures below folders within."""
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        for name in ("dog", "cat"):
            for number in range(count):
                below = "more" if number == 1 else ""
                make_photo(home / "set" / split / name / below / f"{number}.png", 40, 60)
    return home / "set"


def names(data: ClassFolder, split: str) -> list[str]:
    opened = data.open(split, {}, 0)
    return [opened.name(index) for index in range(len(opened))]


def test_folders_of_splits(splits: Path) -> None:
    data = ClassFolder("set", side=16, resize=20)
    opened = data.open("train", {}, 0)
    assert opened.classes == ["cat", "dog"]
    assert [len(names(data, split)) for split in ("train", "val", "test")] == [10, 4, 6]
    assert names(data, "val") == ["cat/0.png", "cat/more/1.png", "dog/0.png", "dog/more/1.png"]
    assert [opened[Key(0, index, index)].label for index in (0, 4, 5, 9)] == [0, 0, 1, 1]
    assert data.check() == []
    (splits / "test" / "cat" / "0.png").unlink()
    assert data.open("test", {}, 0).facts() != ClassFolder("set").open("val", {}, 0).facts()
    (splits / "val" / "cat" / "0.png").unlink()
    (splits / "val" / "cat" / "more" / "1.png").unlink()
    (splits / "val" / "cat" / "more").rmdir()
    (splits / "val" / "cat").rmdir()
    assert data.open("val", {}, 0)[Key(0, 0, 0)].label == 1  # the numbers are those of training


def test_a_share_is_held_out_where_there_is_no_val(home: Path, make_photo: Any) -> None:
    for name in ("a", "b"):
        for number in range(40):
            make_photo(home / "set" / name / f"{number:02d}.png")
    make_photo(home / "set" / "few" / "0.png")
    data = ClassFolder("set", val_percent=20)
    train, val = names(data, "train"), names(data, "val")
    assert {name[0] for name in val} == {"a", "b"}
    assert "few/0.png" in train
    assert len({*train, *val}) == len(train) + len(val) == 81
    assert 8 <= len(val) <= 24
    assert names(ClassFolder("set", val_percent=20), "val") == val
    with pytest.raises(NoSuchSplit, match="held out"):
        names(ClassFolder("set", val_percent=0), "val")
    with pytest.raises(NoSuchSplit, match="only with a folder `test`"):
        names(data, "test")
    make_photo(home / "set" / "test" / "b" / "x.png")  # a split, and no class
    assert names(data, "test") == ["b/x.png"]
    assert data.open("train", {}, 0).classes == ["a", "b", "few"]


def test_pictures_are_cut_as_asked(splits: Path) -> None:
    pixels = np.asarray(Pillow.open(splits / "train" / "cat" / "0.png"))
    plain = ClassFolder("set", side=16, resize=20, crop="middle", flip=False).open("train", {}, 0)
    expected = planes(middle(pixels, 20, 16))
    for draw in range(3):
        assert torch.equal(plain[Key(draw, 0, draw)].pixels, expected)
    for crop in ("resized", "padded"):
        data, again, other = (
            ClassFolder("set", side=16, resize=20, crop=crop).open("train", {}, s) for s in (0, 0, 1)
        )
        key = Key(1, 0, 9)
        assert torch.equal(data[key].pixels, again[key].pixels)
        assert not torch.equal(data[key].pixels, other[key].pixels)
        assert not torch.equal(data[key].pixels, data[Key(2, 0, 29)].pixels)
        assert data[key].pixels.shape == (3, 16, 16)
    val = ClassFolder("set", side=16, resize=20).open("val", {}, 0)
    assert torch.equal(val[Key(0, 0, 0)].pixels, val[Key(7, 0, 70)].pixels)
    flipped = ClassFolder("set", side=16, resize=20, crop="middle").open("train", {}, 0)
    seen = {flipped[Key(0, 0, draw)].pixels.numpy().tobytes() for draw in range(20)}
    assert seen == {expected.numpy().tobytes(), expected.flip(2).numpy().tobytes()}


def test_everything_that_is_wrong_is_listed(splits: Path, make_photo: Any) -> None:
    make_photo(splits / "train" / "stray.png")
    (splits / "train" / "README.txt").write_text("pictures")  # no picture: it does not matter
    (splits / "train" / "empty").mkdir()
    (splits / "train" / "raw").mkdir()
    (splits / "train" / "raw" / "a.cr2").touch()
    make_photo(splits / "test" / "bird" / "0.png")
    with pytest.raises(BadFiles) as error:
        ClassFolder("set").open("train", {}, 0)
    told = "\n".join(error.value.problems)
    assert "stray.png: beside the folders of the classes: move it into one of them" in told
    assert "empty: a class without pictures: fill it or remove it" in told
    assert "raw: a class without pictures (1 picture of other kinds left out: 1 .cr2" in told
    with pytest.raises(BadFiles, match=r"test/bird: .*/train has no class 'bird'"):
        ClassFolder("set").open("test", {}, 0)
    for path, data in (("train/dog/2.png", b"no picture"), ("val/cat/0.png", None)):
        whole = (splits / path).read_bytes()
        (splits / path).write_bytes(data or whole[:-60])
    problems = ClassFolder("set").check()
    assert len(problems) == 6
    assert sum("2.png" in line for line in problems) == 1
    assert len(ClassFolder("set").check(headers=True)) == 5  # what is truncated is not seen


def test_pictures_that_will_be_drawn_are_decoded_first(splits: Path) -> None:
    (splits / "train" / "dog" / "2.png").write_bytes(b"no picture")
    (splits / "train" / "cat" / "more" / "b.heic").touch()
    data = ClassFolder("set").open("train", {}, 0)
    notes: list[str] = []

    class Heard(Silent):
        def note(self, kind: str, text: str) -> None:
            notes.append(text)

    data.prepare([Key(0, 0, 0)], 1, Heard())
    assert "1 .heic" in notes[0]
    with pytest.raises(BadFiles, match=r"dog/2\.png"):
        data.prepare([Key(0, index, index) for index in range(10)], 1, Silent())


def test_no_classes_no_split_other_classes(splits: Path, home: Path) -> None:
    with pytest.raises(CompressnetError, match=r"is not there .*folder of its name"):
        ClassFolder("none").open("train", {}, 0)
    (home / "flat").mkdir()
    assert "holds no folders of classes" in ClassFolder("flat").check()[0]
    with pytest.raises(NoSuchSplit, match="only train, val and test"):
        ClassFolder("set").open("all", {}, 0)
    with pytest.raises(CompressnetError, match="the data has the classes cat, dog; the network knows x"):
        ClassFolder("set").open("val", {"classes": ["x"]}, 0)
