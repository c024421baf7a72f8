"""Products by oneDNN against torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from compressnet.kernels import product

pytestmark = pytest.mark.skipif(not product._THERE, reason="torch has no oneDNN here")


@pytest.mark.parametrize("shape", [(300,), (1, 300), (5, 3, 300)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_and_its_gradients(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(shape), torch.randn(1800, 300), torch.randn(1800) if with_bias else None]
    given = [None if t is None else t.requires_grad_() for t in tensors]
    known = [t for t in given if t is not None]
    ours, torchs = (function(*given) for function in (product.linear, F.linear))  # type: ignore[arg-type]
    grad = torch.randn_like(torchs)
    torch.testing.assert_close(ours, torchs, atol=1e-4, rtol=1e-5)
    assert ours.grad_fn is not None  # a view of what the Function returned
    assert type(ours.grad_fn.next_functions[0][0]).__name__ == "_LinearBackward"
    torch.testing.assert_close(
        torch.autograd.grad(ours, known, grad), torch.autograd.grad(torchs, known, grad), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize(("n_i", "n_o"), [(300, 1800), (900, 600), (910, 576), (512, 1024)])
@pytest.mark.parametrize("rows", [1, 40])
def test_gradients_of_matrices_of_any_width(n_i: int, n_o: int, rows: int) -> None:
    torch.manual_seed(0)
    x, weight, grad = torch.randn(rows, n_i), torch.randn(n_o, n_i), torch.randn(rows, n_o)
    torch.testing.assert_close(product.input_gradient(grad, weight), grad @ weight, atol=1e-3, rtol=1e-5)
    ours = product.weight_gradient(grad, x)
    torch.testing.assert_close(ours, grad.t() @ x, atol=1e-3, rtol=1e-5)
    assert ours.is_contiguous()


@pytest.mark.parametrize("shape", [(300,), (4, 300), (5, 3, 300)])
def test_its_result_may_be_changed_in_place(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(1800, 300, requires_grad=True)

    def gradient(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        y = function(x, weight)
        y[..., 7].zero_()
        return torch.autograd.grad(y.relu_().sum(), weight)[0]

    torch.testing.assert_close(gradient(product.linear), gradient(F.linear), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("bias", [torch.arange(3600.0)[::2], torch.ones(1).expand(1800), torch.ones(())])
def test_bias_in_any_memory_layout(bias: Tensor) -> None:
    x, weight = torch.ones(2, 300), torch.zeros(1800, 300)
    assert torch.equal(product.linear(x, weight, bias), bias.expand(2, 1800))


def test_what_does_not_fit_is_refused_by_torch() -> None:
    weight = torch.zeros(1800, 300)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        product.linear(torch.ones(2, 299), weight)
    with pytest.raises(RuntimeError, match="1801"):
        product.linear(torch.ones(2, 300), weight, torch.ones(1801))


def test_float32_and_no_less() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(64, 512), torch.randn(1024, 512)
    exact = x.double() @ weight.double().t()
    worst = (product.linear(x, weight) - exact).abs().max() / exact.abs().max()
    assert worst < 2e-6


@pytest.mark.parametrize("rows", [1, 3, 32])
@pytest.mark.parametrize("count", [1, 35])
@pytest.mark.parametrize("transposed", [True, False])
def test_many_products_with_one_matrix(rows: int, count: int, transposed: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(300, 1800).t() if transposed else torch.randn(1800, 300)
    multiply = product.Product(weight, rows, count)
    assert multiply.fast
    for _ in range(2):
        x = torch.randn(rows, 300)
        torch.testing.assert_close(multiply(x), x @ weight.t(), atol=1e-4, rtol=1e-5)


def test_small_matrices_and_other_types_are_torch_s() -> None:
    small, large = torch.randn(4, 3), torch.randn(1800, 300)
    assert not product.Product(small, 2, 100).fast
    assert not product.Product(large.double(), 2, 100).fast
    assert not product._serves(large.bfloat16(), large.bfloat16())
    assert not product._serves(large.to("meta"), large.to("meta"))


def test_onednn_can_be_switched_off() -> None:
    weight = torch.randn(1800, 300)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not product.Product(weight, 2, 100).fast


def test_under_autocast_torch_decides() -> None:
    x, weight = torch.randn(2, 300), torch.randn(1800, 300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product.linear(x, weight).dtype == torch.bfloat16


def test_flop_counter_sees_it() -> None:
    x, weight = torch.randn(5, 2, 300), torch.randn(1800, 300)
    with FlopCounterMode(display=False) as counter:
        product.linear(x, weight)
    assert counter.get_total_flops() == 2 * 5 * 2 * 300 * 1800
