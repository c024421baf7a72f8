"""CAN24 on a small picture, and guided upsampling."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import compressnet
from compressnet import registry
from compressnet.analysis.count import count
from compressnet.analysis.fold import fold
from compressnet.data.images import Image
from compressnet.errors import CompressnetError, UsageError
from compressnet.kernels import can_gradient, can_layer
from compressnet.layers.guided_upsample import GuidedUpsample
from compressnet.models import can, can_training
from compressnet.models.can import CAN
from compressnet.models.can_small import SmallCAN, can24_small
from compressnet.reporter import Silent
from compressnet.tasks import image_apply
from compressnet.tasks.image_apply import Applier, Options, infer
from tests.tasks.test_image_apply import Notes

needs_kernel = pytest.mark.skipif(
    not can_layer.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)
needs_gradient = pytest.mark.skipif(
    not can_gradient.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)
KINDS: list[dict[str, Any]] = [
    *({}, {"norm": "bn"}, {"in_channels": 4}, {"out_channels": 1}, {"factor": 2}, {"factor": 1, "radius": 2}),
    *({"condition": "planes", "conditions": 2}, {"condition": "film", "conditions": 2}),
]
SIZES = [(1, 1), (1, 20), (19, 2), (50, 71)]
FORMS = {"winograd": 2e-5, "winograd_precise": 2e-5, "strips": 2e-5}


def trained(**options: Any) -> SmallCAN:
    """A network whose parameters are of no special values."""
    torch.manual_seed(0)
    net = can24_small(kernels="mixed", **options).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return net


def given(net: SmallCAN, *size: int) -> tuple[Tensor, ...]:
    """Two pictures, and what the network is told of each."""
    x, *told = net.example(2, size)  # type: ignore[arg-type]
    return x, *(torch.randn_like(condition) for condition in told)


def photograph(height: int = 70, width: int = 95, channels: int = 3, **fields: Any) -> Image:
    pixels = np.random.default_rng(1).random((height, width, channels), dtype=np.float32)
    return Image(pixels, **fields)


def plain(net: SmallCAN, image: Image) -> np.ndarray:
    x = torch.from_numpy(image.pixels.transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        return net(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()


def test_it_has_the_weights_of_can24_and_a_ninth_of_its_macs() -> None:
    small, large = (compressnet.create(name) for name in ("can24_small", "can24"))
    assert sum(parameter.numel() for parameter in small.parameters()) == 37_219
    of_small, of_large = (count(net, net.example(1, (96, 120))) for net in (small, large))  # type: ignore[operator]
    assert of_small.problems == []
    assert 9 * of_small.macs == of_large.macs


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_back_ends_equal_the_plain_form(options: dict[str, Any], size: tuple[int, int]) -> None:
    net = trained(**options)
    inputs = given(net, *size)
    with torch.no_grad():
        y, expected = net(*inputs), net.double()(*(x.double() for x in inputs))
    net.float()
    assert y.shape == (2, options.get("out_channels", 3), *size)
    assert (y - expected).abs().max() <= 2e-5 * expected.abs().max()
    for name, most in FORMS.items():
        form = registry.find("backend", name)(net)
        if form is None:
            assert name != "strips"
            continue
        told = [0]
        found = form(*inputs, progress=told.append)
        assert (found - expected).abs().max() <= most * expected.abs().max()
        assert sum(told) == form.rows(inputs[0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layouts(layout: torch.memory_format) -> None:
    net = trained()
    x = torch.rand(2, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(net(x.contiguous(memory_format=layout)), net(x), rtol=0, atol=1e-5)


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    net = trained()
    x = torch.rand(2, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1:], net(x[1:]), rtol=0, atol=1e-5)


def test_around_another_network() -> None:
    """What is constant stays so, and what is affine in the picture is exact."""
    net, x = can24_small(eps=1e-10), torch.rand(1, 3, 31, 44)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(net.around(lambda small: 0.5 - small, x), 0.5 - x, rtol=0, atol=1e-5)
            flat = net.around(lambda small: 2 * small, torch.full_like(x, 0.3))
            torch.testing.assert_close(flat, torch.full_like(x, 0.6), rtol=0, atol=1e-6)


def test_gradients_of_everything() -> None:
    torch.manual_seed(0)
    net = SmallCAN(CAN(3, 3, kernels="mixed"), GuidedUpsample(2, 1, 1e-2)).double()
    x = torch.rand(1, 3, 7, 5, dtype=torch.float64, requires_grad=True)
    parameters = dict(net.named_parameters())

    def call(x: Tensor, *values: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(net, dict(zip(parameters, values, strict=True)), (x,))
        return found

    assert torch.autograd.gradcheck(call, (x, *parameters.values()), atol=1e-4)


@needs_gradient
@pytest.mark.parametrize("options", [{}, {"variant": "paper"}, *KINDS[-2:]], ids=str)
def test_the_kernel_trains_as_autograd_does(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (can, can_training):
        monkeypatch.setattr(module, "NEGATIVE_SLOPE", 1.0)  # rounding decides about no pixel's sign
    net = trained(**options).train()
    inputs = given(net, 50, 64)
    target = torch.rand(2, 3, 50, 64)
    form = registry.find("backend", "winograd_training")(net)
    assert {id(p) for p in form.parameters()} == {id(p) for p in net.parameters()}

    def gradients(run: Any, net: Any, kind: torch.dtype) -> Tensor:
        net.zero_grad()
        (run(*(x.to(kind) for x in inputs)) - target.to(kind)).square().mean().backward()
        return torch.cat([parameter.grad.double().flatten() for parameter in net.parameters()])

    wide = copy.deepcopy(net).double()
    exact = gradients(wide, wide, torch.float64)
    for run in (form, net):
        assert (gradients(run, net, torch.float32) - exact).norm() <= 1e-5 * exact.norm()


@needs_gradient
def test_the_kernel_is_what_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    net = trained().train()
    monkeypatch.setattr(CAN, "forward", None)
    registry.find("backend", "winograd_training")(net)(torch.rand(2, 3, 20, 30)).sum().backward()
    assert net.can.last.weight.grad is not None


@needs_kernel
def test_new_weights_are_seen_and_hooks_are_not_left_out() -> None:
    net, x = trained(), torch.rand(1, 3, 40, 50)
    form = registry.find("backend", "winograd")(net)
    before = form(x)
    with torch.no_grad():
        net.get_parameter("can.blocks.3.conv.weight").mul_(1.5)
        torch.testing.assert_close(form(x), net(x), rtol=0, atol=1e-4)
        torch.testing.assert_close(infer(net, x), net(x), rtol=0, atol=1e-4)
    assert not torch.allclose(form(x), before, atol=1e-3)
    for module in (net, net.upsample, net.can.blocks[1]):
        handle = module.register_forward_hook(lambda module, inputs, output: output * 2)
        assert all(registry.find("backend", name)(net) is None for name in (*FORMS, "winograd_training"))
        handle.remove()


@needs_kernel
def test_memory_and_what_is_kept() -> None:
    form = registry.find("backend", "winograd")(trained())
    x = torch.rand(1, 3, 300, 400)
    before = form.bytes(300, 400)
    assert before > 100 * 134 * 24 * 4
    form.keeps = True
    form(x)
    assert form.keeps
    assert before - form.bytes(300, 400) == 100 * 134 * 24 * 4
    with pytest.raises(UsageError, match="float32 on the CPU only"):
        form(x.double())


@needs_kernel
def test_photographs_take_the_fastest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = trained(), photograph(300, 400)
    expected = plain(net, image)
    for options, backend in (
        ({}, "winograd"),
        ({"arithmetic": "precise"}, "winograd_precise"),
        ({"max_memory": 5}, "strips"),
        ({"dtype": "bfloat16"}, "strips"),
    ):
        made = Applier(net, Options(**options), Silent())(image)
        assert made.backend == backend
        np.testing.assert_allclose(made.pixels, expected, atol=0.1 if "dtype" in options else 2e-5)
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    with pytest.raises(CompressnetError, match=r"of 3000x400 needs at least \d+ MB, not 1$"):
        Applier(net, Options(max_memory=1), Silent())(photograph(400, 3000))
    monkeypatch.setattr(image_apply, "_QUIET_SECONDS", -1.0)
    shown = Notes()
    Applier(net, Options(), shown)(image)
    assert shown.stages == [("photograph", 100 * 9 + 300)]
    assert shown.advanced == 100 * 9 + 300


def test_gray_stays_gray_and_alpha_stays() -> None:
    net, image = trained(), photograph(channels=1, bits=16, alpha=np.full((70, 95), 0.5, np.float32))
    made = Applier(net, Options(), Silent())(image)
    assert made.pixels.shape == (70, 95, 1)
    assert made.alpha is image.alpha
    three = plain(net, Image(image.pixels.repeat(3, axis=2)))
    assert np.abs(made.pixels - three.mean(axis=2, keepdims=True)).max() < 0.2  # clamped before and after


def test_batch_norm_folds() -> None:
    net = trained(norm="bn")
    assert net.foldable()[0] == ["can.blocks.0.conv", "can.blocks.0.norm"]
    x = torch.rand(1, 3, 40, 50)
    folded = fold(net, (x,))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), net(x), rtol=0, atol=1e-4)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="every output plane is guided by an input plane: 4 of 3"):
        can24_small(out_channels=4)
    with pytest.raises(UsageError, match="factor"):
        compressnet.create("can24_small", factor=0)
    net = can24_small(condition="film", conditions=2)
    with pytest.raises(ValueError, match="takes a condition of 2 numbers"):
        net(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="takes no condition"):
        can24_small()(torch.rand(1, 3, 8, 8), torch.rand(1, 2))
