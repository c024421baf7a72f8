from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from compressnet.recipe import Train
from compressnet.training.optimizer import Average, learning_rate, make_optimizer


def rates(**settings: object) -> list[float]:
    train = Train(steps=10, lr=1.0, **settings)  # type: ignore[arg-type]
    return [learning_rate(step, 10, train) for step in range(10)]


def test_schedules_are_functions_of_the_step() -> None:
    assert rates() == [1.0] * 10
    assert rates(schedule="linear") == pytest.approx([1 - step / 10 for step in range(10)])
    assert rates(schedule="cosine") == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]
    )
    assert rates(warmup_steps=4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates(schedule="cosine", warmup_steps=2, final_lr=0.5)[2] == 1.0
    assert min(rates(schedule="cosine", final_lr=0.5)) > 0.5
    assert rates(schedule="poly") == pytest.approx([(1 - step / 10) ** 0.9 for step in range(10)])
    assert rates(schedule="poly", power=2.0, final_lr=0.5)[5] == pytest.approx(0.5 + 0.5 * 0.25)


def test_pieces_of_steps_have_rates_of_their_own() -> None:
    pieces = [(3, 0.5), (5, 0.25), (2, 0.125)]
    assert rates(schedule="pieces", pieces=pieces) == [0.5] * 3 + [0.25] * 5 + [0.125] * 2
    assert rates(schedule="pieces", pieces=pieces, warmup_steps=2)[:3] == [0.25, 0.5, 0.5]


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "soap"])
def test_weight_decay_spares_vectors_and_scalars(kind: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(1, 1))
    optimizer = make_optimizer(model, Train(steps=1, optimizer=kind, weight_decay=0.1))  # type: ignore[arg-type]
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(p) for p in model.parameters() if p.ndim > 1}


@pytest.mark.parametrize(
    ("kind", "betas"), [("adam", (0.9, 0.999)), ("adamw", (0.9, 0.999)), ("soap", (0.95, 0.95))]
)
def test_betas_are_those_of_the_optimiser_unless_given(kind: Any, betas: tuple[float, float]) -> None:
    model = nn.Linear(1, 1)
    assert make_optimizer(model, Train(steps=1, optimizer=kind)).defaults["betas"] == betas
    given = make_optimizer(model, Train(steps=1, optimizer=kind, betas=[0.8, 0.9]))
    assert given.defaults["betas"] == (0.8, 0.9)


class Coded(nn.Module):
    """A matrix that must not decay, and whole numbers."""

    no_decay = ("scales",)

    def __init__(self) -> None:
        super().__init__()
        self.scales, self.weight = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
        self.codes = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)


def test_weight_decay_spares_what_a_module_names() -> None:
    model = nn.Sequential(Coded(), nn.Linear(2, 2))
    optimizer = make_optimizer(model, Train(steps=1, weight_decay=0.1))
    groups = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    coded = model[0]
    assert groups == [{id(coded.weight), id(model[1].weight)}, {id(coded.scales), id(model[1].bias)}]


def test_the_average_copies_whole_numbers() -> None:
    model = Coded()
    average = Average(model, decay=0.9)
    with torch.no_grad():
        model.codes.fill_(7)
        model.weight.fill_(2.0)
    average.update(model, step=1000)
    assert average.model.get_parameter("codes").tolist() == [7, 7, 7]
    assert average.model.get_parameter("weight").unique().item() == pytest.approx(1.1)


def test_the_average_follows_the_definition() -> None:
    model = nn.Linear(1, 1, bias=False)
    count = torch.tensor(0.0)
    model.register_buffer("count", count)
    with torch.no_grad():
        model.weight.fill_(0.0)
        average = Average(model, decay=0.9)
        model.weight.fill_(1.0)
        count.fill_(7.0)
        average.update(model, step=1000)
    assert average.model.get_parameter("weight").item() == pytest.approx(0.1)
    assert average.model.get_buffer("count").item() == 7.0
    average.update(model, step=0)  # a young average forgets its start faster
    assert average.model.get_parameter("weight").item() == pytest.approx(0.1 * 0.1 + 0.9 * 1.0)


def test_the_mean_of_all_weights_since_a_step() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(3.0)
        average = Average(model, None, since=7)
        for step, weight in ((7, 6.0), (8, 0.0), (9, 11.0)):
            model.weight.fill_(weight)
            average.update(model, step)
    assert average.model.get_parameter("weight").item() == pytest.approx((3 + 6 + 0 + 11) / 4)


def test_rates_that_follow_epochs_and_results() -> None:
    decay = Train(epochs=9, lr=8.0, schedule="decay", decay=0.5, decay_from=5)
    by_epoch = [learning_rate(0, 10, decay, epoch) for epoch in range(7)]
    assert by_epoch == [
        8.0,
        8.0,
        8.0,
        8.0,
        8.0,
        4.0,
        2.0,
    ]  # from the fifth on
    rise = Train(steps=9, lr=8.0, schedule="rise", decay=0.25)
    assert [learning_rate(0, 9, rise, 0, rises) for rises in range(3)] == [8.0, 2.0, 0.5]
