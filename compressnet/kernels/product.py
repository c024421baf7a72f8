"""Products of sequences with matrices by oneDNN, as torch's compiler and `nn.LSTM` use it.

For float32 products `torch.mm` takes MKL. On an AMD Zen 4 processor oneDNN needs 0.8 to 0.9 of its time for
matrices that come from main memory, less for those in a cache, at the same error; where one matrix meets many
inputs, it gains another tenth or two if the matrix is laid out for it once. It needs nothing to be switched
on: unlike `cpu_matmul: fast` it is float32 on every processor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import gradient

_THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# A call takes up to 50 microseconds more than torch.mm: that must be little beside the products.
_ENOUGH_WEIGHTS, _ENOUGH_PRODUCTS = 1 << 19, 1 << 25
# Of a matrix that stays in the cache; laying it out costs about as much as 16 uses gain.
_ENOUGH_CACHED, _ENOUGH_ROWS, _ENOUGH_USES = 1 << 16, 2, 16
_LINE = 16  # numbers of a cache line


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, by oneDNN where that pays. Differentiable once there.

    Args:
        x: (..., n_i).
        weight: (n_o, n_i).
        bias: (n_o,).
    """
    if torch.compiler.is_compiling():  # before a size is looked at: that would close an axis that is open
        return F.linear(x, weight, bias)
    if not _is_large(weight, x.numel() // max(1, x.shape[-1])) or not _serves(x, weight, bias):
        return F.linear(x, weight, bias)
    if gradient.is_wanted(x, weight, bias):
        # As rows: of more axes oneDNN returns a view, and one out of a Function may not be changed in place.
        rows: Tensor = _Linear.apply(x.reshape(x.shape[:-1].numel(), x.shape[-1]), weight, bias)
        return rows.view(*x.shape[:-1], weight.shape[0])
    return _by_onednn(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Product:
    """x (rows, n_i) -> x weightᵀ (rows, n_o), many times with one matrix; without gradients.

    Args:
        weight: (n_o, n_i).
        rows, count: how many rows will come how many times.
    """

    def __init__(self, weight: Tensor, rows: int, count: int) -> None:
        self.weight, self.fast = weight, weight.numel() >= _ENOUGH_CACHED and _serves(weight, weight)
        if self.fast:
            self.weight = weight.contiguous()
            if rows >= _ENOUGH_ROWS and count >= _ENOUGH_USES:
                self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        return _by_onednn(x, self.weight, None) if self.fast else torch.mm(x, self.weight.t())


class _Linear(torch.autograd.Function):
    """Of rows (n, n_i)."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            input_gradient(grad, weight) if of_x else None,
            weight_gradient(grad, x) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """grad (rows, n_o) · weight (n_o, n_i): what `linear` passes down."""
    if not _is_large(weight, len(grad)) or not _serves(grad, weight.t()):
        return grad @ weight
    return _by_onednn(grad, weight.t(), None)  # it takes the matrix either way round, without a copy


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """gradᵀ · x, (n_o, n_i), of grad (rows, n_o) and inputs x (rows, n_i).

    oneDNN needs x and the result turned over. That pays where rows of matrices do not begin with a cache
    line: MKL then takes up to 1.4 times as long, else as long as oneDNN with the turning.
    """
    starts_on_lines = grad.shape[1] % _LINE == x.shape[1] % _LINE == 0
    if starts_on_lines or grad.shape[1] * x.shape[1] < _ENOUGH_WEIGHTS or not _serves(x.t(), grad.t()):
        return grad.t() @ x
    return _by_onednn(x.t(), grad.t(), None).t().contiguous()


def _is_large(weight: Tensor, rows: int) -> bool:
    return weight.numel() >= _ENOUGH_WEIGHTS or weight.numel() * rows >= _ENOUGH_PRODUCTS


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.contiguous()  # oneDNN reads on from its first number
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return product


def _serves(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN is there, not switched off, and made for these; torch says better what does not fit."""
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        return False
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != weight.dtype):
        return False
    return bool(
        _THERE
        and torch.backends.mkldnn.enabled
        and weight.dtype == x.dtype == torch.float32
        and weight.device.type == x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


if _THERE:

    @register_flop_formula([torch.ops.mkldnn._linear_pointwise])
    def _flops(x: list[int], weight: list[int], *_: object, **keywords: object) -> int:
        rows = 1
        for size in x[:-1]:
            rows *= size
        return 2 * rows * x[-1] * weight[0]
