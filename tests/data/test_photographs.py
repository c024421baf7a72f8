from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressnet.data.photographs import Photograph, PhotographSplit, Sizes, crop_both, held_out
from compressnet.data.protocol import Key
from compressnet.data.sampler import endless_batches
from compressnet.errors import UsageError
from compressnet.reporter import Silent

ASSETS = {"operator": "rof:max_iterations=3"}


@pytest.fixture
def photographs(home: Path, make_photo: Any) -> list[Photograph]:
    return [Photograph(make_photo(home / f"{i}.png", 30 + i, 44), f"{i}.png") for i in range(3)]


def split(photographs: list[Photograph], train: bool = True, seed: int = 0, **sizes: Any) -> PhotographSplit:
    sizes = {"min_side": 16, "max_side": 28, **sizes}
    return PhotographSplit(photographs, Sizes(**sizes), train, ASSETS, seed)


@given(st.text(), st.integers(1, 3000), st.integers(1, 8))
def test_training_sides_are_bounded_and_never_enlarge(stem: str, short_side: int, count: int) -> None:
    sizes = Sizes(count=count)
    sides = sizes.training_sides(stem, short_side)
    assert sides == sizes.training_sides(stem, short_side)
    assert 1 <= len(sides) <= count
    assert sides == sorted(set(sides))
    assert all(min(320, short_side) <= side <= min(1440, short_side) for side in sides)


def test_training_sides_cover_the_range() -> None:
    drawn = [side for i in range(2000) for side in Sizes().training_sides(f"photo{i}", 4000)]
    assert min(drawn) < 325
    assert max(drawn) > 1435
    assert np.mean(drawn) == pytest.approx(880, abs=15)
    assert len(set(drawn)) > 1000  # the sets differ from photograph to photograph


def test_small_photograph_is_used_at_its_own_size() -> None:
    assert Sizes().training_sides("a", 200) == [200]
    assert Sizes(test_side=1080).evaluation_side(200) == 200
    assert Sizes(test_side=100).evaluation_side(200) == 100
    assert Sizes().evaluation_side(200) == 200


def test_sizes_that_contradict() -> None:
    with pytest.raises(UsageError, match=r"data\.min_side \(500\) is above data\.max_side \(400\)"):
        Sizes(min_side=500, max_side=400)
    with pytest.raises(UsageError, match=r"data\.crop \(512\) is above data\.min_side"):
        Sizes(crop=512)


def test_samples_are_a_function_of_seed_and_key(photographs: list[Photograph]) -> None:
    keys = [Key(epoch, 1, draw) for epoch in (0, 1) for draw in range(6)]
    first, second, other = (
        [split(photographs, crop=12, seed=seed)[key] for key in keys] for seed in (0, 0, 1)
    )
    assert all(torch.equal(a.input, b.input) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a.input, b.input) for a, b in zip(first, other, strict=True))
    assert len({a.input.sum().item() for a in first}) > 6  # sizes and places vary


def test_sizes_come_from_the_bounded_set(photographs: list[Photograph]) -> None:
    opened = split(photographs)
    seen = {min(opened[Key(0, 0, draw)].input.shape[1:]) for draw in range(60)}
    assert seen == set(opened.sides(0))
    assert len(seen) > 1


def test_other_seeds_find_the_same_targets(photographs: list[Photograph]) -> None:
    assert split(photographs, seed=0).sides(1) == split(photographs, seed=5).sides(1)


def test_crop_is_cut_from_the_target_of_the_whole_picture(photographs: list[Photograph]) -> None:
    opened = split(photographs, crop=12, min_side=20, max_side=20)
    whole_input, whole_target = opened.targets.get(photographs[0].path, 20)
    pair = opened[Key(0, 0, 3)]
    assert pair.input.shape == pair.target.shape == (3, 12, 12)
    height, width = whole_input.shape[:2]
    places = [
        (top, left)
        for top in range(height - 11)
        for left in range(width - 11)
        if np.array_equal(
            pair.input.numpy(), whole_input[top : top + 12, left : left + 12].transpose(2, 0, 1)
        )
    ]
    assert len(places) == 1
    ((top, left),) = places
    np.testing.assert_array_equal(
        pair.target.numpy(), whole_target[top : top + 12, left : left + 12].transpose(2, 0, 1)
    )


def test_evaluation_is_whole_and_deterministic(photographs: list[Photograph]) -> None:
    opened = split(photographs, train=False, crop=12)
    assert opened[Key(0, 2, 2)].input.shape == (3, 32, 44)
    assert torch.equal(opened[Key(0, 2, 2)].target, split(photographs, False, 9)[Key(4, 2, 7)].target)
    assert split(photographs, train=False, test_side=16)[Key(0, 2, 2)].input.shape == (3, 16, 22)


def test_prepare_makes_exactly_what_the_keys_need(
    photographs: list[Photograph], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = split(photographs, crop=12)
    stream = endless_batches(len(opened), 2, 0)
    keys = [key for _ in range(20) for key in next(stream)]
    opened.prepare(keys, 1, Silent())
    files = len(list(opened.targets.cache.folder.rglob("*.safetensors")))
    assert files == sum(len(opened.sides(index)) for index in range(3))
    monkeypatch.setattr(type(opened.targets), "_compute", lambda *_: pytest.fail("not prepared"))
    for key in keys:
        opened[key]


def test_prepare_of_few_keys_does_not_do_everything(photographs: list[Photograph]) -> None:
    opened = split(photographs)
    opened.prepare(iter([Key(0, 0, 0), Key(0, 1, 1)]), 1, Silent())
    assert len(list(opened.targets.cache.folder.rglob("*.safetensors"))) == 2


def test_facts_and_names_need_no_operator(photographs: list[Photograph], home: Path) -> None:
    opened = PhotographSplit(photographs, Sizes(), True, {}, 0, {"split": "ours"})
    facts = opened.facts()
    assert facts["count"] == 3
    assert facts["split"] == "ours"
    assert str(home) not in json.dumps(facts)
    assert opened.name(1) == "1.png"


@pytest.mark.parametrize("crop", [None, 12])
def test_without_an_operator_samples_are_the_inputs_of_those_with_one(
    photographs: list[Photograph], crop: int | None
) -> None:
    sizes = Sizes(min_side=16, max_side=28, crop=crop, flip=True)
    alone, paired = (PhotographSplit(photographs, sizes, True, assets, 3) for assets in ({}, ASSETS))
    assert (alone.has_targets, paired.has_targets) == (False, True)
    for draw in range(30):
        one, other = (opened[Key(0, draw % 3, draw)] for opened in (alone, paired))
        assert one.target is one.input
        assert torch.equal(one.input, other.input)
        assert not torch.equal(other.target, other.input)


def test_batches_of_photographs_alone_hold_them_once(photographs: list[Photograph]) -> None:
    sizes = Sizes(min_side=16, max_side=28, crop=12)
    for assets in ({}, ASSETS):
        opened = PhotographSplit(photographs, sizes, True, assets, 0)
        samples = [opened[Key(0, index, index)] for index in range(3)]
        batch = opened.collate(samples)
        assert (batch.targets is batch.inputs) == (not assets)
        assert torch.equal(batch.targets, torch.stack([sample.target for sample in samples]))


def test_fingerprint_sees_names_and_sizes_but_not_order(photographs: list[Photograph]) -> None:
    prints = [
        split(photos).facts()["fingerprint"] for photos in (photographs, photographs[::-1], photographs[:2])
    ]
    assert prints[0] == prints[1] != prints[2]
    photographs[0].path.write_bytes(photographs[0].path.read_bytes() + b" ")
    assert split(photographs).facts()["fingerprint"] != prints[0]


def test_held_out_share_is_what_was_asked_for() -> None:
    names = [f"photo{i}" for i in range(5000)]
    assert sum(held_out(name, 5) for name in names) == pytest.approx(250, abs=60)
    assert not any(held_out(name, 0) for name in names)
    assert {name for name in names if held_out(name, 2)} < {name for name in names if held_out(name, 5)}


def test_crop_of_something_smaller_takes_all_of_it() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    first, second = crop_both(pixels, pixels + 100, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(first, pixels)
    np.testing.assert_array_equal(second, pixels + 100)
