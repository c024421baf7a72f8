"""The walk of an LSTM of 1997 over time, as an operation of torch: `compressnet::lstm_1997_walk`.

    sums (T, B, n_h) --> [ all steps in C ] --> units (T, B, n_h), the last cells

The reference is `LSTM1997._walk`, which calls this where it can: float32 on the CPU, and networks as small as
the paper's, where a step of torch's operations is nearly all overhead. It has no gradient and needs none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import library

_kernel = library.Kernel("lstm_1997")
available, reference = _kernel.available, _kernel.reference
_MOST = 64  # hidden units; as in the C source
_operations = torch.library.Library("compressnet", "FRAGMENT")
_operations.define(
    "lstm_1997_walk(Tensor sums, Tensor weight_hh, Tensor fed_back, Tensor cells, int blocks)"
    " -> (Tensor, Tensor)"
)


def serves(sums: Tensor, *others: Tensor) -> bool:
    """Whether the kernel can work on these: float32, on the CPU, of few hidden units."""
    tensors = (sums, *others)
    fits = available() and sums.shape[-1] <= _MOST
    return fits and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def walk(
    sums: Tensor, weight_hh: Tensor, fed_back: Tensor, cells: Tensor, blocks: int
) -> tuple[Tensor, Tensor]:
    """All steps, of tensors that it `serves`; not differentiable.

    Args:
        sums: (T, B, n_h), what the hidden units get from the input.
        weight_hh: (n_h, n_h).
        fed_back, cells: (B, n_h) and (B, b·S), before the first step.
        blocks: b.

    Returns:
        The outputs of all hidden units (T, B, n_h), and the cells after the last step.
    """
    units, last = torch.ops.compressnet.lstm_1997_walk(sums, weight_hh, fed_back, cells, blocks)
    return units, last


def _walk(
    sums: Tensor, weight_hh: Tensor, fed_back: Tensor, cells: Tensor, blocks: int
) -> tuple[Tensor, Tensor]:
    steps, batch, hidden = sums.shape
    if hidden > _MOST:  # C has room for no more
        raise ValueError(f"lstm_1997_walk: {hidden} hidden units, {_MOST} at most")
    units, last = _fake_walk(sums, weight_hh, fed_back, cells, blocks)
    last.copy_(cells)
    inputs = [sums.contiguous(), weight_hh.t().contiguous(), fed_back.contiguous()]
    pointers = [tensor.data_ptr() for tensor in (*inputs, last, units)]
    walk_in_c = _kernel.function("lstm_1997_walk", len(pointers), 4, 0)
    walk_in_c(*pointers, steps, batch, blocks, cells.shape[1] // blocks)
    return units, last


def _fake_walk(
    sums: Tensor, weight_hh: Tensor, fed_back: Tensor, cells: Tensor, blocks: int
) -> tuple[Tensor, Tensor]:
    return sums.new_empty(sums.shape), cells.new_empty(cells.shape)


_operations.impl("lstm_1997_walk", _walk, "CPU")
torch.library.register_fake("compressnet::lstm_1997_walk", _fake_walk, lib=_operations)


@register_flop_formula([torch.ops.compressnet.lstm_1997_walk])
def _flops(sums: Any, weight_hh: Any, *_: Any, **keywords: Any) -> int:
    """Of the products with the recurrent matrix."""
    return 2 * sums[0] * sums[1] * math.prod(weight_hh)
