"""Stacks of recurrent layers: sizes, states, names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressnet.errors import UsageError
from compressnet.layers.recurrent_stack import RecurrentStack


@pytest.mark.parametrize(
    ("cell", "width", "state"),
    [
        ("sru", 6, [(1, 2, 6)] * 2),
        ("lstm", 6, [(1, 2, 6)] * 4),
        ("torch_lstm", 6, [(1, 2, 6)] * 4),
        ("lstmp:proj_size=4", 4, [(1, 2, 4), (1, 2, 6)] * 2),
    ],
)
def test_cells_take_what_is_below_and_states_are_flat(
    cell: str, width: int, state: list[tuple[int, ...]]
) -> None:
    stack = RecurrentStack(cell, 3, 6, 2)
    x = torch.rand(5, 2, 3)
    zeros = stack.init_state(2)
    assert [tuple(tensor.shape) for tensor in zeros] == state
    for own, part in stack.with_states(zeros):
        x, after = own.step(x, part)
        assert type(after) is type(part)
    assert x.shape == (5, 2, width)
    whole, _ = stack(stack.example(2, 5)[0])
    assert whole.shape == x.shape
    assert stack.output_size == width
    assert {name.split(".")[0] for name, _ in stack.named_parameters()} == {"0", "1"}


@pytest.mark.parametrize("cell", ["sru", "lstmp:proj_size=4"])
def test_the_stack_is_its_cells_one_after_the_other_and_streams(cell: str) -> None:
    stack, x = RecurrentStack(cell, 3, 6, 2).double(), torch.rand(5, 2, 3, dtype=torch.float64)
    below, above = list[Any](stack)
    first, _ = below.step(x, below.init_state(2, dtype=x.dtype))
    wanted, _ = above.step(first, above.init_state(2, dtype=x.dtype))
    torch.testing.assert_close(stack(x)[0], wanted)
    start, state = stack(x[:2])
    rest, _ = stack.step(x[2:], state)
    torch.testing.assert_close(torch.cat([start, rest]), wanted)


def test_a_last_size() -> None:
    assert RecurrentStack("lstm", 3, 6, 3, last_size=7).output_size == 7
    assert RecurrentStack("lstmp:proj_size=4", 3, 6, 3, last_size=7).output_size == 4
    # The `proj_size` of an SRU is an inner one: it does not project its outputs.
    assert RecurrentStack("sru:proj_size=4", 3, 6, 3, last_size=7).output_size == 7


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("conv2d", "unknown key"),
        ("no_such", "there is no layer"),
        ("sru:bidirectional=true", "cannot stream"),
    ],
)
def test_what_is_no_cell(cell: str, message: str) -> None:
    with pytest.raises((ValueError, UsageError), match=message):
        RecurrentStack(cell, 3, 6, 1)
