"""Training a CAN in C: its gradients against the plain network's, and when the plain network runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from compressnet import registry
from compressnet.kernels import can_gradient, can_layer
from compressnet.models import can, can_training
from compressnet.models.can import CAN, can24, can32
from compressnet.models.can_training import TrainedInC

pytestmark = pytest.mark.skipif(
    not can_gradient.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)
KINDS: list[dict[str, Any]] = [
    *({}, {"variant": "paper"}, {"in_channels": 5}, {"out_channels": 1}),
    *({"condition": "planes", "conditions": 2}, {"condition": "film", "conditions": 2}),
]
SIZES = [(1, 1, 1), (2, 40, 23), (3, 9, 70), (1, 67, 63)]
MOST = 2e-6  # of the norm of all gradients together


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without_kink(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slope of 1: rounding decides about no pixel's."""
    for module in (can, can_training):
        monkeypatch.setattr(module, "NEGATIVE_SLOPE", 1.0)


def network(make: Any = can24, **options: Any) -> CAN:
    """One whose parameters are of no special values."""
    torch.manual_seed(0)
    net: CAN = make(kernels="mixed", **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return net


def trained(net: nn.Module) -> TrainedInC:
    run = can_training.backend(net)
    assert run is not None
    return run


def condition_of(net: Any, x: Tensor) -> list[Tensor]:
    """A condition for each image, where the network takes one."""
    count = len(x) * net.conditions
    return [torch.linspace(-0.7, 1.3, count).view(len(x), -1).to(x)] if count else []


def gradients(run: Callable[..., Tensor], net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Of all parameters, in one."""
    net.zero_grad()
    (run(x, *condition_of(net, x)) - target).square().mean().backward()
    return torch.cat([parameter.grad.double().flatten() for parameter in net.parameters()])  # type: ignore[union-attr]


def case(net: CAN, batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = net.example(batch, (height, width))[0]
    return x, torch.rand(batch, net.last.out_channels, height, width)


def exact(net: CAN, x: Tensor, target: Tensor) -> Tensor:
    """By torch in float64."""
    wide = copy.deepcopy(net).double()
    return gradients(wide, wide, x.double(), target.double())


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("make", [can24, can32])
@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_gradients(
    make: Any, options: dict[str, Any], size: tuple[int, int, int], without_kink: None
) -> None:
    net = network(make, **options)
    x, target = case(net, *size)
    run = trained(net)
    with torch.no_grad():
        plain = net(x, *condition_of(net, x))
    torch.testing.assert_close(_trains(run, x), plain, rtol=1e-4, atol=1e-4)
    assert apart(gradients(run, net, x, target), exact(net, x, target)) <= MOST


def _trains(run: TrainedInC, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return run(x, *condition_of(run.net, x)).detach()


@pytest.mark.parametrize("level", [1, 3, 4])
@pytest.mark.parametrize("tiles", can_gradient.TILES)
@pytest.mark.parametrize("make", [can24, can32])
def test_every_size_of_tiles_on_every_processor(
    make: Any, tiles: int, level: int, without_kink: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = can_layer.level(level)
    monkeypatch.setattr(can_training, "choose", lambda *_: tiles)
    monkeypatch.setattr(can_training, "_X86_64_V3", 1)
    monkeypatch.setattr(can_layer, "level", lambda: runs)
    net = network(make)
    x, target = case(net, 2, 45, 34)
    assert apart(gradients(trained(net), net, x, target), exact(net, x, target)) <= MOST


def test_gradients_on_photographs_are_as_exact_as_torchs() -> None:
    """Of several pictures: in one, few pixels decide, whose sign rounding changes in torch as well."""
    errors = []
    for seed in range(4):
        net = network()
        torch.manual_seed(seed)
        for parameter in net.parameters():
            parameter.data += torch.randn_like(parameter) * 0.01
        at = 20 * seed
        crops = [data.astronaut()[at : at + 96, 150:246], data.chelsea()[60 + at : 156 + at, 100:196]]
        x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
        target = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
        expected = exact(net, x, target)
        errors.append([apart(gradients(run, net, x, target), expected) for run in (trained(net), net)])
    ours, of_torch = torch.tensor(errors).square().mean(0).sqrt()
    assert ours <= 3 * of_torch


def test_black_trains_as_with_torch() -> None:
    """Exact zeros pass through identity kernels: their slope is negative values', not one by chance."""
    torch.manual_seed(0)
    x = torch.rand(2, 3, 48, 48)
    x[:, :, :30] = 0
    target = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    losses = []
    for way in (lambda net: net, trained):
        torch.manual_seed(2)
        net = can24(kernels="mixed", last_layer="identity")
        run, optimizer = way(net), torch.optim.Adam(net.parameters(), 1e-3)
        found = []
        for _ in range(20):
            loss = (run(x) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        losses.append(torch.stack(found))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("height", "width"), [(20, 9), (9, 20)])
def test_taps_that_never_meet_the_image_get_no_gradient(height: int, width: int) -> None:
    net = network()
    x, target = case(net, 1, height, width)
    gradients(trained(net), net, x, target)
    blocks: Any = net.blocks
    for block in blocks[1:]:
        dilation, weight = block.conv.dilation[0], block.conv.weight.grad
        meets = torch.ones(3, 3, dtype=torch.bool)
        if dilation >= height:
            meets[::2] = False
        if dilation >= width:
            meets[:, ::2] = False
        assert (weight[:, :, ~meets] == 0).all()
        assert (weight[:, :, meets] != 0).all()


def test_threads_and_repetition_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(can_gradient, "_PIXELS", 1000)
    net = network(variant="paper")
    x, target = case(net, 2, 64, 50)
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        found.append(gradients(trained(net), net, x, target))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    net = network()
    x, target = case(net, 2, 30, 31)
    x[1, 1, 7, 8] = value
    found = gradients(trained(net), net, x, target)
    assert not torch.isfinite(found).all()


def test_layouts_change_no_bit() -> None:
    net = network()
    x, target = case(net, 2, 24, 31)
    expected = gradients(trained(net), net, x, target)
    last: Any = copy.deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wide = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(gradients(trained(last), last, wide, target), expected)


def test_a_graph_that_is_kept_gives_the_same_again() -> None:
    net = network()
    x, target = case(net, 1, 12, 13)
    loss = (trained(net)(x) - target).square().mean()
    first, second = (torch.autograd.grad(loss, list(net.parameters()), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_parameters_are_shared_and_some_may_rest() -> None:
    net = network()
    run = trained(net)
    assert {id(p) for p in run.parameters()} == {id(p) for p in net.parameters()}
    net.last.weight.requires_grad_(False)
    x, target = case(net, 1, 12, 13)
    (run(x) - target).square().mean().backward()
    assert net.last.weight.grad is None
    assert all(p.grad is not None for p in net.blocks.parameters())


def _calls_of_the_plain_network(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    calls: list[Tensor] = []
    forward = CAN.forward

    def counted(self: CAN, x: Tensor, condition: Tensor | None = None) -> Tensor:
        calls.append(x)
        return forward(self, x, condition)

    monkeypatch.setattr(CAN, "forward", counted)
    return calls


def test_the_plain_network_runs_where_the_kernels_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    run, x = trained(net), case(net, 1, 8, 8)[0]
    calls = _calls_of_the_plain_network(monkeypatch)
    run(x).sum().backward()
    assert calls == []
    wanted = x.clone().requires_grad_()
    run(wanted).sum().backward()
    assert wanted.grad is not None
    with torch.no_grad():
        run(x)
    with torch.autocast("cpu", torch.bfloat16):
        run(x)
    assert len(calls) == 3
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        run(x)
    with can_layer.reference():
        run(x)
    assert len(calls) == 5
    net.double()
    run(x.double())
    assert len(calls) == 6
    with pytest.raises(RuntimeError, match=r"Float|float"):  # and its errors are torch's
        run(x)


def _with(index: int, conv: nn.Conv2d) -> CAN:
    net = network()
    block: Any = net.blocks[index]
    block.conv = conv
    return net


@pytest.mark.parametrize(
    "make",
    [
        lambda: CAN(4, 20),
        lambda: can24(in_channels=17),
        lambda: can24(out_channels=17),
        lambda: can24().double(),
        lambda: can24(norm="bn"),
        lambda: can24(norm="none"),
        lambda: can24(stats="frozen"),
        lambda: _with(0, nn.Conv2d(3, 24, 3, padding=2, dilation=2)),
        lambda: _with(2, nn.Conv2d(24, 24, 3, padding=1, stride=2)),
        lambda: _with(2, nn.Conv2d(24, 24, 3, padding=1, groups=2)),
        lambda: _with(2, nn.Conv2d(24, 24, 3, padding=1, padding_mode="reflect")),
        lambda: _with(2, nn.Conv2d(24, 24, 3)),
        lambda: _with(4, nn.Conv2d(24, 32, 3, padding=1)),
        lambda: nn.Conv2d(3, 3, 3),
    ],
)
def test_others_are_not_served(make: Callable[[], nn.Module]) -> None:
    assert registry.find("backend", "winograd_training")(make()) is None


def test_without_the_kernels_it_is_no_back_end() -> None:
    for module in (can_layer, can_gradient):
        with module._kernel.reference():
            assert can_training.backend(network()) is None
