"""The C kernel of the LSTM against the torch reference."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from compressnet.kernels import lstm as kernel
from compressnet.layers.lstm import LSTM, lstmp

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel was not built here")

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 4), st.sampled_from([2, 7, 8, 63, 64, 65, 130]))


def outputs_and_gradients(net: LSTM, x: Tensor, lengths: Tensor | None, seed: int) -> list[Tensor]:
    """Outputs, state, and the gradients of everything for a random gradient of all of them."""
    torch.manual_seed(seed)
    h0, c0 = (torch.randn(s.shape, requires_grad=True) for s in net.init_state(x.shape[1]))
    x = x.clone().requires_grad_()
    y, (h, c) = net(x, (h0, c0), lengths)
    outputs = [y, h, c]
    given_back = [torch.randn_like(t) for t in outputs]
    return [*outputs, *torch.autograd.grad(outputs, [x, h0, c0, *net.parameters()], given_back)]


def assert_agree(net: LSTM, x: Tensor, lengths: Tensor | None = None, seed: int = 0) -> None:
    fast = outputs_and_gradients(net, x, lengths, seed)
    with kernel.reference():
        slow = outputs_and_gradients(net, x, lengths, seed)
    for a, b in zip(fast, slow, strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        torch.testing.assert_close(a, b, atol=1e-5 * scale, rtol=0)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.booleans(), st.booleans(), st.integers(0, 3), st.sampled_from([1, 2]), st.integers(0, 99))
def test_agrees_with_the_reference(
    sizes: tuple[int, int, int], peepholes: bool, coupled: bool, projections: int, threads: int, seed: int
) -> None:
    steps, batch, hidden = sizes
    torch.manual_seed(seed)
    switches: dict[str, Any] = {"peepholes": peepholes, "coupled_gates": coupled}
    if projections:
        switches["proj_size"] = (hidden + 1) // 2
    if projections > 1:
        switches["nonrecurrent_proj_size"] = hidden // 2
    net = LSTM(3, hidden, num_layers=2, bidirectional=projections == 3, **switches)
    lengths = torch.randint(0, steps + 1, (batch,)) if seed % 2 else None
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_agree(net, torch.randn(steps, batch, 3), lengths, seed)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("steps", [1, 20], ids=["one step", "matrices laid out"])
@pytest.mark.parametrize("threads", [1, 2])
def test_large_matrices_go_to_onednn_and_agree(steps: int, threads: int) -> None:
    torch.manual_seed(0)
    net, before = lstmp(300, 300, 256), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_agree(net, torch.randn(steps, 40, 300))
    finally:
        torch.set_num_threads(before)


def test_gradients_come_in_any_memory_layout() -> None:
    torch.manual_seed(0)
    net = lstmp(3, 10, 4)
    x = torch.randn(3, 2, 5).permute(2, 1, 0)

    def gradients() -> tuple[Tensor, ...]:
        y, (_, c) = net(x)
        return torch.autograd.grad(y.sum() + c.transpose(1, 2).cos().sum(), list(net.parameters()))

    fast = gradients()
    with kernel.reference():
        torch.testing.assert_close(fast, gradients(), atol=1e-5, rtol=1e-5)


def test_a_graph_can_be_walked_back_twice() -> None:
    torch.manual_seed(0)
    net = lstmp(3, 10, 4)
    loss = net(torch.randn(5, 2, 3))[0].square().sum()
    parameters = list(net.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), first, atol=0, rtol=0)


def test_forward_gradients_are_refused_and_not_zero() -> None:
    net = lstmp(3, 10, 4).requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"autograd\.Function"):
        torch.func.jvp(lambda x: net(x)[0], (torch.ones(2, 1, 3),), (torch.ones(2, 1, 3),))


def test_large_numbers_saturate_and_nan_stays() -> None:
    sums = torch.full((1, 1, 32), 1e4)
    sums[0, 0, 0] = float("nan")
    h, c, _ = kernel.walk(sums, torch.zeros(1, 8), torch.full((1, 8), 3.0), torch.zeros(32, 8), None, None)
    assert c[0, 0, 0].isnan()
    assert torch.equal(c[0, 0, 1:], torch.full((7,), 4.0))  # 1·3 + 1·1
    torch.testing.assert_close(h[0, 0, 1:], torch.full((7,), 4.0).tanh())


@pytest.mark.parametrize("value", [1e-6, 1e-3, 0.1, 0.62, 0.63, 1.0, 3.0, 9.0, 50.0])
def test_tanh_and_sigmoid_are_as_exact_as_torch(value: float) -> None:
    numbers = torch.tensor([value, -value]).repeat(4)
    sums = torch.cat([numbers, numbers, numbers, torch.full((8,), 100.0)]).view(1, 1, 32)
    _, c, m = kernel.walk(sums, torch.zeros(1, 8), torch.zeros(1, 8), torch.zeros(32, 8), None, None)
    wide = numbers.double()
    torch.testing.assert_close(c[0, 0].double(), wide.sigmoid() * wide.tanh(), atol=0, rtol=6e-7)
    torch.testing.assert_close(m[0, 0].double(), (wide.sigmoid() * wide.tanh()).tanh(), atol=0, rtol=9e-7)


def test_only_float32_on_the_cpu() -> None:
    x = torch.zeros(1)
    assert kernel.serves(x, None)
    assert not kernel.serves(x, x.double())
    assert not kernel.serves(x.bfloat16())
    assert not kernel.serves(x.to("meta"))
    with kernel.reference():
        assert not kernel.serves(x)


@pytest.mark.parametrize("which", range(6))
def test_shapes_that_do_not_fit_are_refused_and_not_read(which: int) -> None:
    shapes = [(5, 3, 80), (3, 8), (3, 20), (80, 8), (8, 20), (3, 20)]
    tensors = [torch.zeros(shape) for shape in shapes]
    kernel.walk(*tensors)
    tensors[which] = torch.zeros(*shapes[which][:-1], shapes[which][-1] - 1)
    with pytest.raises(ValueError, match="do not fit: .*" + re.escape(str(tuple(tensors[which].shape)))):
        kernel.walk(*tensors)


def test_what_was_kept_may_come_back_in_any_memory_layout() -> None:
    """As from a hook that stores what is saved for the gradient elsewhere."""
    torch.manual_seed(0)
    net, x = lstmp(3, 10, 4), torch.randn(5, 2, 3)
    wanted = torch.autograd.grad(net(x)[0].square().sum(), list(net.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: turned(t).contiguous(), turned):
        y, _ = net(x)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), list(net.parameters())), wanted)


def turned(kept: Tensor) -> Tensor:
    return kept.mT if kept.ndim >= 2 else kept


def test_flop_counter_sees_the_products() -> None:
    steps, batch, hidden, proj, width = 5, 3, 20, 8, 12
    net = lstmp(width, hidden, proj)
    x = torch.randn(steps, batch, width)
    with FlopCounterMode(display=False) as counter:
        y, _ = net(x)
    forward = 2 * steps * batch * (4 * hidden * width + 4 * hidden * proj + proj * hidden)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    # A gradient of the matrices, and one of what goes into them but the input.
    assert counter.get_total_flops() == forward + 2 * steps * batch * (4 * hidden * proj + proj * hidden)


@pytest.mark.parametrize("projected", [True, False])
def test_operations_keep_torch_s_rules(projected: bool) -> None:
    shapes = [(5, 3, 80), (3, 8 if projected else 20), (3, 20), (80, 8 if projected else 20)]
    sums, h0, c0, weight_hh = (torch.randn(shape) for shape in shapes)
    weight_hr = torch.randn(8, 20) if projected else None
    forward = (sums, h0, c0, weight_hh, weight_hr, torch.randn(3, 20), True)
    rules = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.compressnet.lstm_forward.default, forward, test_utils=rules)
    h, c, _, gates = torch.ops.compressnet.lstm_forward(*forward)
    backward = (gates, c0, c, weight_hh, weight_hr, None, torch.randn_like(h), None, None)
    torch.library.opcheck(torch.ops.compressnet.lstm_backward.default, backward, test_utils=rules)


@pytest.mark.slow
def test_compiles_in_one_graph_and_for_all_lengths() -> None:
    torch.manual_seed(0)
    net, x = lstmp(12, 20, 8), torch.randn(5, 3, 12)
    torch.compiler.reset()
    torch._dynamo.mark_dynamic(x, 0)  # what torch does by itself at the second length, by compiling again
    compiled = torch.compile(net, fullgraph=True)

    def run(module: Any, x: Tensor) -> list[Tensor]:
        y, (h, c) = module(x)
        return [y, h, c, *torch.autograd.grad(y.sum() + c.square().sum(), list(net.parameters()))]

    graphs = []
    for steps in (5, 6, 7, 11):
        x = x if steps == 5 else torch.randn(steps, 3, 12)
        torch.testing.assert_close(run(compiled, x), run(net, x), atol=1e-5, rtol=1e-5)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[-1]  # no later length compiles again
