"""The C kernel of SRU against the torch reference."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

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


def test_lengths_where_the_products_go_to_onednn() -> None:
    """Padding is marked in place, in what the product returned."""
    torch.manual_seed(0)
    net, x, lengths = SRU(450, 400), torch.randn(4, 3, 450), torch.tensor([4, 1, 0])
    own = [p for cell in net.layers[0].cells for p in cell.parameters()]

    def results() -> tuple[Tensor, ...]:
        y, last = net(x, None, lengths)
        return y, last, *torch.autograd.grad(y.square().sum() + last.sin().sum(), own)

    fast = results()
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(fast, results(), atol=1e-4, rtol=1e-5)


def test_only_float32_on_the_cpu_is_served() -> None:
    assert kernel.serves(torch.zeros(1), None)
    assert not kernel.serves(torch.zeros(1), torch.zeros(1, dtype=torch.float64))
    assert not kernel.serves(torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16))
    assert not kernel.serves(torch.zeros(1, device="meta"))
    assert not kernel.serves(torch.zeros(1), torch.zeros(1, device="meta"))
    with kernel.reference():
        assert not kernel.serves(torch.zeros(1))


class Stack(torch.nn.Module):
    """Two layers between others, as in a user's network."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.rnn, self.behind = torch.nn.Linear(4, 6), SRU(6, 8, 2), torch.nn.Linear(8, 2)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, last = self.rnn(self.before(x), state)
        return self.behind(y), last


def results(net: Any, own: Stack, x: Tensor, state: Tensor) -> list[Tensor]:
    y, last = net(x, state)
    return [y, last, *torch.autograd.grad(y.square().mean() + last.sin().sum(), [state, *own.parameters()])]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_run_through_the_reference(dtype: torch.dtype) -> None:
    net, x = SRU(4, 8).to(dtype), torch.randn(3, 2, 4, dtype=dtype)
    with Operations() as seen:
        y, last = net(x)
    assert seen.sizes == []
    assert (y.dtype, last.dtype) == (dtype, dtype)
    with kernel.reference():
        assert torch.equal(net(x)[0], y)


needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")


@needs_compiler
def test_networks_with_it_compile_whole() -> None:
    """By torch's own compiler, not only traced."""
    torch.manual_seed(0)
    net, x, state = Stack(), torch.randn(5, 3, 4), torch.randn(2, 3, 8, requires_grad=True)
    compiled = torch.compile(net, fullgraph=True)
    for one, other in zip(results(compiled, net, x, state), results(net, net, x, state), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_one_compilation_serves_all_lengths() -> None:
    torch._dynamo.reset()
    net, state = Stack(), torch.randn(2, 3, 8, requires_grad=True)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(net, fullgraph=True, backend=counter)
    for steps in (4, 2, 9, 33):
        x = torch.randn(steps, 3, 4)
        torch._dynamo.mark_dynamic(x, 0)
        for one, other in zip(results(compiled, net, x, state), results(net, net, x, state), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert counter.frame_count == 1


@pytest.mark.parametrize("version", [1, 2])
def test_operations_are_proper_ones(version: int) -> None:
    u, highway, v, bias, c0 = inputs(3, 2, 9, version)
    for keep in (False, True):
        torch.library.opcheck(
            torch.ops.compressnet.sru_forward.default, (u, highway, v, bias, c0, True, False, keep)
        )
    cells, dh, dc_last = torch.randn(3, 2, 9), torch.randn(3, 2, 9), torch.randn(2, 9)
    torch.library.opcheck(
        torch.ops.compressnet.sru_backward.default,
        (u, highway, v, bias, c0, cells, dh, dc_last, True, False),
    )


@pytest.mark.parametrize("version", [1, 2])
def test_without_gradients_the_result_is_the_same_and_no_cells_are_kept(version: int) -> None:
    u, highway, v, bias, c0 = inputs(6, 2, 65, version)
    with_gradient = outputs_and_gradients([u, highway, v, bias, c0], "identity", False)
    for around in (
        torch.no_grad(),
        torch.inference_mode(),
        nullcontext(),
    ):  # last: nothing asks for a gradient
        with around, Operations() as seen:
            quiet = recurrence(u, highway, v, bias, c0)  # type: ignore[arg-type]
        assert torch.equal(quiet[0], with_gradient[0])
        assert torch.equal(quiet[1], with_gradient[1])
        assert seen.sizes == [(0,)]
    with Operations() as seen:
        outputs_and_gradients([u, highway, v, bias, c0], "identity", False)
    assert seen.sizes == [(6, 2, 65)]


def test_forward_gradients_are_refused_and_not_zero() -> None:
    net = SRU(4, 8).requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"autograd\.Function"):
        torch.func.jvp(lambda x: net(x)[0], (torch.ones(2, 1, 4),), (torch.ones(2, 1, 4),))


class Operations(TorchDispatchMode):
    """The sizes of the cells that forward calls of the kernel hand back."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.compressnet.sru_forward.default:
            self.sizes.append(tuple(found[2].shape))
        return found
