from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressnet.layers.sru_recurrence import recurrence

Pieces = tuple[Tensor, Tensor, "Tensor | None", Tensor, Tensor]


def naive(
    u: Tensor,
    highway: Tensor,
    v: Tensor | None,
    bias: Tensor,
    c0: Tensor,
    activation: str = "identity",
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The equations of the paper, a step at a time, for torch's own autograd."""
    z, forget, reset = u.chunk(3, -1)
    v = torch.zeros_like(bias) if v is None else v
    c, outputs = c0, []
    for t in reversed(range(len(u))) if reverse else range(len(u)):
        f = torch.sigmoid(forget[t] + v[0] * c + bias[0])
        r = torch.sigmoid(reset[t] + v[1] * c + bias[1])
        c = f * c + (1 - f) * z[t]
        g = torch.tanh(c) if activation == "tanh" else c
        outputs.append(r * g + (1 - r) * highway[t])
    return torch.stack(outputs[::-1] if reverse else outputs), c


def pieces(steps: int, batch: int, hidden: int, version: int = 2, dtype: Any = torch.float64) -> Pieces:
    """Inputs that all want a gradient, from a cell that is not zero."""
    shapes = [(steps, batch, 3 * hidden), (steps, batch, hidden), (2, hidden), (2, hidden), (batch, hidden)]
    generator = torch.Generator().manual_seed(steps + 7 * batch + 31 * hidden)
    u, highway, v, bias, c0 = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    )
    return u, highway, v if version == 2 else None, bias, c0


def cast(inputs: Pieces, dtype: torch.dtype) -> Pieces:
    """The same numbers in another type."""
    return tuple(None if x is None else x.detach().to(dtype).requires_grad_() for x in inputs)  # type: ignore[return-value]


def gradients(outputs: tuple[Tensor, ...], inputs: Pieces) -> tuple[Tensor, ...]:
    """Of a function in which every output number, also of the last cell, has a weight of its own."""
    loss = sum((y.double() * torch.linspace(-1, 2, y.numel()).view_as(y)).sum() for y in outputs)
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, [x for x in inputs if x is not None])


FORMS = [
    (version, activation, reverse)
    for version in (1, 2)
    for activation in ("identity", "tanh")
    for reverse in (False, True)
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("sizes", [(5, 2, 3), (1, 1, 1), (1, 3, 2), (4, 1, 2)], ids=str)
def test_gradcheck(form: tuple[int, Any, bool], sizes: tuple[int, int, int]) -> None:
    version, activation, reverse = form
    u, highway, v, bias, c0 = pieces(*sizes, version)

    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        u, highway, *gates, bias, c0 = tensors
        v = gates[0] if gates else None
        return recurrence(u, highway, v, bias, c0, activation=activation, reverse=reverse)

    assert torch.autograd.gradcheck(run, [x for x in (u, highway, v, bias, c0) if x is not None])


@settings(max_examples=25, deadline=None)
@given(
    steps=st.sampled_from([1, 2, 9]),
    batch=st.sampled_from([1, 3]),
    hidden=st.sampled_from([1, 5, 64, 65]),
    form=st.sampled_from(FORMS),
)
def test_is_the_loop_of_the_paper(steps: int, batch: int, hidden: int, form: tuple[int, Any, bool]) -> None:
    version, activation, reverse = form
    inputs = pieces(steps, batch, hidden, version)
    fast = recurrence(*inputs, activation=activation, reverse=reverse)
    slow = naive(*inputs, activation, reverse)
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    for one, other in zip(gradients(fast, inputs), gradients(slow, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reverse", [False, True])
def test_float32_is_exact_relative_to_scale(reverse: bool) -> None:
    inputs = pieces(40, 4, 65, dtype=torch.float32)
    exact = cast(inputs, torch.float64)
    fast, slow = recurrence(*inputs, reverse=reverse), naive(*exact, "identity", reverse)
    pairs = zip((*fast, *gradients(fast, inputs)), (*slow, *gradients(slow, exact)), strict=True)
    for one, other in pairs:
        assert ((one - other).abs().max() / other.abs().max()).item() < 5e-6


def test_version_1_is_version_2_without_v() -> None:
    u, highway, v, bias, c0 = pieces(6, 2, 5)
    assert v is not None
    first, second = recurrence(u, highway, None, bias, c0), recurrence(u, highway, v * 0, bias, c0)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_compute_in_float32(dtype: torch.dtype) -> None:
    half: Any = pieces(300, 2, 8, dtype=dtype)
    wide = cast(half, torch.float32)
    outputs, exact = recurrence(*half), recurrence(*wide)
    for one, other in zip(outputs, exact, strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other.to(dtype))  # one rounding, at the end
    for one, x in zip(gradients(outputs, half), half, strict=True):
        assert one.dtype == x.dtype
        assert one.isfinite().all()


def test_mixed_types_as_autocast_makes_them() -> None:
    u, highway, v, bias, c0 = pieces(4, 2, 3, dtype=torch.float32)
    h, last = recurrence(u.bfloat16(), highway, v, bias, c0)
    assert (h.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    grads = gradients((h, last), (u, highway, v, bias, c0))
    assert all(grad.dtype == torch.float32 for grad in grads)


def test_inputs_stay_as_they_are_and_nothing_is_shared() -> None:
    inputs: Any = pieces(4, 2, 3)
    copies = [x.detach().clone() for x in inputs]
    h, last = recurrence(*inputs)
    grads = gradients((h, last), inputs)
    again = gradients(recurrence(*inputs), inputs)
    assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(grads, again, strict=True))
    with torch.no_grad():
        quiet, end = recurrence(*inputs)
        assert torch.equal(quiet, h)
        assert not quiet.requires_grad
        end.zero_()
        assert torch.equal(recurrence(*inputs)[1], last)


def test_gradient_of_the_last_cell_alone() -> None:
    inputs = pieces(4, 2, 3)
    given_only = [x for x in inputs if x is not None]
    fast = torch.autograd.grad(recurrence(*inputs)[1].sum(), given_only)
    slow = torch.autograd.grad(naive(*inputs)[1].sum(), given_only, allow_unused=True)
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def test_strided_views_are_taken() -> None:
    u, highway, v, bias, c0 = pieces(6, 4, 3)
    views = u[::2, 1:], highway[::2, 1:], v, bias, c0[1:]
    for one, other in zip(recurrence(*views), naive(*views), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (4, 2, 10), r"u must be \(T, B, 3·H\) with T > 0, got \(4, 2, 10\)"),
        ("u", (0, 2, 9), r"with T > 0, got \(0, 2, 9\)"),
        ("highway", (4, 2, 4), r"highway must be \(4, 2, 3\) for u \(4, 2, 9\), got \(4, 2, 4\)"),
        ("v", (3,), r"v must be \(2, 3\) .* got \(3,\)"),
        ("bias", (6,), r"bias must be \(2, 3\) .* got \(6,\)"),
        ("c0", (1, 3), r"c0 must be \(2, 3\) .* got \(1, 3\)"),
    ],
)
def test_shapes_are_checked(name: str, shape: tuple[int, ...], message: str) -> None:
    inputs = dict(zip(("u", "highway", "v", "bias", "c0"), pieces(4, 2, 3), strict=True))
    inputs[name] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        recurrence(**inputs)  # type: ignore[arg-type]
