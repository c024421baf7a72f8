"""The C walk of LSTM 1997 against the torch reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from compressnet.kernels import lstm_1997 as kernel
from compressnet.layers.lstm_1997 import LSTM1997

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel was not built here")

BLOCKS = st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 2), (1, 7), (4, 6), (16, 2)])  # n_h 3 to 64


def lively(blocks: int, size: int, truncated: bool = True) -> LSTM1997:
    torch.manual_seed(blocks + size)
    layer = LSTM1997(3, blocks, size, 2, truncated=truncated)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5)
    return layer


def outputs_and_gradients(layer: LSTM1997, x: Tensor) -> list[Tensor]:
    y, (fed_back, cells) = layer(x)
    total = y.square().mean() + fed_back.sin().mean() + cells.sin().mean()
    return [y, fed_back, cells, *torch.autograd.grad(total, list(layer.parameters()))]


@settings(max_examples=30, deadline=None)
@given(BLOCKS, st.integers(1, 20), st.integers(1, 5))
def test_agrees_with_the_reference(blocks: tuple[int, int], steps: int, batch: int) -> None:
    layer, x = lively(*blocks), torch.randn(steps, batch, 3)
    state = torch.rand(batch, layer.sizes.hidden), torch.randn(batch, layer.sizes.cells)
    with torch.no_grad():
        fast = layer(x, state)
    learned = outputs_and_gradients(layer, x)
    with kernel.reference():
        with torch.no_grad():
            slow = layer(x, state)
        wanted = outputs_and_gradients(layer, x)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=5e-5)
    torch.testing.assert_close(learned, wanted, rtol=1e-4, atol=5e-5)


def test_the_state_that_is_given_stays() -> None:
    layer = lively(2, 2)
    state = torch.rand(1, 8), torch.randn(1, 4)
    before = [tensor.clone() for tensor in state]
    with torch.no_grad():
        _, (fed_back, cells) = layer(torch.randn(4, 1, 3), state)
    torch.testing.assert_close(list(state), before, rtol=0, atol=0)
    assert not torch.equal(cells, before[1])
    assert not torch.equal(fed_back, before[0])


def test_inputs_in_any_memory_layout() -> None:
    layer, x = lively(2, 3), torch.randn(5, 4, 3)
    state = torch.rand(10, 4).t(), torch.randn(6, 4).t()
    with torch.no_grad():
        odd = layer(x, state)
        plain = layer(x, tuple(tensor.contiguous() for tensor in state))
    torch.testing.assert_close(odd, plain, rtol=0, atol=0)


def test_nan_stays_in_its_sequence() -> None:
    layer, x = lively(2, 2), torch.randn(3, 2, 3)
    x[1, 0] = float("nan")
    with torch.no_grad():
        y, _ = layer(x)
    assert torch.isfinite(y[0]).all()
    assert torch.isfinite(y[:, 1]).all()
    assert y[1:, 0].isnan().all()


def test_only_small_networks_in_float32_on_the_cpu_are_served() -> None:
    small = torch.zeros(1, 1, 64)
    assert kernel.serves(small, torch.zeros(64, 64))
    assert not kernel.serves(torch.zeros(1, 1, 65))
    assert not kernel.serves(small.double())
    assert not kernel.serves(small, torch.zeros(1, dtype=torch.bfloat16))
    assert not kernel.serves(small.to("meta"))
    with kernel.reference():
        assert not kernel.serves(small)


def test_the_whole_gradient_does_not_go_through_the_kernel() -> None:
    layer, truncated, x = lively(2, 2, truncated=False), lively(2, 2), torch.randn(6, 2, 3)
    whole = outputs_and_gradients(layer, x)
    with kernel.reference():
        torch.testing.assert_close(outputs_and_gradients(layer, x), whole, rtol=0, atol=0)
    assert not torch.allclose(outputs_and_gradients(truncated, x)[3], whole[3], rtol=1e-3)


def test_work_is_counted() -> None:
    """T·B·n_h·n_h of the walk, beside the products with the input and to the outputs."""
    layer, x = lively(2, 2), torch.randn(6, 5, 3)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        layer(x)
    assert counted.get_total_flops() == 2 * 6 * 5 * (8 * 8 + 8 * 3 + 2 * 4)


def test_compiled_without_breaks() -> None:
    layer, x = lively(2, 2), torch.randn(4, 2, 3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


def test_what_c_has_no_room_for_is_refused() -> None:
    hidden = 65
    with pytest.raises(ValueError, match="65 hidden units, 64 at most"):
        torch.ops.compressnet.lstm_1997_walk(
            torch.zeros(2, 1, hidden),
            torch.zeros(hidden, hidden),
            torch.zeros(1, hidden),
            torch.zeros(1, 63),
            1,
        )
