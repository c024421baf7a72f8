from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet.data.cityscapes import Cityscapes
from compressnet.data.label_image import WholeImage
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import BadFiles, CompressnetError

ROWS = np.array([7, 26, 26, 0], np.uint8)


@pytest.fixture
def streets(home: Path, make_photo: Any) -> Path:
    root = home / "cityscapes"
    for split, cities in (("train", ("aachen", "ulm")), ("val", ("lindau",)), ("train_extra", ("graz",))):
        for city in cities:
            name = f"{split}/{city}/{city}_000000_000019"
            make_photo(root / "leftImg8bit" / f"{name}_leftImg8bit.png", 8, 16)
            kind = "gtCoarse" if split == "train_extra" else "gtFine"
            labels = np.repeat(ROWS, 2)[:, None].repeat(16, 1)
            save(root / kind / f"{name}_{kind}_labelIds.png", labels)
            objects = labels.astype(np.uint16) * np.where(labels == 26, 1000, 1).astype(np.uint16)
            save(root / kind / f"{name}_{kind}_instanceIds.png", objects)
            save(root / kind / f"{name}_{kind}_color.png", labels)
    return root


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(values).save(path)


def test_the_layout_as_distributed(streets: Path) -> None:
    data = Cityscapes(crop=[8, 8])
    train, val = data.open("train", {}, 0), data.open("val", {}, 0)
    assert [train.name(n) for n in range(2)] == ["aachen/aachen_000000_000019", "ulm/ulm_000000_000019"]
    assert len(Cityscapes(coarse=True).open("train", {}, 0)) == 3
    assert data.test_split == "val"
    whole = val[Key(0, 0, 0)]
    assert isinstance(whole, WholeImage)
    assert whole.labels[:, 0].tolist() == [0, 0, 13, 13, 13, 13, 255, 255]
    assert whole.instances is not None
    assert whole.instances[:, 0].tolist() == [7, 7, 26000, 26000, 26000, 26000, 0, 0]
    assert train.class_pixels().tolist() == [64, *[0] * 12, 128, *[0] * 5, 64]
    assert train.pairs[0].instances is None
    assert data.check() == []


def test_train_ids_where_there_is_nothing_else(streets: Path) -> None:
    before = Cityscapes().open("val", {}, 0)[Key(0, 0, 0)]
    for path in streets.glob("gtFine/*/*/*_labelIds.png"):
        values = np.asarray(Pillow.open(path))
        save(
            path.with_name(path.name.replace("labelIds", "labelTrainIds")),
            np.choose(np.searchsorted([0, 7, 26], values), [255, 0, 13]).astype(np.uint8),
        )
        path.unlink()
    for path in streets.glob("gtFine/*/*/*_instanceIds.png"):
        path.unlink()
    split = Cityscapes().open("val", {}, 0)
    after = split[Key(0, 0, 0)]
    assert isinstance(before, WholeImage)
    assert isinstance(after, WholeImage)
    assert after.labels.tolist() == before.labels.tolist()
    assert after.instances is None
    assert split.classes.ids[13] == 26  # what is written stays what the benchmark reads
    assert Cityscapes().check() == []


def test_what_is_missing(streets: Path, home: Path) -> None:
    with pytest.raises(NoSuchSplit, match=r"no labels of its test split: .*--set output=label_ids"):
        Cityscapes().open("test", {}, 0)
    with pytest.raises(NoSuchSplit, match="only train and val"):
        Cityscapes().open("extra", {}, 0)
    with pytest.raises(CompressnetError, match=r"is not there .*unpack leftImg8bit_trainvaltest\.zip"):
        Cityscapes("none").open("train", {}, 0)
    (streets / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    (streets / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png").unlink()
    with pytest.raises(BadFiles) as error:
        Cityscapes().open("train", {}, 0)
    assert "no labels ulm/ulm_000000_000019_gtFine_labelIds.png" in error.value.problems[0]
    assert "no photograph aachen/aachen_000000_000019_leftImg8bit.png" in error.value.problems[1]
    assert len(Cityscapes().check(headers=True)) == 2
    assert "is not there" in Cityscapes("none").check()[0]


def test_files_that_do_not_fit(streets: Path) -> None:
    save(
        streets / "gtFine/val/lindau/lindau_000000_000019_gtFine_instanceIds.png", np.zeros((4, 4), np.uint16)
    )
    save(streets / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png", np.full((8, 16), 40, np.uint8))
    problems = Cityscapes().check()
    assert len(problems) == 2
    assert "value 40 (128 pixels) is not in cityscapes" in problems[0]
    assert "instanceIds.png: not of the size of lindau_000000_000019_gtFine_labelIds.png" in problems[1]
    with pytest.raises(CompressnetError, match=r"instanceIds\.png: not of the size"):
        Cityscapes().open("val", {}, 0)[Key(0, 0, 0)]


def test_objects_of_some_photographs_only(streets: Path) -> None:
    for kind, root in (("leftImg8bit", "leftImg8bit"), ("gtFine_labelIds", "gtFine")):
        path = streets / root / f"val/lindau/lindau_000000_000019_{kind}.png"
        path.with_name(path.name.replace("19", "20")).write_bytes(path.read_bytes())
    with pytest.raises(
        BadFiles, match=r"000020_gtFine_labelIds\.png: no .*instanceIds\.png beside it, as others"
    ):
        Cityscapes().open("val", {}, 0)
