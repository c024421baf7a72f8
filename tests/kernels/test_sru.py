"""The C kernel of SRU against the torch reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressnet.kernels import sru as kernel
from compressnet.layers.sru import SRU
from compressnet.layers.sru_recurrence import Activation, recurrence

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel was not built here")

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 4), st.sampled_from([1, 7, 8, 63, 64, 65, 130]))


def inputs(steps: int, batch: int, hidden: int, version: int) -> list[Tensor | None]:
    torch.manual_seed(steps + 10 * batch + 100 * hidden)
    v = torch.randn(2, hidden) if version == 2 else None
    shapes = (steps, batch, 3 * hidden), (steps, batch, hidden), (2, hidden), (batch, hidden)
    u, highway, bias, c0 = (torch.randn(shape) for shape in shapes)
    return [u, highway, v, bias, c0]


def outputs_and_gradients(
    tensors: list[Tensor | None], activation: Activation, reverse: bool
) -> list[Tensor]:
    own = [None if t is None else t.clone().requires_grad_() for t in tensors]
    u, highway, v, bias, c0 = own
    assert u is not None
    assert highway is not None
    assert bias is not None
    assert c0 is not None
    h, last = recurrence(u, highway, v, bias, c0, activation=activation, reverse=reverse)
    torch.manual_seed(0)
    given_back = [torch.randn_like(h), torch.randn_like(last)]
    gradients = torch.autograd.grad([h, last], [t for t in own if t is not None], given_back)
    return [h, last, *gradients]


@settings(max_examples=30, deadline=None)
@given(
    SIZES,
    st.sampled_from(["identity", "tanh"]),
    st.booleans(),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
)
def test_agrees_with_the_reference(
    sizes: tuple[int, int, int], activation: Activation, reverse: bool, version: int, threads: int
) -> None:
    tensors, before = inputs(*sizes, version), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        fast = outputs_and_gradients(tensors, activation, reverse)
    finally:
        torch.set_num_threads(before)
    with kernel.reference():
        slow = outputs_and_gradients(tensors, activation, reverse)
    for a, b in zip(fast, slow, strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        torch.testing.assert_close(a, b, atol=1e-5 * scale, rtol=0)


def test_large_numbers_saturate_and_nan_stays() -> None:
    u = torch.full((2, 1, 24), 1e4)
    u[0, 0, 8:16] = -1e4
    u[1, 0, 0] = float("nan")
    h, last = recurrence(u, torch.zeros(2, 1, 8), None, torch.zeros(2, 8), torch.ones(1, 8))
    assert torch.equal(last[0, 1:], torch.full((7,), 1e4))
    assert last[0, 0].isnan()
    assert torch.isfinite(h[:, :, 1:]).all()


def test_inputs_in_any_memory_layout() -> None:
    u, highway, v, bias, c0 = inputs(5, 3, 10, 2)
    assert u is not None
    assert highway is not None
    assert bias is not None
    assert c0 is not None
    odd = u.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for a, b in zip(recurrence(odd, highway, v, bias, c0), recurrence(u, highway, v, bias, c0), strict=True):
        assert torch.equal(a, b)


def test_only_float32_on_the_cpu_is_served() -> None:
    assert kernel.serves(torch.zeros(1), None)
    assert not kernel.serves(torch.zeros(1), torch.zeros(1, dtype=torch.float64))
    assert not kernel.serves(torch.zeros(1, device="meta"))
    with kernel.reference():
        assert not kernel.serves(torch.zeros(1))


def test_the_layer_compiles_around_it_without_a_break() -> None:
    layer, x = SRU(4, 8), torch.randn(3, 2, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])
    (fast,) = torch.autograd.grad(compiled(x)[0].sum(), [layer.layers[0].cells[0].bias])
    (slow,) = torch.autograd.grad(layer(x)[0].sum(), [layer.layers[0].cells[0].bias])
    torch.testing.assert_close(fast, slow)


def test_operations_are_proper_ones() -> None:
    u, highway, v, bias, c0 = inputs(3, 2, 9, 2)
    torch.library.opcheck(torch.ops.compressnet.sru_forward.default, (u, highway, v, bias, c0, True, False))
