"""DS-CNN: the paper's sizes, maps and padding, folding, clips of any length."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressnet
from compressnet.analysis.count import count
from compressnet.layers.fold import difference, folding
from compressnet.models.kws_ds_cnn import DSCNN, SIZES, Block, Sizes

KNOWN = [  # size, parameters, MACs without the front end, maps that the mean is over, parameters when folded
    ("S", 23_756, 2_656_768, (25, 5), 22_604),
    ("M", 138_128, 9_816_384, (13, 5), 135_032),
    ("L", 416_772, 28_327_812, (13, 5), 410_700),
]


def lively(model: nn.Module) -> nn.Module:
    """Norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.uniform_(tensor, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.parametrize(("size", "parameters", "macs", "sides", "_folded"), KNOWN)
def test_parameters_macs_and_maps(
    size: str, parameters: int, macs: int, sides: tuple[int, int], _folded: int
) -> None:
    with torch.device("meta"):
        model: Any = compressnet.create("kws_ds_cnn", size=size)
        inputs = torch.randn(49, 1, 10)
    seen: list[Tensor] = []
    model.network.blocks.register_forward_hook(lambda module, given, output: seen.append(output))
    model.eval().network(inputs)
    found = count(model.network, inputs)
    assert (model.frames, model.features.width) == (49, 10)
    assert (found.parameters, found.macs) == (parameters, macs)
    assert tuple(seen[0].shape[2:]) == sides
    assert not found.problems


@pytest.mark.parametrize(("size", "_parameters", "_macs", "_sides", "parameters"), KNOWN)
def test_folds(size: str, _parameters: int, _macs: int, _sides: tuple[int, int], parameters: int) -> None:
    torch.manual_seed(0)
    model: Any = lively(compressnet.create("kws_ds_cnn", size=size))
    found, made = folding(model), copy.deepcopy(model)
    assert found is not None
    found.apply(made)
    x = model.example(2, 21)
    with torch.no_grad():
        assert difference(made(*x), model(*x)) <= 1e-5
    assert not [part for part in made.modules() if isinstance(part, nn.BatchNorm2d)]
    assert sum(parameter.numel() for parameter in made.parameters()) == parameters


def test_it_computes_what_the_paper_draws() -> None:
    """Padding written out for 49 frames of 10: halved to 25 x 10, then to 13 x 5."""
    torch.manual_seed(0)
    network: Any = lively(DSCNN(Sizes(6, (2, 1), (2, 1)), 3))
    frames = torch.randn(49, 2, 10)

    def normalised(x: Tensor, norm: Any) -> Tensor:
        return F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias))

    with torch.no_grad():
        x = F.pad(frames.permute(1, 0, 2)[:, None], (1, 2, 4, 5))
        x = normalised(F.conv2d(x, network.conv.weight, network.conv.bias, (2, 1)), network.norm)
        for block, sides, stride in zip(network.blocks, [(0, 1, 1, 1), (1, 1, 1, 1)], (2, 1), strict=True):
            depthwise, pointwise = block.depthwise, block.pointwise
            x = F.conv2d(F.pad(x, sides), depthwise.weight, depthwise.bias, stride, groups=6)
            x = normalised(x, block.depthwise_norm)
            x = normalised(F.conv2d(x, pointwise.weight, pointwise.bias), block.pointwise_norm)
        assert x.shape == (2, 6, 13, 5)
        wanted = x.mean((2, 3)) @ network.output.weight.T + network.output.bias
        torch.testing.assert_close(network(frames), wanted)


@pytest.mark.parametrize("frames", [1, 2, 25, 60])
def test_clips_of_any_length(frames: int) -> None:
    model: Any = compressnet.create("kws_ds_cnn", size="M", num_classes=3).eval()
    assert model(*model.example(2, frames)).shape == (2, 3)


def test_gradients_reach_all_weights() -> None:
    torch.manual_seed(0)
    network = DSCNN(Sizes(4, (2, 2), (2, 1)), 3)
    network(torch.randn(20, 4, 10)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    weights = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert all(weight.grad.abs().max() > 0 for weight in weights)  # type: ignore[union-attr]


def test_it_does_not_stream() -> None:
    with torch.device("meta"):
        model = compressnet.create("kws_ds_cnn")
    assert not hasattr(model, "step")
    assert not hasattr(model, "init_state")


@pytest.mark.parametrize("size", SIZES)
def test_depthwise_layers_are_of_one_map_each(size: str) -> None:
    with torch.device("meta"):
        blocks = DSCNN(SIZES[size], 12).blocks
    assert all(isinstance(block, Block) for block in blocks)
    widths = {
        (block.depthwise.groups, block.pointwise.groups) for block in blocks if isinstance(block, Block)
    }
    assert widths == {(SIZES[size].width, 1)}
