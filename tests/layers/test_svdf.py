"""SVDF: three ways to one result, TensorFlow Lite's numbers, and the way from a linear layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import compressnet
from compressnet.layers.svdf import SVDF, Activation

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "svdf.npz"
SIZES = st.integers(1, 6)


def windows(frames: Tensor, memory: int) -> Tensor:
    """Of frames (L, B, F) that at each ends, (L, B, T·F); zeros before the first."""
    padded = torch.cat([frames.new_zeros(memory - 1, *frames.shape[1:]), frames])
    return torch.stack([padded[t : t + memory].transpose(0, 1).flatten(1) for t in range(len(frames))])


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"reference case {GOLDEN.name} is not there")
def test_the_operator_of_tensorflow_lite() -> None:
    golden: dict[str, Any] = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN).items()}
    feature, time = golden["r1_none_Wf"], golden["r1_none_Wt"]
    layer = SVDF(feature.shape[1], len(feature), time.shape[1])
    layer.load_state_dict({"weight_feature": feature, "weight_time": time, "bias": golden["r1_none_bias"]})
    frames, wanted = golden["r1_none_X"], golden["r1_none_Y"]
    state, outputs = layer.init_state(frames.shape[1]), []
    for frame in frames.split(1):
        output, state = layer.step(frame, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.step(frames, layer.init_state(2))[0], wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer(windows(frames, layer.memory)), wanted, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(SIZES, SIZES, SIZES, st.data())
def test_all_forms_agree(features: int, units: int, memory: int, data: st.DataObject) -> None:
    rank, batch = data.draw(st.integers(1, min(features, memory))), data.draw(st.integers(1, 20))
    steps, cut = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    bias, activation = data.draw(st.booleans()), data.draw(st.sampled_from(get_args(Activation)))
    torch.manual_seed(0)
    layer = SVDF(features, units, memory, rank, bias, activation).double()
    frames = torch.randn(steps, batch, features, dtype=torch.float64)
    whole = windows(frames, memory)
    plain = nn.functional.linear(whole, layer.weight, layer.bias)
    wanted = plain.relu() if activation == "relu" else plain
    state, outputs = layer.init_state(batch), []
    for piece in frames.split(cut):
        output, state = layer.step(piece, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs), wanted)
    torch.testing.assert_close(layer(whole), wanted)  # of many windows composed
    torch.testing.assert_close(layer(whole[0, :1]), wanted[0, :1])  # of one by factors
    assert state.shape == (memory - 1, batch, units * rank)


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, SIZES, st.data())
def test_a_linear_layer_of_low_rank_is_kept_exactly(
    features: int, units: int, memory: int, data: st.DataObject
) -> None:
    rank, bias = data.draw(st.integers(1, min(features, memory))), data.draw(st.booleans())
    torch.manual_seed(0)
    layer = nn.Linear(memory * features, units, bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_(SVDF(features, units, memory, rank).double().weight)
    made = SVDF.from_linear(layer, memory, rank)
    x = torch.randn(3, memory * features, dtype=torch.float64)
    torch.testing.assert_close(made(x), layer(x), atol=1e-10, rtol=1e-10)
    assert (made.features, made.units, made.memory, made.rank) == (features, units, memory, rank)


def test_what_is_cut_off_is_the_least_of_each_node() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5 * 4, 3)
    made = SVDF.from_linear(layer, 5, 2, "relu")
    cut = torch.linalg.svdvals(layer.weight.detach().view(3, 5, 4))[:, 2:].square().sum(-1)
    error = (made.weight - layer.weight).square().sum(-1)
    torch.testing.assert_close(error, cut)
    assert made.activation == "relu"
    assert torch.equal(made.bias, layer.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 50])
def test_its_cost_is_what_torch_does(rows: int) -> None:
    layer = SVDF(40, 1280, 98, 2)
    counted = compressnet.count(layer, (torch.rand(rows, 98 * 40),))
    assert counted.problems == []
    assert counted.parameters == 102_400 + 250_880 + 1_280  # TensorFlow's low_latency_svdf
    assert counted.macs == {1: 2 * 1280 * (98 * 40 + 98), 50: 1280 * 98 * 40 * (2 + 50)}[rows]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SVDF(4, 3, 5, rank=5), "rank 5: filters of 5 frames of 4 features have at most 4"),
        (lambda: SVDF.from_linear(nn.Linear(10, 3), 3, 1), "10 inputs are not 3 frames"),
        (lambda: SVDF.from_linear(nn.Linear(10, 3), 5, 3), "have at most 2"),
        (lambda: SVDF(4, 3, 5)(torch.rand(2, 4)), r"windows of 5 x 4 numbers, got \(2, 4\)"),
        (lambda: SVDF(4, 3, 5).step(torch.rand(1, 2, 5), torch.zeros(4, 2, 3)), r"frames \(L, B, 4\)"),
    ],
)
def test_what_does_not_fit(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
