from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from compressnet.data.photo_folder import PhotoFolder
from compressnet.data.photographs import held_out
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import CompressnetError

ASSETS = {"operator": "rof:max_iterations=2"}


@pytest.fixture
def photos(home: Path, make_photo: Any) -> Path:
    for i in range(60):
        make_photo(home / "photos" / ("a" if i % 2 else "b") / f"{i}.png")
    return home / "photos"


def names(data: PhotoFolder, split: str) -> list[str]:
    return [photo.name for photo in data.photographs(split)]


def test_train_and_val_share_nothing_and_leave_nothing_out(photos: Path) -> None:
    data = PhotoFolder("photos")
    train, val = names(data, "train"), names(data, "val")
    assert val
    assert not set(train) & set(val)
    assert len(train) + len(val) == 60
    assert sorted(train) == train


def test_split_does_not_change_when_files_are_added(photos: Path, make_photo: Any) -> None:
    before = names(PhotoFolder("photos"), "val")
    for i in range(100, 140):
        make_photo(photos / f"{i}.png")
    assert set(before) <= set(names(PhotoFolder("photos"), "val"))
    assert set(before) == {name for name in names(PhotoFolder("photos"), "val") if "/" in name}


def test_several_roots_and_builtin(photos: Path, make_photo: Any, home: Path) -> None:
    make_photo(home / "more" / "0.png")
    data = PhotoFolder(["photos", "more"], builtin=True)
    train = names(data, "train")
    assert train[-4:] == ["coffee", "rocket", "retina", "hubble_deep_field"]
    assert "photos/b/0.png" in train + names(data, "val")
    assert "more/0.png" in train + names(data, "val")
    assert not {"coffee", "rocket"} & set(names(data, "val"))
    assert len(set(train)) == len(train)


def test_roots_of_one_name_are_told_apart(home: Path, make_photo: Any) -> None:
    for folder in ("x/train", "y/train"):
        make_photo(home / folder / "0.png")
    found = PhotoFolder(["x/train", "y/train"], val_percent=0).photographs("train")
    assert [photo.name for photo in found] == ["1-train/0.png", "2-train/0.png"]
    with pytest.raises(CompressnetError, match="same folder twice"):
        PhotoFolder(["x/train", "x/../x/train"]).photographs("train")


def test_test_split_only_with_a_root(photos: Path, make_photo: Any, home: Path) -> None:
    with pytest.raises(NoSuchSplit, match="test_root"):
        PhotoFolder("photos").open("test", ASSETS, 0)
    make_photo(home / "held" / "z.png")
    assert names(PhotoFolder("photos", test_root="held"), "test") == ["z.png"]


def test_no_validation(photos: Path, home: Path, make_photo: Any) -> None:
    with pytest.raises(NoSuchSplit):
        PhotoFolder("photos", val_percent=0).open("val", ASSETS, 0)
    with pytest.raises(NoSuchSplit):
        PhotoFolder("photos").open("training", ASSETS, 0)
    alone = next(f"{i}.png" for i in range(1000) if held_out(str(i), 5))
    make_photo(home / "one" / alone)
    assert names(PhotoFolder("one"), "train") == [alone]  # nothing would be left to train on
    with pytest.raises(NoSuchSplit):
        PhotoFolder("one").open("val", ASSETS, 0)


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [({"root": "none"}, "root"), ({"root": "photos", "test_root": "none"}, "test_root")],
)
def test_missing_data_says_where_what_and_the_way_out(photos: Path, arguments: Any, argument: str) -> None:
    split = "train" if argument == "root" else "test"
    with pytest.raises(CompressnetError) as caught:
        PhotoFolder(**arguments).open(split, ASSETS, 0)
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        f"data.{argument} 'none'",
        str(photos.parent / "none"),
        "--data-root",
        "COMPRESSNET_DATA",
        "--smoke",
    ):
        assert part in text


def test_folder_without_images(home: Path) -> None:
    (home / "empty").mkdir()
    with pytest.raises(CompressnetError, match="holds no images"):
        PhotoFolder("empty").open("train", ASSETS, 0)


def test_check_lists_every_defect(photos: Path) -> None:
    assert PhotoFolder("photos").check() == []
    (photos / "text.png").write_text("no")
    (photos / "empty.jpg").touch()
    problems = PhotoFolder(["photos", "nowhere"], test_root="gone").check()
    assert len(problems) == 4
    for part in ("text.png", "empty.jpg", "nowhere", "gone"):
        assert sum(part in problem for problem in problems) == 1


def test_samples(photos: Path) -> None:
    data = PhotoFolder("photos", min_side=12, max_side=24, crop=12)
    opened = data.open("train", ASSETS, 0)
    assert opened.collate([opened[Key(0, index, index)] for index in range(4)]).inputs.shape == (4, 3, 12, 12)
    assert data.open("val", ASSETS, 0)[Key(0, 0, 0)].input.shape == (3, 24, 36)


def test_a_folder_of_its_own_for_validation(home: Path, photos: Path) -> None:
    shutil.copytree(photos, home / "others")
    data = PhotoFolder("photos", val_root="others", val_percent=50)
    assert names(data, "train") == names(PhotoFolder("others", val_root="photos"), "val")
    assert len(names(data, "val")) == len(names(data, "train")) == len(list(photos.rglob("*.*")))
    assert data.check() == []
    wrong = PhotoFolder("photos", val_root="gone")
    assert [("val_root" in problem, "gone" in problem) for problem in wrong.check()] == [(True, True)]
    with pytest.raises(CompressnetError, match="data.val_root 'gone' is not there"):
        wrong.open("val", ASSETS, 0)


def test_every_second_picture_is_mirrored(photos: Path) -> None:
    plain, flipped = (
        PhotoFolder("photos", min_side=12, max_side=12, sizes=1, flip=flip).open("train", ASSETS, 0)
        for flip in (False, True)
    )
    mirrored = 0
    for draw in range(60):
        one, other = plain[Key(0, 0, draw)], flipped[Key(0, 0, draw)]
        same, turned = (
            torch.equal(other.input, x) and torch.equal(other.target, y)
            for x, y in ((one.input, one.target), (one.input.flip(-1), one.target.flip(-1)))
        )
        assert same or turned
        mirrored += turned and not same
    assert 15 < mirrored < 45
    test = PhotoFolder("photos", test_root="photos", test_side=12, flip=True).open("test", ASSETS, 0)
    straight = PhotoFolder("photos", test_root="photos", test_side=12).open("test", ASSETS, 0)
    assert torch.equal(test[Key(0, 0, 0)].input, straight[Key(0, 0, 0)].input)


@pytest.mark.skipif(not Path("../shared/data/clic2025").is_dir(), reason="the photographs are not here")
def test_real_photographs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSNET_DATA", str(Path("../shared/data").resolve()))
    data = PhotoFolder(["clic2025", "fivek/input", "bsds500"], test_root="fivek/input_1080p", test_side=64)
    assert data.check() == []
    assert len(names(data, "train")) + len(names(data, "val")) == 342
    test = data.open("test", ASSETS, 0)
    assert [test.name(index) for index in range(6)] == [f"{i:06d}.png" for i in range(1, 7)]
    assert min(test[Key(0, 0, 0)].input.shape[1:]) == 64
