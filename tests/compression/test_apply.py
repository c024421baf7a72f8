"""What is made of a network: a file that opens by itself, edits to repeat, and no trace in the parent."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressnet import compression, weights
from compressnet.architecture import build
from compressnet.compression.methods import reestimate
from compressnet.compression.network import Calibration
from compressnet.errors import CompressnetError, UsageError
from compressnet.layers.fold import difference
from compressnet.models.resnet import resnet20
from tests.compression.networks import compress, described, fall, first, off, pictures, settled

CHAINS = {
    "resnet20": [
        ["svd"],
        ["channel_in"],
        ["channel_out"],
        ["spatial"],
        ["tucker"],
        ["als:ratio=0.6"],
        ["fold"],
        ["fold", "tucker", "svd"],
        ["tucker:ratio=0.6", "densify"],
    ],
    "lstm": [["lstmp"], ["softmax"], ["softmax", "lstmp:rank=8"], ["lstmp", "softmax", "densify"]],
    "tied": [["softmax"], ["softmax", "lstmp:rank=8"]],
}


@pytest.mark.parametrize(
    ("name", "methods"), [(name, chain) for name, chains in CHAINS.items() for chain in chains]
)
@torch.no_grad()
def test_saved_and_opened_it_is_bit_equal(name: str, methods: list[str], tmp_path: Path) -> None:
    module, architecture, inputs = described(name)
    before = weights.digest(weights.tensors_of(module), architecture)
    result = compress(module, inputs, *methods)
    assert weights.digest(weights.tensors_of(module), architecture) == before
    assert len(result.edits) == len(methods)
    edited = replace(architecture, edits=result.edits)
    weights.save(tmp_path / "made.safetensors", result.module, edited)
    _, opened = weights.open_model(tmp_path / "made.safetensors")
    wanted = first(result.module(inputs[0]))
    assert torch.equal(first(opened.eval()(inputs[0])), wanted)
    again = compression.apply(build(architecture), result.edits)
    again.load_state_dict(result.module.state_dict())
    assert torch.equal(first(again.eval()(inputs[0])), wanted)
    shapes = {key: value.shape for key, value in result.module.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


@torch.no_grad()
def test_batch_norms_have_the_mean_of_all_batches() -> None:
    net, inputs = settled(), pictures(3)
    result = compress(net, inputs, "channel_out:rank=4", only=["conv1"])
    assert result.reestimated
    made: Any = result.module
    maps = [made.conv1(x) for x in inputs]
    means = torch.stack([y.mean((0, 2, 3)) for y in maps]).mean(0)
    variances = torch.stack([y.var((0, 2, 3)) for y in maps]).mean(0)
    assert difference(made.norm.running_mean, means) < 1e-12
    assert difference(made.norm.running_var, variances) < 1e-12
    assert made.norm.momentum == 0.1
    assert not made.norm.training
    assert not reestimate(nn.Linear(3, 3), Calibration.of([torch.ones(1, 3)], nn.Linear(3, 3)))


@torch.no_grad()
def test_folding_is_exact_and_leaves_nothing_to_estimate() -> None:
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        net, inputs = settled(dtype=dtype), pictures(2, dtype)
        result = compress(net, inputs, "fold")
        assert [done.paths for _, done in result.replaced] == [("conv1", "norm")]
        assert [done.text for _, done in result.replaced] == ["takes up norm"]
        assert not result.reestimated
        assert difference(result.module(inputs[0]), net(inputs[0])) < limit
    with pytest.raises(UsageError, match="method fold: the network has no layer for it|fits no layer"):
        compress(net, inputs, "fold", skip=["norm"])


def test_layers_that_do_not_follow_each_other_are_not_folded() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if float(x.sum()) > 1e9:  # no tracing
                return x
            y: torch.Tensor = self.row[1](self.row[0](x).relu())
            return y

    net = Crossed().eval()
    net.row[1].running_mean.normal_()  # type: ignore[operator]
    with pytest.raises(CompressnetError, match="fold: outputs would differ by .*--skip"):
        compress(net, [torch.randn(2, 3, 8, 8)], "fold")


def test_a_biased_1x1_before_a_padding_is_no_one_layer() -> None:
    net = settled(norm=False)
    split = compress(net, pictures(2), "channel_in", only=["conv2"]).module
    with torch.no_grad():
        first_layer: Any = split.get_submodule("conv2.0")
        first_layer.bias = nn.Parameter(torch.ones(len(first_layer.weight), dtype=torch.float64))
    with pytest.raises(UsageError, match="conv2: a layer with a bias before one with a padding"):
        compress(split, pictures(2), "densify")


@torch.no_grad()
def test_a_first_layer_over_frames_becomes_an_svdf() -> None:
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(12 * 10, 30), nn.ReLU(), nn.Linear(30, 20)).double()
    windows = [torch.randn(500, 12, 10, dtype=torch.float64).cumsum(1).flatten(1) + 1 for _ in range(3)]
    errors = [
        off(compress(net, given, "svdf:frames=12,rank=2").module, net, windows) for given in (windows, None)
    ]
    assert errors[0] < errors[1]
    made: Any = compress(net, windows, "svdf:frames=12,rank=2")
    layer: Any = made.module[0]
    assert (layer.memory, layer.features, layer.rank) == (12, 10, 2)
    assert [kept.path for kept in made.kept] == ["2"]
    dense = compress(made.module, windows, "densify").module
    assert off(dense, made.module, windows) < 1e-12
    exact = compress(dense, windows, "svdf:frames=12,rank=2").module
    assert off(exact, dense, windows) < 1e-10
    with pytest.raises(UsageError, match="0: its 120 inputs are not 7 frames of as many features each"):
        compress(net, windows, "svdf:frames=7")
    with pytest.raises(UsageError, match="0: rank 6 makes it larger: it breaks even above rank 5"):
        compress(net, windows, "svdf:frames=12,rank=6")


def test_the_public_function_reports_every_layer() -> None:
    torch.manual_seed(0)
    net = resnet20(num_classes=10, widths=[8, 16, 24]).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            fall(layer)
    before = copy.deepcopy(net.state_dict())
    inputs = [torch.randn(4, 3, 16, 16) for _ in range(2)]
    made, report = compression.compress(
        net, inputs, ["fold", "tucker:ratio=0.6"], only=["layer*"], timed=False
    )
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert report.after.macs < report.before.macs
    assert sum(p.numel() for p in made.parameters()) == report.after.parameters
    rows = {row.path: row for row in report.rows}
    assert "layer3.0.conv2" in rows
    assert "layer3.0.bn2" not in rows
    assert {kept.path for kept in report.kept} == set()
