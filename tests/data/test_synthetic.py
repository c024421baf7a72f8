"""The problems of the paper on LSTM: each sequence against the paper's words."""

from __future__ import annotations

import re
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.synthetic import ORDER, PROBLEMS, REBER, Name, SequenceBatch, Synthetic, one_hot
from compressnet.errors import CompressnetError


def split(problem: str, which: str = "train", seed: int = 0, **arguments: Any) -> Any:
    return Synthetic(problem, **arguments).open(which, {}, seed)  # type: ignore[arg-type]


def sequences(problem: str, count: int = 200, **arguments: Any) -> list[SequenceBatch]:
    data = split(problem, **arguments)
    return [data[Key(0, 0, draw)] for draw in range(count)]


def text(inputs: Tensor, symbols: str) -> str:
    assert torch.equal(inputs.sum(-1), torch.ones(len(inputs)))
    return "".join(symbols[number] for number in inputs.argmax(-1).tolist())


@pytest.mark.parametrize("problem", get_args(Name))
def test_what_all_have_in_common(problem: str) -> None:
    known = PROBLEMS[problem]
    for one in sequences(problem, 20, steps=30):
        length = len(one.inputs)
        assert one.inputs.shape == (length, known.input_size)
        assert one.targets.shape == (length, known.output_size)
        assert one.inputs.dtype == one.targets.dtype == torch.float32
        assert (one.targets >= 0).all()
        assert (one.targets <= 1).all()
        assert not one.targets[~one.scored].any()
        if problem != "reber":
            assert 30 <= length <= 33
            assert one.scored.tolist() == [False] * (length - 1) + [True]


def test_every_problem_has_a_name() -> None:
    assert set(get_args(Name)) == set(PROBLEMS)


@pytest.mark.parametrize(("problem", "least"), [("adding", -1.0), ("multiplication", 0.0)])
def test_marked_pairs(problem: str, least: float) -> None:
    places, values, neutral = [], [], 0
    for one in sequences(problem, 1000):
        value, marker = one.inputs.unbind(-1)
        first, second = marker.eq(1).nonzero().flatten().tolist()
        assert first < 10  # one of the first ten
        assert second < 49  # the other of the first T/2 - 1
        assert marker[-1] == -1
        rest = marker.clone()
        rest[[first, second]] = 0
        assert rest.tolist() == [-1.0 if first else 0.0] + [0.0] * (len(rest) - 2) + [-1.0]
        a, b = value[first].item(), value[second].item()
        neutral += first == 0
        if first == 0:
            assert a == (0.0 if problem == "adding" else 1.0)
        wanted = 0.5 + (a + b) / 4 if problem == "adding" else a * b
        assert one.targets[-1].item() == pytest.approx(wanted, abs=1e-6)
        places.append(second)
        values += value[1:].tolist()
    assert 50 < neutral < 300  # a tenth, and a little by the second
    assert max(places) == 48
    assert min(values) == pytest.approx(least, abs=1e-3)
    assert max(values) == pytest.approx(1.0, abs=1e-3)
    assert np.mean(values) == pytest.approx((least + 1) / 2, abs=0.01)


@pytest.mark.parametrize(
    ("problem", "ranges"),
    [
        ("temporal_order_6a", [(10, 20), (50, 60)]),
        ("temporal_order_6b", [(10, 20), (33, 43), (66, 76)]),
    ],
)
def test_order_of_two_and_three(problem: str, ranges: list[tuple[int, int]]) -> None:
    """XX, XY, YX, YY are the classes 0 to 3."""
    found: list[list[int]] = []
    kinds = set()
    for one in sequences(problem, 500):
        symbols = text(one.inputs, ORDER)
        assert re.fullmatch("E[abcdXY]+B", symbols)
        places = [match.start() for match in re.finditer("[XY]", symbols)]
        found.append(places)
        kind = int("".join("01"["XY".index(symbols[place])] for place in places), 2)
        assert one.targets[-1].tolist() == [float(number == kind) for number in range(2 ** len(ranges))]
        kinds.add(kind)
    assert kinds == set(range(2 ** len(ranges)))
    for places, (least, most) in zip(np.array(found).T, ranges, strict=True):
        assert places.min() == least
        assert places.max() == most


def test_two_sequences() -> None:
    noise = []
    for one in sequences("two_sequence"):
        sign = 2 * one.targets[-1].item() - 1
        assert one.inputs[:3].flatten().tolist() == [sign] * 3
        noise.append(one.inputs[3:])
    assert torch.cat(noise).var().item() == pytest.approx(0.2, abs=0.01)


# The grammar as drawn, place by place, written out again: what may follow, by hand.
FOLLOWS = {0: "TP", 1: "SX", 2: "SX", 3: "E", 4: "VP", 5: "TV"}
LEADS = {
    (0, "T"): 1, (0, "P"): 5, (1, "S"): 1, (1, "X"): 2, (2, "S"): 3, (2, "X"): 5,
    (4, "V"): 3, (4, "P"): 2, (5, "T"): 5, (5, "V"): 4,
}  # fmt: skip


def test_strings_of_the_grammar() -> None:
    seen = set()
    for one in sequences("reber", 300):
        whole = text(one.inputs, REBER) + text(one.targets, REBER)[-1]
        assert text(one.targets, REBER) == whole[1:]
        assert one.scored.all()
        assert re.fullmatch("B(TB.*ET|PB.*EP)E", whole)
        seen.add(whole)
        place, wanted = 0, ["TP", "B", "TP"]
        for symbol in whole[3:-3]:
            place = LEADS[place, symbol]
            wanted.append(FOLLOWS[place])
        assert place == 3
        wanted += [whole[1], "E"]
        assert one.legal is not None
        for allowed, symbols in zip(one.legal.tolist(), wanted, strict=True):
            assert allowed == [symbol in symbols for symbol in REBER]
    assert "BTBTXSETE" in seen  # the shortest
    assert len(seen) > 100


def test_a_sequence_is_a_function_of_seed_split_and_number() -> None:
    def first(*arguments: Any, **more: Any) -> Tensor:
        found: Tensor = split("adding", *arguments, **more)[Key(0, 0, 0)].inputs
        return found

    assert torch.equal(first(), first(count=7))
    for other in (first("val"), first("test"), first(seed=1)):
        assert other.shape != first().shape or not torch.equal(other, first())


def test_fresh_ones_every_epoch_or_the_same() -> None:
    fresh, fixed, val = split("adding"), split("adding", fresh=False), split("adding", "val")
    early, late = Key(0, 3, 8), Key(4, 3, 99)
    assert fresh[early].targets.sum() != fresh[late].targets.sum()
    for data in (fixed, val):
        assert torch.equal(data[early].inputs, data[late].inputs)


@pytest.mark.parametrize("problem", ["adding", "reber"])
def test_a_batch_is_padded_behind_the_ends(problem: str) -> None:
    data = split(problem)
    samples = [data[Key(0, 0, draw)] for draw in range(8)]
    batch = data.collate(samples)
    longest = max(len(one.inputs) for one in samples)
    assert min(len(one.inputs) for one in samples) < longest
    assert batch.inputs.shape[:2] == batch.scored.shape == (longest, 8)
    for number, one in enumerate(samples):
        length = len(one.inputs)
        assert torch.equal(batch.inputs[:length, number], one.inputs)
        assert torch.equal(batch.targets[:length, number], one.targets)
        assert torch.equal(batch.scored[:length, number], one.scored)
        assert not batch.inputs[length:, number].any()
        assert not batch.scored[length:, number].any()
    assert (batch.legal is None) == (problem != "reber")


def test_facts_tell_data_apart() -> None:
    known = split("adding", count=10).facts()
    assert known["count"] == 10
    assert known == split("adding", count=10).facts()
    for other in (
        split("adding", count=10, steps=50),
        split("multiplication", count=10),
        split("adding", count=10, seed=1),
        split("adding", count=10, fresh=False),
    ):
        assert other.facts()["fingerprint"] != known["fingerprint"]


def test_what_is_refused() -> None:
    with pytest.raises(NoSuchSplit, match="only train, val and test"):
        split("adding", "extra")
    with pytest.raises(CompressnetError, match="learned the problem 'reber'.*set data.problem=reber"):
        Synthetic("adding").open("test", {"problem": "reber"}, 0)
    with pytest.raises(CompressnetError, match=r"\['q'\] are none of the symbols BTPSXVE"):
        one_hot("BTq", REBER)
