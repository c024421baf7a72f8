"""The back ends `winograd` and `winograd_precise` of a CAN."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressnet import registry
from compressnet.errors import UsageError
from compressnet.kernels import can_layer
from compressnet.models import can_winograd
from compressnet.models.can import CAN, can24, can32

needs_kernel = pytest.mark.skipif(
    not can_layer.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)
KINDS = [{}, {"variant": "paper"}, {"norm": "none"}, {"norm": "bn"}, {"stats": "frozen"}, {"in_channels": 5}]


def trained(make: Any = can24, **options: Any) -> CAN:
    """A network whose parameters and statistics are of no special values."""
    torch.manual_seed(0)
    net: CAN = make(kernels="mixed", **options).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, tensor in net.named_buffers():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + (0.5 if "var" in name else 0))
    return net


@needs_kernel
@pytest.mark.parametrize("make", [can24, can32])
@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (40, 23), (9, 130)])
def test_equals_the_plain_form(make: Any, options: dict[str, Any], size: tuple[int, int]) -> None:
    net = trained(make, **options)
    x = torch.rand(2, options.get("in_channels", 3), *size)
    with torch.no_grad():
        expected = net.double()(x.double())
    net.float()
    for name, most in (("winograd", 2e-5), ("winograd_precise", 1e-5)):
        found = registry.find("backend", name)(net)(x)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= most * expected.abs().max()


@needs_kernel
def test_new_weights_are_seen() -> None:
    net, x = trained(), torch.rand(1, 3, 20, 30)
    run = can_winograd.backend(net)
    assert run is not None
    before = run(x)
    with torch.no_grad():
        net.get_parameter("blocks.3.conv.weight").mul_(1.5)
        torch.testing.assert_close(run(x), net(x), rtol=0, atol=1e-4)
    assert not torch.allclose(run(x), before, atol=1e-3)


def _with(index: int, conv: torch.nn.Conv2d) -> CAN:
    """A network of which one convolution is another."""
    net = trained(norm="none")
    block: Any = net.blocks[index]
    block.conv = conv
    return net


@needs_kernel
@pytest.mark.parametrize(
    "net",
    [
        _with(0, torch.nn.Conv2d(3, 24, 3, padding=2, dilation=2)),
        _with(2, torch.nn.Conv2d(24, 24, 3, padding=1, stride=2)),
        _with(4, torch.nn.Conv2d(24, 32, 3, padding=1)),
        _with(5, torch.nn.Conv2d(32, 24, 3, padding=1)),
    ],
    ids=["dilated first", "stride", "more outputs", "more inputs"],
)
def test_other_convolutions_are_not_served(net: CAN) -> None:
    """The kernel believes its sizes: what is larger would be read from behind its end."""
    assert can_winograd.backend(net) is None


@needs_kernel
@pytest.mark.parametrize(
    "net",
    [CAN(4, 20), can24(in_channels=17), can24().double(), can24(norm="bn"), torch.nn.Conv2d(3, 3, 3)],
    ids=["20 channels", "17 planes", "float64", "batch norm in training", "no CAN"],
)
def test_others_are_not_served(net: torch.nn.Module) -> None:
    assert can_winograd.backend(net) is None
    assert can_winograd.precise_backend(net) is None


@needs_kernel
def test_other_types_are_refused() -> None:
    run = can_winograd.backend(trained())
    assert run is not None
    with pytest.raises(UsageError, match="float32 on the CPU only, not torch.float64"):
        run(torch.rand(1, 3, 4, 4, dtype=torch.float64))


def test_without_the_kernel_it_is_no_back_end() -> None:
    with can_layer.reference():
        assert can_winograd.backend(trained()) is None


@pytest.mark.parametrize(("length", "dilation"), [(1, 1), (720, 1), (719, 16), (90, 64), (5, 8)])
@pytest.mark.parametrize("size", [2, 4, 6])
def test_tiles_are_counted(length: int, dilation: int, size: int) -> None:
    phases = [range(first, length, dilation) for first in range(min(dilation, length))]
    assert can_winograd._along(size, length, dilation) == sum(-(-len(phase) // size) for phase in phases)
