"""BC-ResNet: the paper's sizes, its norm by bands of frequencies, its block, folding, its front end."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import compressnet
from compressnet.analysis.count import count
from compressnet.errors import UsageError
from compressnet.layers.fold import difference, folding
from compressnet.models.kws_bc_resnet import Block, SubSpectralNorm

KNOWN = [  # tau, parameters, MACs of 101 frames without the front end
    (0.625, 4_585, 1_246_580),
    (1, 9_232, 2_482_156),
    (1.5, 17_154, 4_607_994),
    (2, 27_284, 7_323_672),
    (3, 54_168, 14_524_548),
    (6, 187_812, 50_283_336),
    (8, 321_068, 85_919_328),
]


def lively(model: nn.Module) -> Any:
    """Norms that do something."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.uniform_(tensor, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.parametrize(("tau", "parameters", "macs"), KNOWN)
def test_parameters_and_macs(tau: float, parameters: int, macs: int) -> None:
    model: Any = compressnet.create("kws_bc_resnet", tau=tau).eval()
    products: list[int] = []
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(
                lambda part, given, output: products.append(part.weight.numel() * output[0, 0].numel())
            )
    with torch.no_grad():
        model.network(torch.randn(101, 1, 40))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(products) == macs


def test_our_count_agrees() -> None:
    with torch.device("meta"):
        model: Any = compressnet.create("kws_bc_resnet")
        found = count(model.network, torch.randn(101, 1, 40))
    assert (found.parameters, found.macs, found.problems) == (*KNOWN[1][1:], [])


def test_stages_have_the_papers_shapes_and_dilations() -> None:
    with torch.device("meta"):
        model: Any = compressnet.create("kws_bc_resnet").eval()
        inputs = torch.randn(30, 2, 40)
    shapes: list[tuple[int, ...]] = []
    for block in model.network.blocks:
        block.register_forward_hook(lambda module, given, output: shapes.append(tuple(output.shape[1:])))
    model.network(inputs)
    assert shapes == [(8, 20, 30)] * 2 + [(12, 10, 30)] * 2 + [(16, 5, 30)] * 4 + [(20, 5, 30)] * 4
    dilations = [block.time.dilation for block in model.network.blocks]
    assert dilations == [(1, 1)] * 2 + [(1, 2)] * 2 + [(1, 4)] * 4 + [(1, 8)] * 4


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_each_band_has_a_norm_of_its_own(channels: int, bands: int, height: int, training: bool) -> None:
    norm: Any = lively(SubSpectralNorm(channels, bands)).train(training)
    x = torch.randn(2, channels, bands * height, 3)
    weight, bias, mean, variance = (
        tensor.detach().clone().view(channels, bands).unbind(1)
        for tensor in (norm.norm.weight, norm.norm.bias, norm.norm.running_mean, norm.norm.running_var)
    )
    parts = [
        F.batch_norm(part, mean[n], variance[n], weight[n], bias[n], training)
        for n, part in enumerate(x.split(height, 2))
    ]
    torch.testing.assert_close(norm(x), torch.cat(parts, 2))


def test_bands_are_of_one_size() -> None:
    with pytest.raises(ValueError, match="20 frequencies for 3 bands of one size"):
        SubSpectralNorm(2, 3)(torch.zeros(1, 2, 20, 4))


@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (3, 1), (3, 2)])
def test_a_block_sends_its_mean_to_all_frequencies(inputs: int, stride: int) -> None:
    block = lively(Block(inputs, 4, stride, 2, 0.1))
    x = torch.randn(2, inputs, 10, 9)
    with torch.no_grad():
        wide = x if inputs == 4 else block.widen(x)
        a = block.frequency_norm(F.conv2d(wide, block.frequency.weight, None, (stride, 1), (1, 0), groups=4))
        b = F.pad(a.mean(2), (2, 2))  # (2, 4, 13)
        taps = block.time.weight[:, 0, 0]  # (4, 3)
        b = sum(taps[:, k, None] * b[..., 2 * k : 2 * k + 9] for k in range(3))
        b = F.silu(block.time_norm(b[:, :, None]))
        wanted = a + torch.einsum("oi,biht->boht", block.mix.weight[:, :, 0, 0], b)
        wanted = F.relu(wanted + x if inputs == 4 else wanted)
        torch.testing.assert_close(block(x), wanted)


def test_dropout_takes_whole_channels_in_training() -> None:
    block = lively(Block(4, 4, 1, 1, 0.5)).train()
    before: list[Tensor] = []
    after: list[Tensor] = []
    block.mix.register_forward_hook(lambda module, given, output: before.append(output))
    block.dropout.register_forward_hook(lambda module, given, output: after.append(output))
    block(torch.randn(8, 4, 10, 9))
    kept = after[0].flatten(2).abs().amax(2) > 0
    assert kept.any()
    assert not kept.all()
    torch.testing.assert_close(after[0], 2 * before[0] * kept[:, :, None, None])


def test_folds_all_norms_but_those_by_bands() -> None:
    model = lively(compressnet.create("kws_bc_resnet"))
    found, made = folding(model), copy.deepcopy(model)
    assert found is not None
    found.apply(made)
    x = model.example(2, 21)
    with torch.no_grad():
        assert difference(made(*x), model(*x)) <= 1e-5
    left = [path for path, part in made.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert left == [f"network.blocks.{number}.frequency_norm.norm" for number in range(12)]
    # The weights of norms are gone, their biases are those of convolutions now.
    norms = sum(part.num_features for part in model.modules() if isinstance(part, nn.BatchNorm2d))
    by_bands = sum(part.norm.num_features for part in model.modules() if isinstance(part, SubSpectralNorm))
    before, after = (sum(parameter.numel() for parameter in net.parameters()) for net in (model, made))
    assert before - after == norms - by_bands


def test_its_front_end_is_the_papers() -> None:
    features = compressnet.create("kws_bc_resnet").features
    assert (features.window, features.hop, features.width) == (480, 160, 40)  # type: ignore[union-attr]
    silence = features(torch.zeros(1, 16_000))  # type: ignore[operator]
    torch.testing.assert_close(silence, torch.full((98, 1, 40), math.log(1e-6)))
    noise = 0.1 * torch.randn(1, 16_000)
    louder = features(10 * noise) - features(noise)  # type: ignore[operator]
    torch.testing.assert_close(louder.mean(), torch.tensor(2 * math.log(10)), rtol=1e-3, atol=0)  # of power
    high = torch.sin(2 * math.pi * 7500 / 16_000 * torch.arange(16_000))[None]
    assert features(high)[50, 0].argmax() == 39  # type: ignore[operator]  # of bands up to 8 kHz


@pytest.mark.parametrize("frames", [1, 50, 120])
def test_clips_of_any_length(frames: int) -> None:
    model: Any = compressnet.create("kws_bc_resnet", tau=0.25, num_classes=3).eval()
    assert model(*model.example(2, frames)).shape == (2, 3)


def test_gradients_reach_all_weights() -> None:
    torch.manual_seed(0)
    model: Any = compressnet.create("kws_bc_resnet", tau=0.25, num_classes=3)
    F.cross_entropy(model(*model.example(4, 20)), torch.tensor([0, 1, 2, 0])).backward()
    weights: list[Any] = [p.weight for p in model.modules() if isinstance(p, nn.Conv2d | nn.Linear)]
    assert all(weight.grad.abs().max() > 0 for weight in weights)


def test_it_does_not_stream() -> None:
    with torch.device("meta"):
        model = compressnet.create("kws_bc_resnet")
    assert not hasattr(model, "step")
    assert not hasattr(model, "init_state")


def test_widths_below_the_range_are_refused() -> None:
    with pytest.raises(UsageError, match="'tau' should be greater than or equal to 0.25"):
        compressnet.create("kws_bc_resnet", tau=0.2)
