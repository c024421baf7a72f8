from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from compressnet.analysis.count import count
from compressnet.analysis.example import example
from compressnet.layers.lstm_1997 import LSTM1997

Array = NDArray[np.float64]


def make(blocks: int = 2, size: int = 2, **more: Any) -> LSTM1997:
    """In float64, with weights large enough to reach all nonlinear parts."""
    torch.manual_seed(blocks + size)
    made = LSTM1997(3, blocks, size, 2, **more).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return made


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def weights_of(layer: LSTM1997) -> tuple[Array, Array]:
    """(n_h, n_i + n_h) and the biases of all hidden units."""
    bias = np.zeros(layer.sizes.hidden)
    if layer.bias is not None:
        own = layer.bias.detach().numpy()
        bias[len(bias) - len(own) :] = own
    return torch.cat([layer.weight_ih, layer.weight_hh], 1).detach().numpy(), bias


def naive(layer: LSTM1997, x: Tensor) -> tuple[Array, Array, Array]:
    """One sequence (T, n_i), unit by unit; the outputs (T, b·S) of the cells, what is fed back, the cells."""
    blocks, size = layer.sizes.blocks, layer.sizes.block_size
    weight, bias = weights_of(layer)
    fed_back, inside, ys = np.zeros(blocks * size + 2 * blocks), np.zeros(blocks * size), []
    for at in x.numpy():
        net = weight @ np.concatenate([at, fed_back]) + bias
        for block in range(blocks):
            y_in = s(net[blocks * size + block])
            y_out = s(net[blocks * size + blocks + block])
            fed_back[blocks * size + block], fed_back[blocks * size + blocks + block] = y_in, y_out
            for k in range(block * size, (block + 1) * size):
                inside[k] += y_in * (4 * s(net[k]) - 2)
                fed_back[k] = y_out * (2 * s(inside[k]) - 1)
        ys.append(fed_back[: blocks * size].copy())
    return np.array(ys), fed_back, inside


@pytest.mark.parametrize("biases", ["none", "gates", "hidden", "all"])
@pytest.mark.parametrize(("blocks", "size"), [(1, 1), (3, 1), (2, 3)])
def test_against_the_formulas_unit_by_unit(blocks: int, size: int, biases: Any) -> None:
    layer = make(blocks, size, biases=biases)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    y, (fed_back, inside) = layer(x)
    for b in range(2):
        cells, last, state = naive(layer, x[:, b])
        expected = layer.output(torch.from_numpy(cells))
        torch.testing.assert_close(y[:, b], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(fed_back[b].detach(), torch.from_numpy(last), rtol=0, atol=1e-12)
        torch.testing.assert_close(inside[b].detach(), torch.from_numpy(state), rtol=0, atol=1e-12)


def hand_gradient(layer: LSTM1997, x: Array, error: Array) -> tuple[Array, Array]:
    """The paper's truncated gradient (appendix A.1) of (weights, biases), carried forwards in time.

    For a cell k with gates in and out, u = (x, what was fed back) and e the error of its output:

        ds_k/dw_k  += y_in g'(net_k) u       ds_k/dw_in += g(net_k) y_in (1 - y_in) u
        dE/dw_k    += e y_out h'(s_k) ds_k/dw_k      (and so for w_in)
        dE/dw_out  += e h(s_k) y_out (1 - y_out) u

    Args:
        x: (T, n_i), one sequence.
        error: (T, b·S), dE/dy of the cells' outputs.
    """
    blocks, size = layer.sizes.blocks, layer.sizes.block_size
    weight, bias = weights_of(layer)
    cells = blocks * size
    width = weight.shape[1] + 1  # the last is the bias, whose u is 1
    fed_back, inside = np.zeros(layer.sizes.hidden), np.zeros(cells)
    by_own, by_gate = np.zeros((cells, width)), np.zeros((cells, width))
    gradient = np.zeros((layer.sizes.hidden, width))
    for at, e in zip(x, error, strict=True):
        u = np.concatenate([at, fed_back, [1.0]])
        net = np.column_stack([weight, bias]) @ u
        for k in range(cells):
            gate_in, gate_out = cells + k // size, cells + blocks + k // size
            y_in, y_out, squashed = s(net[gate_in]), s(net[gate_out]), s(net[k])
            by_own[k] += y_in * 4 * squashed * (1 - squashed) * u
            by_gate[k] += (4 * squashed - 2) * y_in * (1 - y_in) * u
            inside[k] += y_in * (4 * squashed - 2)
            h = 2 * s(inside[k]) - 1
            slope = 2 * s(inside[k]) * (1 - s(inside[k]))
            gradient[k] += e[k] * y_out * slope * by_own[k]
            gradient[gate_in] += e[k] * y_out * slope * by_gate[k]
            gradient[gate_out] += e[k] * h * y_out * (1 - y_out) * u
            fed_back[k], fed_back[gate_in], fed_back[gate_out] = y_out * h, y_in, y_out
    return gradient[:, :-1], gradient[:, -1]


@pytest.mark.parametrize(("blocks", "size"), [(1, 1), (2, 1), (2, 3)])
def test_truncated_gradient_is_the_hand_formula(blocks: int, size: int) -> None:
    layer = make(blocks, size)
    x, target = torch.randn(7, 1, 3, dtype=torch.float64), torch.randn(7, 1, 2, dtype=torch.float64)
    y, _ = layer(x)
    (y - target).square().sum().backward()
    error = 2 * (y - target).detach()[:, 0] @ layer.output.weight.detach()
    by_weight, by_bias = hand_gradient(layer, x[:, 0].numpy(), error.numpy())
    assert layer.weight_ih.grad is not None
    assert layer.weight_hh.grad is not None
    assert layer.bias is not None
    ours = torch.cat([layer.weight_ih.grad, layer.weight_hh.grad], 1)
    torch.testing.assert_close(ours, torch.from_numpy(by_weight), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(layer.bias.grad, torch.from_numpy(by_bias), rtol=1e-10, atol=1e-12)


def test_whole_gradient() -> None:
    """By differences; the truncated one, of the same function, is another."""
    layer, truncated = make(truncated=False), make()
    truncated.load_state_dict(layer.state_dict())
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def run(*weights: Tensor) -> Tensor:
        named = dict(zip(names, weights, strict=True))
        y: Tensor = torch.func.functional_call(layer, named, (x,))[0]
        return y

    assert torch.autograd.gradcheck(run, tuple(layer.parameters()))
    y, y_truncated = layer(x)[0], truncated(x)[0]
    assert torch.equal(y, y_truncated)
    y.square().sum().backward()
    y_truncated.square().sum().backward()
    assert not torch.allclose(layer.weight_ih.grad, truncated.weight_ih.grad)  # type: ignore[arg-type]


TABLE = [  # inputs, outputs, blocks, size, biases, weights of the paper
    (7, 7, 4, 1, "gates", 264),
    (7, 7, 3, 2, "gates", 276),
    (2, 1, 2, 2, "all", 93),
    (8, 4, 2, 2, "all", 156),
    (8, 8, 3, 2, "all", 308),
    (1, 1, 3, 1, "hidden", 102),
    (54, 2, 2, 1, "none", 364),
    (1004, 2, 2, 1, "none", 6064),
]


@pytest.mark.parametrize(("inputs", "outputs", "blocks", "size", "biases", "weights"), TABLE)
def test_the_papers_networks(
    inputs: int, outputs: int, blocks: int, size: int, biases: Any, weights: int
) -> None:
    layer = LSTM1997(inputs, blocks, size, outputs, biases)
    assert sum(parameter.numel() for parameter in layer.parameters()) == weights
    counted = count(layer, example(layer, 2, 7))
    assert counted.problems == []
    assert counted.parameters == weights


@settings(max_examples=10, deadline=None)
@given(pieces=st.lists(st.integers(1, 4), min_size=1, max_size=4), size=st.integers(1, 3))
def test_a_stream_is_the_batch(pieces: list[int], size: int) -> None:
    layer = make(2, size)
    x = torch.randn(sum(pieces), 2, 3, dtype=torch.float64)
    state = layer.init_state(2, "cpu", torch.float64)
    whole, last = layer(x, state)
    parts = []
    for part in x.split(pieces):
        y, state = layer.step(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(state, last)


def test_start_of_gate_biases() -> None:
    layer = LSTM1997(2, 2, 2, 1, input_gate_biases=[-3.0, -6.0], output_gate_biases=[-1.0, -2.0])
    assert layer.bias is not None
    assert layer.bias.tolist() == [0.0] * 4 + [-3.0, -6.0, -1.0, -2.0]
    gates = LSTM1997(7, 3, 1, 7, "gates", output_gate_biases=[-1.0, -2.0, -3.0])
    assert gates.bias is not None
    assert gates.bias.tolist() == [0.0] * 3 + [-1.0, -2.0, -3.0]
    assert gates.weight_hh.abs().max() <= 0.1


def test_compiled() -> None:
    layer = LSTM1997(3, 2, 2, 1)
    x = torch.randn(3, 2, 3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 0}, "'blocks': 0.* must be at least 1"),
        ({"biases": "some"}, "biases must be none, gates, hidden or all, got 'some'"),
        ({"input_gate_biases": [1.0]}, r"input_gate_biases \[1.0\] must be 2, one a block"),
        ({"output_gate_biases": [1.0, 2.0], "biases": "none"}, "biases must not be 'none'"),
    ],
)
def test_bad_sizes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSTM1997(**{"input_size": 3, "blocks": 2, "block_size": 2, "output_size": 1, **arguments})


@pytest.mark.parametrize(
    ("shapes", "dtype", "message"),
    [
        ([(5, 1, 4)], torch.float32, r"takes sequences \(T, B, 3\).*got \(5, 1, 4\)"),
        ([(5, 1, 3), (1, 4), (1, 4)], torch.float32, r"state fed back must be \(1, 8\).*got \(1, 4\)"),
        ([(5, 1, 3), (1, 8), (2, 4)], torch.float32, r"state of the cells must be \(1, 4\).*got \(2, 4\)"),
        ([(5, 1, 3)], torch.float64, "the weights are torch.float32, the input is torch.float64"),
    ],
)
def test_bad_inputs(shapes: list[tuple[int, ...]], dtype: torch.dtype, message: str) -> None:
    x, *state = (torch.zeros(shape, dtype=dtype) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        LSTM1997(3, 2, 2, 1)(x, tuple(state) or None)


def test_a_state_of_another_type() -> None:
    layer = LSTM1997(3, 2, 2, 1)
    with pytest.raises(ValueError, match="the input is torch.float32, the state fed back is torch.float64"):
        layer(torch.zeros(2, 1, 3), layer.init_state(1, dtype=torch.float64))


def test_example_takes_steps() -> None:
    layer = LSTM1997(3, 2, 2, 1)
    assert layer.example(2)[0].shape == (35, 2, 3)
    with pytest.raises(ValueError, match="number of steps"):
        layer.example(2, (4, 4))  # type: ignore[arg-type]
