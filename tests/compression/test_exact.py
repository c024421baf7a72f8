"""Where nothing is cut off, what comes in the place of a layer computes the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.compression.methods import build
from compressnet.compression.network import Calibration, Network, Selection
from compressnet.layers.fold import difference
from tests.compression.networks import GEOMETRIES, compress, network

METHODS = ["svd", "channel_in", "channel_out", "spatial", "tucker"]
CASES = [
    (method, name)
    for method in METHODS
    for name in GEOMETRIES
    if (method == "svd") == ("linear" in name or "1x1" in name)
    and not (method == "spatial" and name == "conv1d")
]


@pytest.mark.parametrize(("method", "name"), CASES)
@pytest.mark.parametrize("is_free", [False, True])
@torch.no_grad()
def test_full_rank_is_exact(method: str, name: str, is_free: bool) -> None:
    make, shape = GEOMETRIES[name]
    torch.manual_seed(0)
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        module = nn.Sequential(make()).to(dtype)
        inputs = [torch.randn(shape, dtype=dtype) + 0.5 for _ in range(3)]
        looked = network(module, None if is_free else inputs)
        looked = looked if not is_free else _shaped(module, inputs)
        (part,) = looked.parts
        how: Any = build(method)
        assert how.refusal(part) is None
        found = looked.moments({"0": (how.reads(part),)})
        moments = {side: second for (_, side), second in found.items()}
        assert bool(moments) != is_free
        made = copy.deepcopy(module)
        pieces = how.pieces(part, moments, how.full(part))
        part.replaced(pieces).apply(made)
        assert [piece.weight.numel() for piece in pieces] == [
            sizes.weights for sizes in how.sizes(part, how.full(part))
        ]
        assert difference(made(inputs[0]), module(inputs[0])) < limit


def _shaped(module: nn.Module, inputs: list[Tensor]) -> Network:
    known = Calibration.of(inputs, module)
    known.is_data = False
    return Network(module, known, Selection())


@pytest.mark.parametrize(("method", "name"), CASES)
@torch.no_grad()
def test_densify_undoes_it(method: str, name: str) -> None:
    make, shape = GEOMETRIES[name]
    torch.manual_seed(0)
    module = nn.Sequential(make()).double()
    inputs = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]
    split = compress(module, inputs, f"{method}:ratio=0.9").module
    dense: Any = compress(split, inputs, "densify").module
    layer, original = dense[0], module[0]
    assert layer.weight.shape == original.weight.shape
    assert difference(dense(inputs[0]), split(inputs[0])) < 1e-10
    assert len(list(split.parameters())) > len(list(dense.parameters()))
