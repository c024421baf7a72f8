"""torch's own layers as subjects and edits name them: only what a network needs, sizes checked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from compressnet.bounds import Fraction, Kernel, OptionalSize, Share, Size
from compressnet.kernels import product

Pair = Kernel | Annotated[list[Kernel], Field(min_length=2, max_length=2)]
Shape = Size | Annotated[list[Size], Field(min_length=1, max_length=8)]
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


def conv1d(
    in_channels: Size,
    out_channels: Size,
    kernel_size: Kernel,
    stride: Kernel = 1,
    padding: OptionalSize = 0,
    dilation: Kernel = 1,
    groups: Size = 1,
    bias: bool = True,
) -> nn.Conv1d:
    """`torch.nn.Conv1d`.

    Raises:
        ValueError: `groups` does not divide the channels.
    """
    return nn.Conv1d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


def conv_transpose2d(
    in_channels: Size,
    out_channels: Size,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: PaddingPair = 0,
    output_padding: PaddingPair = 0,
    groups: Size = 1,
    bias: bool = True,
    dilation: Pair = 1,
) -> nn.ConvTranspose2d:
    """`torch.nn.ConvTranspose2d`; pairs are [height, width].

    Raises:
        ValueError: `groups` does not divide the channels, or `output_padding` is not smaller than `stride` or
            `dilation`.
    """
    more, steps, holes = _pair(output_padding), _pair(stride), _pair(dilation)
    for extra, step, hole in zip(more, steps, holes, strict=True):
        if extra >= max(step, hole):
            raise ValueError(
                f"output_padding {extra} must be smaller than stride {step} or dilation {hole} of its axis"
            )
    return nn.ConvTranspose2d(
        in_channels,
        out_channels,
        _pair(kernel_size),
        stride=steps,
        padding=_pair(padding),
        output_padding=more,
        groups=groups,
        bias=bias,
        dilation=holes,
    )


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def linear(in_features: Size, out_features: Size, bias: bool = True) -> nn.Linear:
    """`torch.nn.Linear`."""
    return nn.Linear(in_features, out_features, bias=bias)


def product_linear(in_features: Size, out_features: Size, bias: bool = True) -> product.Linear:
    """`torch.nn.Linear`, by oneDNN where that pays: the linear layers of ByteNet and SRU."""
    return product.Linear(in_features, out_features, bias=bias)


def embedding(num_embeddings: Size, embedding_dim: Size) -> nn.Embedding:
    """`torch.nn.Embedding`."""
    return nn.Embedding(num_embeddings, embedding_dim)


def batch_norm2d(
    num_features: Size, eps: Fraction = 1e-5, momentum: Share | None = 0.1, affine: bool = True
) -> nn.BatchNorm2d:
    """`torch.nn.BatchNorm2d`, with running statistics; `momentum` None: their mean over all batches."""
    return nn.BatchNorm2d(num_features, eps, momentum, affine)


def layer_norm(
    normalized_shape: Shape, eps: Fraction = 1e-5, elementwise_affine: bool = True, bias: bool = True
) -> nn.LayerNorm:
    """`torch.nn.LayerNorm`, over the last axes."""
    return nn.LayerNorm(normalized_shape, eps, elementwise_affine, bias)
