"""Stacks of recurrent layers: sizes, states, names."""

from __future__ import annotations

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
    assert stack.output_size == width
    assert {name.split(".")[0] for name, _ in stack.named_parameters()} == {"0", "1"}


def test_a_last_size() -> None:
    assert RecurrentStack("lstm", 3, 6, 3, last_size=7).output_size == 7
    assert RecurrentStack("lstmp:proj_size=4", 3, 6, 3, last_size=7).output_size == 4


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
