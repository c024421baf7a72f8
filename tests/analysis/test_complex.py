"""A product of complex numbers is four of real ones, by formula and as traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.analysis.count import count

_SHAPES: dict[str, tuple[Callable[..., nn.Module], list[tuple[int, ...]]]] = {
    "linear": (lambda **kind: nn.Linear(3, 4, **kind), [(2, 3)]),
    "conv1d": (lambda **kind: nn.Conv1d(2, 4, 3, groups=2, **kind), [(2, 2, 9)]),
    "conv2d": (lambda **kind: nn.Conv2d(3, 4, 3, padding="same", **kind), [(1, 3, 5, 6)]),
    "conv_transpose2d": (lambda **kind: nn.ConvTranspose2d(3, 4, 3, stride=2, **kind), [(1, 3, 5, 6)]),
    "bilinear": (lambda **kind: nn.Bilinear(3, 4, 5, **kind), [(2, 3), (2, 4)]),
    "rnn": (lambda **kind: nn.RNN(3, 4, **kind), [(5, 2, 3)]),
}


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


@pytest.mark.parametrize("name", _SHAPES)
def test_layers(name: str) -> None:
    make, shapes = _SHAPES[name]
    real = count(make(), tuple(torch.zeros(shape) for shape in shapes))
    found = count(
        make(dtype=torch.complex64), tuple(torch.zeros(shape, dtype=torch.complex64) for shape in shapes)
    )
    assert real.macs > 0
    assert found.macs == found.total("macs_trace") == 4 * real.macs
    assert found.parameters == real.parameters
    assert found.problems == []


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (torch.matmul, [(2, 3), (3, 4)]),
        (torch.bmm, [(5, 2, 3), (5, 3, 4)]),
        (torch.mv, [(2, 3), (3,)]),
        (torch.vdot, [(7,), (7,)]),
        (torch.addmm, [(2, 4), (2, 3), (3, 4)]),
        (torch.addr, [(2, 4), (2,), (4,)]),
        (nn.functional.conv2d, [(1, 3, 8, 8), (4, 3, 3, 3)]),
        (lambda a, b: torch.einsum("ij,kj->ik", a, b.conj()), [(2, 3), (4, 3)]),
    ],
)
def test_functions(function: Any, shapes: list[tuple[int, ...]]) -> None:
    def traced(dtype: torch.dtype) -> int:
        return count(_Function(function), tuple(torch.zeros(shape, dtype=dtype) for shape in shapes)).macs

    assert traced(torch.complex128) == 4 * traced(torch.float64) > 0
