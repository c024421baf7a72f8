"""Inputs for any module: what counting and timing run it on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv

from compressnet.errors import UsageError, is_out_of_memory

Size = int | tuple[int, int] | None
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_IMAGE, _STEPS, _SAMPLES, _VOLUME = 64, 35, 256, 16  # sizes where none is asked for, along each axis


def example(module: nn.Module, batch: int = 1, size: Size = None) -> tuple[Tensor, ...]:
    """Random inputs: the module's own `example`, or what a single layer of torch takes.

    Args:
        module: on `meta` it gets inputs without values.
        batch: how many images or sequences.
        size: of images (height, width), or one number for both; of sequences their length; None: the usual.

    Returns:
        The arguments of a call, on the module's device and in its type of floating-point numbers.

    Raises:
        UsageError: nobody knows what this module takes, or a size it cannot have.
    """
    sizes = size if isinstance(size, tuple) else (1 if size is None else size,)
    if batch < 1 or min(sizes) < 1:
        raise UsageError(f"example: batch {batch} and size {size} must be at least 1")
    own = getattr(module, "example", None)
    try:
        with torch.device("meta") if _device(module).type == "meta" else nullcontext():
            if not callable(own):
                inputs = _of_layer(module, batch, size)
            elif size is None and not _needs_size(own):
                inputs = own(batch)
            else:
                inputs = own(batch, size)
        inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):  # a size that is right, and too much for this machine
            raise
        raise UsageError(f"{type(module).__name__}: {str(error).splitlines()[0]}") from error
    return tuple(_as_in(module, x) for x in inputs)


def _needs_size(own: Callable[..., object]) -> bool:
    """Whether a user's `example(batch, size)` has no default for the size: it is given None then."""
    known = list(inspect.signature(own).parameters.values())
    return len(known) > 1 and known[1].default is inspect.Parameter.empty and known[1].kind in _POSITIONAL


def example_step(module: nn.Module, batch: int = 1) -> tuple[Tensor, ...]:
    """What one call of a stream's `step` takes before the state.

    It is what the module's own `example_step(batch)` returns; without one, its inputs of a single step.

    Raises:
        UsageError: as of `example`.
    """
    own = getattr(module, "example_step", None)
    if own is None:
        return example(module, batch, 1)
    made = own(batch)
    return tuple(_as_in(module, x) for x in ((made,) if isinstance(made, Tensor) else made))


def _of_layer(module: nn.Module, batch: int, size: Size) -> tuple[Tensor, ...]:
    if isinstance(module, nn.Sequential) and len(module):
        return example(module[0], batch, size)
    for kind, make in _MAKERS.items():
        if isinstance(module, kind):
            return make(module, batch, size)
    raise UsageError(
        f"{type(module).__name__}: nothing says what it takes; give it a method example(batch, size) that "
        "returns a tuple of inputs, or (of py:FILE.py:NAME) say --input 1x3x224x224"
    )


def _axes(count: int, size: Size, usual: int) -> tuple[int, ...]:
    if isinstance(size, tuple):
        if len(size) != count:
            raise ValueError(f"takes {count} size{'s' if count > 1 else ''}, not {len(size)}")
        return size
    return (size or usual,) * count


def _convolution(module: Any, batch: int, size: Size) -> tuple[Tensor]:
    count = len(module.kernel_size)
    axes = _axes(count, size, {1: _SAMPLES, 2: _IMAGE}.get(count, _VOLUME))
    return (torch.rand(batch, module.in_channels, *axes),)


def _batch_norm(module: Any, batch: int, size: Size) -> tuple[Tensor]:
    kind = next(kind.__name__ for kind in type(module).__mro__ if kind.__name__[-2:] in ("1d", "2d", "3d"))
    count = int(kind[-2])
    axes = _axes(count, size, {1: _SAMPLES, 2: _IMAGE}.get(count, _VOLUME))
    return (torch.rand(batch, module.num_features, *axes),)


def _group_norm(module: nn.GroupNorm, batch: int, size: Size) -> tuple[Tensor]:
    return (torch.rand(batch, module.num_channels, *_axes(2, size, _IMAGE)),)


def _vectors(features: tuple[int, ...], batch: int, size: Size) -> Tensor:
    """(B, features), or (T, B, features) where a length is asked for."""
    return torch.rand(*(() if size is None else _axes(1, size, _STEPS)), batch, *features)


def _sequence(module: Any, batch: int, size: Size) -> tuple[Tensor]:
    x = torch.rand(*_axes(1, size, _STEPS), batch, module.input_size)
    return (x.transpose(0, 1) if module.batch_first else x,)


def _one_step(module: nn.RNNCellBase, batch: int, size: Size) -> tuple[Tensor]:
    if size is not None:
        raise ValueError("takes one step and no length")
    return (torch.rand(batch, module.input_size),)


def _attention(module: nn.MultiheadAttention, batch: int, size: Size) -> tuple[Tensor, ...]:
    axes = (*_axes(1, size, _STEPS), batch)
    widths = (module.embed_dim, int(module.kdim or 0), int(module.vdim or 0))
    inputs = (torch.rand(*axes, width) for width in widths)
    return tuple(x.transpose(0, 1) if module.batch_first else x for x in inputs)


def _tokens(module: nn.Embedding, batch: int, size: Size) -> tuple[Tensor]:
    return (torch.randint(module.num_embeddings, (*_axes(1, size, _STEPS), batch)),)


def _bags(module: nn.EmbeddingBag, batch: int, size: Size) -> tuple[Tensor]:
    return (torch.randint(module.num_embeddings, (batch, *_axes(1, size, _STEPS))),)


_MAKERS: dict[type[nn.Module], Callable[[Any, int, Size], tuple[Tensor, ...]]] = {
    conv._ConvNd: _convolution,
    batchnorm._NormBase: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.Linear: lambda module, batch, size: (_vectors((module.in_features,), batch, size),),
    nn.Bilinear: lambda module, batch, size: (
        _vectors((module.in1_features,), batch, size),
        _vectors((module.in2_features,), batch, size),
    ),
    nn.LayerNorm: lambda module, batch, size: (_vectors(module.normalized_shape, batch, size),),
    nn.RMSNorm: lambda module, batch, size: (_vectors(module.normalized_shape, batch, size),),
    nn.RNNBase: _sequence,
    nn.RNNCellBase: _one_step,
    nn.MultiheadAttention: _attention,
    nn.Embedding: _tokens,
    nn.EmbeddingBag: _bags,
}


def _device(module: nn.Module) -> torch.device:
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _as_in(module: nn.Module, x: Tensor) -> Tensor:
    """On the device of the module and, of floating-point numbers, in its type."""
    tensors = [*module.parameters(), *module.buffers()]
    real = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = real[0] if real and x.is_floating_point() else x.dtype
    return x.to(device=_device(module), dtype=dtype)
