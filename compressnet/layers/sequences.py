"""What all layers on sequences (T, B, C) check alike, and the inputs they are counted and timed with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_sequences(batch: int, steps: int, width: int) -> tuple[Tensor]:
    """(steps, batch, width), uniform in [0, 1).

    Raises:
        ValueError: `steps` is a size of images.
    """
    if not isinstance(steps, int):
        raise ValueError("takes sequences: their size is a number of steps")
    return (torch.rand(steps, batch, width),)


def check_shape(layer: str, x: Tensor, width: int) -> None:
    """Refuse what is not (T, B, width) with T > 0.

    Raises:
        ValueError: it says what `layer` takes and what it got.
    """
    if x.ndim != 3 or x.shape[2] != width or x.shape[0] == 0:
        raise ValueError(
            f"{layer}: takes sequences (T, B, {width}) of one step or more, got {tuple(x.shape)}"
        )


def checked_lengths(layer: str, lengths: Tensor | Sequence[int], x: Tensor) -> Tensor:
    """`lengths` as integers (B,) on the device of x (T, B, C). While compiling nobody knows their values.

    Raises:
        ValueError: not one integer a sequence, or one that is negative or larger than T.
    """
    steps, batch = x.shape[:2]
    ends = torch.as_tensor(lengths, device=x.device)
    if ends.shape != (batch,) or ends.is_floating_point() or ends.dtype == torch.bool:
        raise ValueError(
            f"{layer}: lengths must be {batch} integers, one a sequence, "
            f"got {tuple(ends.shape)} of {ends.dtype}"
        )
    if not torch.compiler.is_compiling() and batch and not ends.is_meta:
        low, high = int(ends.min()), int(ends.max())
        if low < 0 or high > steps:
            raise ValueError(f"{layer}: lengths must be 0 to {steps}, the input's steps; got {low} to {high}")
    return ends.to(torch.int64)
