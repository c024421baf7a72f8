"""Adaptive normalisation: a learned mixture of a feature map and its normalised form.

Q. Chen, J. Xu, V. Koltun: Fast Image Processing with Fully-Convolutional Networks. ICCV 2017,
arXiv 1709.00643; names and constants as in the authors' released code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from compressnet.bounds import Positive, Size
from compressnet.cost import Term

Stats = Literal["image", "frozen"]


class AdaptiveNorm(nn.Module):
    """AN(x) = w0 * x + w1 * BN(x), BN(x) = (x - mean) / sqrt(var + eps) + beta (paper: lambda, mu).

    `w0` and `w1` are one signed scalar each, 1 and 0 at the start, so that a fresh layer is the identity.
    There is no gamma. Mean and biased variance are those of each image over its own H and W, in training
    and afterwards alike: the result for an image does not depend on what else is in the batch, and `eval()`
    changes nothing. They are computed in float32 at least, also for bfloat16 and float16 features.

    Args:
        channels: number of feature maps C.
        beta: learn a bias per channel (the release). The paper's variant has none: the bias sits in the
            convolution.
        eps: added to the variance.
        stats: "image" is the layer of the paper. "frozen" is a DIFFERENT FUNCTION: it reads the buffers
            `moving_mean` and `moving_variance`, which exist in this mode only (0 and 1 at the start, set by
            whoever loads them, never updated here). Then the layer is affine and can be folded into the
            convolution before it; weights trained with image statistics lose up to 9 dB this way.

    Raises:
        ValueError: `channels`, `eps` or `stats` out of range.
    """

    def __init__(
        self, channels: Size, beta: bool = True, eps: Positive = 1e-3, stats: Stats = "image"
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"AdaptiveNorm: channels must be at least 1, got {channels}")
        if not eps > 0:
            raise ValueError(f"AdaptiveNorm: eps must be above 0, got {eps}")
        if stats not in ("image", "frozen"):
            raise ValueError(f"AdaptiveNorm: stats must be 'image' or 'frozen', got {stats!r}")
        self.channels, self.eps, self.stats = channels, eps, stats
        self.w0 = nn.Parameter(torch.tensor(1.0))
        self.w1 = nn.Parameter(torch.tensor(0.0))
        self.beta = nn.Parameter(torch.zeros(channels)) if beta else None
        if stats == "frozen":
            self.register_buffer("moving_mean", torch.zeros(channels))
            self.register_buffer("moving_variance", torch.ones(channels))

    def forward(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        """Features (B, C, H, W), floating point, to the same shape and type.

        Args:
            negative_slope: of a leaky ReLU that follows; 1 is none. In one call because together they train
                faster: a step of CAN24 on the CPU takes 7 % (channels_last: 20 %) less, without a compiler.
        """
        if self.stats == "image" and self._fuses(x):
            fused: Tensor = _FusedAdaptiveNorm.apply(x, self.w0, self.w1, self.beta, self.eps, negative_slope)
            return fused
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # (B, C, H, W)
        if self.stats == "frozen":
            mean = self.get_buffer("moving_mean").to(wide.dtype).view(1, -1, 1, 1)
            variance = self.get_buffer("moving_variance").to(wide.dtype).view(1, -1, 1, 1)
            centred = wide - mean
        else:
            mean, variance, centred = _moments(wide)
        scale, shift = self.scale_and_shift(mean, variance)
        y = torch.addcmul(shift, centred, scale).to(x.dtype)  # (B, C, H, W)
        return y if negative_slope == 1 else F.leaky_relu(y, negative_slope, inplace=True)

    def scale_and_shift(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """AN(x) = scale * (x - mean) + shift, each (B or 1, C, 1, 1) as the moments.

        Measured from the mean because the variance needs x - mean anyway, so that training keeps one tensor
        instead of two.
        """
        beta = None if self.beta is None else self.beta.to(mean.dtype)
        return _scale_and_shift(
            mean, variance, self.w0.to(mean.dtype), self.w1.to(mean.dtype), beta, self.eps
        )

    def _fuses(self, x: Tensor) -> bool:
        """Where the own gradient pays: in training without a compiler, which fuses better than it."""
        return (
            torch.is_grad_enabled()
            and x.dtype == self.w0.dtype
            and x.dtype in (torch.float32, torch.float64)
            and not torch.compiler.is_compiling()
        )

    def example(self, batch: int = 1, size: int | tuple[int, int] = 64) -> tuple[Tensor]:
        """Inputs for counting and timing: features of `size` (height, width)."""
        height, width = (size, size) if isinstance(size, int) else size
        return (torch.rand(batch, self.channels, height, width),)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of features (B, C, H, W), without a leaky ReLU; a mean is one elementwise operation a pixel."""
        batch, _, height, width = input_shape
        symbols = {"B": batch, "C": self.channels, "H": height, "W": width}
        frozen, beta = self.stats == "frozen", self.beta is not None
        passes = "2" if frozen else "5"  # x - mean and scale·x + shift; two moments and a square before
        maps = "C" if frozen else "B·C"
        small = f"{maps}·6+C" if beta else f"{maps}·5"
        return [
            Term("parameters", "w0 and w1", "2", symbols),
            *([Term("parameters", "beta", "C", symbols)] if beta else []),
            Term("elementwise", "normalisation", f"B·C·H·W·{passes}", symbols),
            Term("elementwise", "scale and shift of each map", small, symbols),
        ]

    def extra_repr(self) -> str:
        return f"{self.channels}, beta={self.beta is not None}, eps={self.eps}, stats={self.stats!r}"


class _FusedAdaptiveNorm(torch.autograd.Function):
    """Adaptive normalisation and leaky ReLU with a gradient in fewer passes over memory.

    Keeps the input alone; with g the gradient behind the leaky ReLU, c = x - mean, r = 1 / sqrt(var + eps):
    dx = scale * g - w1 * (r^3 * mean(g * c) * c + r * mean(g)).
    """

    @staticmethod
    def forward(ctx, x, w0, w1, beta, eps, negative_slope):  # type: ignore[no-untyped-def]
        mean, variance, y = _moments(x)
        scale, shift = _scale_and_shift(mean, variance, w0, w1, beta, eps)
        y.mul_(scale).add_(shift)
        if negative_slope != 1:
            F.leaky_relu_(y, negative_slope)
        ctx.save_for_backward(x, mean, variance, w0, w1, beta)
        ctx.eps, ctx.negative_slope = eps, negative_slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, mean, variance, w0, w1, beta = ctx.saved_tensors
        scale, shift = _scale_and_shift(mean, variance, w0, w1, beta, ctx.eps)
        pixels = x.shape[2] * x.shape[3]
        centred = x - mean
        scratch = torch.addcmul(shift, centred, scale)  # what the leaky ReLU was given
        grad = torch.ops.aten.leaky_relu_backward(grad, scratch, ctx.negative_slope, False)
        sum_grad = grad.sum(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        sum_product = torch.mul(grad, centred, out=scratch).sum(dim=(2, 3), keepdim=True)
        inverse = torch.rsqrt(variance + ctx.eps)
        grad_w0 = (sum_product + sum_grad * mean).sum()
        grad_w1 = (sum_product * inverse).sum()
        grad_beta = None
        if beta is not None:
            grad_w1 = grad_w1 + (sum_grad * beta.view(1, -1, 1, 1)).sum()
            grad_beta = w1 * sum_grad.sum(dim=(0, 2, 3))
        grad.mul_(scale)
        grad.addcmul_(centred, -w1 * inverse**3 * sum_product / pixels)
        grad.sub_(w1 * inverse * sum_grad / pixels)
        return grad, grad_w0, grad_w1, grad_beta, None, None


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (B, C, 1, 1) over H and W, and x - mean.

    In two passes: exact where the mean is large against the deviation. (`torch.var_mean` would take 5 times
    as long on the CPU.)
    """
    mean = x.mean(dim=(2, 3), keepdim=True)
    centred = x - mean
    return mean, centred.square().mean(dim=(2, 3), keepdim=True), centred


def _scale_and_shift(
    mean: Tensor, variance: Tensor, w0: Tensor, w1: Tensor, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    scale = w0 + w1 * torch.rsqrt(variance + eps)
    shift = w0 * mean
    return scale, shift if beta is None else shift + w1 * beta.view(1, -1, 1, 1)
