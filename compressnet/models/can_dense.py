"""The one convolution that a layer of a CAN is, whatever compression has made of it.

`compress` splits a 3x3 into a chain: 1x1, 3x3 to few channels, 1x1; or 3x1, 1x3. A chain of linear layers is
a linear layer. Where the kernel of `can_winograd` serves that one, it is faster than its parts one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.layers.chain import Chain


@dataclass(frozen=True)
class Dense:
    """A convolution of stride 1 that keeps the size, with zeros around the image: its parts, in order."""

    parts: tuple[nn.Conv2d, ...]
    dilation: int

    @property
    def in_channels(self) -> int:
        return self.parts[0].in_channels

    @property
    def out_channels(self) -> int:
        return self.parts[-1].out_channels

    @property
    def bias(self) -> Tensor | None:
        """(out_channels,)"""
        return self.parts[-1].bias

    def copies(self) -> list[Tensor]:
        """Of the weights of its parts, to tell later whether they have changed."""
        return [part.weight.detach().clone() for part in self.parts]

    def has_weights(self, others: list[Tensor]) -> bool:
        """Whether its parts have these weights. By their values: versions miss changes through `.data`."""
        return len(others) == len(self.parts) and all(
            torch.equal(part.weight.detach(), other) for part, other in zip(self.parts, others, strict=True)
        )

    def weight(self) -> Tensor:
        """(out_channels, in_channels, kernel, kernel), float64 if it is of several parts."""
        if len(self.parts) == 1:
            return self.parts[0].weight.detach()
        whole = self.parts[0].weight.detach().double()
        for part in self.parts[1:]:
            both = torch.einsum("omab,mixy->oiaxby", part.weight.detach().double(), whole)
            whole = both.flatten(4, 5).flatten(2, 3)  # of each axis one of the two has one tap
        return whole


def dense(module: nn.Module, kernel: int = 3) -> Dense | None:
    """A convolution or a chain of them as one of so many taps a side; None: it is none.

    In a chain a bias belongs to the last part: before it, the zeros around the image would not be zeros.
    """
    parts: Any = tuple(_leaves(module))
    if not parts or not all(isinstance(part, nn.Conv2d) and _keeps_the_size(part) for part in parts):
        return None
    if any(part.bias is not None for part in parts[:-1]):
        return None
    dilation = 1
    for axis in (0, 1):
        wide = [part for part in parts if part.kernel_size[axis] > 1]
        if [part.kernel_size[axis] for part in wide] != [kernel] * (kernel > 1):
            return None
        dilations = {part.dilation[axis] for part in wide}
        if axis and dilations and dilations != {dilation}:
            return None
        dilation = max(dilations, default=1)
    return Dense(parts, dilation)


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(module, Chain):
        yield module
        return
    for part in module:
        yield from _leaves(part)


def _keeps_the_size(part: nn.Conv2d) -> bool:
    return (
        part.stride == (1, 1)
        and part.groups == 1
        and part.padding_mode == "zeros"
        and not isinstance(part.padding, str)
        and all(
            2 * pad == dilation * (size - 1)
            for pad, dilation, size in zip(part.padding, part.dilation, part.kernel_size, strict=True)
        )
    )
