"""DilatedConv2d is nn.Conv2d: values, gradients, second gradients, layouts, compiler, autocast."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.analysis.count import count
from compressnet.cost import total
from compressnet.layers.dilated_conv import DilatedConv2d, _DilatedConv, dilated_conv2d

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SIZES = [(67, 93), (33, 129), (5, 7), (1, 1), (70, 3)]  # no multiple of a stride, below the dilation


def pair(dilation: int, bias: bool = True, channels: int = 5) -> tuple[DilatedConv2d, nn.Conv2d]:
    torch.manual_seed(dilation)
    ours = DilatedConv2d(channels, 6, dilation, bias)
    plain = nn.Conv2d(channels, 6, 3, padding=dilation, dilation=dilation, bias=bias)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def gradients(layer: Any, x: Tensor, seed: int = 1) -> tuple[Tensor, list[Tensor]]:
    x = x.clone().requires_grad_()
    y = layer(x)
    torch.manual_seed(seed)
    weighting = torch.randn(y.shape)
    return y.detach(), list(torch.autograd.grad((y * weighting).sum(), [x, *layer.parameters()]))


def assert_near(ours: Tensor, plain: Tensor, tolerance: float = 1e-5) -> None:
    assert (ours - plain).abs().max() <= tolerance * plain.abs().max() + 1e-12


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dilation", [8, 16, 34, 64])
def test_equals_the_plain_convolution(
    dilation: int, size: tuple[int, int], layout: torch.memory_format
) -> None:
    ours, plain = pair(dilation)
    ours, plain = ours.to(memory_format=layout), plain.to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(2, 5, *size).contiguous(memory_format=layout)
    y, grads = gradients(ours, x)
    y_plain, grads_plain = gradients(plain, x)
    assert torch.equal(y, y_plain)
    for grad, grad_plain in zip(grads, grads_plain, strict=True):
        assert_near(grad, grad_plain)
        assert grad.stride() == grad_plain.stride() or min(size) == 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_first_and_second_gradients_in_float64(layout: torch.memory_format) -> None:
    x = torch.randn(2, 2, 19, 37, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def scalar(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return dilated_conv2d(x, weight, bias, dilation=34).square().mean()

    assert torch.autograd.gradcheck(scalar, (x, weight, bias))
    assert torch.autograd.gradgradcheck(scalar, (x[:1, :, :5, :7].detach().requires_grad_(), weight, bias))


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The dilations for which the own gradients were taken."""
    seen: list[int] = []
    apply = _DilatedConv.apply

    def spy(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        seen.append(dilation)
        return apply(x, weight, bias, dilation)

    monkeypatch.setattr(_DilatedConv, "apply", spy)
    return seen


def test_own_gradients_only_where_torch_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls(monkeypatch)
    x = torch.randn(1, 5, 20, 20)
    for dilation in (1, 8, 16, 32):
        layer = DilatedConv2d(5, 6, dilation)
        layer(x)
        with torch.no_grad():
            layer(x)
        layer.double()(x.double())
    assert seen == [16, 32]


def test_bfloat16_autocast_takes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls(monkeypatch)
    ours, plain = pair(16)
    x = torch.randn(1, 5, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        y, y_plain = ours(x), plain(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, y_plain)
    assert not seen


def test_frozen_weights_and_inputs_without_gradient() -> None:
    ours, _ = pair(32)
    x = torch.randn(1, 5, 40, 40)
    ours(x).sum().backward()
    assert ours.weight.grad is not None
    ours.requires_grad_(False)
    x.requires_grad_()
    ours(x).sum().backward()
    assert x.grad is not None
    assert not ours(x.detach()).requires_grad


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="DilatedConv2d: channels and dilation must be at least 1"):
        DilatedConv2d(3, 3, 0)


def test_exports() -> None:
    ours, plain = pair(32)
    x = torch.randn(1, 5, 40, 40)
    exported = torch.export.export(ours.eval(), (x,))
    assert torch.allclose(exported.module()(x), plain(x), atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_compiles_into_one_graph(layout: torch.memory_format) -> None:
    ours, plain = pair(32)
    net = nn.Sequential(ours, nn.LeakyReLU(0.2)).to(memory_format=layout)  # type: ignore[call-overload]
    compiled = torch.compile(copy.deepcopy(net), fullgraph=True)
    for size in ((41, 50), (63, 47)):  # the second size compiles with dynamic shapes
        x = torch.randn(1, 5, *size).contiguous(memory_format=layout)
        y, grads = gradients(compiled, x)
        y_plain, grads_plain = gradients(nn.Sequential(plain, nn.LeakyReLU(0.2)), x)
        assert torch.allclose(y, y_plain, atol=1e-6)
        for grad, grad_plain in zip(grads, grads_plain, strict=True):
            assert_near(grad, grad_plain)


def test_a_bias_is_optional() -> None:
    ours, plain = pair(16, bias=False)
    x = torch.randn(1, 5, 31, 31)
    for grad, grad_plain in zip(gradients(ours, x)[1], gradients(plain, x)[1], strict=True):
        assert_near(grad, grad_plain)
    assert torch.equal(ours(x), F.conv2d(x, ours.weight, None, 1, 16, 16))


@pytest.mark.parametrize("dilation", [1, 32])
def test_cost(dilation: int) -> None:
    layer = DilatedConv2d(5, 6, dilation)
    terms = layer.cost((2, 5, 10, 9))
    assert total(terms, "parameters") == 6 * 5 * 9 + 6
    assert total(terms, "macs") == 2 * 10 * 9 * 6 * 5 * 9
    counted = count(layer, (torch.rand(2, 5, 10, 9),))
    assert counted.problems == []
    assert counted.macs == total(terms, "macs")
