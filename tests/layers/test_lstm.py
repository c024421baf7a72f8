from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressnet.layers.lstm import LSTM, lstm, lstmp

FORMS: list[dict[str, Any]] = [
    {},
    {"biases": 0},
    {"biases": 2, "forget_bias": 1.0},
    {"peepholes": True},
    {"coupled_gates": True},
    {"coupled_gates": True, "peepholes": True, "layer_norm": True},
    {"layer_norm": True, "biases": 0},
    {"layer_norm": True, "peepholes": True, "biases": 2},
    {"cell_clip": 0.05, "peepholes": True},
    {"proj_size": 2},
    {"proj_size": 3, "nonrecurrent_proj_size": 1, "proj_clip": 0.02},
    {"proj_size": 2, "nonrecurrent_proj_size": 3, "peepholes": True, "output_size": 2, "num_layers": 2},
    {"bidirectional": True, "num_layers": 2, "peepholes": True},
    {"bidirectional": True, "proj_size": 2, "nonrecurrent_proj_size": 1, "output_size": 3, "num_layers": 3},
]
ONE_WAY = [form for form in FORMS if "bidirectional" not in form]
forms = pytest.mark.parametrize("form", FORMS, ids=str)


def make(form: dict[str, Any], input_size: int = 3, hidden_size: int = 4) -> LSTM:
    """In float64, with weights large enough to reach all nonlinear parts."""
    torch.manual_seed(len(str(form)))
    made = LSTM(input_size, hidden_size, **form).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return made


def state_of(layer: LSTM, batch: int) -> tuple[Tensor, Tensor]:
    h, c = layer.init_state(batch)
    return 0.5 * torch.randn_like(h), 0.5 * torch.randn_like(c)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def normalised(values: list[float], gains: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [
        gain * (value - mean) / math.sqrt(variance + 1e-5) for value, gain in zip(values, gains, strict=True)
    ]


def clipped(value: float, limit: float) -> float:
    return max(-limit, min(limit, value)) if limit else value


def naive_cell(
    cell: Any, xs: list[list[float]], h: list[float], c: list[float]
) -> tuple[list[list[float]], list[float], list[float]]:
    """Section 2 of the paper for one sequence, number by number."""
    n = len(c)
    names = "ifgo" if cell.gates == 4 else "fgo"
    seeing = [name for name in names if name != "g"]
    biases = [bias.tolist() for bias in (cell.bias_ih, cell.bias_hh) if bias is not None]
    peephole = None if cell.weight_peephole is None else cell.weight_peephole.tolist()
    gains = None if cell.weight_norm is None else cell.weight_norm.tolist()
    w_x, w_h = cell.weight_ih.tolist(), cell.weight_hh.tolist()

    def summed(name: str, x: list[float], h: list[float], seen: list[float]) -> list[float]:
        start = names.index(name) * n
        sums = []
        for k in range(n):
            value = sum(w * v for w, v in zip(w_x[start + k], x, strict=True))
            value += sum(w * v for w, v in zip(w_h[start + k], h, strict=True))
            if peephole is not None and name != "g":
                value += peephole[seeing.index(name)][k] * seen[k]
            sums.append(value)
        if gains is not None:
            sums = normalised(sums, gains[names.index(name)])
        return [value + sum(bias[start + k] for bias in biases) for k, value in enumerate(sums)]

    def product(weight: Tensor, m: list[float]) -> list[float]:
        sums = [sum(w * v for w, v in zip(row, m, strict=True)) for row in weight.tolist()]
        return [clipped(value, cell.proj_clip) for value in sums]

    outputs = []
    for x in xs:
        f = [sigmoid(value) for value in summed("f", x, h, c)]
        i = [1 - v for v in f] if cell.gates == 3 else [sigmoid(v) for v in summed("i", x, h, c)]
        g = [math.tanh(value) for value in summed("g", x, h, c)]
        c = [clipped(f[k] * c[k] + i[k] * g[k], cell.cell_clip) for k in range(n)]
        o = [sigmoid(value) for value in summed("o", x, h, c)]
        m = [o[k] * math.tanh(c[k]) for k in range(n)]
        h = m if cell.weight_hr is None else product(cell.weight_hr, m)
        outputs.append(h if cell.weight_hp is None else h + product(cell.weight_hp, m))
    return outputs, h, c


def naive(layer: LSTM, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence (T, n_i) from a state (L·D, n)."""
    ys, h_n, c_n = x.tolist(), [], []
    for first in range(0, len(layer.cells), layer.directions):
        sides = []
        for direction in range(layer.directions):
            which = first + direction
            order = ys[::-1] if direction else ys
            out, h, c = naive_cell(
                layer.cells[which], order, state[0][which].tolist(), state[1][which].tolist()
            )
            sides.append(out[::-1] if direction else out)
            h_n.append(h)
            c_n.append(c)
        ys = [[*itertools.chain(*parts)] for parts in zip(*sides, strict=True)]
    y = torch.tensor(ys, dtype=torch.float64)
    if layer.output is not None:
        y = y @ layer.output.weight.T + layer.output.bias
    return y, torch.tensor(h_n, dtype=torch.float64), torch.tensor(c_n, dtype=torch.float64)


@forms
def test_against_the_formulas_number_by_number(form: dict[str, Any]) -> None:
    layer = make(form)
    x, state = torch.randn(5, 2, 3, dtype=torch.float64), state_of(layer, 2)
    y, (h, c) = layer(x, state)
    for b in range(2):
        expected = naive(layer, x[:, b], (state[0][:, b], state[1][:, b]))
        for ours, theirs in zip((y[:, b], h[:, b], c[:, b]), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_clips_are_reached() -> None:
    """Else the forms with clips above would prove nothing."""
    layer = make({"cell_clip": 0.05, "peepholes": True})
    _, (_, c) = layer(torch.randn(5, 2, 3, dtype=torch.float64))
    assert (c.abs() == 0.05).any()
    layer = make({"proj_size": 3, "proj_clip": 0.02})
    y, _ = layer(torch.randn(5, 2, 3, dtype=torch.float64))
    assert (y.abs() == 0.02).any()


@forms
def test_gradients(form: dict[str, Any]) -> None:
    if form.get("cell_clip") or form.get("proj_clip"):  # not at the kink
        form = {**form, "cell_clip": 5.0, **({"proj_clip": 5.0} if "proj_clip" in form else {})}
    layer = make(form, 2, 4)
    names = [name for name, _ in layer.named_parameters()]
    lengths = torch.tensor([3, 1])

    def run(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, weights, strict=True))
        y, state = torch.func.functional_call(layer, named, (x, (h, c), lengths))
        return (y, *state)

    inputs = (torch.randn(3, 2, 2, dtype=torch.float64), *state_of(layer, 2), *layer.parameters())
    assert torch.autograd.gradcheck(
        run, [value.detach().requires_grad_() for value in inputs], fast_mode=True
    )


@forms
def test_gradients_are_those_of_autograd(form: dict[str, Any]) -> None:
    """With one product for all steps as with one a step, which is what a compiler is given."""
    layer = make(form)
    x = torch.randn(6, 3, 3, dtype=torch.float64)
    layer(x)[0].square().sum().backward()
    gathered = [parameter.grad for parameter in layer.parameters()]
    layer.zero_grad()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        layer(x)[0].square().sum().backward()
    for parameter, grad in zip(layer.parameters(), gathered, strict=True):
        assert grad is not None
        assert parameter.grad is not None
        torch.testing.assert_close(grad, parameter.grad)


def test_frozen_weights_get_no_gradient() -> None:
    layer = make({"proj_size": 2})
    layer.first.weight_hh.requires_grad_(False)
    layer(torch.randn(4, 2, 3, dtype=torch.float64))[0].sum().backward()
    assert layer.first.weight_hh.grad is None
    assert layer.first.weight_hr is not None
    assert layer.first.weight_hr.grad is not None


@forms
@settings(max_examples=6, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    more=st.integers(0, 2),
    filler=st.sampled_from([0.0, 1e3, math.nan, math.inf]),
)
def test_padding_has_no_influence(form: dict[str, Any], lengths: list[int], more: int, filler: float) -> None:
    layer, batch = make(form), len(lengths)
    steps = max(*lengths, 1) + more
    x, state = torch.randn(steps, batch, 3, dtype=torch.float64), state_of(layer, batch)
    padded = x.clone()
    for b, length in enumerate(lengths):
        padded[length:, b] = filler
    padded.requires_grad_()
    y, (h, c) = layer(padded, state, torch.tensor(lengths))
    (y.square().sum() + h.sum() + c.sum()).backward()
    together = [parameter.grad for parameter in layer.parameters()]
    layer.zero_grad()
    for b, length in enumerate(lengths):
        own = (state[0][:, b : b + 1], state[1][:, b : b + 1])
        assert not y[length:, b].any()
        if not length:
            assert torch.equal(h[:, b : b + 1], own[0])
            assert torch.equal(c[:, b : b + 1], own[1])
            continue
        alone = x[:length, b : b + 1].clone().requires_grad_()
        y_b, (h_b, c_b) = layer(alone, own)
        (y_b.square().sum() + h_b.sum() + c_b.sum()).backward()
        torch.testing.assert_close(y[:length, b : b + 1], y_b)
        torch.testing.assert_close(h[:, b : b + 1], h_b)
        torch.testing.assert_close(c[:, b : b + 1], c_b)
        assert padded.grad is not None
        torch.testing.assert_close(padded.grad[:length, b : b + 1], alone.grad)
        assert not padded.grad[length:, b].any()
    for parameter, grad in zip(layer.parameters(), together, strict=True):
        assert grad is not None
        torch.testing.assert_close(grad, torch.zeros_like(grad) if parameter.grad is None else parameter.grad)


@settings(max_examples=12, deadline=None)
@given(form=st.sampled_from(ONE_WAY), pieces=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_stream_is_the_batch(form: dict[str, Any], pieces: list[int]) -> None:
    layer = make(form)
    x = torch.randn(sum(pieces), 2, 3, dtype=torch.float64)
    state = layer.init_state(2, "cpu", torch.float64)
    whole, last = layer(x, state)
    parts = []
    for part in x.split(pieces):
        y, state = layer.step(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(state, last)


def test_start_of_weights() -> None:
    layer = LSTM(3, 16, biases=2, forget_bias=1.5, layer_norm=True, peepholes=True)
    cell = layer.first
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    assert cell.weight_norm is not None
    assert cell.bias_ih.tolist() == [0.0] * 16 + [1.5] * 16 + [0.0] * 32
    assert not cell.bias_hh.any()
    assert (cell.weight_norm == 1).all()
    assert 0.2 < cell.weight_hh.abs().max() <= 0.25
    coupled = LSTM(3, 2, coupled_gates=True, forget_bias=-1.0).first
    assert coupled.bias_ih is not None
    assert coupled.bias_ih.tolist() == [-1.0, -1.0, 0.0, 0.0, 0.0, 0.0]


def test_autocast_and_half_precision() -> None:
    """The state has the weights' type whatever a layer below puts out, so that the next window takes it."""
    layer, below = LSTM(6, 8, proj_size=3, peepholes=True), torch.nn.Linear(6, 6)
    x = torch.randn(7, 2, 6)
    exact, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(below(x))
        assert below(x).dtype == torch.bfloat16
        y, state = layer(x, state)
    y.float().sum().backward()
    assert state[0].dtype == state[1].dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())
    half, _ = layer.bfloat16()(x.bfloat16())
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.02)


def test_compiled() -> None:
    torch.manual_seed(0)
    layer = LSTM(3, 4, proj_size=2, peepholes=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 2, 3)
    y, state = layer(x)
    y_compiled, state_compiled = compiled(x)
    torch.testing.assert_close(y_compiled, y)
    torch.testing.assert_close(state_compiled, state)
    grads = []
    for output in (y, y_compiled):
        layer.zero_grad()
        output.square().sum().backward()
        grads.append([parameter.grad for parameter in layer.parameters()])
    torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"proj_size": 4}, "proj_size 4 must be smaller than hidden_size 4"),
        (
            {"proj_size": 2, "nonrecurrent_proj_size": 5},
            "nonrecurrent_proj_size 5 must be smaller than hidden",
        ),
        ({"nonrecurrent_proj_size": 2}, "nonrecurrent_proj_size 2 needs a proj_size"),
        ({"proj_clip": 1.0}, "proj_clip 1.0 needs a proj_size"),
        ({"cell_clip": -1.0}, "cell_clip -1.0 and proj_clip 0.0 must be 0 or more"),
        ({"num_layers": 0}, "num_layers 0 must be at least 1"),
        ({"biases": 3}, "biases must be 0, 1 or 2, got 3"),
        ({"biases": 0, "forget_bias": 1.0}, "forget_bias 1.0 needs biases"),
    ],
)
def test_bad_switches(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        LSTM(3, 4, **arguments)
    assert "\n" not in str(caught.value)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((zeros(5, 2, 7),), r"takes sequences \(T, B, 3\) of one step or more, got \(5, 2, 7\)"),
        ((zeros(0, 2, 3),), r"got \(0, 2, 3\)"),
        ((zeros(2, 3),), r"got \(2, 3\)"),
        ((zeros(5, 2, 3, dtype=torch.float64),), "weights are torch.float32, the input is torch.float64"),
        ((zeros(5, 2, 3), (zeros(1, 2, 2), zeros(1, 3, 4))), r"state c must be \(1, 2, 4\).*got \(1, 3, 4\)"),
        ((zeros(5, 2, 3), (zeros(1, 2, 4), zeros(1, 2, 4))), r"state h must be \(1, 2, 2\).*got \(1, 2, 4\)"),
        (
            (zeros(5, 2, 3), (zeros(1, 2, 2), zeros(1, 2, 4, dtype=torch.bfloat16))),
            "the weights are torch.float32, the state c is torch.bfloat16",
        ),
        ((zeros(5, 2, 3), None, torch.tensor([5, 6])), "lengths must be 0 to 5.*got 5 to 6"),
        ((zeros(5, 2, 3), None, torch.tensor([-1, 5])), "lengths must be 0 to 5.*got -1 to 5"),
        ((zeros(5, 2, 3), None, torch.tensor([5])), r"lengths must be 2 integers.*got \(1,\)"),
        ((zeros(5, 2, 3), None, zeros(2)), "lengths must be 2 integers.*of torch.float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_inputs(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        LSTM(3, 4, proj_size=2)(*arguments)
    assert "\n" not in str(caught.value)


def test_no_stream_backwards() -> None:
    layer = LSTM(3, 4, bidirectional=True)
    with pytest.raises(ValueError, match="bidirectional network needs the whole sequence"):
        layer.step(zeros(1, 2, 3), layer.init_state(2))


def test_named_networks_have_peepholes_and_one_bias() -> None:
    for made in (lstm(3, 4), lstmp(3, 4, 2)):
        cell = made.first
        assert cell.weight_peephole is not None
        assert cell.bias_ih is not None
        assert cell.bias_hh is None
    assert lstmp(3, 4, 2, 1, 5)(zeros(6, 2, 3))[0].shape == (6, 2, 5)
    assert lstmp(3, 4, 2, 1)(zeros(6, 2, 3))[0].shape == (6, 2, 3)


def test_example_takes_steps() -> None:
    layer = LSTM(3, 4)
    assert layer.example(2)[0].shape == (35, 2, 3)
    with pytest.raises(ValueError, match="number of steps"):
        layer.example(2, (4, 4))  # type: ignore[arg-type]


def test_a_state_of_another_kind_is_refused_in_one_line() -> None:
    x = torch.zeros(2, 1, 3)
    for state in (torch.zeros(1, 1, 4), (torch.zeros(1, 1, 4),)):
        with pytest.raises(ValueError, match=r"the state is a pair \(h, c\)"):
            LSTM(3, 4)(x, state)
