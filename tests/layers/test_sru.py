from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressnet import cost_cells
from compressnet.analysis.count import count
from compressnet.analysis.example import example
from compressnet.cost import total
from compressnet.layers.sru import SRU
from tests.layers.test_sru_recurrence import naive

FORMS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3, "version": 1, "activation": "tanh"},
    {"num_layers": 2, "proj_size": 3},
    {"num_layers": 2, "proj_size": 3, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "rescale": True, "highway_bias": -1.0},
]


def layer(input_size: int = 6, hidden_size: int = 5, **form: Any) -> SRU:
    """In float64, with biases that are not zero."""
    torch.manual_seed(0)
    net = SRU(input_size, hidden_size, **form).double()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return net


def inputs(steps: int, batch: int, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(steps * 100 + batch)
    return torch.randn(steps, batch, width, generator=generator, dtype=torch.float64)


def start_of(net: SRU, batch: int) -> Tensor:
    return torch.randn_like(net.init_state(batch))


def equations(net: SRU, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The layers written out with the loop of the paper."""
    ends, hidden, places = [], net.hidden_size, iter(state)
    for part in net.layers:
        inner = x if part.project is None else x @ part.project.weight.T
        outputs = []
        for number, cell in enumerate(part.cells):
            own = net.alpha * x[..., number * hidden : (number + 1) * hidden]
            highway = own if cell.highway is None else inner @ cell.highway.weight.T
            u = inner @ cell.transform.weight.T
            h, c = naive(u, highway, cell.v, cell.bias, next(places), net.activation, number == 1)
            outputs.append(h)
            ends.append(c)
        x = torch.cat(outputs, -1)
    return x, torch.stack(ends)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("width", [5, 6, 10])
def test_is_the_equations(form: dict[str, Any], width: int) -> None:
    net = layer(width, **form)
    x, state = inputs(7, 3, width), start_of(net, 3)
    y, c = net(x, state)
    assert y.shape == (7, 3, 5 * net.directions)
    assert c.shape == state.shape == (net.num_layers * net.directions, 3, 5)
    for one, other in zip((y, c), equations(net, x, state), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    (y.square().mean() + c.mean()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_where_the_matrices_are() -> None:
    def matrices(net: SRU) -> list[tuple[bool, bool]]:
        return [(part.project is not None, part.cells[0].highway is not None) for part in net.layers]

    assert matrices(SRU(6, 5, 2)) == [(False, True), (False, False)]
    assert matrices(SRU(5, 5, 2)) == [(False, False), (False, False)]
    assert matrices(SRU(3, 5, 2, proj_size=3)) == [(False, True), (True, False)]  # p < d_in, not <=
    assert matrices(SRU(4, 5, 2, proj_size=4)) == [(False, True), (True, False)]
    assert matrices(SRU(2, 5, 1, proj_size=4)) == [(False, True)]  # as the first layer of the paper's 12x2048
    assert matrices(SRU(10, 5, 2, proj_size=4, bidirectional=True)) == [(True, False), (True, False)]
    assert SRU(6, 5, version=1).layers[0].cells[0].v is None


@pytest.mark.parametrize(
    ("layers", "parameters"), [(2, 203_776), (4, 303_104), (8, 501_760)], ids=["SRU-2", "SRU-4", "SRU-8"]
)
def test_sizes_of_the_paper_text_classification(layers: int, parameters: int) -> None:
    net = SRU(300, 128, layers)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_size_of_the_paper_language_model() -> None:
    with torch.device("meta"):
        net = SRU(910, 910, 6)
    kept = sum(parameter.numel() for parameter in net.parameters())
    assert kept == 24_037_640 - 10_000 * 910 - 10_000 == 6 * (3 * 910**2 + 4 * 910)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.data(), st.booleans(), st.booleans())
def test_cost(width: int, hidden: int, layers: int, data: st.DataObject, first: bool, both: bool) -> None:
    proj = data.draw(st.integers(0, hidden - 1))  # also wider than the input: the first layer then has none
    net = SRU(width, hidden, layers, proj, version=1 if first else 2, bidirectional=both)
    counted = count(net, example(net, 2, 7))
    assert counted.problems == []
    assert counted.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert (counted.unit, counted.amount, counted.device) == ("step", 14, "meta")
    one_step = cost_cells.sru(width, hidden, proj, 0, layers, net.version, both)
    terms = net.cost((7, 2, width))
    for kind, times in (("parameters", 1), ("macs", 14), ("elementwise", 14), ("state", 2)):
        assert total(terms, kind) == times * total(one_step, kind)  # type: ignore[arg-type]
    assert total(terms, "state") == net.init_state(2).numel()


def test_cost_of_tanh() -> None:
    plain, bent = SRU(4, 3, 2, bidirectional=True), SRU(4, 3, 2, bidirectional=True, activation="tanh")
    shape = (7, 2, 4)
    assert total(bent.cost(shape), "elementwise") - total(plain.cost(shape), "elementwise") == 7 * 2 * 12


def test_version_1_is_version_2_without_v() -> None:
    first, second = layer(version=1, num_layers=2), layer(num_layers=2)
    missing = second.load_state_dict(first.state_dict(), strict=False).missing_keys
    assert [name.rsplit(".", 1)[1] for name in missing] == ["v", "v"]
    for part in second.layers:
        nn.init.zeros_(part.cells[0].v)  # type: ignore[arg-type]
    x = inputs(9, 2)
    for one, other in zip(first(x), second(x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("form", [form for form in FORMS if not form.get("bidirectional")], ids=str)
@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 8)))
def test_stream_is_batch(form: dict[str, Any], cuts: set[int]) -> None:
    net, x = layer(**form), inputs(9, 2)
    whole, end = net(x)
    state, outputs = net.init_state(2, "cpu", torch.float64), []
    for frames in x.tensor_split(sorted(cuts)):
        y, state = net.step(frames, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs), whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(state, end, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS, ids=str)
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(0, 7), min_size=3, max_size=3))
def test_padding_never_matters(form: dict[str, Any], lengths: list[int]) -> None:
    net = layer(**form)
    x, state = inputs(7, 3), start_of(net, 3)
    for row, length in enumerate(lengths):
        x[length:, row] = math.nan
    x.requires_grad_()
    y, c = net(x, state, torch.tensor(lengths))
    loss = y.square().sum() + c.sin().sum()
    got = torch.autograd.grad(loss, [x, *net.parameters()])
    wanted = [torch.zeros_like(grad) for grad in got]
    for row, length in enumerate(lengths):
        assert not y[length:, row].any()
        if length == 0:
            assert torch.equal(c[:, row], state[:, row])
            continue
        alone = x.detach()[:length, row : row + 1].requires_grad_()
        own, end = net(alone, state[:, row : row + 1])
        torch.testing.assert_close(y[:length, row : row + 1], own, rtol=0, atol=1e-12)
        torch.testing.assert_close(c[:, row : row + 1], end, rtol=0, atol=1e-12)
        grads = torch.autograd.grad(own.square().sum() + end.sin().sum(), [alone, *net.parameters()])
        wanted[0][:length, row : row + 1] = grads[0]
        for sum_, grad in zip(wanted[1:], grads[1:], strict=True):
            sum_ += grad
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_both_directions_meet() -> None:
    """The backward cell alone, on the reversed sequence, is the second half of the output."""
    net = layer(bidirectional=True)
    alone, x = layer(), inputs(8, 2)
    alone.layers[0].cells[0].load_state_dict(net.layers[0].cells[1].state_dict())
    y, c = net(x)
    backwards, end = alone(x.flip(0))
    torch.testing.assert_close(y[..., 5:], backwards.flip(0))
    torch.testing.assert_close(c[1:], end)


def test_initial_values() -> None:
    """Ranges of uniform distributions: the largest of many numbers is close to the end."""
    torch.manual_seed(0)
    net = SRU(300, 200, 2, rescale=True, highway_bias=-2.0, dropout=0.36)
    assert net.alpha == pytest.approx(math.sqrt(1 + 2 * math.exp(-2)))
    first, second = (part.cells[0] for part in net.layers)
    assert first.highway is not None
    bounds = {
        first.transform.weight[:200]: 0.1 * 0.8,  # sqrt(3 / 300) · sqrt(1 - dropout)
        first.transform.weight[200:]: 0.1 * math.sqrt(0.5),
        first.highway.weight: 0.1 * net.alpha,
        second.transform.weight[:200]: math.sqrt(3 / 200),  # nothing is dropped behind the last layer
        second.transform.weight[200:]: math.sqrt(1.5 / 200),
    }
    for values, bound in bounds.items():
        assert 0.999 * bound < float(values.abs().max().detach()) <= bound * 1.00001
    assert first.v is not None
    assert 1.19 < float(first.v.abs().max().detach()) <= math.sqrt(1.5)
    assert torch.equal(first.bias, torch.stack([torch.zeros(200), torch.full((200,), -2.0)]))


def test_dropout() -> None:
    torch.manual_seed(0)
    net, x = SRU(8, 8, 2, dropout=0.5), torch.rand(5, 2, 8)
    assert not torch.equal(net(x)[0], net(x)[0])
    assert torch.equal(net.eval()(x)[0], net(x)[0])
    varied = SRU(8, 8, 1, rnn_dropout=0.5)
    seen: list[Tensor] = []
    varied.layers[0].cells[0].transform.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    varied(torch.ones(5, 2, 8))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(seen[0], seen[0][:1].expand(5, -1, -1))  # one mask for all steps
    varied.eval()(torch.ones(5, 2, 8))
    assert torch.equal(seen[1], torch.ones(5, 2, 8))


def test_bfloat16_by_autocast_and_by_module() -> None:
    net, x = SRU(8, 8, 2), torch.rand(5, 2, 8)
    exact, end = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, c = net(x, net.init_state(2))
    assert (y.dtype, c.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.float(), exact, rtol=0.02, atol=0.02)
    y.float().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    half, state = net.bfloat16()(x.bfloat16())
    assert (half.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(state.float(), end, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_compiles_without_graph_break(form: dict[str, Any]) -> None:
    torch._dynamo.reset()  # or the forms before use up the recompilations that one function is granted
    net = layer(**form)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x, lengths = inputs(4, 2).requires_grad_(), torch.tensor([4, 2])
    for extra in ((), (start_of(net, 2), lengths)):
        results = []
        for run in (net, compiled):
            y, c = run(x, *extra)
            results.append((y, c, *torch.autograd.grad(y.square().sum() + c.sum(), [x, *net.parameters()])))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_exports_with_its_gradient(form: dict[str, Any]) -> None:
    """At the length that it was exported with."""
    net = layer(**form)
    x, lengths = inputs(4, 2).requires_grad_(), torch.tensor([4, 2])
    arguments = (x, start_of(net, 2), lengths)
    exported = torch.export.export(net, arguments).module()
    results = []
    for run in (net, exported):
        y, c = run(*arguments)
        results.append((y, c, torch.autograd.grad(y.square().sum() + c.sum(), x)[0]))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


X = torch.zeros(4, 2, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[..., :5],), r"takes sequences \(T, B, 6\) of one step or more, got \(4, 2, 5\)"),
        ((X[0],), r"takes sequences \(T, B, 6\) of one step or more, got \(2, 6\)"),
        ((X[:0],), r"takes sequences \(T, B, 6\) of one step or more, got \(0, 2, 6\)"),
        ((X, torch.zeros(1, 2, 5)), r"state for \(4, 2, 6\) is \(2, 2, 5\), got \(1, 2, 5\)"),
        ((X, None, [5, 1]), "lengths must be 0 to 4, the input's steps; got 1 to 5"),
        ((X, None, [-1, 1]), "lengths must be 0 to 4, the input's steps; got -1 to 1"),
        ((X, None, [1, 2, 3]), r"lengths must be 2 integers, one a sequence, got \(3,\)"),
        ((X, None, torch.ones(2)), "lengths must be 2 integers, .* of torch.float32"),
        (
            (X.bfloat16(),),
            "the input is torch.bfloat16, the parameters are torch.float32: convert one of them",
        ),
        ((X.double(),), "the input is torch.float64, the parameters are torch.float32"),
        ((X, torch.zeros(2, 2, 5).double()), "the state is torch.float64, the parameters are torch.float32"),
    ],
)
def test_bad_inputs(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SRU(6, 5, 2)(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 0}, "at least 1: got 6, 0, 1"),
        ({"proj_size": -1}, "proj_size must be at least 0: got -1"),
        ({"proj_size": 5}, r"proj_size must be smaller than hidden_size 5 \(0: none\): got 5"),
        ({"proj_size": 9, "bidirectional": True}, "proj_size must be smaller than hidden_size 5"),
        ({"version": 3}, "version must be 1 or 2: got 3"),
        ({"activation": "relu"}, "activation: identity or tanh: got 'relu'"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1: got 1.0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SRU(**{"input_size": 6, "hidden_size": 5, **arguments})


def test_both_directions_do_not_stream_and_images_are_no_sequences() -> None:
    net = SRU(6, 5, bidirectional=True)
    with pytest.raises(ValueError, match="bidirectional layers cannot stream"):
        net.step(X, net.init_state(2))
    with pytest.raises(ValueError, match="a number of steps"):
        net.example(1, (2, 3))  # type: ignore[arg-type]


def test_a_state_of_another_kind_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="the state is one tensor"):
        SRU(3, 4)(torch.zeros(2, 1, 3), (torch.zeros(1, 1, 4),))
