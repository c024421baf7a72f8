"""The back ends `winograd` and `winograd_precise` of a CAN."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet import registry
from compressnet.errors import UsageError
from compressnet.kernels import can_layer
from compressnet.layers.chain import Chain
from compressnet.models import can_winograd
from compressnet.models.can import CAN, can24, can32

needs_kernel = pytest.mark.skipif(
    not can_layer.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)
GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "can24_l0_released.npz"
KINDS: list[dict[str, Any]] = [
    *({}, {"variant": "paper"}, {"norm": "none"}, {"norm": "bn"}, {"stats": "frozen"}, {"in_channels": 5}),
    *({"condition": "planes", "conditions": 4}, {"condition": "film", "conditions": 4}),
    {"condition": "film", "conditions": 1, "norm": "none"},
]


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
    condition = [torch.randn(2, options["conditions"])] if "conditions" in options else []
    with torch.no_grad():
        expected = net.double()(x.double(), *(given.double() for given in condition))
    net.float()
    for name, most in (("winograd", 2e-5), ("winograd_precise", 1e-5), ("strips", 1e-5)):
        found = registry.find("backend", name)(net)(x, *condition)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= most * expected.abs().max()


@needs_kernel
@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the golden file")
@pytest.mark.parametrize("name", ["winograd", "winograd_precise"])
def test_the_authors_network(name: str) -> None:
    golden = dict(np.load(GOLDEN))
    net = CAN.from_released(golden)
    x = torch.from_numpy(golden["input_bgr_u8"][..., ::-1] / np.float32(255)).permute(2, 0, 1)[None]
    bgr = registry.find("backend", name)(net)(x)[0].permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(bgr - golden["output_bgr"]).max() < 1e-5


@needs_kernel
def test_on_another_device_it_is_no_back_end() -> None:
    net = trained().to("meta")
    for name in ("winograd", "winograd_precise", "winograd_training"):
        assert registry.find("backend", name)(net) is None


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


def _with(index: int, conv: torch.nn.Module) -> CAN:
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
        _with(4, torch.nn.Conv2d(24, 24, 3, padding=1, padding_mode="reflect")),
        _with(4, torch.nn.Conv2d(24, 24, 3, padding=1, groups=2)),
        _with(4, torch.nn.Conv2d(24, 24, 5, padding=2)),
        _with(4, torch.nn.Conv2d(24, 24, 3, padding=(1, 2), dilation=(1, 2))),
        _with(5, torch.nn.Conv2d(32, 24, 3, padding=1)),
    ],
    ids=[
        "dilated first",
        "stride",
        "more outputs",
        "mirrored edges",
        "groups",
        "five taps",
        "two dilations",
        "more inputs",
    ],
)
def test_other_convolutions_are_not_served(net: CAN) -> None:
    """The kernel believes its sizes: what is larger would be read from behind its end."""
    assert can_winograd.backend(net) is None


@needs_kernel
@pytest.mark.parametrize(
    "net",
    [CAN(4, 33), can24(in_channels=17), can24().double(), can24(norm="bn"), torch.nn.Conv2d(3, 3, 3)],
    ids=["33 channels", "17 planes", "float64", "batch norm in training", "no CAN"],
)
def test_others_are_not_served(net: torch.nn.Module) -> None:
    assert can_winograd.backend(net) is None
    assert can_winograd.precise_backend(net) is None


def _conv(inputs: int, outputs: int, kernel: Any, bias: bool = False, d: int = 4) -> dict[str, Any]:
    kernel = kernel if isinstance(kernel, list) else [kernel, kernel]
    padding = [d * (size // 2) for size in kernel]
    args = {"in_channels": inputs, "out_channels": outputs, "kernel_size": kernel, "padding": padding}
    return {"layer": "conv2d", "args": {**args, "dilation": [d, d], "bias": bias}}


CHAINS = {
    "tucker": [_conv(24, 7, 1), _conv(7, 9, 3), _conv(9, 24, 1, bias=True)],
    "channels": [_conv(24, 10, 3), _conv(10, 24, 1)],
    "spatial": [_conv(24, 5, [3, 1]), _conv(5, 24, [1, 3])],
}


@needs_kernel
@pytest.mark.parametrize("layers", CHAINS.values(), ids=CHAINS)
def test_a_chain_runs_as_the_convolution_that_it_is(layers: list[dict[str, Any]]) -> None:
    net = _with(2, Chain(layers))
    run = can_winograd.backend(net)
    assert run is not None
    x = torch.rand(1, 3, 21, 34)
    with torch.no_grad():
        expected = net.double()(x.double())
    net.float()
    for change in (1, 2):  # weights that change are seen, in any part
        assert (run(x) - expected).abs().max() <= 2e-5 * expected.abs().max()
        with torch.no_grad():
            net.get_parameter(f"blocks.2.conv.{len(layers) - 2}.weight").mul_(1 + change)
            expected = net(x)


@needs_kernel
@pytest.mark.parametrize(
    "layers",
    [
        [_conv(24, 7, 1, bias=True), _conv(7, 24, 3)],
        [_conv(24, 7, 3), _conv(7, 24, 3)],
        [_conv(24, 7, 1), _conv(7, 24, 1)],
        [_conv(24, 7, [3, 1]), _conv(7, 24, [1, 3], d=2)],
    ],
    ids=["a bias before the zeros", "two of 3x3", "none of 3x3", "two dilations"],
)
def test_other_chains_are_not_served(layers: list[dict[str, Any]]) -> None:
    assert can_winograd.backend(_with(2, Chain(layers))) is None


@needs_kernel
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 32), st.integers(3, 7), st.integers(1, 50), st.integers(1, 50), st.integers(1, 3))
def test_any_width_up_to_32(width: int, depth: int, height: int, across: int, batch: int) -> None:
    torch.manual_seed(width)
    net, x = CAN(depth, width, kernels="mixed").eval(), torch.rand(batch, 3, height, across)
    with torch.no_grad():
        expected = net.double()(x.double())
    for precise, most in ((False, 2e-5), (True, 1e-5)):
        found = can_winograd.Winograd(net.float(), precise)(x)
        assert (found - expected).abs().max() <= most * expected.abs().max()


@needs_kernel
def test_progress_memory_and_tiles() -> None:
    run, told = can_winograd.Winograd(trained()), [0]
    x = torch.rand(2, 3, 30, 40)
    before = run.bytes(30, 40)
    run(x)
    assert run.bytes(30, 40) == before  # nothing is held
    run.keeps = True
    run(x, progress=told.append)
    assert sum(told) == run.rows(x) == 2 * 30 * 9
    assert before - run.bytes(30, 40) == 30 * 40 * 24 * 4  # held
    assert run.bytes(40, 30) > 40 * 30 * 24 * 4
    assert len(run.tiles(30, 40)) == 7
    assert set(can_winograd.Winograd(trained(), precise=True).tiles(720, 1280)) <= {0, 2}


@needs_kernel
@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.mul_(1.5),
        lambda weight: weight.data.mul_(1.5),
        lambda weight: np.multiply(weight.detach().numpy(), 1.5, out=weight.detach().numpy()),
    ],
    ids=["in place", "through .data", "through numpy"],
)
def test_weights_that_change_in_any_way_are_seen(change: Any) -> None:
    net, x = trained(), torch.rand(1, 3, 20, 30)
    run = can_winograd.backend(net)
    assert run is not None
    run(x)
    with torch.no_grad():
        change(net.get_parameter("blocks.3.conv.weight"))
        torch.testing.assert_close(run(x), net(x), rtol=0, atol=1e-4)


@needs_kernel
def test_networks_with_hooks_run_as_they_are() -> None:
    net = trained()
    handle = net.blocks[1].register_forward_hook(lambda module, inputs, output: output * 2)
    for name in ("winograd", "strips", "winograd_training"):
        assert registry.find("backend", name)(net) is None
    handle.remove()
    assert can_winograd.backend(net) is not None


@needs_kernel
def test_threads_of_python_do_not_disturb_each_other() -> None:
    net = trained()
    run = can_winograd.backend(net)
    assert run is not None
    run.keeps = True
    inputs = [torch.rand(1, 3, 60, 70) for _ in range(8)]
    expected = [run(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(run, inputs))
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@needs_kernel
def test_networks_made_in_inference_mode() -> None:
    with torch.inference_mode():
        net, x = can24(kernels="mixed").eval(), torch.rand(1, 3, 9, 9)
        run = can_winograd.backend(net)
        assert run is not None
        torch.testing.assert_close(run(x), net(x), rtol=0, atol=1e-4)


@needs_kernel
@pytest.mark.parametrize("shape", [(1, 3, 0, 5), (1, 3, 5, 0), (3, 5, 5)])
def test_what_is_no_picture_goes_to_the_network(shape: tuple[int, ...]) -> None:
    run = can_winograd.backend(trained())
    assert run is not None
    assert not run.is_for(torch.rand(shape))
    with pytest.raises(ValueError, match="images of 3 planes, not of 4"):
        run(torch.rand(1, 4, 8, 8))


@needs_kernel
def test_a_network_that_is_changed_is_refused() -> None:
    net = trained()
    run = can_winograd.backend(net)
    assert run is not None
    block: Any = net.blocks[3]
    block.conv = torch.nn.Conv2d(24, 24, 5, padding=2)
    with pytest.raises(UsageError, match="has been changed"):
        run(torch.rand(1, 3, 8, 8))


@needs_kernel
def test_other_types_are_refused() -> None:
    run = can_winograd.backend(trained())
    assert run is not None
    with pytest.raises(UsageError, match="float32 on the CPU only, not torch.float64"):
        run(torch.rand(1, 3, 4, 4, dtype=torch.float64))


def test_without_the_kernel_it_is_no_back_end() -> None:
    with can_layer.reference():
        assert can_winograd.backend(trained()) is None
