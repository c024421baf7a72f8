from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from compressnet.data import glyphs
from compressnet.data.glyphs import CLASSES, FONTS, Glyphs, letters
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import CompressnetError


def test_no_font_is_in_two_splits_and_none_draws_a_letter_as_another_does() -> None:
    for one, other in combinations(FONTS, 2):
        assert set(FONTS[one]).isdisjoint(FONTS[other])
    drawn = np.concatenate([letters(split) for split in FONTS]).reshape(-1, 64 * 64)
    assert len({letter.tobytes() for letter in drawn}) == len(drawn) == 10 * sum(map(len, FONTS.values()))
    edges = drawn.reshape(-1, 64, 64)[:, [0, 0, -1], [0, -1, 0]]
    assert not edges.any()  # whole letters


def test_pictures_are_a_function_of_seed_split_and_number() -> None:
    data, again, other = (Glyphs(count=50).open("train", {}, seed) for seed in (0, 0, 1))
    key = Key(2, 13, 113)
    assert torch.equal(data[key].pixels, again[key].pixels)
    assert not torch.equal(data[key].pixels, other[key].pixels)
    assert not torch.equal(data[key].pixels, data[Key(3, 13, 163)].pixels)
    for split in ("val", "test"):
        one, two = (Glyphs().open(split, {}, seed) for seed in (0, 1))
        assert torch.equal(one[Key(0, 7, 7)].pixels, two[Key(1, 7, 99)].pixels)
        assert one.facts() == two.facts()


def test_samples_and_facts() -> None:
    data = Glyphs(count=30, val_count=20, test_count=10).open("train", {}, 0)
    samples = [data[Key(0, index, index)] for index in range(30)]
    batch = data.collate(samples)
    assert batch.pixels.shape == (30, 3, 32, 32)
    assert batch.pixels.dtype == torch.uint8
    assert batch.labels.tolist() == [*range(10)] * 3
    assert all(sample.pixels.float().std() > 3 for sample in samples)  # something is on it
    assert [samples[1].name, data.name(29)] == ["train/B-1", "train/J-29"]
    assert data.facts()["synthetic"] is True
    facts = [Glyphs(count=30).open(split, {}, 0).facts()["fingerprint"] for split in FONTS]
    assert len(set(facts)) == 3


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Glyphs().check() == []
    with pytest.raises(NoSuchSplit, match="only train, val and test"):
        Glyphs().open("all", {}, 0)
    Glyphs().open("test", {"classes": list(CLASSES)}, 0)
    with pytest.raises(CompressnetError, match="the network knows x"):
        Glyphs().open("test", {"classes": ["x"]}, 0)
    monkeypatch.setattr(glyphs, "_folder", lambda: tmp_path)
    letters.cache_clear()
    with pytest.raises(CompressnetError, match=r"cmb10\.ttf, .* missing: reinstall matplotlib"):
        Glyphs().open("val", {}, 0)
    for name in FONTS["train"]:
        (tmp_path / f"{name}.ttf").write_bytes(b"no font")
    assert len(Glyphs().check()) == 1
    letters.cache_clear()
