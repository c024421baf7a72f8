from __future__ import annotations

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from compressnet.data.label_folder import LabelFolder
from compressnet.data.label_image import LabelledBatch, LabelledImage, WholeImage
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import BadFiles, CompressnetError, UsageError
from compressnet.reporter import Silent

CLASS_FILE = "id,name,colour,ignore\n0,void,#000000,1\n1,road,#804080,0\n5,car,#00008e,0\n9,dog,#010203,0\n"
Pair = Callable[..., None]


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, level: Any, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def pair(home: Path, make_photo: Any) -> Pair:
    """Writes a photograph and its labels below `set`."""

    def make(
        split: str, name: str, values: tuple[int, ...] = (1, 5), height: int = 12, width: int = 16
    ) -> None:
        make_photo(home / "set" / "images" / split / f"{name}.png", height, width)
        labels = np.resize(np.array(values, np.uint8), (height, width))
        path = home / "set" / "labels" / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(labels).save(path)

    return make


@pytest.fixture
def folder(home: Path, pair: Pair) -> Path:
    for split, names in (("train", "abcd"), ("val", "ef"), ("test", "g")):
        for name in names:
            pair(split, name)
    (home / "set" / "classes.csv").write_text(CLASS_FILE)
    return home / "set"


def opened(split: str = "train", **arguments: Any) -> Any:
    return LabelFolder("set", "classes.csv", **arguments).open(split, {}, 0)


def names(split: str, **arguments: Any) -> str:
    data = opened(split, **arguments)
    return "".join(data.name(index) for index in range(len(data)))


def test_samples_of_training_and_of_tests(folder: Path) -> None:
    data = opened(crop=[8, 10])
    sample = data[Key(0, 1, 1)]
    assert isinstance(sample, LabelledImage)
    assert sample.image.shape == (3, 8, 10)
    assert set(sample.labels.unique().tolist()) <= {0, 1, 255}
    again = ForkingPickler.loads(ForkingPickler.dumps(opened(crop=[8, 10])))  # as worker processes get it
    assert torch.equal(again[Key(0, 1, 1)].image, sample.image)
    assert not torch.equal(again[Key(1, 1, 5)].image, sample.image)
    batch = data.collate([data[Key(0, index, index)] for index in range(4)])
    assert isinstance(batch, LabelledBatch)
    assert batch.labels.shape == (4, 8, 10)
    test = opened("test", crop=[8, 10])
    whole = test[Key(0, 0, 0)]
    assert isinstance(whole, WholeImage)
    assert (whole.image.shape, whole.image.dtype) == ((3, 12, 16), torch.uint8)
    pixels = np.asarray(Pillow.open(folder / "images" / "test" / "g.png"))
    assert whole.image.permute(1, 2, 0).tolist() == pixels.tolist()
    assert whole.labels.tolist() == np.resize([0, 1], (12, 16)).tolist()
    assert whole.instances is None


def test_what_follows_from_the_training_data(folder: Path, pair: Pair) -> None:
    pair("train", "d", (0, 1, 1, 9))
    data = opened(crop=[8, 10])
    assert data.classes.names == ("road", "car", "dog")
    assert data.class_pixels().tolist() == [3 * 96 + 96, 3 * 96, 48, 48]
    assert (data.crop, data.short_side()) == ((8, 10), 12)
    assert (opened(size=6).crop, opened(size=6).short_side()) == ((6, 8), 6)
    assert opened()[Key(0, 0, 0)].image.shape == (3, 12, 16)
    before = data.facts()
    pair("train", "d", (5, 5, 5, 5))  # another file: it is counted again
    assert data.class_pixels().tolist() == [3 * 96, 3 * 96 + 192, 0, 0]
    assert data.facts()["count"] == before["count"] == 4
    pair("train", "d", height=20)
    assert data.facts() != before
    with pytest.raises(UsageError, match=r"2 sizes \(16x12, 16x20\.\.\.\): set data\.crop"):
        _ = opened().crop


def test_class_pixels_are_counted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened().class_pixels()
    monkeypatch.setattr("compressnet.data.label_split.look_at", None)
    assert (opened().class_pixels() == expected).all()


def test_splits(folder: Path) -> None:
    assert [names(split) for split in ("train", "val", "test")] == ["abcd", "ef", "g"]
    held = {"hold_out": "[ab]"}
    assert [names(split, **held) for split in ("train", "val", "test")] == ["cd", "ab", "g"]
    assert names("train", train_on=["train", "val"]) == "abcdef"
    with pytest.raises(NoSuchSplit, match="the split val is trained on"):
        opened("val", train_on=["train", "val"])
    both = {"train_on": ["train", "val"], "hold_out": "[ae]"}
    assert [names(split, **both) for split in ("train", "val")] == ["bcdf", "ae"]
    for pattern, what in (("z*", "none"), ("*", "all")):
        with pytest.raises(
            UsageError, match=f"is the name of {what} of the 4 training photographs, such as a"
        ):
            opened(hold_out=pattern)
    with pytest.raises(NoSuchSplit, match="only train, val and test"):
        opened("all")


def test_missing_splits_and_folders(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder / "images" / "test")
    with pytest.raises(NoSuchSplit, match=r"no split test: .*images/test is not there"):
        opened("test")
    shutil.rmtree(folder / "labels" / "val")
    with pytest.raises(CompressnetError, match=r"labels/val is not there .*put photographs into images/"):
        opened("val")
    for path in (folder / "images" / "train").iterdir():
        path.unlink()
    with pytest.raises(CompressnetError, match="images/train holds no pictures"):
        opened()
    assert len(LabelFolder("set", "classes.csv").check()) == 2


def test_other_layouts(home: Path, folder: Path) -> None:
    (folder / "train").mkdir()
    for old, new in (("images/train", "train"), ("labels/train", "trainannot")):
        (folder / old).rename(folder / new)
    assert names("train", images="{split}", labels="{split}annot") == "abcd"
    (folder / "train.txt").write_text("c\na\n\n")
    voc = {"images": "train", "labels": "trainannot", "lists": "{split}.txt"}
    assert names("train", **voc) == "ca"
    with pytest.raises(NoSuchSplit, match=r"val\.txt is not there"):
        opened("val", **voc)
    for text, problem in (
        ("", r"train\.txt: the list of names is empty"),
        ("a\nb\na\n", r"train\.txt:3: 'a' is also in line 1"),
    ):
        (folder / "train.txt").write_text(text)
        with pytest.raises(CompressnetError, match=problem):
            opened(**voc)
    (folder / "train.txt").write_text("a\nz\n")
    with pytest.raises(BadFiles, match=r"z: no photograph z\.\* in "):
        opened(**voc)
    with pytest.raises(NoSuchSplit, match="no split test"):
        opened("test", images="train", labels="trainannot")


def test_every_fault_is_told_first(folder: Path, pair: Pair, make_photo: Any) -> None:
    pair("train", "a", (1, 5, 77))
    pair("train", "b", height=9)
    make_photo(folder / "images" / "train" / "b.png", 16, 9)
    noise = np.random.default_rng(0).integers(0, 2, (90, 90)).astype(np.uint8)
    make_photo(folder / "images" / "train" / "c.png", 90, 90)
    Pillow.fromarray(noise).save(folder / "labels" / "train" / "c.png")
    cut = (folder / "labels" / "train" / "c.png").read_bytes()[:-500]
    (folder / "labels" / "train" / "c.png").write_bytes(cut)
    Pillow.fromarray(np.ones((12, 16), np.uint16)).save(folder / "labels" / "train" / "d.png")
    data = opened(crop=[8, 8])
    with pytest.raises(BadFiles) as error:
        data.prepare([Key(0, 0, 0)], 1, Silent())
    expected = [
        r"a.png: value 77 (64 pixels) is not in classes.csv",
        r"b.png: 16x9 pixels, its photograph 9x16 (its EXIF turns",
        r"c.png: a damaged PNG: ",
        r"d.png: has 16 bits a pixel",
    ]
    assert len(error.value.problems) == 4
    for line, text in zip(error.value.problems, expected, strict=True):
        assert text in line
    assert LabelFolder("set", "classes.csv").check() == error.value.problems
    headers = LabelFolder("set", "classes.csv").check(headers=True)
    assert len(headers) == 1
    assert "b.png: 16x9" in headers[0]
    with pytest.raises(BadFiles):
        data.class_pixels()


def test_missing_and_double_pairs(folder: Path, pair: Pair, make_photo: Any) -> None:
    make_photo(folder / "images" / "train" / "x.png")
    (folder / "labels" / "train" / "y.png").write_bytes((folder / "labels" / "train" / "a.png").read_bytes())
    make_photo(folder / "images" / "train" / "a.jpg")
    with pytest.raises(BadFiles) as error:
        opened()
    for text in (
        "a.png: a second file of the name a",
        "x.png: no labels x.png in",
        "y.png: no photograph y.*",
    ):
        assert sum(text in line for line in error.value.problems) == 1
    pair("val", "a")
    (folder / "images" / "train" / "a.jpg").unlink()
    with pytest.raises(BadFiles, match=r"val/a\.png: a second photograph of the name a, beside "):
        opened(train_on=["train", "val"])


def test_check_tells_sizes_and_classes(folder: Path, pair: Pair) -> None:
    pair("train", "e", (0, 1, 1, 5), height=20)
    heard = Heard()
    assert LabelFolder("set", "classes.csv").check(reporter=heard) == []
    for line in (
        "1 of the names in train also in val, such as e: what is measured on what was trained on "
        "says nothing",
        "train: 5 pairs of 16x12 (4), 16x20 (1)",
        "test: 1 pair of 16x12",
        "car (value 5): 42.65 % of train, in 5 pictures; 50.00 % of val, in 2 pictures; "
        "50.00 % of test, in 1 picture",
        "dog (value 9): absent from train and val and test",
        "ignored (value 0): 7.35 % of train, in 1 picture",
    ):
        assert line in heard.notes


def test_other_classes_than_those_of_the_weights(folder: Path) -> None:
    data = LabelFolder("set", "classes.csv")
    assets = opened().classes.to_assets()
    assert len(data.open("test", assets, 0)) == 1
    with pytest.raises(
        CompressnetError, match="the data has the classes road, car, dog; the network knows x"
    ):
        data.open("test", {"classes": ["x"]}, 0)
    with pytest.raises(CompressnetError, match="did you mean 'camvid'"):
        LabelFolder("set", "camvit").open("test", {}, 0)
    assert "did you mean 'voc'" in LabelFolder("set", "vox").check()[0]
    with pytest.raises(UsageError, match="data.scale: 2 is above 1"):
        LabelFolder("set", "classes.csv", scale=[2.0, 1.0])


def test_gray_and_turned_photographs(folder: Path) -> None:
    path = folder / "images" / "test" / "g.png"
    gray = Pillow.open(path).convert("L")
    gray.save(path)
    assert opened("test")[Key(0, 0, 0)].image.shape == (3, 12, 16)
    exif = Pillow.Exif()
    exif[274] = 6
    gray.rotate(90, expand=True).save(path, exif=exif)
    assert opened("test")[Key(0, 0, 0)].image.shape == (3, 12, 16)
    assert LabelFolder("set", "classes.csv").check() == []


@pytest.mark.skipif(not Path("../shared/data/camvid").is_dir(), reason="the pictures are not here")
def test_camvid(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSNET_DATA", str(Path("../shared/data").resolve()))
    data = LabelFolder("camvid", "camvid", crop=[360, 480], hold_out="0001TP*")
    train, val, test = (data.open(split, {}, 0) for split in ("train", "val", "test"))
    assert [len(split) for split in (train, val, test)] == [305, 62, 233]
    assert test.class_pixels(1).sum() == 233 * 360 * 480
    assert test.class_pixels(1)[-1] / test.class_pixels(1).sum() == pytest.approx(0.0383, abs=1e-4)
    sample = train[Key(0, 0, 0)]
    assert isinstance(sample, LabelledImage)
    assert sample.image.shape == (3, 360, 480)
