"""torch's own layers as subjects and edits name them: only what a network needs, sizes checked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from compressnet.bounds import Kernel, OptionalSize, Size

Pair = Kernel | Annotated[list[Kernel], Field(min_length=2, max_length=2)]
PaddingPair = OptionalSize | Annotated[list[OptionalSize], Field(min_length=2, max_length=2)]


def conv2d(
    in_channels: Size,
    out_channels: Size,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: PaddingPair = 0,
    dilation: Pair = 1,
    groups: Size = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """`torch.nn.Conv2d`; pairs are [height, width].

    Raises:
        ValueError: `groups` does not divide the channels.
    """
    return nn.Conv2d(
        in_channels,
        out_channels,
        _pair(kernel_size),
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
        groups=groups,
        bias=bias,
    )


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def linear(in_features: Size, out_features: Size, bias: bool = True) -> nn.Linear:
    """`torch.nn.Linear`."""
    return nn.Linear(in_features, out_features, bias=bias)
