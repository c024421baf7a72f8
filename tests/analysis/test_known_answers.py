"""What other counters get wrong: modules whose multiply-adds are written out here, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.analysis import trace
from compressnet.analysis.count import Count, count


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the size changes."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.layers = nn.Sequential(
            *(nn.Sequential(BasicBlock(i, o, s), BasicBlock(o, o, 1)) for i, o, s in sizes)
        )
        self.fc = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(self.layers(x), 1).flatten(1))


RESNET18_MACS = (
    112 * 112 * 64 * 3 * 7 * 7  # conv1
    + 4 * (56 * 56 * 64 * 64 * 3 * 3)  # two blocks of 64 maps
    + 28 * 28 * 128 * 64 * 3 * 3 + 3 * (28 * 28 * 128 * 128 * 3 * 3) + 28 * 28 * 128 * 64
    + 14 * 14 * 256 * 128 * 3 * 3 + 3 * (14 * 14 * 256 * 256 * 3 * 3) + 14 * 14 * 256 * 128
    + 7 * 7 * 512 * 256 * 3 * 3 + 3 * (7 * 7 * 512 * 512 * 3 * 3) + 7 * 7 * 512 * 256
    + 512 * 1000
)  # fmt: skip


class RecurrentAndLinear(nn.Module):
    """128 cells on 32 inputs, and a linear layer on every step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 128)
        self.fc = nn.Linear(128, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0])


class CellInALoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(32, 48)

    def forward(self, x: Tensor) -> Tensor:
        state: tuple[Tensor, Tensor] | None = None
        for step in x:
            state = self.cell(step, state)
        assert state is not None
        return state[0]


class SparseAfterConvolution(nn.Module):
    """A 1x1 convolution, then a sparse matrix with 10 values on every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        dense = torch.zeros(6, 8)
        dense.view(-1)[torch.arange(0, 40, 4)] = 1
        self.register_buffer("table", dense.to_sparse_csr())

    def forward(self, x: Tensor) -> Tensor:
        return self.get_buffer("table") @ self.conv(x)[0].flatten(1)


class Gather(nn.Module):
    """A 1x1 convolution, then for 12 outputs 3 maps each, looked up and weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.coefficients = nn.Parameter(torch.rand(12, 3, 1, 1))
        self.register_buffer("indices", torch.arange(36) % 8)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)[0].index_select(0, self.get_buffer("indices"))
        return (maps.view(12, 3, *x.shape[2:]) * self.coefficients).sum(1)


class Functional(nn.Module):
    """The same product as `F.linear`, `@` and einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) + x @ self.weight.t() + torch.einsum("bi,oi->bo", x, self.weight)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.again = self.conv

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.conv(x))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.output = nn.Linear(8, 50)
        self.output.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.embedding(x))


Case = tuple[Callable[[], nn.Module], Tensor, int, int]
CASES: dict[str, Case] = {  # module, input, parameters, MACs
    "resnet18": (ResNet18, torch.rand(1, 3, 224, 224), 11_689_512, RESNET18_MACS),
    "grouped": (
        lambda: nn.Conv2d(16, 32, 3, padding=1, groups=8),
        torch.rand(2, 16, 10, 12),
        32 * (16 // 8) * 9 + 32,
        2 * 10 * 12 * 32 * (16 // 8) * 9,
    ),
    "depthwise": (
        lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False),
        torch.rand(1, 32, 14, 14),
        32 * 9,
        14 * 14 * 32 * 9,
    ),
    "transposed": (
        lambda: nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1),
        torch.rand(1, 8, 16, 16),
        8 * 4 * 16 + 4,
        16 * 16 * 8 * 4 * 16,  # each pixel of the input is spread over 4x4 pixels
    ),
    "transposed, grouped": (
        lambda: nn.ConvTranspose1d(8, 4, 4, stride=3, groups=2, output_padding=1),
        torch.rand(3, 8, 16),
        8 * 4 // 2 * 4 + 4,
        3 * 16 * 8 * (4 // 2) * 4,
    ),
    "strided, dilated, 3d": (
        lambda: nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1), dilation=(1, 1, 2)),
        torch.rand(1, 2, 4, 6, 9),
        2 * 3 * 6 + 3,
        (4 * 3 * 5) * 2 * 3 * 6,
    ),
    "lstm and linear": (
        RecurrentAndLinear,
        torch.rand(20, 1, 32),
        4 * 128 * (32 + 128) + 8 * 128 + 128 * 32 + 32,
        20 * (4 * 128 * (32 + 128) + 128 * 32),
    ),
    "bidirectional, two layers": (
        lambda: nn.LSTM(10, 20, num_layers=2, bidirectional=True),
        torch.rand(5, 3, 10),
        2 * (4 * 20 * (10 + 20) + 8 * 20) + 2 * (4 * 20 * (40 + 20) + 8 * 20),
        5 * 3 * (2 * 4 * 20 * (10 + 20) + 2 * 4 * 20 * (40 + 20)),
    ),
    "lstm with projection": (
        lambda: nn.LSTM(40, 128, proj_size=32),
        torch.rand(7, 2, 40),
        4 * 128 * (40 + 32) + 8 * 128 + 128 * 32,
        7 * 2 * (4 * 128 * (40 + 32) + 128 * 32),
    ),
    "gru": (
        lambda: nn.GRU(6, 5, batch_first=True, bias=False),
        torch.rand(2, 9, 6),
        3 * 5 * (6 + 5),
        2 * 9 * 3 * 5 * (6 + 5),
    ),
    "cell in a loop": (
        CellInALoop,
        torch.rand(20, 2, 32),
        4 * 48 * (32 + 48) + 8 * 48,
        20 * 2 * 4 * 48 * (32 + 48),
    ),
    "conv used twice": (Twice, torch.rand(1, 4, 8, 8), 4 * 4 * 9 + 4, 2 * (8 * 8 * 4 * 4 * 9)),
    "tied weights": (Tied, torch.randint(50, (5, 2)), 50 * 8 + 50, 5 * 2 * 8 * 50),
    "attention": (
        lambda: nn.MultiheadAttention(16, 4, batch_first=True),
        torch.rand(3, 7, 16),
        4 * 16 * 16 + 4 * 16,
        3 * (4 * 7 * 16 * 16 + 2 * 7 * 7 * 16),
    ),
    "transformer layer": (
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        torch.rand(3, 7, 16),
        4 * 16 * 16 + 4 * 16 + 2 * 16 * 32 + 32 + 16 + 2 * 2 * 16,
        3 * (4 * 7 * 16 * 16 + 2 * 7 * 7 * 16 + 2 * 7 * 16 * 32),
    ),
}  # fmt: skip


@pytest.fixture(params=["meta", "cpu"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it is traced: as ever, or as if the module needed values."""
    if request.param == "cpu":

        def needs_values(*arguments: object) -> None:
            raise NotImplementedError("it needs values")

        monkeypatch.setattr(trace, "_run_on_meta", needs_values)
    place: str = request.param
    return place


def _counted(module: nn.Module, x: Tensor) -> Count:
    inputs = (x, x, x) if isinstance(module, nn.MultiheadAttention) else (x,)
    return count(module, inputs)


@pytest.mark.parametrize("name", CASES)
def test_formula_and_trace_know_the_answer(name: str, place: str) -> None:
    make, x, parameters, macs = CASES[name]
    counted = _counted(make(), x)
    assert counted.problems == []
    assert counted.device == place
    assert counted.total("macs_trace") == macs
    assert counted.total("macs") == macs
    assert sum(layer.macs_formula or 0 for layer in counted.layers) == macs
    assert counted.flops == 2 * macs
    assert counted.parameters == parameters


def test_figures_that_others_know() -> None:
    assert RESNET18_MACS == 1_814_073_344
    assert CASES["lstm and linear"][3] == 1_720_320


def test_sparse_products_count_what_is_stored() -> None:
    counted = count(SparseAfterConvolution(), (torch.rand(1, 3, 5, 4),))
    pixels = 5 * 4
    assert counted.macs == pixels * 3 * 8 + 10 * pixels
    assert counted.problems == [f"SparseAfterConvolution: {10 * pixels} MACs in aten.mm have no formula"]
    assert counted.parameters == 3 * 8 + 8
    assert counted.total("buffers") == 10
    assert counted.total("buffer_bytes") == 10 * 4 + 10 * 8 + 7 * 8  # values, columns, rows
    assert counted.device == "cpu"
    assert "sparse" in counted.reason


def test_lookups_are_no_macs(place: str) -> None:
    counted = count(Gather(), (torch.rand(1, 3, 5, 4),))
    assert counted.macs == 5 * 4 * 3 * 8
    assert counted.total("lookups") == 36
    assert counted.total("elementwise") == 2 * (5 * 4 * 36)  # weighted, and added up
    assert counted.problems == []


def test_products_without_a_layer_are_counted_and_reported(place: str) -> None:
    counted = count(Functional(), (torch.rand(3, 8),))
    each = 3 * 8 * 16
    assert counted.macs == 3 * each
    assert counted.problems == [
        f"Functional: {2 * each} MACs in aten.mm have no formula",
        f"Functional: {each} MACs in aten.bmm have no formula",
    ]


def test_what_is_used_twice_is_stored_once() -> None:
    module = Twice()
    counted = count(module, (torch.rand(1, 4, 8, 8),))
    assert counted.ties == [("conv.weight", "again.weight"), ("conv.bias", "again.bias")]
    (conv,) = (layer for layer in counted.layers if layer.terms)
    assert (conv.path, conv.calls) == ("conv", 2)
    assert conv.terms is not None
    assert [term.formula for term in conv.terms if term.kind == "macs"] == ["calls·B·H·W·c_i·c_o·k_h·k_w"]


def test_tied_weights_are_in_the_first_row() -> None:
    counted = count(Tied(), (torch.randint(50, (5, 2)),))
    assert counted.ties == [("embedding.weight", "output.weight")]
    assert {layer.path: layer.parameters for layer in counted.layers} == {
        "": 0, "embedding": 50 * 8, "output": 50
    }  # fmt: skip
    assert (counted.unit, counted.amount) == ("token", 10)
    assert counted.total("lookups") == 10


def test_the_answers_do_not_need_memory_or_weights() -> None:
    with torch.device("meta"):
        module = ResNet18()
        x = torch.rand(64, 3, 7 * 224, 224)
    counted = count(module, (x,))
    convolutions = RESNET18_MACS - 512 * 1000
    assert counted.macs == 64 * (7 * convolutions + 512 * 1000)
    assert counted.unit == "megapixel"
    assert math.isclose(counted.amount, 64 * 7 * 224 * 224 / 1e6)
