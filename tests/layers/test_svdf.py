"""SVDF: all ways to one result, TensorFlow Lite's numbers, and the way from a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import compressnet
from compressnet import cost
from compressnet.analysis.forms import make_form
from compressnet.errors import UsageError
from compressnet.kernels import svdf as kernel
from compressnet.layers.svdf import SVDF, Activation, Form

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "svdf.npz"
SIZES = st.integers(1, 6)


def windows(frames: Tensor, memory: int) -> Tensor:
    """Of frames (L, B, F) that at each ends, (L, B, T·F); zeros before the first."""
    padded = torch.cat([frames.new_zeros(memory - 1, *frames.shape[1:]), frames])
    return torch.stack([padded[t : t + memory].transpose(0, 1).flatten(1) for t in range(len(frames))])


def streamed(layer: SVDF, frames: Tensor, sizes: Sequence[int]) -> Tensor:
    """Frames (L, B, F) in pieces of such sizes, to nodes (L, B, n)."""
    state, outputs = layer.init_state(frames.shape[1]), []
    for piece in frames.split(list(sizes)):
        output, state = layer.step(piece, state)
        outputs.append(output)
    return torch.cat(outputs)


def assert_close(ours: Tensor, wanted: Tensor) -> None:
    """To 1e-5 of scale."""
    assert ours.dtype == wanted.dtype
    torch.testing.assert_close(
        ours, wanted, rtol=0, atol=1e-5 * max(1e-3, float(wanted.detach().abs().max()))
    )


@st.composite
def layers(draw: Any) -> SVDF:
    features, units, memory = draw(SIZES), draw(SIZES), draw(st.integers(1, 12))
    rank = draw(st.integers(1, min(features, memory)))
    torch.manual_seed(draw(st.integers(0, 99)))
    activation = draw(st.sampled_from(get_args(Activation)))
    layer = SVDF(features, units, memory, rank, draw(st.booleans()), activation)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer.to(draw(st.sampled_from([torch.float32, torch.float64])))


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"reference case {GOLDEN.name} is not there")
@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize("in_c", [True, False], ids=["c", "torch"])
def test_the_operator_of_tensorflow_lite(form: Form, in_c: bool) -> None:
    golden: dict[str, Any] = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN).items()}
    feature, time = golden["r1_none_Wf"], golden["r1_none_Wt"]
    layer = SVDF(feature.shape[1], len(feature), time.shape[1], form=form)
    layer.load_state_dict({"weight_feature": feature, "weight_time": time, "bias": golden["r1_none_bias"]})
    frames, wanted = golden["r1_none_X"], golden["r1_none_Y"]
    with torch.no_grad(), nullcontext() if in_c else kernel.reference():
        for sizes in ([1] * len(frames), [len(frames)], [7, 1, 1, 16]):
            torch.testing.assert_close(streamed(layer, frames, sizes), wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer(windows(frames, layer.memory)), wanted, atol=1e-5, rtol=0)
        rest = wanted[layer.memory - 1 :]
        torch.testing.assert_close(layer(frames), rest, atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(layers(), st.integers(1, 20), st.lists(st.integers(1, 15), min_size=1, max_size=6), st.booleans())
def test_all_forms_agree(layer: SVDF, batch: int, sizes: list[int], gradients: bool) -> None:
    """Windows, sequences and streams in pieces of any length, with the composed weight and by factors."""
    frames = torch.randn(sum(sizes), batch, layer.features, dtype=layer.weight_time.dtype)
    whole = windows(frames, layer.memory)
    plain = nn.functional.linear(whole, layer.weight, layer.bias)
    wanted = plain.relu() if layer.activation == "relu" else plain
    rest = wanted[layer.memory - 1 :]
    with nullcontext() if gradients else torch.no_grad():
        assert_close(streamed(layer, frames, sizes), wanted)
        with kernel.reference():
            assert_close(streamed(layer, frames, [1] * len(frames)), wanted)
        for form in get_args(Form):
            layer.form = form
            assert_close(layer(whole), wanted)
            assert_close(layer(whole[0, :1]), wanted[0, :1])
            if len(rest):
                assert_close(layer(frames), rest)


@settings(max_examples=20, deadline=None)
@given(layers(), st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_gradients_through_a_stream_are_those_of_windows(layer: SVDF, sizes: list[int]) -> None:
    layer = layer.double()
    frames = torch.randn(sum(sizes), 2, layer.features, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(sum(sizes), 2, layer.units, dtype=torch.float64)
    found = [
        torch.autograd.grad((outputs * weight).sum(), [frames, *layer.parameters()])
        for outputs in (
            layer(windows(frames, layer.memory)),
            streamed(layer, frames, sizes),
            streamed(layer, frames, [1] * len(frames)),
        )
    ]
    for ours in found[1:]:
        torch.testing.assert_close(ours, found[0])


@pytest.mark.parametrize("in_c", [True, False], ids=["c", "torch"])
def test_a_frame_goes_into_the_ring_that_is_given(in_c: bool) -> None:
    """No frame is moved, and the last state may be stepped more than once: a network beside its copy."""
    layer, frames = SVDF(4, 3, 5, 2), torch.randn(9, 2, 4)
    state = layer.init_state(2)
    place = state[0].data_ptr()
    with torch.no_grad(), nullcontext() if in_c else kernel.reference():
        for frame in frames.split(1):
            before = state[0].clone()
            first, _ = layer.step(frame, state)
            again, state = layer.step(frame, state)
            assert torch.equal(first, again)
            assert int((state[0] != before).any(-1).any(-1).sum()) == 1
            assert state[0].data_ptr() == place


@pytest.mark.parametrize(("length", "gradients"), [(1, True), (2, False), (20, False)])
def test_else_the_state_that_is_given_stays(length: int, gradients: bool) -> None:
    layer, frames = SVDF(4, 3, 5, 2), torch.randn(length, 2, 4)
    with nullcontext() if gradients else torch.no_grad():
        _, state = layer.step(frames, layer.init_state(2))
        before = [part.clone() for part in state]
        layer.step(frames, state)
    assert all(map(torch.equal, state, before))


def test_a_state_made_in_inference_is_good_outside_of_it() -> None:
    layer, frame = SVDF(4, 3, 5), torch.randn(1, 2, 4)
    with torch.inference_mode():
        wanted, state = layer.step(frame, layer.init_state(2))
        wanted, _ = layer.step(frame, state)
        _, other = layer.step(frame, layer.init_state(2))
    with torch.no_grad():
        assert_close(layer.step(frame, other)[0], wanted.clone())


def test_on_meta_a_stream_has_the_same_shapes() -> None:
    layer = SVDF(4, 3, 5, 2).to("meta")
    state = layer.init_state(2)
    for length in (1, 3, 8):
        with torch.no_grad():
            y, state = layer.step(torch.empty(length, 2, 4, device="meta"), state)
        assert y.shape == (length, 2, 3)
        assert state[0].shape == (5, 2, 6)


def test_an_exported_step_takes_any_state() -> None:
    """The place of the next frame is an input of the graph, not a number in it."""
    layer, frames = SVDF(4, 3, 5, 2).eval(), torch.randn(8, 2, 4)

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, ring: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y, (ring, position) = self.layer.step(x, (ring, position))
            return y, ring, position

    program = torch.export.export(Step(), (frames[:1], *layer.init_state(2))).module()
    with torch.no_grad():
        state = layer.init_state(2)
        for frame in frames.split(1):
            ours = program(frame, *(part.clone() for part in state))
            wanted, state = layer.step(frame, state)
            assert_close(ours[0], wanted)
            assert_close(ours[1], state[0])
            assert torch.equal(ours[2], state[1])


def test_weights_may_be_parametrized() -> None:
    layer, frame = SVDF(4, 3, 5), torch.randn(1, 2, 4)
    with torch.no_grad():
        wanted, _ = layer.step(frame, layer.init_state(2))
        nn.utils.parametrizations.weight_norm(layer, "weight_feature")
        assert_close(layer.step(frame, layer.init_state(2))[0], wanted)


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


@pytest.mark.parametrize(
    ("form", "rows", "macs"),
    [
        ("auto", 1, 2 * 1280 * (98 * 40 + 98)),
        ("auto", 50, 1280 * 98 * 40 * (2 + 50)),
        ("factored", 50, 50 * 2 * 1280 * (98 * 40 + 98)),
        ("composed", 1, 1280 * 98 * 40 * (2 + 1)),
    ],
)
def test_its_cost_is_what_torch_does(form: Form, rows: int, macs: int) -> None:
    layer = SVDF(40, 1280, 98, 2, form=form)
    counted = compressnet.count(layer, (torch.rand(rows, 98 * 40),))
    assert counted.problems == []
    assert counted.parameters == 102_400 + 250_880 + 1_280  # TensorFlow's low_latency_svdf
    assert counted.macs == macs


@pytest.mark.parametrize(
    ("form", "steps", "macs"),
    [
        ("auto", 49, 3 * 128 * 2 * (49 * 40 + 40 * 10)),
        ("auto", 10, 3 * 128 * 2 * (10 * 40 + 10)),  # one window alone
        ("composed", 49, 128 * 10 * 40 * (2 + 40 * 3)),
    ],
)
def test_the_cost_of_a_sequence(form: Form, steps: int, macs: int) -> None:
    counted = compressnet.count(SVDF(40, 128, 10, 2, form=form), (torch.rand(steps, 3, 40),))
    assert counted.problems == []
    assert counted.macs == macs


def test_the_cost_of_a_frame_is_that_of_the_paper() -> None:
    terms = SVDF(40, 1280, 98, 2).step_cost(1)
    assert cost.total(terms, "macs") == 2 * 1280 * (40 + 98)
    assert cost.total(terms, "state") == 250_880
    state = SVDF(40, 1280, 98, 2, form="composed").cost((1, 98 * 40))
    assert cost.total(state, "state") == 250_880


@pytest.mark.parametrize("backend", ["reference", "c", "eager"])
def test_back_ends_step_alike(backend: str) -> None:
    if backend == "c" and not kernel.available():
        pytest.skip("the kernel was not built here")
    torch.manual_seed(0)
    layer, frame = SVDF(16, 8, 5, 2, activation="relu"), torch.randn(1, 3, 16)
    form = make_form(layer, (frame,), "stream-step", backend)
    wanted = streamed(layer, frame.repeat(7, 1, 1), [7])
    for y in wanted.split(1):
        assert_close(form(), y.detach())  # type: ignore[arg-type]


def test_c_computes_frames_alone() -> None:
    layer = SVDF(4, 3, 5)
    with pytest.raises(UsageError, match="single frames: --mode stream-step only"):
        make_form(layer, layer.example(), "forward", "c")()


def step(x: Tensor, state: Any = None) -> object:
    layer = SVDF(4, 3, 5)
    return layer.step(x, layer.init_state(2) if state is None else state)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SVDF(4, 3, 5, rank=5), "rank 5: filters of 5 frames of 4 features have at most 4"),
        (lambda: SVDF.from_linear(nn.Linear(10, 3), 3, 1), "10 inputs are not 3 frames"),
        (lambda: SVDF.from_linear(nn.Linear(10, 3), 5, 3), "have at most 2"),
        (lambda: SVDF(4, 3, 5)(torch.rand(2, 4)), r"windows of 5 x 4 numbers, or .* got \(2, 4\)"),
        (lambda: SVDF(4, 3, 5)(torch.rand(4, 2, 4)), r"at least 5 frames \(L, B, 4\), got \(4, 2, 4\)"),
        (lambda: step(torch.rand(1, 2, 5)), r"frames \(L, B, 4\), got \(1, 2, 5\)"),
        (lambda: step(torch.rand(0, 2, 4)), r"frames \(L, B, 4\), got \(0, 2, 4\)"),
        (
            lambda: step(torch.rand(1, 3, 4)),
            r"for frames \(1, 3, 4\) is \(5, 3, 3\) and \(\), got \(5, 2, 3\)",
        ),
        (lambda: step(torch.rand(1, 2, 4), torch.zeros(5, 2, 3)), "a ring and a position, as init_state"),
        (
            lambda: step(torch.rand(1, 2, 4), SVDF(4, 3, 5).init_state(2, dtype=torch.float64)),
            "state is torch.float64, the parameters are torch.float32",
        ),
        (
            lambda: step(torch.rand(1, 2, 4), (torch.zeros(5, 2, 3), torch.zeros(()))),
            "position in the state is torch.float32, not torch.int64",
        ),
    ],
)
def test_what_does_not_fit(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
