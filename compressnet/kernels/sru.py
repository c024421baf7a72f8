"""The recurrence of SRU in C, as operations of torch: `compressnet::sru_forward` and `sru_backward`.

The reference is `layers/sru_recurrence.py`, which calls this where it can. float32 on the CPU only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import library

_BUILT = library.load("sru") is not None  # a constant, so that torch.compile can see through `available`
_enabled = True
_operations = torch.library.Library("compressnet", "DEF")
_operations.define(
    "sru_forward(Tensor u, Tensor highway, Tensor v, Tensor bias, Tensor c0, bool tanh, bool reverse)"
    " -> (Tensor, Tensor)"
)
_operations.define(
    "sru_backward(Tensor u, Tensor highway, Tensor v, Tensor bias, Tensor c0, Tensor c, Tensor dh,"
    " Tensor dc_last, bool tanh, bool reverse) -> (Tensor, Tensor, Tensor, Tensor)"
)


def available() -> bool:
    """Whether the kernel was built, loads here and is not switched off."""
    return _enabled and _BUILT


@contextmanager
def reference() -> Iterator[None]:
    """Within it the torch reference runs, to compare with it."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def serves(*tensors: Tensor | None) -> bool:
    """Whether the kernel can work on these: float32, on the CPU."""
    given = [tensor for tensor in tensors if tensor is not None]
    return available() and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in given)


def recurrence(
    u: Tensor, highway: Tensor, v: Tensor | None, bias: Tensor, c0: Tensor, tanh: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    """As `layers.sru_recurrence.recurrence`, for tensors that it `serves`: h (T, B, H), last cell (B, H)."""
    v = torch.zeros_like(bias) if v is None else v
    h, last = _Recurrence.apply(u, highway, v, bias, c0, tanh, reverse)
    return h, last


class _Recurrence(torch.autograd.Function):
    """Keeps the cells of all steps; the gates are computed again for the gradient."""

    @staticmethod
    def forward(ctx, u, highway, v, bias, c0, tanh, reverse):  # type: ignore[no-untyped-def]
        h, c = torch.ops.compressnet.sru_forward(u, highway, v, bias, c0, tanh, reverse)
        ctx.save_for_backward(u, highway, v, bias, c0, c)
        ctx.tanh, ctx.reverse = tanh, reverse
        return h, c[0 if reverse else -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, dh, dc_last):  # type: ignore[no-untyped-def]
        du, dhighway, dparameters, dc0 = torch.ops.compressnet.sru_backward(
            *ctx.saved_tensors, dh, dc_last, ctx.tanh, ctx.reverse
        )
        of_v, of_bias = dparameters.sum(0).split(2)
        return du, dhighway, of_v, of_bias, dc0, None, None


def _forward(
    u: Tensor, highway: Tensor, v: Tensor, bias: Tensor, c0: Tensor, tanh: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    inputs = [tensor.contiguous() for tensor in (u, highway, v, bias, c0)]
    h, c = _fake_forward(u, highway, v, bias, c0, tanh, reverse)
    _call("compressnet_sru_forward", [*inputs, h, c], u, tanh, reverse)
    return h, c


def _backward(
    u: Tensor,
    highway: Tensor,
    v: Tensor,
    bias: Tensor,
    c0: Tensor,
    c: Tensor,
    dh: Tensor,
    dc_last: Tensor,
    tanh: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = [tensor.contiguous() for tensor in (u, highway, v, bias, c0, c, dh, dc_last)]
    outputs = _fake_backward(u, highway, v, bias, c0, c, dh, dc_last, tanh, reverse)
    _call("compressnet_sru_backward", [*inputs, *outputs], u, tanh, reverse)
    return outputs


def _call(name: str, tensors: list[Tensor], u: Tensor, tanh: bool, reverse: bool) -> None:
    loaded = library.load("sru")
    assert loaded is not None
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    sizes = [ctypes.c_int64(size) for size in (u.shape[0], u.shape[1], u.shape[2] // 3)]
    getattr(loaded, name)(*pointers, *sizes, int(tanh), int(reverse), torch.get_num_threads())


def _fake_forward(
    u: Tensor, highway: Tensor, v: Tensor, bias: Tensor, c0: Tensor, tanh: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    shape = (u.shape[0], u.shape[1], u.shape[2] // 3)
    return u.new_empty(shape), u.new_empty(shape)


def _fake_backward(
    u: Tensor,
    highway: Tensor,
    v: Tensor,
    bias: Tensor,
    c0: Tensor,
    c: Tensor,
    dh: Tensor,
    dc_last: Tensor,
    tanh: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, hidden = c0.shape
    return u.new_empty(u.shape), u.new_empty(c.shape), u.new_empty(batch, 4, hidden), u.new_empty(c0.shape)


_operations.impl("sru_forward", _forward, "CPU")
_operations.impl("sru_backward", _backward, "CPU")
torch.library.register_fake("compressnet::sru_forward", _fake_forward, lib=_operations)
torch.library.register_fake("compressnet::sru_backward", _fake_backward, lib=_operations)


@register_flop_formula([torch.ops.compressnet.sru_forward, torch.ops.compressnet.sru_backward])
def _flops(*shapes: object, **keywords: object) -> int:
    """All of it is elementwise: no matrix product."""
    return 0
