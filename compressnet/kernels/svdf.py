"""Frames of SVDF, as an operation of torch: `compressnet::svdf_step`.

    x (L, B, F) -- features --> ring (T, B, n·R), at `position` -- time, sum of ranks, bias, f --> y (L, B, n)

The reference is in `layers/svdf.py`, which calls this where it can. float32 on the CPU, without gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import gradient, library

_kernel = library.Kernel("svdf")
available, reference = _kernel.available, _kernel.reference
_operations = torch.library.Library("compressnet", "FRAGMENT")
_operations.define(
    "svdf_step(Tensor x, Tensor weight_feature, Tensor weight_time, Tensor? bias, Tensor(a!) ring,"
    " Tensor position, int rank, bool relu) -> (Tensor, Tensor)"
)
Optional = Tensor | None
_MOST_FILTERS = 64  # of a node: so many the kernel has room for
_MOST_FRAMES = 16  # above, a product and a convolution over all of them are as fast


def serves(
    rank: int,
    x: Tensor,
    weight_feature: Tensor,
    weight_time: Tensor,
    bias: Optional,
    ring: Tensor,
    position: Tensor,
) -> bool:
    """Whether the kernel can work on these, and may write into the ring.

    A few frames of float32 on the CPU, shapes that fit, not too many filters a node, no gradients and no
    graph. What does not fit is for the reference to refuse.
    """
    if torch.compiler.is_compiling() or not (_kernel.is_enabled and _kernel.is_built) or x.ndim != 3:
        return False
    count, batch, features = x.shape  # each question once: they take as long as the answer
    filters, memory = weight_time.shape
    return (
        0 < count <= _MOST_FRAMES
        and 1 <= rank <= _MOST_FILTERS
        and filters % rank == 0
        and weight_feature.shape == (filters, features)
        and ring.shape == (memory, batch, filters)
        and (bias is None or (bias.shape == (filters // rank,) and bias.dtype == torch.float32))
        and torch.float32 == x.dtype == ring.dtype == weight_feature.dtype == weight_time.dtype
        and x.is_cpu
        and ring.is_cpu
        and weight_time.is_cpu
        and ring.is_contiguous()
        and position.dtype == torch.int64
        and position.is_cpu
        and position.ndim == 0
        and (torch.is_inference_mode_enabled() or _is_plain(x, weight_feature, weight_time, bias, ring))
        and not torch.is_autocast_enabled("cpu")
    )


def _is_plain(x: Tensor, weight_feature: Tensor, weight_time: Tensor, bias: Optional, ring: Tensor) -> bool:
    """Outside of inference mode: whether nobody wants a gradient, and the ring was not made within it."""
    return not (gradient.is_wanted(x, weight_feature, weight_time, bias, ring) or ring.is_inference())


def step(
    x: Tensor,
    weight_feature: Tensor,
    weight_time: Tensor,
    bias: Optional,
    ring: Tensor,
    position: Tensor,
    rank: int,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Frames to nodes (L, B, n), and the next position. Their features go into `ring`. No gradients.

    Of tensors that it `serves`: the caller asks.

    Args:
        x: (L, B, F).
        weight_feature, weight_time: (n·R, F) and (n·R, T), as of the layer.
        bias: (n,); None: none.
        ring: (T, B, n·R), features of the last frames.
        position: 0-d, int64: where the first new frame goes, modulo T; behind it the oldest one lies.
        rank: R.
        relu: whether f is that, else nothing.
    """
    # The way through torch's dispatcher is longer than the work: only where somebody looks on there.
    watched = torch._C._len_torch_dispatch_stack() or torch._C._is_torch_function_mode_enabled()
    call = torch.ops.compressnet.svdf_step if watched else _run
    return call(x, weight_feature, weight_time, bias, ring, position, rank, relu)


def _step(
    x: Tensor,
    weight_feature: Tensor,
    weight_time: Tensor,
    bias: Optional,
    ring: Tensor,
    position: Tensor,
    rank: int,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    filters, memory = weight_time.shape
    _, batch, features = x.shape
    units = filters // rank
    if (
        weight_feature.shape != (filters, features)
        or ring.shape != (memory, batch, filters)
        or not ring.is_contiguous()
        or units * rank != filters
        or not 1 <= rank <= _MOST_FILTERS
        or (bias is not None and bias.shape != (units,))
        or position.dtype != torch.int64
        or position.ndim
    ):  # C believes its sizes: what does not fit would be read from behind the end
        given = (x, weight_feature, weight_time, bias, ring, position)
        shapes = ", ".join("none" if tensor is None else str(tuple(tensor.shape)) for tensor in given)
        raise ValueError(
            f"svdf_step: x, weights, bias, ring and position do not fit each other or rank {rank}: {shapes}"
        )
    return _run(x, weight_feature, weight_time, bias, ring, position, rank, relu)


def _run(
    x: Tensor,
    weight_feature: Tensor,
    weight_time: Tensor,
    bias: Optional,
    ring: Tensor,
    position: Tensor,
    rank: int,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    count, batch, features = x.shape
    filters, memory = weight_time.shape
    units = filters // rank
    y, after = x.new_empty((count, batch, units)), torch.empty_like(position)
    x, weight_feature, weight_time = x.contiguous(), weight_feature.contiguous(), weight_time.contiguous()
    bias = None if bias is None else bias.contiguous()
    _kernel.function("svdf_step", 8, 6, 2)(
        x.data_ptr(),
        weight_feature.data_ptr(),
        weight_time.data_ptr(),
        None if bias is None else bias.data_ptr(),
        ring.data_ptr(),
        position.data_ptr(),
        y.data_ptr(),
        after.data_ptr(),
        count,
        batch,
        units,
        rank,
        features,
        memory,
        relu,
        torch.get_num_threads(),
    )
    return y, after


def _fake_step(
    x: Tensor,
    weight_feature: Tensor,
    weight_time: Tensor,
    bias: Optional,
    ring: Tensor,
    position: Tensor,
    rank: int,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(*x.shape[:2], weight_time.shape[0] // rank), torch.empty_like(position)


_operations.impl("svdf_step", _step, "CPU")
torch.library.register_fake("compressnet::svdf_step", _fake_step, lib=_operations)


@register_flop_formula(torch.ops.compressnet.svdf_step)
def _flops(x: list[int], weight_feature: list[int], weight_time: list[int], *_: object, **__: object) -> int:
    return 2 * x[0] * x[1] * weight_time[0] * (x[2] + weight_time[1])
