"""The C kernel of SVDF against the torch reference: a frame of a stream, or some."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from compressnet.kernels import svdf as kernel
from compressnet.layers.svdf import SVDF, State

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel was not built here")

STEP = torch.ops.compressnet.svdf_step
WIDTHS = st.sampled_from([1, 3, 7, 8, 9, 16, 17, 40])


def made(features: int, units: int, memory: int, rank: int, **options: Any) -> SVDF:
    torch.manual_seed(features + 10 * units + 100 * memory)
    layer = SVDF(features, units, memory, rank, **options).requires_grad_(False)
    if layer.bias is not None:
        layer.bias.normal_()
    return layer


def a_state(layer: SVDF, batch: int, position: int) -> State:
    ring, place = layer.init_state(batch)
    return ring.normal_(), place.add_(position)


def assert_same(ours: tuple[Tensor, State], wanted: tuple[Tensor, State]) -> None:
    (y, (ring, position)), (y2, (ring2, position2)) = ours, wanted
    for one, other in ((y, y2), (ring, ring2)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(1.0, float(other.abs().max())))
    assert torch.equal(position, position2)


class Seen(TorchDispatchMode):
    """How often the kernel was called through torch's dispatcher."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is STEP.default
        return function(*args, **(kwargs or {}))


@settings(max_examples=80, deadline=None)
@given(WIDTHS, st.integers(1, 70), WIDTHS, st.data())
def test_agrees_with_the_reference(features: int, units: int, memory: int, data: st.DataObject) -> None:
    """Sizes on both sides of those of its vectors and tiles, at every place of the ring."""
    rank = data.draw(st.integers(1, min(features, memory)))
    options = {
        "bias": data.draw(st.booleans()),
        "activation": data.draw(st.sampled_from(["none", "relu"])),
    }
    layer = made(features, units, memory, rank, **options)
    batch, position = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3 * memory))
    count = data.draw(st.sampled_from([1, 1, 2, 3, 9]))
    x, state = torch.randn(count, batch, features), a_state(layer, batch, position)
    copied = state[0].clone(), state[1].clone()
    with Seen() as seen:
        ours = layer.step(x, state)
    with kernel.reference(), Seen() as none:
        wanted = layer.step(x, copied)
    assert (seen.count, none.count) == (1, 0)
    assert_same(ours, wanted)


@pytest.mark.parametrize("threads", [1, 2])
def test_of_many_filters_threads_share_the_work(threads: int) -> None:
    layer, before = made(40, 1280, 98, 2), torch.get_num_threads()
    x, state = torch.randn(1, 2, 40), a_state(layer, 2, 50)
    copied = state[0].clone(), state[1].clone()
    try:
        torch.set_num_threads(threads)
        ours = layer.step(x, state)
    finally:
        torch.set_num_threads(before)
    with kernel.reference():
        assert_same(ours, layer.step(x, copied))


def test_what_nobody_watches_is_the_same() -> None:
    """It is called without torch's dispatcher then."""
    layer, x = made(5, 7, 6, 2), torch.randn(1, 2, 5)
    state = a_state(layer, 2, 3)
    copied = state[0].clone(), state[1].clone()
    ours = layer.step(x, state)
    with Seen():
        wanted = layer.step(x, copied)
    assert torch.equal(ours[0], wanted[0])
    assert torch.equal(ours[1][0], wanted[1][0])


def test_nan_stays_where_it_belongs() -> None:
    layer = made(9, 3, 10, 1, activation="relu")
    layer.weight_feature[1, 8] = float("nan")
    ring, position = layer.init_state(1)
    y, _ = layer.step(torch.ones(1, 1, 9), (ring, position))
    assert y.isnan().flatten().tolist() == [False, True, False]


@pytest.mark.parametrize("position", [-3, 2**40 + 3])
def test_any_position_is_in_the_ring(position: int) -> None:
    layer, x = made(5, 7, 6, 2), torch.randn(1, 2, 5)
    state = a_state(layer, 2, position)
    copied = state[0].clone(), state[1].clone()
    ours = layer.step(x, state)
    with kernel.reference():
        assert_same(ours, layer.step(x, copied))


def test_tensors_in_any_memory_layout() -> None:
    layer, x = made(5, 7, 6, 2), torch.randn(1, 2, 5)
    ring, position = a_state(layer, 2, 3)
    wanted = layer.step(x, (ring.clone(), position))
    odd = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert_same(layer.step(odd, (ring.clone(), position)), wanted)
    assert_same(layer.step(x, (ring.permute(2, 1, 0).contiguous().permute(2, 1, 0), position)), wanted)
    time = layer.weight_time.t().contiguous().t()
    layer.weight_time = torch.nn.Parameter(time, requires_grad=False)
    assert_same(layer.step(x, (ring.clone(), position)), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_run_through_the_reference(dtype: torch.dtype) -> None:
    layer, x = made(5, 7, 6, 2).to(dtype), torch.randn(1, 2, 5, dtype=dtype)
    with Seen() as seen:
        y, state = layer.step(x, layer.init_state(2))
    assert seen.count == 0
    assert y.dtype == state[0].dtype == dtype


def test_what_it_does_not_serve() -> None:
    layer, x = made(5, 7, 6, 2), torch.randn(1, 2, 5)
    feature, time, bias = layer.weight_feature, layer.weight_time, layer.bias
    ring, position = layer.init_state(2)
    good = (2, x, feature, time, bias, ring, position)
    assert kernel.serves(*good)
    for wrong in (
        (65, *good[1:]),
        (1, *good[1:]),
        (2, x[0], *good[2:]),
        (2, x.repeat(17, 1, 1), *good[2:]),
        (2, x[:0], *good[2:]),
        (2, x[:, :1], *good[2:]),
        (2, x.double(), *good[2:]),
        (2, x.to("meta"), *good[2:]),
        (2, x, feature[1:], *good[3:]),
        (2, x, feature, time, bias[1:], ring, position),  # type: ignore[index]
        (2, x, feature, time, bias, ring[1:], position),
        (2, x, feature, time, bias, ring.transpose(0, 1).contiguous().transpose(0, 1), position),
        (2, x, feature, time, bias, ring, position.double()),
    ):
        assert not kernel.serves(*wrong)
    with torch.autocast("cpu"):
        assert not kernel.serves(*good)
    with kernel.reference():
        assert not kernel.serves(*good)


def test_a_node_of_more_filters_than_it_has_room_for() -> None:
    layer, x = made(70, 2, 70, 66), torch.randn(1, 1, 70)
    with Seen() as seen:
        y, _ = layer.step(x, layer.init_state(1))
    assert seen.count == 0
    window = torch.cat([torch.zeros(1, 69 * 70), x[0]], 1)
    torch.testing.assert_close(y[0], torch.nn.functional.linear(window, layer.weight, layer.bias))


def test_gradients_take_another_way() -> None:
    layer, x = made(5, 7, 6, 2), torch.randn(1, 2, 5, requires_grad=True)
    for around, count in ((nullcontext(), 0), (torch.no_grad(), 1), (torch.inference_mode(), 1)):
        with around, Seen() as seen:
            layer.step(x, layer.init_state(2))
        assert seen.count == count


def test_the_operation_is_a_proper_one() -> None:
    layer, x = made(5, 7, 6, 2), torch.randn(1, 2, 5)
    ring, position = a_state(layer, 2, 3)
    weights = layer.weight_feature, layer.weight_time, layer.bias
    torch.library.opcheck(STEP.default, (x, *weights, ring, position, 2, True))
    torch.library.opcheck(STEP.default, (x, *weights[:2], None, ring, position, 2, False))


def test_a_flop_counter_sees_it() -> None:
    layer = made(40, 16, 10, 2)
    with FlopCounterMode(display=False) as counter:
        layer.step(torch.randn(2, 3, 40), layer.init_state(3))
    assert counter.get_total_flops() == 2 * 2 * 3 * 16 * 2 * (40 + 10)


def test_shapes_that_do_not_fit_are_not_read() -> None:
    layer, x = made(5, 7, 6, 2), torch.randn(1, 2, 5)
    ring, position = layer.init_state(2)
    weights = layer.weight_feature, layer.weight_time, layer.bias
    for wrong in (
        (x[:, :1], *weights, ring, position, 2, False),
        (x[..., 1:], *weights, ring, position, 2, False),
        (x, weights[0][1:], *weights[1:], ring, position, 2, False),
        (x, *weights, ring[1:], position, 2, False),
        (x, *weights, ring, position, 3, False),
        (x, *weights, ring, position.double(), 2, False),
    ):
        with pytest.raises(ValueError, match="svdf_step: x, weights, bias, ring and position do not fit"):
            STEP(*wrong)
