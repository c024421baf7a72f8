"""The walk of an LSTM over time, as operations of torch: `compressnet::lstm_forward` and `lstm_backward`.

    sums (T, B, G·H) --+        +--> gates, kept for the gradient
                       v        |
    h -- product --> [ step in C ] --> c, m -- product --> the next h        (no projection: m is h)

The reference is the loop in `layers/lstm_cell.py`, which calls this where it can. float32 on the CPU only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import gradient, library
from compressnet.kernels.product import Product, weight_gradient

_kernel = library.Kernel("lstm")
available, reference = _kernel.available, _kernel.reference
_operations = torch.library.Library("compressnet", "FRAGMENT")
_operations.define(
    "lstm_forward(Tensor sums, Tensor h0, Tensor c0, Tensor weight_hh, Tensor? weight_hr, Tensor? peephole,"
    " bool keep) -> (Tensor, Tensor, Tensor, Tensor)"
)
_operations.define(
    "lstm_backward(Tensor gates, Tensor c0, Tensor c, Tensor weight_hh, Tensor? weight_hr, Tensor? peephole,"
    " Tensor? dh, Tensor? dc, Tensor? dm) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
Optional = Tensor | None


def serves(*tensors: Optional) -> bool:
    """Whether the kernel can work on these: float32, on the CPU."""
    given = [tensor for tensor in tensors if tensor is not None]
    return available() and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in given)


def walk(
    sums: Tensor, h0: Tensor, c0: Tensor, weight_hh: Tensor, weight_hr: Optional, peephole: Optional
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of a layer in one direction, of tensors that it `serves`.

    Args:
        sums: (T, B, G·H) with T > 0, what the gates get from the input: i, f, g, o; or f, g, o where
            i = 1 - f.
        h0, c0: (B, P) and (B, H).
        weight_hh: (G·H, P).
        weight_hr: (P, H), the projection; None: none, P is H.
        peephole: (G-1, H), as `LSTMCell` has it; None: none.

    Returns:
        h (T, B, P), c (T, B, H) and m (T, B, H), which is h without projection, after each step.
        Differentiable once, in all tensors.
    """
    tensors = (sums, h0, c0, weight_hh, weight_hr, peephole)
    if gradient.is_wanted(*tensors):
        h, c, m = _Walk.apply(*tensors)
    else:
        h, c, m, _ = torch.ops.compressnet.lstm_forward(*tensors, False)
    return h, c, h if weight_hr is None else m


class _Walk(torch.autograd.Function):
    """Keeps gates and cells of all steps; gradients of the matrices are one product each at the end."""

    @staticmethod
    def forward(ctx, sums, h0, c0, weight_hh, weight_hr, peephole):  # type: ignore[no-untyped-def]
        h, c, m, gates = torch.ops.compressnet.lstm_forward(
            sums, h0, c0, weight_hh, weight_hr, peephole, True
        )
        ctx.save_for_backward(gates, h0, c0, h, c, m, weight_hh, weight_hr, peephole)
        ctx.set_materialize_grads(False)
        return h, c, m

    @staticmethod
    @once_differentiable
    def backward(ctx, dh, dc, dm):  # type: ignore[no-untyped-def]
        gates, h0, c0, h, c, m, weight_hh, weight_hr, peephole = ctx.saved_tensors
        dm = None if weight_hr is None else dm
        dsums, dh_whole, dh0, dc0, dpeephole = torch.ops.compressnet.lstm_backward(
            gates, c0, c, weight_hh, weight_hr, peephole, dh, dc, dm
        )
        before = torch.cat([h0.unsqueeze(0), h[:-1]])
        dweight_hh = weight_gradient(dsums.flatten(0, 1), before.flatten(0, 1))
        dweight_hr = None
        if weight_hr is not None:
            dweight_hr = weight_gradient(dh_whole.flatten(0, 1), m.flatten(0, 1))
        return dsums, dh0, dc0, dweight_hh, dweight_hr, None if peephole is None else dpeephole.sum(0)


def _forward(
    sums: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_hh: Tensor,
    weight_hr: Optional,
    peephole: Optional,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check_shapes(sums, h0, c0, weight_hh, weight_hr, peephole)
    h, c, m, gates = _fake_forward(sums, h0, c0, weight_hh, weight_hr, peephole, keep)
    steps, batch = sums.shape[:2]
    recur = Product(weight_hh, batch, steps)
    project = None if weight_hr is None else Product(weight_hr, batch, steps)
    peephole, h_t, c_t = _contiguous(peephole), h0, c0.contiguous()
    kept = gates.unbind(0) if keep else (None,) * steps
    hs, cs, ms = (states.unbind(0) for states in (h, c, h if project is None else m))
    for t, sums_t in enumerate(sums.contiguous().unbind(0)):
        _call("lstm_forward", [sums_t, recur(h_t), peephole, c_t, kept[t], cs[t], ms[t]], c0, sums)
        h_t, c_t = hs[t], cs[t]
        if project is not None:
            h_t.copy_(project(ms[t]))
    return h, c, m, gates


def _backward(
    gates: Tensor,
    c0: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    weight_hr: Optional,
    peephole: Optional,
    dh: Optional,
    dc: Optional,
    dm: Optional,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dsums, dh_whole, dh_before, dc_before, dpeephole = _fake_backward(
        gates, c0, c, weight_hh, weight_hr, peephole, dh, dc, dm
    )
    steps, batch = gates.shape[:2]
    recur = Product(weight_hh.t(), batch, steps)
    project = None if weight_hr is None else Product(weight_hr.t(), batch, steps)
    peephole = _contiguous(peephole)
    before = (c0.contiguous(), *c.contiguous().unbind(0))
    kept, grads = gates.contiguous().unbind(0), dsums.unbind(0)
    dhs, dcs, dms = (None if grad is None else grad.contiguous().unbind(0) for grad in (dh, dc, dm))
    for sums in (dh_before, dc_before, dpeephole):
        sums.zero_()
    for t in range(steps - 1, -1, -1):
        dm_t = dh_before if dhs is None else dh_before + dhs[t]
        if project is not None:
            dh_whole[t] = dm_t
            dm_t = project(dm_t) if dms is None else project(dm_t) + dms[t]
        given = None if dcs is None else dcs[t]
        tensors = [kept[t], before[t + 1], before[t], peephole, dm_t, given, dc_before, grads[t], dpeephole]
        _call("lstm_backward", tensors, c0, gates)
        dh_before = recur(grads[t])
    return dsums, dh_whole, dh_before, dc_before, dpeephole


def _check_shapes(
    sums: Tensor, h0: Tensor, c0: Tensor, weight_hh: Tensor, weight_hr: Optional, peephole: Optional
) -> None:
    """C believes its sizes: what does not fit would be read from behind the end."""
    batch, hidden = c0.shape
    rows, width = weight_hh.shape
    projection = (hidden, hidden) if weight_hr is None else weight_hr.shape
    gates = rows // hidden
    if (
        gates not in (3, 4)
        or rows != gates * hidden
        or sums.shape[1:] != (batch, rows)
        or h0.shape != (batch, width)
        or projection != (width, hidden)
        or (peephole is not None and peephole.shape != (gates - 1, hidden))
    ):
        given = (sums, h0, c0, weight_hh, weight_hr, peephole)
        shapes = ", ".join("none" if tensor is None else str(tuple(tensor.shape)) for tensor in given)
        raise ValueError(f"lstm_forward: sums, h0, c0, weights and peepholes do not fit: {shapes}")


def _call(name: str, tensors: list[Optional], c: Tensor, sums: Tensor) -> None:
    """Call C for a step.

    Args:
        c, sums: (B, H) and (..., G·H), for the sizes.
    """
    batch, hidden = c.shape
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    function = _kernel.function(name, len(tensors), 3, 1)
    function(*pointers, batch, hidden, sums.shape[-1] // hidden, torch.get_num_threads())


def _contiguous(tensor: Optional) -> Optional:
    return None if tensor is None else tensor.contiguous()


def _fake_forward(
    sums: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_hh: Tensor,
    weight_hr: Optional,
    peephole: Optional,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps, batch, _ = sums.shape
    cells = (steps, batch, c0.shape[1])
    return (
        sums.new_empty(steps, batch, h0.shape[1]),
        sums.new_empty(cells),
        sums.new_empty(0 if weight_hr is None else cells),
        sums.new_empty(sums.shape if keep else 0),
    )


def _fake_backward(
    gates: Tensor,
    c0: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    weight_hr: Optional,
    peephole: Optional,
    dh: Optional,
    dc: Optional,
    dm: Optional,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    steps, batch, rows = gates.shape
    hidden, width = c0.shape[1], weight_hh.shape[1]
    return (
        gates.new_empty(gates.shape),
        gates.new_empty(0 if weight_hr is None else (steps, batch, width)),
        gates.new_empty(batch, width),
        gates.new_empty(batch, hidden),
        gates.new_empty(0 if peephole is None else (batch, rows // hidden - 1, hidden)),
    )


_operations.impl("lstm_forward", _forward, "CPU")
_operations.impl("lstm_backward", _backward, "CPU")
torch.library.register_fake("compressnet::lstm_forward", _fake_forward, lib=_operations)
torch.library.register_fake("compressnet::lstm_backward", _fake_backward, lib=_operations)


@register_flop_formula([torch.ops.compressnet.lstm_forward])
def _forward_flops(
    sums: Any, h0: Any, c0: Any, weight_hh: Any, weight_hr: Any, *_: Any, **keywords: Any
) -> int:
    """Of the products with the recurrent matrix and the projection; peepholes are elementwise."""
    return 2 * sums[0] * sums[1] * (math.prod(weight_hh) + (math.prod(weight_hr) if weight_hr else 0))


@register_flop_formula([torch.ops.compressnet.lstm_backward])
def _backward_flops(
    gates: Any, c0: Any, c: Any, weight_hh: Any, weight_hr: Any, *_: Any, **keywords: Any
) -> int:
    """Of the same products transposed; those for the gradients of the matrices are outside."""
    return _forward_flops(gates, None, None, weight_hh, weight_hr)
