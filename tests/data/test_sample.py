from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data

from compressnet.data import sample
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sample import Sample
from compressnet.errors import CompressnetError

ASSETS = {"operator": "rof:max_iterations=2"}


def test_splits(home: Path) -> None:
    assert [photo.name for photo in sample.photographs("train")] == [
        "coffee",
        "rocket",
        "retina",
        "hubble_deep_field",
    ]
    assert [photo.name for photo in sample.photographs("test")] == ["astronaut", "chelsea"]
    assert Sample().check() == []
    with pytest.raises(NoSuchSplit):
        Sample().open("val", ASSETS, 0)


def test_samples(home: Path) -> None:
    train = Sample(min_side=32, max_side=48, crop=32).open("train", ASSETS, 0)
    assert train.collate([train[Key(0, index, index)] for index in range(4)]).inputs.shape == (4, 3, 32, 32)
    assert Sample(test_side=40).open("test", ASSETS, 0)[Key(0, 1, 1)].input.shape == (3, 40, 60)


@pytest.mark.parametrize("credit", sample.TRAIN + sample.TEST, ids=lambda credit: credit.file)
def test_scikit_image_states_the_rights(credit: sample.Credit) -> None:
    said = getattr(skimage.data, Path(credit.file).stem).__doc__
    words = {"CC0": ["CC0"], "CC0 1.0": ["CC0 1.0"], "public domain": ["public domain"]}[credit.rights]
    assert all(word in " ".join(said.split()) for word in words)


def test_credits_name_every_photograph() -> None:
    lines = sample.credits()
    assert len(lines) == 6
    assert all(line.endswith(("(CC0)", "(CC0 1.0)", "(public domain)")) for line in lines)


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "_folder", lambda: tmp_path)
    with pytest.raises(CompressnetError, match=r"astronaut\.png, chelsea\.png .*reinstall scikit-image"):
        sample.photographs("test")
    assert len(Sample().check()) == 1
