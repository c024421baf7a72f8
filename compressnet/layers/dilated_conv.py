"""3x3 convolution of any dilation whose gradients stay fast on the CPU.

Dilated convolutions: F. Yu, V. Koltun: Multi-Scale Context Aggregation by Dilated Convolutions. ICLR 2016,
arXiv 1511.07122.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import cost
from compressnet.bounds import Size
from compressnet.cost import Term

_FAST_DILATION = 16  # up to here oneDNN's weight gradient is fast in channels_last


class DilatedConv2d(nn.Conv2d):
    """`nn.Conv2d` with a 3x3 kernel and zero padding = dilation: the result has the size of the input.

    The same function and the same parameters; only the way to the gradients differs, in float32 on the CPU
    from dilation 16 on. There torch 2.13 (oneDNN 3.12) has no fast weight gradient above dilation 16, and
    in channels-first no fast gradient at all: 3 to 12 times as long (measured with AVX-512, 24 and 32
    channels). Everywhere else this is `nn.Conv2d` itself.

    Args:
        in_channels: of the input (B, in_channels, H, W).
        out_channels: of the result (B, out_channels, H, W).
        dilation: distance of the taps in pixels; also the padding.
        bias: learn a bias per channel.

    Raises:
        ValueError: an argument below 1.
    """

    def __init__(self, in_channels: Size, out_channels: Size, dilation: Size = 1, bias: bool = True) -> None:
        if min(in_channels, out_channels, dilation) < 1:
            raise ValueError(
                f"DilatedConv2d: channels and dilation must be at least 1, got {in_channels}, {out_channels} "
                f"and {dilation}"
            )
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Features (B, in_channels, H, W) to (B, out_channels, H, W)."""
        if self._slow_in_torch(input):
            return dilated_conv2d(input, self.weight, self.bias, self.dilation[0])
        return super().forward(input)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of features (B, in_channels, H, W)."""
        batch, _, *positions = input_shape
        bias = self.bias is not None
        return cost.convolution(
            self.in_channels, self.out_channels, self.kernel_size, positions, batch=batch, bias=bias
        )

    def _slow_in_torch(self, x: Tensor) -> bool:
        return (
            self.dilation[0] >= _FAST_DILATION
            and torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and x.ndim == 4
            and not torch.is_autocast_enabled("cpu")
        )


def dilated_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)` with the gradients of this module.

    Args:
        x: (B, C, H, W), either memory layout.
        weight: (O, C, 3, 3).
        bias: (O,).
        dilation: at least 1.
    """
    y: Tensor = _DilatedConv.apply(x, weight, bias, dilation)
    return y


class _DilatedConv(torch.autograd.Function):
    """The plain convolution; both gradients in channels_last, that of the weights on sub-lattices.

    Pixels that are a multiple of s apart never meet under a kernel whose dilation is a multiple of s. So the
    image falls into s * s images x[i::s, j::s], which are convolved with dilation / s, and the gradient of
    the weights is that of this batch.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, dilation):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        dilation = ctx.dilation
        stride = _sub_lattice(dilation)
        x_last, grad_last, weight_last = (
            tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad, weight)
        )
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradients(grad_last, x_last, weight_last, dilation, of_weight=False)
            grad_x = grad_x.contiguous(memory_format=_layout(x))
        if ctx.needs_input_grad[1]:
            pieces = _split(grad_last, stride), _split(x_last, stride)
            grad_weight = _gradients(*pieces, weight_last, dilation // stride, of_weight=True)
            grad_weight = grad_weight.contiguous(memory_format=_layout(weight))
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def _sub_lattice(dilation: int) -> int:
    """The smallest divisor of `dilation` that leaves at most `_FAST_DILATION`."""
    return next(s for s in range(1, dilation + 1) if dilation % s == 0 and dilation // s <= _FAST_DILATION)


def _split(x: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) to (B * stride * stride, C, ceil(H / stride), ceil(W / stride)), filled up with zeros.

    Zeros add nothing to the gradient of the weights. Both layouts of memory here are channels_last.
    """
    if stride == 1:
        return x
    batch, channels, height, width = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    pixels = F.pad(pixels, (0, 0, 0, columns * stride - width, 0, rows * stride - height))
    pixels = pixels.reshape(batch, rows, stride, columns, stride, channels).permute(0, 2, 4, 1, 3, 5)
    return pixels.reshape(batch * stride * stride, rows, columns, channels).permute(0, 3, 1, 2)


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, dilation: int, of_weight: bool) -> Tensor:
    step = [dilation, dilation]
    mask = [not of_weight, of_weight, False]
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], step, step, False, [0, 0], 1, mask
    )
    return gradients[1 if of_weight else 0]


def _layout(x: Tensor) -> torch.memory_format:
    """The layout in which torch's own convolution would hand back a gradient for `x`."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
