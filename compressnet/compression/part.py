"""A linear layer or a convolution, seen as what it is to all transforms: a matrix with taps, on a grid.

    weight (n, m, *kernel), float64        linear: no kernel; input grid `inside`, output grid `outside`

What comes in its place is a row of `Piece`s, whose sizes are known before any number is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn

from compressnet.architecture import Layer
from compressnet.compression.change import Change
from compressnet.kernels import product
from compressnet.layers.described import paddings
from compressnet.layers.dilated_conv import DilatedConv2d

KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    product.Linear: "product_linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    DilatedConv2d: "conv2d",
}


class Sizes(NamedTuple):
    """Of one piece.

    Attributes:
        positions: of one sample at which it is computed.
    """

    outputs: int
    inputs: int
    taps: int
    positions: int

    @property
    def weights(self) -> int:
        return self.outputs * self.inputs * self.taps

    @property
    def macs(self) -> int:
        return self.weights * self.positions


class Piece(NamedTuple):
    """One layer of the row that comes in the place of a layer.

    Attributes:
        weight: (outputs, inputs, *kernel), float64.
        stride, padding, dilation: along each axis of the kernel.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """A layer as a network uses it.

    Attributes:
        inside, outside: the grids that it reads and writes, (H, W); () of a linear layer.
        has_norm: a batch norm reads its output and nothing else does: what is constant in it does not matter.
    """

    path: str
    layer: Any
    inside: tuple[int, ...]
    outside: tuple[int, ...]
    has_norm: bool = False

    @property
    def weight(self) -> Tensor:
        """(n, m, *kernel), float64: made anew, for those of all parts would be twice the network."""
        weight: Tensor = self.layer.weight.detach().to("cpu").double()
        return weight

    @cached_property
    def bias(self) -> Tensor | None:
        return None if self.layer.bias is None else self.layer.bias.detach().to("cpu").double()

    @property
    def outputs(self) -> int:
        return int(self.layer.weight.shape[0])

    @property
    def inputs(self) -> int:
        return int(self.layer.weight.shape[1])

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.layer.weight.shape[2:])

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """It mixes channels alone, of all pixels or every second; nothing is padded."""
        return {*self.kernel} <= {1} and not any(self.axes("padding"))

    def axes(self, name: str) -> tuple[int, ...]:
        """`stride`, `padding` or `dilation` along each axis; () of a linear layer."""
        if isinstance(self.layer, nn.Linear):
            return ()
        if name == "padding":
            found = paddings(self.layer)
            assert found is not None
            return found
        return tuple(getattr(self.layer, name))

    def refusal(self) -> str | None:
        """Why no transform of weights can take it; None: it can."""
        if getattr(self.layer, "groups", 1) != 1:
            return f"a convolution in {self.layer.groups} groups"
        if getattr(self.layer, "padding_mode", "zeros") != "zeros":
            return f"its padding is '{self.layer.padding_mode}'"
        if not isinstance(self.layer, nn.Linear) and paddings(self.layer) is None:
            return "its padding is not the same on both sides"
        return None

    @property
    def whole(self) -> Sizes:
        """The sizes of the layer itself."""
        return Sizes(self.outputs, self.inputs, self.taps, math.prod(self.outside))

    def pointwise(self, weight: Tensor, bias: Tensor | None = None) -> Piece:
        """A piece that mixes channels alone: weight (outputs, inputs)."""
        ones = (1,) * len(self.kernel)
        return Piece(weight.reshape(*weight.shape[:2], *ones), bias, ones, (0,) * len(ones), ones)

    def spread(self, weight: Tensor, bias: Tensor | None = None) -> Piece:
        """A piece that has this layer's kernel, stride, padding and dilation."""
        return Piece(weight, bias, self.axes("stride"), self.axes("padding"), self.axes("dilation"))

    def along(self, axis: int, weight: Tensor, bias: Tensor | None = None) -> Piece:
        """A piece with this layer's stride, padding and dilation along one axis alone."""

        def only(values: tuple[int, ...], other: int) -> tuple[int, ...]:
            return tuple(value if place == axis else other for place, value in enumerate(values))

        return Piece(
            weight,
            bias,
            only(self.axes("stride"), 1),
            only(self.axes("padding"), 0),
            only(self.axes("dilation"), 1),
        )

    def replaced(self, pieces: Sequence[Piece]) -> Change:
        """The change that puts a row of pieces in its place."""
        layers = [_described(self, piece) for piece in pieces]
        if len(layers) == 1:
            (layer,), prefixes = layers, [self.path]
        else:
            layer = {"layer": "chain", "args": {"layers": layers}}
            prefixes = [f"{self.path}.{number}" for number in range(len(layers))]
        tensors = {}
        for prefix, piece in zip(prefixes, pieces, strict=True):
            tensors[f"{prefix}.weight"] = piece.weight
            if piece.bias is not None:
                tensors[f"{prefix}.bias"] = piece.bias
        return Change({"modules": {self.path: layer}}, tensors)


def _described(part: Part, piece: Piece) -> Layer:
    outputs, inputs, *kernel = piece.weight.shape
    bias = piece.bias is not None
    name = KINDS[type(part.layer)]
    if not kernel:
        return {"layer": name, "args": {"in_features": inputs, "out_features": outputs, "bias": bias}}
    is_one = len(kernel) == 1  # conv1d takes numbers
    axes = {
        "kernel_size": tuple(kernel),
        "stride": piece.stride,
        "padding": piece.padding,
        "dilation": piece.dilation,
    }
    args = {key: value[0] if is_one or len({*value}) == 1 else list(value) for key, value in axes.items()}
    return {"layer": name, "args": {"in_channels": inputs, "out_channels": outputs, **args, "bias": bias}}
