from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressnet.analysis.count import count
from compressnet.analysis.example import example
from compressnet.errors import CompressnetError
from compressnet.models.can import CAN, LastLayer, Norm, Variant, can24, can32, dilations
from compressnet.models.can_released import released_kind

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "can24_l0_released.npz"
PHOTOGRAPH = GOLDEN.parents[1] / "data" / "fivek" / "input_1080p" / "000005.png"
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def golden() -> Arrays:
    if not GOLDEN.is_file():
        pytest.skip("needs the released weights (can24_l0_released.npz), which may not be distributed")
    return dict(np.load(GOLDEN))


def _rgb_input(golden: Arrays) -> Tensor:
    return torch.from_numpy(golden["input_bgr_u8"][..., ::-1] / np.float32(255)).permute(2, 0, 1)[None]


@torch.no_grad()
def _difference(net: CAN, x: Tensor, golden: Arrays) -> float:
    bgr = net(x)[0].permute(1, 2, 0).numpy()[..., ::-1]
    return float(np.abs(bgr - golden["output_bgr"]).max())


# ---- the released network


@pytest.mark.parametrize("training", [True, False])
def test_released_weights_give_the_authors_output(golden: Arrays, training: bool) -> None:
    net = CAN.from_released(golden).train(training)
    assert _difference(net, _rgb_input(golden), golden) <= 1e-5


def test_released_weights_without_prefix(golden: Arrays) -> None:
    bare = {name.removeprefix("weights/"): a for name, a in golden.items() if name.startswith("weights/")}
    assert _difference(CAN.from_released(bare), _rgb_input(golden), golden) <= 1e-5


def test_golden_file_catches_frozen_statistics_and_swapped_channels(golden: Arrays) -> None:
    assert _difference(CAN.from_released(golden, stats="frozen"), _rgb_input(golden), golden) > 0.01
    assert _difference(CAN.from_released(golden), _rgb_input(golden).flip(1), golden) > 0.01


def test_an_image_does_not_depend_on_its_batch(golden: Arrays) -> None:
    net, x = CAN.from_released(golden), _rgb_input(golden)
    with torch.no_grad():
        torch.testing.assert_close(net(torch.cat([x * 0.3, x]))[1:], net(x), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_released_network_imitates_our_l0(golden: Arrays) -> None:
    if not PHOTOGRAPH.is_file():
        pytest.skip("needs a photograph of FiveK (000005.png), which may not be distributed")
    from PIL import Image

    from compressnet.operators.l0 import L0

    photo = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"), dtype=np.float32) / 255
    with torch.no_grad():
        net = CAN.from_released(golden)(torch.from_numpy(photo).permute(2, 0, 1)[None])
    ours = np.round(net[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255)
    target = np.round(L0()(photo) * 255)
    psnr = 10 * np.log10(255**2 / np.mean((ours - target) ** 2))
    assert psnr == pytest.approx(36.5, abs=0.3)


def _as_released(net: Any) -> Arrays:
    """The inverse of the import, written from the table of names by itself."""
    arrays: Arrays = {}
    for i, block in enumerate(net.blocks):
        layer = f"g_conv{i + 1 if len(net.blocks) == 9 or i < 7 else 9}"
        weight = block.conv.weight.detach().clone()
        if i == 0:
            weight[:, [0, 1, 2]] = weight[:, [2, 1, 0]]
        arrays[f"{layer}/weights"] = weight.permute(2, 3, 1, 0).numpy()
        arrays[f"{layer}/w0"], arrays[f"{layer}/w1"] = (
            p.detach().numpy() for p in (block.norm.w0, block.norm.w1)
        )
        arrays[f"{layer}/BatchNorm/beta"] = block.norm.beta.detach().numpy()
    arrays["g_conv_last/weights"] = net.last.weight.detach().flip(0).permute(2, 3, 1, 0).numpy()
    arrays["g_conv_last/biases"] = net.last.bias.detach().flip(0).numpy()
    return arrays


def _noisy(net: CAN) -> CAN:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize(
    ("name", "channels"), [("can24", 3), ("can24", 4), ("can32", 3), ("can32", 4), ("can32", 13)]
)
def test_import_finds_out_which_network_it_is(name: str, channels: int) -> None:
    net = _noisy({"can24": can24, "can32": can32}[name](in_channels=channels))
    arrays = _as_released(net)
    told = {"condition": "planes", "conditions": channels - 3} if channels > 3 else {}
    assert released_kind(arrays) == (name, told)
    again = CAN.from_released(arrays)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)
    if told:
        x, condition = torch.rand(1, 3, 12, 17), torch.rand(1, channels - 3)
        planes = condition[:, :, None, None].expand(-1, -1, 12, 17)
        with torch.no_grad():
            assert torch.equal(again(x, condition), net(torch.cat([x, planes], dim=1)))


def test_import_ignores_the_optimiser() -> None:
    arrays = _as_released(can24())
    arrays |= {"g_conv1/weights/Adam": np.zeros(3, np.float32), "g_conv1/w0/Adam_1": np.zeros((), np.float32)}
    arrays |= {"beta1_power": np.zeros((), np.float32), "beta2_power": np.zeros((), np.float32)}
    CAN.from_released(arrays)


def _change(name: str, value: np.ndarray | None) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        rest = {key: array for key, array in arrays.items() if key != name}
        return rest if value is None else rest | {name: value}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change("g_conv3/w1", None), "missing g_conv3/w1"),
        (_change("g_conv1/weights", None), "no variable g_conv1/weights"),
        (_change("g_conv_last/biases", None), "missing g_conv_last/biases"),
        (_change("g_conv5/gamma", np.ones(24)), "unknown g_conv5/gamma"),
        (_change("g_conv2/weights", np.ones((3, 3, 24, 23))), r"g_conv2/weights has shape \(3, 3, 24, 23\)"),
        (_change("g_conv2/weights", np.ones(5)), r"g_conv2/weights has shape \(5,\)"),
        (_change("g_conv1/weights", np.ones((3, 3, 5, 24))), "3, 4 or 13 input channels"),
        (_change("g_conv1/weights", np.ones((3, 3, 3, 20))), "20 feature maps without g_conv8"),
        (_change("g_conv8/weights", np.ones((3, 3, 24, 24))), "24 feature maps with g_conv8"),
        (_change("g_conv4/w0", np.array(np.nan)), "g_conv4/w0 holds NaN"),
        (lambda arrays: {}, "found: nothing"),
    ],
)
def test_import_refuses_in_one_line(change: Callable[[Arrays], Arrays], message: str) -> None:
    with pytest.raises(CompressnetError, match=message) as error:
        CAN.from_released(change(_as_released(can24())))
    assert "\n" not in str(error.value)


# ---- the architecture


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize(
    ("builder", "channels", "count"),
    [(can24, 3, 37_219), (can32, 3, 74_997), (can32, 4, 75_285), (can32, 13, 77_877)],
)
def test_parameter_counts_of_the_paper(
    builder: Callable[..., CAN], channels: int, count: int, variant: Variant
) -> None:
    net = builder(in_channels=channels, variant=variant)
    assert sum(p.numel() for p in net.parameters()) == count
    assert sum(t.numel() for t in net.state_dict().values()) == count  # no buffers


COUNTS = [  # builder, input channels, parameters, MACs a pixel
    (can24, 3, 37_219, 37_008),
    (can32, 3, 74_997, 74_688),
    (can32, 4, 75_285, 74_976),
    (can32, 13, 77_877, 77_568),
]


@pytest.mark.parametrize(
    "arguments", [{}, {"variant": "paper"}, {"norm": "bn"}, {"norm": "none"}, {"stats": "frozen"}], ids=str
)
@pytest.mark.parametrize(("builder", "channels", "parameters", "macs"), COUNTS)
def test_counts_by_formula_and_by_trace(
    builder: Callable[..., CAN], channels: int, parameters: int, macs: int, arguments: dict[str, Any]
) -> None:
    with torch.device("meta"):
        net = builder(in_channels=channels, **arguments)
    counted = count(net, example(net, 2, (40, 50)))
    assert counted.problems == []
    assert counted.macs == counted.total("macs_trace") == macs * 2 * 40 * 50
    assert (counted.unit, counted.amount) == ("megapixel", 0.004)
    width, depth = net.last.in_channels, len(net.blocks)
    others = {"bn": 2 * width * depth, "none": width * depth}  # in place of w0, w1 and a bias a layer
    of_norm = (width + 2) * depth
    assert counted.parameters == parameters - of_norm + others.get(arguments.get("norm", ""), of_norm)
    if not arguments:
        layers = {layer.path: layer.parameters for layer in counted.folded(1)}
        assert layers == {"": 0, "blocks": parameters - 3 * width - 3, "last": 3 * width + 3}


def test_dilations_follow_from_the_depth() -> None:
    assert dilations(9) == [1, 2, 4, 8, 16, 32, 64, 1]
    assert dilations(10) == [1, 2, 4, 8, 16, 32, 64, 128, 1]
    convolutions = [m for m in can32().blocks.modules() if isinstance(m, nn.Conv2d)]
    assert [c.dilation for c in convolutions] == [(d, d) for d in dilations(10)]


@pytest.mark.parametrize(("builder", "field"), [(can24, 257), (can32, 513)])
def test_receptive_field(builder: Callable[..., CAN], field: int) -> None:
    net = builder(norm="none")
    with torch.no_grad():
        for parameter in net.blocks.parameters():
            parameter.fill_(0.05)  # positive everywhere: no path can cancel another
        net.last.weight.fill_(1.0)
    x = torch.zeros(1, 3, 1, field + 20, requires_grad=True)
    net(x)[0, :, 0, (field + 20) // 2].sum().backward()
    assert x.grad is not None
    reached = x.grad[0, 0, 0].nonzero().flatten()
    assert int(reached[-1] - reached[0]) + 1 == field


@pytest.mark.parametrize("channels", [3, 4, 13])
@pytest.mark.parametrize("norm", ["an", "none"])
def test_3x3_layers_start_as_the_identity(channels: int, norm: Norm) -> None:
    net = can24(in_channels=channels, norm=norm)
    (x,) = net.example(2, (11, 9))
    expected = torch.cat([x, torch.zeros(2, 24 - channels, 11, 9)], dim=1)
    torch.testing.assert_close(net.blocks(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["an", "bn", "none"])
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_shapes_types_and_gradients(norm: Norm, variant: Variant) -> None:
    net = can24(in_channels=4, norm=norm, variant=variant)
    (x,) = net.example(2, (13, 21))
    assert x.shape == (2, 4, 13, 21)
    y = net(x)
    assert y.shape == (2, 3, 13, 21)
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_smallest_image() -> None:
    assert can24()(torch.rand(1, 3, 1, 1)).isfinite().all()


def test_identity_start_returns_the_image_nearly() -> None:
    net = can24(last_layer="identity")
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(net(x), x, rtol=0, atol=1e-6)
    assert net.last.weight[:, 3:].abs().min() > 0
    bound = 0.3 * (6 / (24 + 3)) ** 0.5
    assert 0.8 * bound < net.last.weight[:, 3:].abs().max() <= bound


def test_glorot_start_is_uniform_within_its_bound() -> None:
    weight = can24().last.weight
    bound = (6 / (24 + 3)) ** 0.5
    assert 0.85 * bound < weight.abs().max() <= bound


def _channels_without_gradient(net: CAN) -> int:
    """After one step of training, over all layers."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, target = torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 40)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.mse_loss(net(x), target).backward()
        optimiser.step()
    kernels = [p.grad for p in net.blocks.parameters() if p.ndim == 4]
    silent = [int((g.abs().amax(dim=(1, 2, 3)) == 0).sum()) for g in kernels if g is not None]
    assert len(silent) == 8
    assert net.last.weight.grad is not None
    return sum(silent) + int((net.last.weight.grad.abs().amax(dim=(0, 2, 3)) == 0).sum())


@pytest.mark.parametrize("last_layer", ["glorot", "identity"])
def test_every_channel_gets_a_gradient_after_one_step(last_layer: LastLayer) -> None:
    torch.manual_seed(0)
    assert _channels_without_gradient(can24(last_layer=last_layer)) == 0


def test_a_zero_start_is_a_saddle() -> None:
    net = can24(last_layer="identity")
    with torch.no_grad():
        net.last.weight[:, 3:] = 0
    assert _channels_without_gradient(net) == 9 * 21


@pytest.mark.parametrize("arguments", [{"depth": 2, "width": 24}, {"depth": 9, "width": 0}])
def test_refuses_impossible_sizes(arguments: dict) -> None:
    with pytest.raises(ValueError, match="at least"):
        CAN(**arguments)


def test_frozen_statistics_need_adaptive_normalisation() -> None:
    with pytest.raises(ValueError, match="frozen"):
        can24(norm="bn", stats="frozen")


# ---- bfloat16 in channels_last on the CPU (torch 2.13)

_TRAIN = """
import torch
from compressnet.models.can import can24
net = can24()
x = torch.rand(1, 3, 40, 40).to(memory_format=torch.channels_last)
with torch.autocast("cpu", torch.bfloat16):
    {forward}
loss.float().backward()
assert all(p.grad.isfinite().all() for p in net.parameters())
"""
_GUARDED = _TRAIN.format(forward="loss = net(x).square().mean()")
_BARE = _TRAIN.format(
    forward="net = net.to(memory_format=torch.channels_last); loss = net.last(net.blocks(x)).square().mean()"
)


def _child(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


def test_guard_keeps_the_process_alive() -> None:
    assert _child(_GUARDED).returncode == 0


def test_guard_is_still_needed() -> None:
    child = _child(_BARE)
    if child.returncode == 0:
        pytest.skip(f"torch {torch.__version__} trains this on this CPU: CAN._without_crash may go")
    assert child.returncode < 0 or "AssertionError" in child.stderr, child.stderr  # a signal, or NaN


def test_channels_last_weights_are_refused_only_where_they_crash() -> None:
    net: Any = can24()
    net = net.to(memory_format=torch.channels_last)
    (x,) = net.example()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(CompressnetError, match="channels_last"):
        net(x)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert net(x).isfinite().all()
    net(x).sum().backward()
    wide: Any = can32()
    wide = wide.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        wide(x).float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in wide.parameters())


def test_mixed_kernels_carry_the_picture_and_read_edges() -> None:
    torch.manual_seed(0)
    net = can24(kernels="mixed", last_layer="identity")
    gray = torch.full((1, 3, 40, 40), 0.5)
    first = net.blocks[0](gray)[:, :, 1:-1, 1:-1]
    assert torch.allclose(first[:, :3], gray[:, :, 1:-1, 1:-1])
    assert first[:, 3:].abs().max() < 1e-5  # no edge, no answer
    picture = torch.rand(1, 3, 40, 40)
    features = net.blocks(picture)
    assert torch.allclose(features[:, :3], picture)
    assert (features[:, 3:].std(dim=(0, 2, 3)) > 1e-3).all()
    net(picture).square().mean().backward()
    for layer in range(8):
        gradient = net.get_parameter(f"blocks.{layer}.conv.weight").grad
        assert gradient is not None
        assert gradient.abs().amax((1, 2, 3)).min() > 0
