"""TensorFlow's keyword spotters: sizes, padding, beginnings, dropout, streams, folding, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import compressnet
from compressnet.analysis.count import count
from compressnet.analysis.fold import folded
from compressnet.errors import UsageError
from compressnet.models.kws_tf import Convolution, Convolutions, pad_same

SMALL = {"hop_ms": 20.0, "num_classes": 4}
KNOWN = [  # model, arguments, frames, parameters, MACs: both without the front end
    ("kws_single_fc", {}, 98, 47_052, 47_040),
    ("kws_conv", {}, 98, 926_860, 201_456_640),
    ("kws_low_latency_conv", {}, 98, 949_862, 5_615_776),
    ("kws_tiny_conv", {}, 98, 94_740, 721_280),
    ("kws_tiny_conv", SMALL, 49, 16_652, 336_000),
    ("kws_tiny_embedding_conv", {}, 98, 7_804, 736_736),
    ("kws_tiny_embedding_conv", SMALL, 49, 6_164, 381_824),
]
KERNELS = {  # time x features
    "kws_conv": [(20, 8), (10, 4)],
    "kws_low_latency_conv": [(98, 8)],
    "kws_tiny_conv": [(10, 8)],
    "kws_tiny_embedding_conv": [(10, 8), (10, 8)],
}
NAMES = ["kws_single_fc", *KERNELS]
STREAMING = ["kws_single_fc", "kws_low_latency_conv"]


def create(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return compressnet.create(name, **arguments)


@pytest.mark.parametrize(("name", "arguments", "frames", "parameters", "macs"), KNOWN)
def test_parameters_and_macs(
    name: str, arguments: dict[str, Any], frames: int, parameters: int, macs: int
) -> None:
    with torch.device("meta"):
        model = create(name, **arguments)
        inputs = torch.randn(frames, 1, 40)
    found = count(model.network, inputs)
    assert (model.frames, found.parameters, found.macs) == (frames, parameters, macs)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert not found.problems


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_of_time_and_features(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    assert [part.kernel_size for part in model.modules() if isinstance(part, nn.Conv2d)] == KERNELS[name]


@pytest.mark.parametrize("name", NAMES)
def test_clips_to_scores_and_gradients_to_all_weights(name: str) -> None:
    model = create(name, clip_ms=200.0, num_classes=3, coefficients=9)
    scores = model(*model.example(2))
    assert scores.shape == (2, 3)
    F.cross_entropy(scores, torch.tensor([0, 2])).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_weights_begin_as_tensorflows(name: str) -> None:
    model = create(name)
    deviation = 0.001 if name == "kws_single_fc" else 0.01
    for key, parameter in model.state_dict().items():
        if key.endswith("bias"):
            assert not parameter.any()
        else:
            assert parameter.abs().max() <= 2 * deviation
            assert float(parameter.std()) == pytest.approx(0.88 * deviation, rel=0.1)  # cut at two deviations


@pytest.mark.parametrize("name", list(KERNELS))
def test_dropout_is_of_training_alone(name: str) -> None:
    model = create(name)
    x = model.example(2)
    assert not torch.equal(model(*x), model(*x))
    model.eval()
    assert torch.equal(model(*x), model(*x))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_padding_is_tensorflows_same(size: int, kernel: int, stride: int) -> None:
    stride = min(stride, kernel)
    wanted = math.ceil(size / stride)
    zeros = max((wanted - 1) * stride + kernel - size, 0)  # TensorFlow's words for it
    x = torch.arange(1.0, size + 1).expand(1, 1, 1, size)
    padded = pad_same(x, nn.Conv2d(1, 1, (1, kernel), (1, stride)))
    assert padded.shape[-1] == size + zeros
    before = zeros // 2
    assert not padded[..., :before].any()
    assert torch.equal(padded[..., before : before + size], x)
    assert not padded[..., before + size :].any()


def test_maps_are_padded_and_pooled_to_whole_ones() -> None:
    """11 frames of 5 features: halves are rounded up, the last row and column have their own maxima."""
    network = Convolutions(5, 11, [Convolution(1, (1, 1), pool=2)], 1, dropout=0.0)
    conv: Any = network.convs[0]
    output = network.output
    nn.init.ones_(conv.weight)
    assert output.in_features == 6 * 3
    frames = torch.rand(11, 1, 5)
    wanted = torch.stack(
        [frames[2 * t : 2 * t + 2, 0, 2 * f : 2 * f + 2].max() for t in range(6) for f in range(3)]
    )
    torch.testing.assert_close(network(frames)[0, 0], wanted @ output.weight[0])


def test_single_fc_reads_the_oldest_frame_first() -> None:
    model = create("kws_single_fc", clip_ms=100.0, coefficients=3, num_classes=2)
    frames = torch.randn(model.frames, 4, 3)
    weight = model.network.output.weight.view(2, model.frames, 3)
    torch.testing.assert_close(model.network(frames), torch.einsum("tbf,ktf->bk", frames, weight))


@pytest.mark.parametrize("hops", [1, 2, 7])
@pytest.mark.parametrize("name", STREAMING)
def test_a_stream_has_the_scores_of_its_windows(name: str, hops: int) -> None:
    small = {"filters": 4, "hidden_size": 5} if name == "kws_low_latency_conv" else {}
    model = create(name, clip_ms=150.0, num_classes=3, coefficients=10, **small).eval()
    hop, window = model.hop, model.features.samples(model.frames)
    audio = torch.rand(2, 28 * hop) - 0.5
    with torch.no_grad():
        state, streamed = model.init_state(2), []
        for begin in range(0, audio.shape[1], hops * hop):
            scores, state = model.step(audio[:, begin : begin + hops * hop], state)
            streamed.append(scores)
        ends = range(0, 28 * hop, hop)
        silent = F.pad(audio, (window, 0))
        whole = torch.stack([model(silent[:, end + hop : end + hop + window]) for end in ends])
    torch.testing.assert_close(torch.cat(streamed), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STREAMING])
def test_what_pads_its_edges_does_not_stream(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    assert not hasattr(model, "step")
    assert not hasattr(model, "init_state")


def test_three_linear_layers_fold_to_one() -> None:
    done = folded(create("kws_low_latency_conv"), "kws_low_latency_conv")
    assert done.after.parameters == 219_678
    assert done.difference <= 1e-5
    assert done.folding.groups == (("network.hidden1", "network.hidden2", "network.output"),)


def test_a_folded_network_streams_alike() -> None:
    model = create("kws_low_latency_conv", clip_ms=150.0, coefficients=10, filters=4, hidden_size=5).eval()
    made = compressnet.fold(model)
    audio = torch.rand(1, 20 * model.hop) - 0.5
    with torch.no_grad():
        ours, wanted = (net.step(audio, net.init_state(1))[0] for net in (made, model))  # type: ignore[operator]
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="filters see 8 features, frames have 7"):
        create("kws_low_latency_conv", coefficients=7)
    with pytest.raises(ValueError, match="takes 98 frames, got 99"):
        create("kws_tiny_conv")(torch.zeros(1, 16_160))
    with pytest.raises(ValueError, match="takes 98 frames, got 20"):
        create("kws_single_fc").example(1, 20)
