"""The recurrence of SRU in C and Triton, as operations of torch: `compressnet::sru_forward`, `sru_backward`.

The reference is `layers/sru_recurrence.py`, which calls this where it can. On the CPU the C kernel takes
float32 alone, on CUDA the Triton kernel (`sru_triton.py`) also bfloat16 and float16; all else runs through
the reference.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import gradient, library

_kernel = library.Kernel("sru")  # `available` speaks of C alone, `reference` switches both off
available, reference = _kernel.available, _kernel.reference
# A constant, so that torch.compile can see through `serves`.
_TRITON = getattr(find_spec("triton"), "origin", None) is not None  # a mere folder of that name has none
_CUDA_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_operations = torch.library.Library("compressnet", "FRAGMENT")
_operations.define(
    "sru_forward(Tensor u, Tensor highway, Tensor? v, Tensor bias, Tensor c0, bool tanh, bool reverse,"
    " bool keep) -> (Tensor, Tensor, Tensor)"
)
_operations.define(
    "sru_backward(Tensor u, Tensor highway, Tensor? v, Tensor bias, Tensor c0, Tensor cells, Tensor dh,"
    " Tensor dc_last, bool tanh, bool reverse) -> (Tensor, Tensor, Tensor, Tensor)"
)
Optional = Tensor | None


def serves(u: Tensor, *others: Optional) -> bool:
    """Whether a kernel can work on these: all on one device, of types that it takes."""
    if not _kernel.is_enabled or not (_kernel.is_built if u.is_cpu else _TRITON and u.is_cuda):
        return False
    types, device = (torch.float32,) if u.is_cpu else _CUDA_TYPES, u.device
    if u.dtype not in types:
        return False
    for tensor in others:
        if tensor is not None and (tensor.dtype not in types or tensor.device != device):
            return False
    return True


def recurrence(
    u: Tensor, highway: Tensor, v: Optional, bias: Tensor, c0: Tensor, tanh: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    """As `layers.sru_recurrence.recurrence`, for tensors that it `serves`: h (T, B, H), last cell (B, H)."""
    if gradient.is_wanted(u, highway, v, bias, c0):
        h, last = _Recurrence.apply(u, highway, v, bias, c0, tanh, reverse)
    else:
        h, last, _ = torch.ops.compressnet.sru_forward(u, highway, v, bias, c0, tanh, reverse, False)
    return h, last


class _Recurrence(torch.autograd.Function):
    """Keeps the cells of all steps; the gates are computed again for the gradient."""

    @staticmethod
    def forward(ctx, u, highway, v, bias, c0, tanh, reverse):  # type: ignore[no-untyped-def]
        h, last, cells = torch.ops.compressnet.sru_forward(u, highway, v, bias, c0, tanh, reverse, True)
        ctx.save_for_backward(u, highway, v, bias, c0, cells)
        ctx.tanh, ctx.reverse = tanh, reverse
        return h, last

    @staticmethod
    @once_differentiable
    def backward(ctx, dh, dc_last):  # type: ignore[no-untyped-def]
        u, highway, v, bias, c0, cells = ctx.saved_tensors
        du, dhighway, dparameters, dc0 = torch.ops.compressnet.sru_backward(
            u, highway, v, bias, c0, cells, dh, dc_last, ctx.tanh, ctx.reverse
        )
        of_v, of_bias = dparameters.sum(0).split(2)
        return du, dhighway, None if v is None else of_v.to(v.dtype), of_bias.to(bias.dtype), dc0, None, None


def _forward(
    u: Tensor, highway: Tensor, v: Optional, bias: Tensor, c0: Tensor, tanh: bool, reverse: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = _contiguous(u, highway, v, bias, c0)
    h, last, cells = _fake_forward(u, highway, v, bias, c0, tanh, reverse, keep)
    _call("forward", [*inputs, h, last, cells if keep else None], u, tanh, reverse)
    return h, last, cells


def _backward(
    u: Tensor,
    highway: Tensor,
    v: Optional,
    bias: Tensor,
    c0: Tensor,
    cells: Tensor,
    dh: Tensor,
    dc_last: Tensor,
    tanh: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = _contiguous(u, highway, v, bias, c0, cells, dh, dc_last)
    outputs = _fake_backward(u, highway, v, bias, c0, cells, dh, dc_last, tanh, reverse)
    _call("backward", [*inputs, *outputs], u, tanh, reverse)
    return outputs


def _contiguous(*tensors: Optional) -> list[Optional]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _call(way: str, tensors: list[Optional], u: Tensor, tanh: bool, reverse: bool) -> None:
    steps, batch, width = u.shape
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    function = _kernel.function(f"sru_{way}", len(pointers), 3, 3)
    function(*pointers, steps, batch, width // 3, tanh, reverse, torch.get_num_threads())


def _cuda_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from compressnet.kernels import sru_triton  # not before a GPU wants it: triton takes a second to import

    u, highway, v, bias, c0, tanh, reverse, keep = arguments
    outputs = _fake_forward(*arguments)
    kept = outputs[2] if keep else None
    sru_triton.forward(_contiguous(u, highway, v, bias, c0), [*outputs[:2], kept], tanh, reverse)
    return outputs


def _cuda_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from compressnet.kernels import sru_triton

    *inputs, tanh, reverse = arguments
    outputs = _fake_backward(*arguments)
    sru_triton.backward(_contiguous(*inputs), list(outputs), tanh, reverse)
    return outputs


def _fake_forward(
    u: Tensor, highway: Tensor, v: Optional, bias: Tensor, c0: Tensor, tanh: bool, reverse: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    steps, batch, width = u.shape
    shape = (steps, batch, width // 3)
    cells = u.new_empty(shape if keep else (0,), dtype=torch.float32)
    return u.new_empty(shape), c0.new_empty(shape[1:]), cells


def _fake_backward(
    u: Tensor,
    highway: Tensor,
    v: Optional,
    bias: Tensor,
    c0: Tensor,
    cells: Tensor,
    dh: Tensor,
    dc_last: Tensor,
    tanh: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, hidden = c0.shape
    dparameters = u.new_empty(batch, 4, hidden, dtype=torch.float32)
    return u.new_empty(u.shape), highway.new_empty(highway.shape), dparameters, c0.new_empty(c0.shape)


_operations.impl("sru_forward", _forward, "CPU")
_operations.impl("sru_backward", _backward, "CPU")
_operations.impl("sru_forward", _cuda_forward, "CUDA")
_operations.impl("sru_backward", _cuda_backward, "CUDA")
torch.library.register_fake("compressnet::sru_forward", _fake_forward, lib=_operations)
torch.library.register_fake("compressnet::sru_backward", _fake_backward, lib=_operations)


@register_flop_formula([torch.ops.compressnet.sru_forward, torch.ops.compressnet.sru_backward])
def _flops(*shapes: object, **keywords: object) -> int:
    """All of it is elementwise: no matrix product."""
    return 0
