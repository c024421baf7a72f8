from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.analysis.streamed import Streamed, streamed
from compressnet.analysis.trace import NeedsValues
from compressnet.cost import Term
from compressnet.errors import CompressnetError, UsageError
from compressnet.layers.lstm import LSTM
from compressnet.layers.sru import SRU
from compressnet.layers.svdf import SVDF
from compressnet.layers.torch_lstm import TorchLSTM


class Recurrent(nn.Module):
    """y' = W [x, y] with a peephole that torch does not see; a state in two levels, with a position."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 4)
        self.peephole = nn.Parameter(torch.rand(4))

    def init_state(self, batch: int) -> Any:
        like = self.peephole
        return like.new_zeros(batch, 4), [torch.zeros((), dtype=torch.int64, device=like.device), None]

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        before, (position, nothing) = state
        after = self.linear(torch.cat([x, before], 1)) + before * self.peephole
        return after, (after, [position + 1, nothing])

    def step_cost(self, batch: int) -> list[Term]:
        symbols = {"B": batch, "n": 4}
        return [
            Term("macs", "weights", "B·7·n", symbols),
            Term("macs", "peepholes", "B·n", symbols, traced=False),
            Term("state", "y", "B·n", symbols),
        ]

    def example(self, batch: int = 1, size: int | None = None) -> tuple[Tensor]:
        return (torch.rand(batch, 3),)


def test_a_step_by_hand() -> None:
    assert streamed(Recurrent()) == Streamed(macs=7 * 4 + 4, state=4, state_bytes=4 * 4 + 8, per_second=None)
    half = streamed(Recurrent().to(torch.bfloat16))
    assert half is not None
    assert (half.state, half.state_bytes) == (4, 4 * 2 + 8)
    assert half.as_dict() == {"macs": 32, "state": 4, "state_bytes": 16, "per_second": None}


def test_the_step_of_a_layer() -> None:
    """Rank 2 of 5 units over 7 features and 6 frames: R(F + T)U products, a ring of R·T·U."""
    step = streamed(SVDF(7, 5, 6, rank=2))
    assert step is not None
    assert (step.macs, step.state) == (2 * (7 + 6) * 5, 2 * 6 * 5)
    lstm = streamed(TorchLSTM(3, 4))
    assert lstm is not None
    assert (lstm.macs, lstm.state) == (4 * (3 + 4) * 4, 8)


def test_a_model_counts_alike_wherever_it_is() -> None:
    with torch.device("meta"):
        empty = compressnet.create("kws_svdf", size="30k")
    model = compressnet.create("kws_svdf", size="30k")
    before = copy.deepcopy(model.state_dict())
    model.train()
    step = streamed(model)
    assert step == streamed(empty)
    assert step is not None
    assert step.state == 2_944 + 320  # frames of all layers, and the samples that the next window begins with
    assert step.per_second == 50
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(3, 3),
        compressnet.create("kws_tiny_embedding_conv"),
        LSTM(3, 4, bidirectional=True),
        SRU(3, 4, bidirectional=True),
        TorchLSTM(3, 4, bidirectional=True),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_does_not_stream(module: nn.Module) -> None:
    assert streamed(module) is None


class Odd(Recurrent):
    """Steps of another kind than ours."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        if fault == "no example":
            self.example = None  # type: ignore[assignment, method-assign]

    def init_state(self, batch: int) -> Any:
        if self.fault == "init":
            raise TypeError("init_state() takes 1 positional argument but 2 were given")
        return super().init_state(batch)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.fault == "step":
            raise ValueError("odd\nvery odd")
        if self.fault == "values" and x.sum().item() > 100:
            return x, state
        return super().step(x, state)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("no example", "Odd: nothing says what it takes; give it a method example"),
        ("init", r"Odd\.init_state\(1\): init_state\(\) takes 1 positional argument but 2 were given"),
        ("step", r"Odd\.step: cannot be run to be counted: ValueError: odd"),
    ],
)
def test_steps_that_cannot_be_counted_say_why(fault: str, problem: str) -> None:
    with pytest.raises(UsageError if fault == "no example" else CompressnetError, match=problem) as error:
        streamed(Odd(fault))
    assert "\n" not in str(error.value)


def test_a_step_that_needs_values_is_run_where_it_is() -> None:
    assert streamed(Odd("values")) == streamed(Recurrent())
    with pytest.raises(NeedsValues, match=r"Odd\.step: cannot be counted on meta"):
        streamed(Odd("values").to("meta"))
