"""The recurrence of SRU in Triton, for CUDA. It was never run on a GPU so far: it was checked in Triton's
interpreter on the CPU (tests/kernels/test_sru_triton.py), and nothing is known of its speed.

A program is one batch row and BLOCK cells. It walks the time axis with its cells in registers; what it sums
for the gradients of v and the biases belongs to its row and is added up over the batch afterwards, so that no
atomic is needed and results repeat. Layout and formulas are those of `sru.c`. Arithmetic is float32
throughout, also for bfloat16 and float16.

`kernels/sru.py` imports this when a CUDA tensor comes, not before.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

# Few cells a program: batch 32 and H = 512 make 256 programs, for the 100 to 150 processors of a large GPU.
_BLOCK = 64


def forward(inputs: list[Tensor | None], outputs: list[Tensor | None], tanh: bool, reverse: bool) -> None:
    """Fill `outputs`: h (T, B, H), last (B, H) and the cells of all steps (T, B, H) in float32, or None.

    Args:
        inputs: u (T, B, 3·H), highway (T, B, H), v (2, H) or None, bias (2, H), c0 (B, H); contiguous.
    """
    v, cells = inputs[2], outputs[2]
    _launch(
        _forward, inputs, outputs, HAS_V=v is not None, TANH=tanh, REVERSE=reverse, KEEP=cells is not None
    )


def backward(inputs: list[Tensor | None], outputs: list[Tensor | None], tanh: bool, reverse: bool) -> None:
    """Fill `outputs`: the gradients of u and highway, (B, 4, H) of v_f, v_r, b_f, b_r a row, and that of c0.

    Args:
        inputs: as of `forward`, then cells, and the gradients of h and last; contiguous.
    """
    _launch(_backward, inputs, outputs, HAS_V=inputs[2] is not None, TANH=tanh, REVERSE=reverse)


def _launch(
    kernel: Any, inputs: list[Tensor | None], outputs: list[Tensor | None], **constants: bool
) -> None:
    u = inputs[0]
    assert u is not None
    steps, batch, width = u.shape
    hidden = width // 3
    grid = (batch, triton.cdiv(hidden, _BLOCK))
    with torch.cuda.device_of(u):  # triton starts on the current device, whatever the tensors are on
        kernel[grid](*inputs, *outputs, steps, batch, hidden, BLOCK=_BLOCK, num_warps=2, **constants)


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    # triton.language has none, and 2·sigmoid(2x) - 1 would cancel around 0.
    square = x * x
    p = -5.70498872745e-3
    p = p * square + 2.06390887954e-2
    p = p * square - 5.37397155531e-2
    p = p * square + 1.33314422036e-1
    p = p * square - 3.33332819422e-1
    return tl.where(square < 0.390625, p * square * x + x, 2.0 * _sigmoid(2.0 * x) - 1.0)


@triton.jit
def _pair(rows, columns, inside, hidden):  # type: ignore[no-untyped-def]
    """Two rows (2, H), of the forget and the reset gate."""
    first = tl.load(rows + columns, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(rows + hidden + columns, mask=inside, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def _three(u, at, columns, inside, hidden):  # type: ignore[no-untyped-def]
    """The planes z, f and r of one row."""
    place = u + 3 * at * hidden + columns
    z = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    f = tl.load(place + hidden, mask=inside, other=0.0).to(tl.float32)
    r = tl.load(place + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    return z, f, r


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    u, highway, v, bias, c0, h, last, cells, steps, batch, hidden,
    HAS_V: tl.constexpr, TANH: tl.constexpr, REVERSE: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # offsets pass 2^31
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < hidden
    bias_f, bias_r = _pair(bias, columns, inside, hidden)
    if HAS_V:
        v_f, v_r = _pair(v, columns, inside, hidden)
    c = tl.load(c0 + row * hidden + columns, mask=inside, other=0.0).to(tl.float32)
    for step in range(steps):
        t = steps - 1 - step if REVERSE else step
        at = t * batch + row
        z, f, r = _three(u, at, columns, inside, hidden)
        x = tl.load(highway + at * hidden + columns, mask=inside, other=0.0).to(tl.float32)
        f += bias_f
        r += bias_r
        if HAS_V:
            f += v_f * c
            r += v_r * c
        c = z + _sigmoid(f) * (c - z)
        out = _tanh(c) if TANH else c
        y = x + _sigmoid(r) * (out - x)
        tl.store(h + at * hidden + columns, y.to(h.dtype.element_ty), mask=inside)
        if KEEP:
            tl.store(cells + at * hidden + columns, c, mask=inside)
    tl.store(last + row * hidden + columns, c.to(last.dtype.element_ty), mask=inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    u, highway, v, bias, c0, cells, dh, dc_last, du, dhighway, dparameters, dc0, steps, batch, hidden,
    HAS_V: tl.constexpr, TANH: tl.constexpr, REVERSE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < hidden
    bias_f, bias_r = _pair(bias, columns, inside, hidden)
    zero = tl.zeros([BLOCK], tl.float32)
    v_f, v_r = zero, zero
    if HAS_V:
        v_f, v_r = _pair(v, columns, inside, hidden)
    first = tl.load(c0 + row * hidden + columns, mask=inside, other=0.0).to(tl.float32)
    later = tl.load(dc_last + row * hidden + columns, mask=inside, other=0.0).to(tl.float32)
    sum_vf, sum_vr, sum_bf, sum_br = zero, zero, zero, zero
    end = (0 if REVERSE else steps - 1) * batch + row
    now = tl.load(cells + end * hidden + columns, mask=inside, other=0.0)
    for back in range(steps):
        step = steps - 1 - back
        t = steps - 1 - step if REVERSE else step
        at = t * batch + row
        earlier = at + batch if REVERSE else at - batch
        kept = tl.load(cells + earlier * hidden + columns, mask=inside & (step > 0), other=0.0)
        before = tl.where(step > 0, kept, first)
        z, f, r = _three(u, at, columns, inside, hidden)
        x = tl.load(highway + at * hidden + columns, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(dh + at * hidden + columns, mask=inside, other=0.0).to(tl.float32)
        f = _sigmoid(f + v_f * before + bias_f)
        r = _sigmoid(r + v_r * before + bias_r)
        out = _tanh(now) if TANH else now
        e_r = g * (out - x) * r * (1.0 - r)
        dc = later + (g * r * (1.0 - out * out) if TANH else g * r)
        e_f = dc * (before - z) * f * (1.0 - f)
        place = du + 3 * at * hidden + columns
        tl.store(place, (dc * (1.0 - f)).to(du.dtype.element_ty), mask=inside)
        tl.store(place + hidden, e_f.to(du.dtype.element_ty), mask=inside)
        tl.store(place + 2 * hidden, e_r.to(du.dtype.element_ty), mask=inside)
        dx = (g * (1.0 - r)).to(dhighway.dtype.element_ty)
        tl.store(dhighway + at * hidden + columns, dx, mask=inside)
        later = dc * f + e_f * v_f + e_r * v_r
        sum_vf += e_f * before
        sum_vr += e_r * before
        sum_bf += e_f
        sum_br += e_r
        now = before
    sums = dparameters + row * 4 * hidden + columns
    tl.store(sums, sum_vf, mask=inside)
    tl.store(sums + hidden, sum_vr, mask=inside)
    tl.store(sums + 2 * hidden, sum_bf, mask=inside)
    tl.store(sums + 3 * hidden, sum_br, mask=inside)
    tl.store(dc0 + row * hidden + columns, later.to(dc0.dtype.element_ty), mask=inside)
