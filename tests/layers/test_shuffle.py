"""ShuffleUnit: what it computes, its layouts and types, what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import signature
from compressnet.analysis.count import count
from compressnet.analysis.fold import fold
from compressnet.errors import UsageError
from compressnet.layers.shuffle import ShuffleUnit

LAST = torch.channels_last


def lively(unit: ShuffleUnit) -> ShuffleUnit:
    """Norms that do something in evaluation."""
    for norm in unit.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                nn.init.uniform_(tensor, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    return unit.eval()


def by_hand(unit: ShuffleUnit, x: Tensor) -> Tensor:
    """The paper's unit: channel i of n groups of m goes to place (i % m) * n + i // m."""
    y = F.relu(unit.reduce_norm(unit.reduce(x)))
    if not unit.whole_input:
        each = y.shape[1] // unit.groups
        y = y[:, [group * each + place for place in range(each) for group in range(unit.groups)]]
    y = unit.expand_norm(unit.expand(unit.depthwise_norm(unit.depthwise(y))))
    if unit.adds:
        return F.relu(x + y)
    ones = torch.ones_like(x)
    mean = F.avg_pool2d(x, 3, unit.stride, 1) / F.avg_pool2d(ones, 3, unit.stride, 1)
    return F.relu(torch.cat([mean, y], 1))


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 3, 4]),
    stride=st.sampled_from([1, 2]),
    dilation=st.integers(1, 3),
    whole=st.booleans(),
    grows=st.booleans(),
    bias=st.booleans(),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_is_the_papers(
    groups: int, stride: Any, dilation: int, whole: bool, grows: bool, bias: bool, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    outputs = 24 if stride == 1 and not grows else 36 if groups != 4 else 48
    unit = lively(ShuffleUnit(24, outputs, groups, stride, 12, dilation, whole, bias))
    x = torch.randn(2, 24, *size)
    with torch.no_grad():
        y = unit(x)
        torch.testing.assert_close(y, by_hand(unit, x))
    assert y.shape == (2, outputs, *(-(-side // stride) for side in size))


def test_folds() -> None:
    unit = lively(ShuffleUnit(12, 24, 3, 2, bias=True))
    x = torch.randn(2, 12, 7, 9)
    folded = fold(unit, (x,))
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(folded(x), unit(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_keeps_channels_last(stride: Any) -> None:
    unit = ShuffleUnit(12, 12 * stride, 3, stride).to(memory_format=LAST)  # type: ignore[call-overload]
    layouts = []
    for part in unit.children():
        part.register_forward_pre_hook(
            lambda _, given: layouts.append(given[0].is_contiguous(memory_format=LAST))
        )
    x = torch.randn(2, 12, 9, 8).contiguous(memory_format=LAST).requires_grad_()
    y = unit(x)
    y.sum().backward()
    assert layouts == [True] * 6
    assert y.is_contiguous(memory_format=LAST)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_learns_in_bfloat16(dilation: int) -> None:
    torch.manual_seed(0)
    unit = ShuffleUnit(24, 48, 3, dilation=dilation).to(memory_format=LAST)  # type: ignore[call-overload]
    x = torch.randn(2, 24, 12, 10).contiguous(memory_format=LAST)
    exact = gradients(copy.deepcopy(unit), x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = gradients(unit, x)
    for ours, wanted in zip(rough, exact, strict=True):
        assert torch.isfinite(ours).all()
        assert (ours - wanted).norm() < 0.1 * wanted.norm() + 1e-3


def gradients(unit: ShuffleUnit, x: Tensor) -> list[Tensor]:
    unit(x).float().square().mean().backward()
    return [parameter.grad for parameter in unit.parameters() if parameter.grad is not None]


def test_costs_and_its_example() -> None:
    unit: Any = ShuffleUnit(240, 240, 3)
    (x,) = unit.example(2)
    found = count(unit, x)
    assert not found.problems
    assert found.macs == 2 * 28 * 28 * (2 * 240 * 60 // 3 + 60 * 9)
    assert found.parameters == 2 * 240 * 60 // 3 + 60 * 9 + 2 * (60 + 60 + 240)
    assert unit.example(1, (5, 7))[0].shape == (1, 240, 5, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 16, "out_channels": 48}, "in_channels is 16: it must be a multiple of 3"),
        ({"in_channels": 12, "out_channels": 24, "bottleneck": 8}, "bottleneck is 8"),
        ({"in_channels": 24, "out_channels": 24, "stride": 2}, "out_channels - in_channels is 0"),
        ({"in_channels": 24, "out_channels": 26, "bottleneck": 6}, "out_channels - in_channels is 2"),
        ({"in_channels": 24, "out_channels": 24, "stride": 3}, "'stride' should be 1 or 2"),
    ],
)
def test_what_it_refuses(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        signature.build("layer", "shuffle_unit", arguments)
