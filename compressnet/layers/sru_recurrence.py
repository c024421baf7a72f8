"""The elementwise recurrence of SRU: in torch, the reference, or by a kernel (C, Triton) where one serves.

T. Lei, Y. Zhang, S. Wang, H. Dai, Y. Artzi: Simple Recurrent Units for Highly Parallelizable Recurrence.
EMNLP 2018, arXiv 1709.02755 (version 2); its first version, "Training RNNs as Fast as CNNs", has no v:

    f = s(u_f + v_f·c' + b_f)     r = s(u_r + v_r·c' + b_r)     c = z + f·(c' - z)     h = x + r·(g(c) - x)

with c' the cell before, s the logistic function, g the identity or tanh, and x the highway input.

Only f and c are computed step by step, r and h at once behind them. With all c known, the gradient dc of c
is a LINEAR recurrence, one multiply-add a step: gh being the gradient of h and w = (c' - z)·f·(1-f),

    er = gh·(g(c) - x)·r·(1-r)     dc_t = gh_t·r_t·g'(c_t) + er_{t+1}·v_r + (f + w·v_f)_{t+1}·dc_{t+1}
    dz = dc·(1-f)     ef = dc·w     dx = gh·(1-r)

and ef, its sum and the sum of ef·c' are the gradients of u_f, b_f and v_f; er likewise of those of r.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressnet.kernels import sru as kernel
from compressnet.layers.exported_scan import Tensors, exported_scan, is_exporting

Activation = Literal["identity", "tanh"]


def recurrence(
    u: Tensor,
    highway: Tensor,
    v: Tensor | None,
    bias: Tensor,
    c0: Tensor,
    *,
    activation: Activation = "identity",
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """All steps of one direction of one layer.

    Computes in float32 at least, also for bfloat16 and float16. Keeps `u`, `highway` and all cells for the
    gradient and computes the gates again. Differentiable once, in all tensors.

    Under `torch.compile` a kernel is one operation, for any T. The reference is unrolled: its graph grows
    with T and is compiled again for another T (bfloat16, float16, float64 on the CPU; no kernel built).

    Args:
        u: (T, B, 3·H), planar: z, then what the forget and the reset gate get from the input.
        highway: x, (T, B, H).
        v: (2, H), weights of c' in the forget and the reset gate; None: version 1, gates do not see c'.
        bias: (2, H), of the same gates.
        c0: (B, H), the cell before the first step.
        activation: g.
        reverse: walk from the last step to the first; the cell returned is then that of step 0.

    Returns:
        h (T, B, H) in the type of `u`, and the last cell (B, H) in the type of `c0`.

    Raises:
        ValueError: shapes that do not belong together; no step.
    """
    _check(u, highway, v, bias, c0)
    if is_exporting():
        return _exported(u, highway, v, bias, c0, activation == "tanh", reverse)
    if kernel.serves(u, highway, v, bias, c0):
        return kernel.recurrence(u, highway, v, bias, c0, activation == "tanh", reverse)
    h, last = _Recurrence.apply(u, highway, v, bias, c0, activation == "tanh", reverse)
    return h, last


def _check(u: Tensor, highway: Tensor, v: Tensor | None, bias: Tensor, c0: Tensor) -> None:
    if u.ndim != 3 or u.shape[0] == 0 or u.shape[2] % 3:
        raise ValueError(f"SRU recurrence: u must be (T, B, 3·H) with T > 0, got {tuple(u.shape)}")
    steps, batch, width = u.shape
    hidden = width // 3
    for name, tensor, shape in (
        ("highway", highway, (steps, batch, hidden)),
        ("v", v, (2, hidden)),
        ("bias", bias, (2, hidden)),
        ("c0", c0, (batch, hidden)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"SRU recurrence: {name} must be {shape} for u {tuple(u.shape)}, got {tuple(tensor.shape)}"
            )


def _exported(
    u: Tensor, highway: Tensor, v: Tensor | None, bias: Tensor, c0: Tensor, tanh: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    """The same for any number of steps; torch must find a gradient of its own, so nothing is in place."""
    wide = torch.promote_types(u.dtype, torch.float32)
    z, forget, reset = _planes(u.to(wide))
    weights, biases, start = _rows(v, wide), bias.to(wide).unbind(0), c0.to(wide)

    def step(state: Tensors, at: Tensors, own: tuple[Tensor | None, Tensor]) -> tuple[Tensors, Tensors]:
        f = _gate(at[1], *own, state[0])
        c = torch.lerp(at[0], state[0], f)
        return (c,), (c,)

    (last,), (cells,) = exported_scan(step, (start,), (z, forget), (weights[0], biases[0]), reverse)
    cells = torch.cat((cells, start[None]) if reverse else (start[None], cells))
    before, after = _before_and_after(cells, reverse)
    r = _gate(reset, weights[1], biases[1], before)  # (T, B, H)
    h = torch.lerp(highway.to(wide), after.tanh() if tanh else after, r)
    return h.to(u.dtype), last.to(c0.dtype)


class _Recurrence(torch.autograd.Function):
    """Works in place on what has done its duty: fresh memory costs more than the arithmetic."""

    @staticmethod
    def forward(ctx, u, highway, v, bias, c0, tanh, reverse):  # type: ignore[no-untyped-def]
        wide = torch.promote_types(u.dtype, torch.float32)
        z, forget, reset = _planes(u.to(wide))
        weights, biases = _rows(v, wide), _rows(bias, wide)
        scratch = forget + biases[0]
        cells = _cells(z, scratch, weights[0], c0, reverse)
        before, after = _before_and_after(cells, reverse)
        r = _gate(reset, weights[1], biases[1], before, scratch)  # (T, B, H)
        h = torch.lerp(highway.to(wide), after.tanh() if tanh else after, r, out=r)
        ctx.save_for_backward(u, highway, v, bias, cells)
        ctx.tanh, ctx.reverse, ctx.state_type = tanh, reverse, c0.dtype
        last = cells[0] if reverse else cells[-1]
        return h.to(u.dtype), last.to(c0.dtype, copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h, grad_last):  # type: ignore[no-untyped-def]
        u, highway, v, bias, cells = ctx.saved_tensors
        wide = cells.dtype
        z, forget, reset = _planes(u.to(wide))
        weights, biases = _rows(v, wide), _rows(bias, wide)
        before, after = _before_and_after(cells, ctx.reverse)
        r = _gate(reset, weights[1], biases[1], before)
        grad_highway, grad_r, grad_c = _output_gradients(
            grad_h.to(wide), highway.to(wide), after, r, ctx.tanh
        )
        f = _gate(forget, weights[0], biases[0], before, r)
        grad_f = (before - z).mul_(f)
        grad_f.addcmul_(grad_f, f, value=-1)  # w = (c' - z)·f·(1-f)
        through = f if v is None else torch.addcmul(f, grad_f, weights[0])
        grad_c0 = _walk_back(grad_c, through, grad_r, weights[1], grad_last.to(wide), ctx.reverse)
        grad_f.mul_(grad_c)
        grad_u = torch.cat((grad_c.addcmul_(grad_c, f, value=-1), grad_f, grad_r), -1)
        gates = (grad_f, grad_r)
        grad_bias = torch.stack([grad.sum((0, 1)) for grad in gates]).to(bias.dtype)
        grad_v = None
        if v is not None:
            grad_v = torch.stack([grad.mul_(before).sum((0, 1)) for grad in gates]).to(v.dtype)
        grad_inputs = grad_u.to(u.dtype), grad_highway.to(highway.dtype)
        return *grad_inputs, grad_v, grad_bias, grad_c0.to(ctx.state_type), None, None


def _planes(u: Tensor) -> tuple[Tensor, ...]:
    """z, forget and reset (T, B, H) of (T, B, 3·H)."""
    return u.unflatten(-1, (3, -1)).unbind(-2)


def _rows(pair: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    return (None, None) if pair is None else pair.to(dtype).unbind(0)


def _before_and_after(cells: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The cells (T, B, H) before and after each step."""
    return (cells[1:], cells[:-1]) if reverse else (cells[:-1], cells[1:])


def _gate(
    pre: Tensor, weight: Tensor | None, bias: Tensor, before: Tensor, out: Tensor | None = None
) -> Tensor:
    """A gate at all steps, from all cells; into `out` if given."""
    if weight is None:
        return torch.add(pre, bias, out=out).sigmoid_()
    return torch.addcmul(pre, weight, before, out=out).add_(bias).sigmoid_()


def _cells(z: Tensor, forget: Tensor, weight: Tensor | None, c0: Tensor, reverse: bool) -> Tensor:
    """c0 and the cells of all steps, (T + 1, B, H) in the order of time.

    Args:
        forget: u_f + b_f, overwritten.
    """
    steps, batch, hidden = z.shape
    cells = torch.empty(steps + 1, batch, hidden, dtype=z.dtype, device=z.device)
    before, after = (side.unbind(0) for side in _before_and_after(cells, reverse))
    cells[-1 if reverse else 0].copy_(c0)
    if weight is None:
        forget.sigmoid_()
    inputs, gates = z.unbind(0), forget.unbind(0)
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        if weight is not None:
            gates[t].addcmul_(weight, before[t]).sigmoid_()
        torch.lerp(inputs[t], before[t], gates[t], out=after[t])
    return cells


def _output_gradients(
    grad_h: Tensor, x: Tensor, after: Tensor, r: Tensor, tanh: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the highway input, of what the reset gate is given, and of the cells, from h = x + r·(g(c) - x)."""
    value = after.tanh() if tanh else after
    grad_value = grad_h * r
    grad_highway = grad_h - grad_value
    grad_r = (value - x).mul_(grad_value)
    grad_r.addcmul_(grad_r, r, value=-1)
    if tanh:
        grad_value.addcmul_(grad_value, value.square(), value=-1)
    return grad_highway, grad_r, grad_value


def _walk_back(
    grad: Tensor, through: Tensor, grad_r: Tensor, weight: Tensor | None, grad_last: Tensor, reverse: bool
) -> Tensor:
    """Turn `grad` (T, B, H) from the gradient of c through h alone into the whole one; return that of c0.

    Args:
        through: what a step hands on of the gradient of its cell to the cell before it.
        weight: v_r; None: none.
    """
    steps = range(len(grad)) if reverse else range(len(grad) - 1, -1, -1)
    if weight is not None:
        earlier, later = (grad[1:], grad_r[:-1]) if reverse else (grad[:-1], grad_r[1:])
        earlier.addcmul_(later, weight)
    grads, factors = grad.unbind(0), through.unbind(0)
    grads[steps[0]].add_(grad_last)
    for t, before in pairwise(steps):
        grads[before].addcmul_(factors[t], grads[t])
    first = steps[-1]
    grad_c0 = factors[first] * grads[first]
    return grad_c0 if weight is None else grad_c0.addcmul_(grad_r[first], weight)
