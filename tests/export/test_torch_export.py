"""Recurrent layers through `torch.export`, with which ONNX files begin: the number of steps stays open."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from compressnet.layers.exported_scan import exported_scan
from compressnet.layers.lstm import LSTM
from compressnet.layers.lstm_1997 import LSTM1997
from compressnet.layers.sru import SRU

LAYERS: dict[str, nn.Module] = {
    "lstm": LSTM(3, 5, 1, 2, 2, peepholes=True),
    "lstm_1997": LSTM1997(3, 2, 2, 2),
    "sru": SRU(3, 4, bidirectional=True),
}
OPEN = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}


def flat(result: tuple[Tensor, Any]) -> list[Tensor]:
    y, state = result
    return [y, *state] if isinstance(state, tuple) else [y, state]


@pytest.mark.parametrize("name", LAYERS)
def test_another_length_equals_the_layer(name: str) -> None:
    layer = LAYERS[name].double()
    program = torch.export.export(layer, (torch.randn(5, 2, 3).double(),), dynamic_shapes=(OPEN,)).module()
    for steps, batch in ((1, 1), (9, 4)):
        x = torch.randn(steps, batch, 3).double().requires_grad_()
        results = []
        for run in (layer, program):
            outputs = flat(run(x))
            results.append(
                [
                    *outputs,
                    torch.autograd.grad(torch.cat([y.flatten() for y in outputs]).square().sum(), x)[0],
                ]
            )
        for ours, wanted in zip(*results, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_an_axis_may_be_named(name: str) -> None:
    """A name is a promise for every size: torch refuses it where one was looked at."""
    layer, x = LAYERS[name].float(), torch.randn(9, 2, 3)
    program = torch.export.export(layer, (torch.randn(5, 2, 3),), dynamic_shapes=({0: Dim("time")},)).module()
    torch.testing.assert_close(flat(program(x)), flat(layer(x)), rtol=0, atol=1e-5)


def test_lengths_keep_the_steps_open() -> None:
    layer = LAYERS["lstm"].double()
    example = (torch.randn(5, 2, 3).double(), None, torch.tensor([5, 2]))
    shapes = (OPEN, None, {0: Dim.DYNAMIC})
    program = torch.export.export(layer, example, dynamic_shapes=shapes).module()
    x, lengths = torch.randn(8, 3, 3).double(), torch.tensor([8, 0, 3])
    for ours, wanted in zip(flat(program(x, None, lengths)), flat(layer(x, None, lengths)), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_the_loop(reverse: bool) -> None:
    """Sums of 1, 10, 100 with a weight of 2, by hand; one tensor goes in twice."""
    x = torch.tensor([[1.0], [10.0], [100.0]])

    def step(state: Any, at: Any, weight: Tensor) -> Any:
        total = state[0] + weight * at[0] + at[1]
        return (total,), (total,)

    (last,), (totals,) = exported_scan(step, (torch.zeros(1),), (x, x), torch.tensor(2.0), reverse)
    assert last.tolist() == [333.0]
    assert totals.flatten().tolist() == ([333.0, 330.0, 300.0] if reverse else [3.0, 33.0, 333.0])
