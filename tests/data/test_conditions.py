"""Which operator, or which strength, a sample has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressnet.data.conditions import Choice, Dial, conditions_of
from compressnet.data.photographs import Photograph, PhotographSplit, Sizes
from compressnet.data.protocol import Key
from compressnet.operators.rof import ROF
from compressnet.reporter import Silent

TWO: dict[str, Any] = {"operators": ["rof:max_iterations=2,weight=0.3", "rof:max_iterations=3"]}
DIAL: dict[str, Any] = {"operators": ["rof:max_iterations=2"], "dial": {"weight": [0.02, 0.5]}}


@pytest.fixture
def photographs(home: Path, make_photo: Any) -> list[Photograph]:
    for number in range(3):
        make_photo(home / "photos" / f"{number}.png", 20, 30)
    return [Photograph(home / "photos" / f"{number}.png", f"{number}.png") for number in range(3)]


def opened(
    photographs: list[Photograph], assets: dict[str, Any], train: bool, seed: int = 0
) -> PhotographSplit:
    return PhotographSplit(photographs, Sizes(16, 20, 1, crop=8 if train else None), train, assets, seed)


def test_a_choice_is_one_hot_and_drawn_by_weight() -> None:
    choice = Choice(["rof", "l0"], [3.0, 1.0])
    assert [told.numbers for told in choice.positions()] == [(1.0, 0.0), (0.0, 1.0)]
    assert [told.name for told in choice.positions()] == ["rof", "l0"]
    random = np.random.default_rng(0)
    drawn = Counter(choice.draw(7, random).operators for _ in range(2000))
    assert drawn[("rof",)] / 2000 == pytest.approx(0.75, abs=0.04)


def test_two_of_one_operator_are_told_apart() -> None:
    names = [told.name for told in Choice(["rof", "rof:weight=0.1", "l0"]).positions()]
    assert names == ["rof", "rof:weight=0.1", "l0"]


def test_the_target_of_a_blend_is_the_mean(photographs: list[Photograph]) -> None:
    choice = Choice(TWO["operators"])
    names = [told.name for told in choice.positions()]
    assert choice.blend({names[1]: 1.0}) == choice.positions()[1]
    told = choice.blend({names[0]: 0.25, names[1]: 0.75})
    assert (told.operators, told.shares) == (tuple(TWO["operators"]), (0.25, 0.75))
    assert told.numbers == (0.25, 0.75)
    split = opened(photographs, {**TWO, "asked": [told]}, train=False)
    every = opened(photographs, TWO, train=False)
    assert len(every) == 2 * len(split)
    one, two, both = every[Key(0, 0, 0)], every[Key(0, 1, 1)], split[Key(0, 0, 0)]
    assert torch.equal(both.input, one.input)
    wanted = (0.25 * one.target.double() + 0.75 * two.target.double()).round()
    assert torch.equal(both.target.double(), wanted)
    assert both.name == f"{photographs[0].name}, {told.name}"
    assert set(split.every_target()) == set(photographs)
    assert {operator for operator, _ in split.every_target()[photographs[0]]} == set(TWO["operators"])


def test_a_dial_counts_in_the_default() -> None:
    dial = conditions_of({"operators": ["l0:kappa=3"], "dial": {"lambda": [0.002, 0.02]}})
    assert isinstance(dial, Dial)
    told = dial.told(0.02)
    assert told.numbers == (2.0,)  # the network that was published: lambda = 0.01 p
    assert told.operators == ("l0:kappa=3,lambda=0.02",)
    values = [told.numbers[0] * 0.01 for told in dial.positions()]
    assert len(values) == 9
    assert values[0] == pytest.approx(0.002)
    assert values[-1] == pytest.approx(0.02)
    np.testing.assert_allclose(np.diff(np.log(values)), np.log(10) / 8, rtol=2e-3)


def test_a_photograph_has_few_strengths_and_all_together_many() -> None:
    dial = Dial("l0", "lambda", 0.002, 0.02)
    random = np.random.default_rng(0)
    of_one = {dial.draw(5, random).operators for _ in range(200)}
    of_all = {dial.draw(stem, random).operators for stem in range(50) for _ in range(20)}
    assert len(of_one) == len(dial.of_photograph(5)) == 4
    assert len(of_all) > 150
    assert all(0.2 <= dial.draw(stem, random).numbers[0] <= 2 for stem in range(100))


@pytest.mark.parametrize("assets", [TWO, DIAL], ids=["choice", "dial"])
def test_a_sample_is_a_function_of_seed_and_key(
    photographs: list[Photograph], assets: dict[str, Any]
) -> None:
    one, same, other = (opened(photographs, assets, True, seed) for seed in (0, 0, 1))
    keys = [Key(0, index % 3, index) for index in range(40)]
    told = [split._told(key) for split in (one, same, other) for key in keys]
    assert told[:40] == told[40:80] != told[80:]
    for key in keys[:6]:
        sample, again = one[key], same[key]
        assert torch.equal(sample.input, again.input)
        assert torch.equal(sample.target, again.target)
        assert sample.condition is not None
        assert again.condition is not None
        assert torch.equal(sample.condition, again.condition)
    batch = one.collate([one[key] for key in keys[:5]])
    assert batch.conditions is not None
    assert batch.conditions.shape == (5, 2 if assets is TWO else 1)


def test_conditions_change_no_other_draw(photographs: list[Photograph]) -> None:
    plain = opened(photographs, {"operator": "rof:max_iterations=2"}, True)
    told = opened(photographs, TWO, True)
    for index in range(6):
        key = Key(0, index % 3, index)
        assert torch.equal(plain[key].input, told[key].input)
    assert plain.collate([plain[Key(0, 0, 0)]]).conditions is None


def test_evaluation_sees_every_photograph_with_every_operator(photographs: list[Photograph]) -> None:
    split = opened(photographs, TWO, False)
    assert len(split) == 6
    names = [split.name(index) for index in range(6)]
    one, other = TWO["operators"]
    assert names[:3] == [f"0.png, {one}", f"0.png, {other}", f"1.png, {one}"]
    for index in range(6):
        sample = split[Key(0, index, index)]
        assert sample.name == names[index]
        assert sample.group == TWO["operators"][index % 2]
        weight, iterations = ((0.3, 2), (0.055, 3))[index % 2]
        pixels = sample.input.permute(1, 2, 0).numpy().astype(np.float32) / 255
        expected = ROF(weight=weight, max_iterations=iterations)(pixels)
        assert np.abs(sample.target.permute(1, 2, 0).numpy() / 255 - expected).max() < 0.5 / 255 + 1e-6
    assert len(opened(photographs, DIAL, False)) == 27


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("assets", [TWO, DIAL], ids=["choice", "dial"])
def test_targets_are_computed_ahead(
    photographs: list[Photograph], assets: dict[str, Any], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = opened(photographs, assets, True)
    keys = [Key(0, index % 3, index) for index in range(30)]
    split.prepare(keys, processes, Silent())
    monkeypatch.setattr(ROF, "__call__", None)  # none is left to compute
    for key in keys:
        split[key]
