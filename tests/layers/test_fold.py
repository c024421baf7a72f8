"""What is folded computes the same in evaluation, whatever follows what; what must stay as it is stays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import compressnet
from compressnet.analysis.fold import fold
from compressnet.architecture import Architecture, apply_edit, build
from compressnet.errors import CompressnetError, UsageError
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.layers.data_flow import is_guess
from compressnet.layers.dilated_conv import DilatedConv2d
from compressnet.layers.fold import Folding, difference, folding
from compressnet.layers.fold_plan import is_wanted
from compressnet.layers.svdf import SVDF, Form
from compressnet.models.can import CAN, can24

SIZES = st.integers(1, 4)


def norm(kind: Callable[..., Any], channels: int, **options: Any) -> nn.Module:
    """With statistics and parameters away from their start."""
    made: nn.Module = kind(channels, **options)
    with torch.no_grad():
        for tensor in [*made.parameters(), *made.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    return made.eval()


def folded(whole: nn.Module) -> tuple[nn.Module, Folding]:
    found = folding(whole)
    assert found is not None
    made = copy.deepcopy(whole)
    found.apply(made)
    return made, found


def check(whole: nn.Module, *inputs: Tensor, layers: int) -> Folding:
    """Folded, it computes the same in float64 and has so many layers left; it says the same a second time."""
    whole = whole.double().eval()
    before = copy.deepcopy(whole.state_dict())
    made, found = folded(whole)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad():
        assert difference(made(*inputs), whole(*inputs)) < 1e-12
    assert len([m for m in made.modules() if list(m.parameters(recurse=False))]) == layers
    assert folding(made) is None
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())
    return found


@st.composite
def convolutions(draw: Any) -> nn.Module:
    """Of any kind, with groups, strides, dilations and paddings."""
    groups, bias = draw(st.integers(1, 3)), draw(st.booleans())
    inputs, outputs = groups * draw(SIZES), groups * draw(SIZES)
    kind = draw(st.sampled_from([nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, DilatedConv2d]))
    if kind is DilatedConv2d:
        return DilatedConv2d(inputs, outputs, draw(SIZES), bias)
    axes = 1 if kind is nn.Conv1d else 2
    pairs = st.tuples(*[st.integers(1, 3)] * axes)
    stride = draw(pairs)
    options = {"stride": stride, "dilation": draw(pairs), "padding": draw(st.integers(0, 1))}
    if kind is nn.ConvTranspose2d:
        options["output_padding"] = tuple(draw(st.integers(0, step - 1)) for step in stride)
    made: nn.Module = kind(inputs, outputs, draw(pairs), groups=groups, bias=bias, **options)
    return made


@settings(max_examples=40, deadline=None)
@given(convolutions(), st.booleans(), st.booleans())
def test_batch_norm_after_any_convolution(layer: Any, affine: bool, adaptive: bool) -> None:
    axes = len(layer.kernel_size)
    channels = layer.out_channels
    if adaptive and axes == 2:
        after = norm(AdaptiveNorm, channels, stats="frozen", beta=affine)
    else:
        kind = nn.BatchNorm1d if axes == 1 else nn.BatchNorm2d
        after = norm(kind, channels, affine=affine, momentum=None)
    x = torch.randn(2, layer.in_channels, *[12, 9][:axes])
    found = check(nn.Sequential(layer, after, nn.ReLU()), x, layers=1)
    assert found.groups == (("0", "1"),)


@settings(max_examples=30, deadline=None)
@given(convolutions(), st.integers(1, 2), st.booleans(), st.booleans())
def test_a_pointwise_convolution_after_another(layer: Any, outputs: int, bias: bool, normed: bool) -> None:
    kind, norms = (nn.Conv1d, nn.BatchNorm1d) if len(layer.kernel_size) == 1 else (nn.Conv2d, nn.BatchNorm2d)
    middle = layer.out_channels
    parts = [layer, *([norm(norms, middle)] if normed else []), kind(middle, outputs, 1, bias=bias)]
    mine = layer.weight.numel()
    one = layer.in_channels * outputs * layer.weight[0, 0].numel()
    fits = one <= mine + middle * outputs
    x = torch.randn(2, layer.in_channels, *[12, 9][: len(layer.kernel_size)])
    if fits or normed:
        check(nn.Sequential(*parts), x, layers=1 if fits else 2)
    else:
        assert folding(nn.Sequential(*parts)) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_linear_layers_in_a_row(widths: list[int], biases: list[bool]) -> None:
    layers = [nn.Linear(*pair, bias=bias) for pair, bias in zip(pairwise(widths), biases, strict=False)]
    rows: list[nn.Module] = [part for layer in layers for part in (layer, nn.Dropout(0.5))]
    whole = nn.Sequential(*rows).double().eval()
    made, x = copy.deepcopy(whole), torch.randn(3, widths[0]).double()
    found = folding(made)
    if found is not None:
        found.apply(made)
        assert difference(made(x), whole(x)) < 1e-12
    count = sum(p.numel() for p in made.parameters() if p.ndim == 2)
    assert count <= sum(layer.weight.numel() for layer in layers)
    pairs = [m for m in made if isinstance(m, nn.Linear)]
    for one, other in pairwise(pairs):  # what is left would be larger as one
        assert one.in_features * other.out_features > one.weight.numel() + other.weight.numel()


def test_three_linear_layers_are_one_where_two_of_them_could_not_be() -> None:
    rows = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 6), nn.Linear(6, 1))
    assert check(rows, torch.randn(4, 6), layers=1).groups == (("0", "1", "2"),)


def test_batch_norm_after_a_linear_layer() -> None:
    check(nn.Sequential(nn.Linear(3, 4, bias=False), norm(nn.BatchNorm1d, 4)), torch.randn(5, 3), layers=1)


@settings(max_examples=15, deadline=None)
@given(SIZES, SIZES, SIZES, st.data())
def test_batch_norm_after_svdf(features: int, units: int, memory: int, data: st.DataObject) -> None:
    """Its time filters take it up: of windows, and frame after frame."""
    rank, bias = data.draw(st.integers(1, min(features, memory))), data.draw(st.booleans())
    layer = SVDF(features, units, memory, rank, bias, form=data.draw(st.sampled_from(get_args(Form))))
    after = norm(nn.BatchNorm1d, units, affine=data.draw(st.booleans()))
    whole = nn.Sequential(layer, after, nn.ReLU(), nn.Linear(units, 2))
    found = check(whole, torch.randn(5, memory * features), layers=2)
    assert found.groups == (("0", "1"),)
    made: Any = folded(whole)[0].get_submodule("0")
    assert torch.equal(made.weight_feature, layer.weight_feature)
    assert (made.rank, made.form) == (rank, layer.form)
    frames = torch.randn(7, 2, features).double()
    with torch.no_grad():
        wanted = after(layer.step(frames, layer.init_state(2))[0].flatten(0, 1))
        assert difference(made.step(frames, made.init_state(2))[0].flatten(0, 1), wanted) < 1e-12


def test_svdf_keeps_its_factors() -> None:
    """A linear layer in front of it or behind it stays."""
    layers = nn.Linear(4, 10), SVDF(2, 8, 5), nn.Linear(8, 1)
    assert folding(nn.Sequential(*layers)) is None
    normed = nn.Sequential(*layers[:2], norm(nn.BatchNorm1d, 8), layers[2])
    assert check(normed, torch.randn(3, 4), layers=3).groups == (("1", "2"),)


def test_a_folded_svdf_is_written_and_read() -> None:
    whole = nn.Sequential(SVDF(2, 8, 5, 2, bias=False, form="factored"), norm(nn.BatchNorm1d, 8)).eval()
    made, found = folded(whole)
    again = nn.Sequential(SVDF(2, 8, 5, 2, bias=False), nn.BatchNorm1d(8))
    apply_edit(again, found.edit)
    again.load_state_dict(made.state_dict())
    x = torch.randn(3, 10)
    with torch.no_grad():
        assert difference(again(x), whole(x)) < 1e-5


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_paddings_by_name(padding: str) -> None:
    layer = nn.Conv2d(2, 3, (3, 5), padding=padding, dilation=2)
    check(nn.Sequential(layer, norm(nn.BatchNorm2d, 3)), torch.randn(1, 2, 20, 20), layers=1)


def rows(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts)


SHARED = nn.Conv2d(3, 3, 1)


@pytest.mark.parametrize(
    "whole",
    [
        rows(nn.Conv2d(3, 4, 3), norm(nn.BatchNorm2d, 4, track_running_stats=False)),
        rows(nn.Conv2d(3, 4, 3), norm(AdaptiveNorm, 4)),
        rows(nn.Conv2d(3, 4, 3), nn.ReLU(), norm(nn.BatchNorm2d, 4)),
        rows(norm(nn.BatchNorm2d, 3), nn.Conv2d(3, 4, 3)),
        rows(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), norm(nn.BatchNorm2d, 4)),
        rows(nn.Conv2d(3, 4, 2, padding="same"), norm(nn.BatchNorm2d, 4)),
        rows(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), norm(nn.BatchNorm2d, 4)),
        rows(SHARED, norm(nn.BatchNorm2d, 3), SHARED, norm(nn.BatchNorm2d, 3)),
        rows(nn.Conv2d(3, 9, 3), nn.Conv2d(9, 40, 1, groups=1)),
        rows(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2)),
        rows(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, padding=1)),
        rows(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, stride=2)),
        rows(nn.Linear(9, 2), nn.Linear(2, 9)),
        rows(SVDF(2, 4, 3, activation="relu"), norm(nn.BatchNorm1d, 4)),
        rows(norm(nn.BatchNorm1d, 6), SVDF(2, 4, 3)),
        rows(nn.Linear(3, 4), nn.Sigmoid()),
        nn.Linear(3, 4),
        nn.LSTM(3, 4),
    ],
    ids=lambda whole: str(whole)[:60].replace("\n", ""),
)
def test_what_stays_as_it_is(whole: nn.Module) -> None:
    assert folding(whole.eval()) is None


def test_what_shares_its_weights_stays_and_so_does_the_other() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    whole = nn.Sequential(first, norm(nn.BatchNorm1d, 3), nn.ReLU(), second, norm(nn.BatchNorm1d, 3))
    assert folding(whole) is None
    view = nn.Linear(3, 3)
    view.weight = nn.Parameter(nn.Linear(3, 6).weight[:3])
    other = nn.Linear(3, 3)
    other.weight = nn.Parameter(view.weight.data[:3])
    assert folding(nn.Sequential(view, norm(nn.BatchNorm1d, 3), nn.ReLU(), other)) is None


def test_what_somebody_listens_to_stays() -> None:
    whole = nn.Sequential(nn.Linear(3, 4), norm(nn.BatchNorm1d, 4))
    handle = whole[0].register_forward_hook(lambda module, inputs, output: output * 2)
    assert folding(whole) is None
    handle.remove()
    assert folding(whole) is not None


def test_variance_of_zero_and_what_would_not_be_finite() -> None:
    after = nn.BatchNorm2d(3)
    after.running_var = torch.zeros(3)
    whole = nn.Sequential(nn.Conv2d(2, 3, 1), after).eval()
    check(whole, torch.randn(1, 2, 4, 4), layers=1)
    after.eps = 0.0
    assert folding(whole) is None


# --- what follows what -------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Nothing but a trace can tell what is between its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 3, 3, padding=1, bias=False), norm(nn.BatchNorm2d, 3)
        self.b, self.norm_b = nn.Conv2d(3, 3, 3, padding=1), norm(nn.BatchNorm2d, 3)
        self.c, self.norm_c = nn.Conv2d(3, 3, 1), norm(nn.BatchNorm2d, 3)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = self.norm_a(self.a(x)) if scale is None else self.norm_a(scale * self.a(x))
        y = self.b(x)
        x = torch.relu(self.norm_b(y) + y)  # used twice
        if self.training:
            x = x * 2
        return self.norm_c(self.c(x)) + self.c.weight.sum()  # its weight is read


def test_a_trace_finds_what_alone_takes_an_output() -> None:
    whole = Residual().train()
    assert check(whole, torch.randn(1, 3, 8, 8), layers=5).groups == (("a", "norm_a"),)


class Loop(nn.Module):
    """No trace of it is possible."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), norm(nn.BatchNorm1d, 3))
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3 if x.mean() > 0 else 2):
            x = 2 * self.body(x) + 1
        return self.last(self.first(x))


def test_where_no_trace_is_possible_neighbours_in_a_sequential_follow_each_other() -> None:
    found = check(Loop(), torch.randn(4, 3), layers=3)
    assert found.groups == (("body.0", "body.1"),)


class Declares(nn.Module):
    """It says what a trace would not find."""

    def __init__(self, chain: list[str]) -> None:
        super().__init__()
        self.chain = chain
        self.first = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4)))
        self.norm = norm(nn.BatchNorm1d, 4)

    def foldable(self) -> list[list[str]]:
        return [self.chain]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x)) if float(x.mean()) < 5 else x


def test_a_model_says_what_follows_what() -> None:
    whole = Declares(["first", "norm"])
    assert check(whole, torch.randn(2, 3), layers=1).groups == (("first.0", "first.1.0", "norm"),)
    outer = nn.Sequential(whole, nn.ReLU())
    assert check(outer, torch.randn(2, 3), layers=1).groups[0][0] == "0.first.0"
    assert folding(Declares(["norm"]).eval()) is None
    with pytest.raises(UsageError, match="Declares: its foldable\\(\\) names 'other', which it has not"):
        folding(Declares(["first", "other"]))


def moved(network: CAN) -> CAN:
    """With parameters and statistics away from their start, in evaluation."""
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return network.eval()


@pytest.mark.parametrize(
    "arguments",
    [{"norm": "bn"}, {"stats": "frozen"}, {"stats": "frozen", "variant": "paper"}],
    ids=str,
)
def test_can(arguments: dict[str, Any]) -> None:
    network = moved(can24(**arguments))
    made, found = folded(network)
    x = torch.rand(2, 3, 20, 31)
    with torch.no_grad():
        assert difference(made(x), network(x)) < 1e-5
    assert len(found.groups) == 8
    assert made.foldable() == []  # type: ignore[operator]
    described = Architecture("image_operator", {"operator": "rof"}, "can24", arguments, [found.edit])
    again = build(described)
    again.load_state_dict(made.state_dict())
    assert [type(m) for m in again.modules()] == [type(m) for m in made.modules()]
    assert not any(isinstance(m, (nn.BatchNorm2d, AdaptiveNorm)) for m in again.modules())


def test_can_with_statistics_of_each_image_has_nothing_to_fold() -> None:
    assert folding(can24()) is None
    assert folding(can24(norm="none")) is None


def test_a_convolution_that_an_edit_replaced_takes_up_what_follows_it() -> None:
    network = moved(can24(norm="bn"))
    apply_edit(
        network,
        {"modules": {"blocks.1.conv": {"layer": "identity", "args": {}}}},
    )
    network.blocks[2].conv = nn.Sequential(nn.Conv2d(24, 4, 1), nn.Conv2d(4, 24, 3, padding=1))
    made, found = folded(network)
    assert ("blocks.2.conv.1", "blocks.2.norm") in found.groups
    assert len(found.groups) == 7
    x = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        assert difference(made(x), network(x)) < 1e-5


# --- compressnet.fold --------------------------------------------------------------------------------------


def test_fold_is_a_checked_copy_for_inference() -> None:
    whole = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), norm(nn.BatchNorm2d, 8), nn.ReLU()).train()
    made = compressnet.fold(whole)
    assert not made.training
    assert whole.training
    assert isinstance(made[1], nn.Identity)  # type: ignore[index]
    assert isinstance(whole[1], nn.BatchNorm2d)
    with pytest.raises(CompressnetError, match="Sequential: nothing to fold: "):
        compressnet.fold(made)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_fold_keeps_types_layouts_and_places(dtype: torch.dtype) -> None:
    layer: Any = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made: Any = compressnet.fold(nn.Sequential(layer, norm(nn.BatchNorm2d, 8)).to(dtype))
    assert made[0].weight.dtype == made[0].bias.dtype == dtype
    assert made[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_fold_of_what_says_nothing_of_its_inputs() -> None:
    with pytest.raises(UsageError, match="Loop: nothing says what it takes"):
        compressnet.fold(Loop())
    assert not compressnet.fold(Loop(), (torch.randn(4, 3),)).training
    with pytest.raises(CompressnetError, match="Loop: it does not take its inputs: "):
        compressnet.fold(Loop(), (torch.randn(4, 7),))


class Liar(nn.Module):
    """Its modules do not follow each other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 3), norm(nn.BatchNorm1d, 3)

    def foldable(self) -> list[list[str]]:
        return [["layer", "norm"]]

    def example(self, batch: int = 1) -> Tensor:
        return torch.randn(batch, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x).relu())


def test_a_fold_that_changes_outputs_is_refused() -> None:
    with pytest.raises(CompressnetError, match="Liar: folded, its outputs would differ by .* of the largest"):
        compressnet.fold(Liar())


class Reads(nn.Module):
    """Reads a buffer of a batch norm beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm.get_buffer("running_var").sum()


def test_whose_buffers_are_read_stays() -> None:
    assert folding(Reads().eval()) is None


class Random(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.BatchNorm2d(4)), "run it once first"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, device="meta"), nn.BatchNorm2d(4)), "on the device 'meta'"),
        (Random(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "random or not finite"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "nothing to fold: .* stays as it is"),
    ],
)
def test_what_cannot_be_folded_says_why(module: nn.Module, message: str) -> None:
    with pytest.raises(CompressnetError, match=message):
        fold(module, (torch.rand(1, 3, 8, 8),))


def test_what_cannot_be_traced_is_a_guess() -> None:
    assert is_guess(Loop(), is_wanted)
    assert not is_guess(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), is_wanted)
