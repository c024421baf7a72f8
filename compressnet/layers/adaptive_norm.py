"""Adaptive normalisation: a learned mixture of a feature map and its normalised form.

Q. Chen, J. Xu, V. Koltun: Fast Image Processing with Fully-Convolutional Networks. ICCV 2017,
arXiv 1709.00643; names and constants as in the authors' released code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

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

    def __init__(self, channels: int, beta: bool = True, eps: float = 1e-3, stats: Stats = "image") -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W), floating point, to the same shape and type.

        Fused: one multiply-add an element, scale * (x - mean) + shift. Measured from the mean because the
        variance needs x - mean anyway, so that training keeps one tensor instead of two. (`torch.var_mean`
        would take 5 times as long on the CPU.)
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # (B, C, H, W)
        if self.stats == "frozen":
            mean = self.get_buffer("moving_mean").to(wide.dtype).view(1, -1, 1, 1)
            variance = self.get_buffer("moving_variance").to(wide.dtype).view(1, -1, 1, 1)
            centred = wide - mean
        else:
            mean = wide.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
            centred = wide - mean
            variance = centred.square().mean(dim=(2, 3), keepdim=True)
        w0, w1 = self.w0.to(wide.dtype), self.w1.to(wide.dtype)
        scale = w0 + w1 * torch.rsqrt(variance + self.eps)
        shift = w0 * mean
        if self.beta is not None:
            shift = shift + w1 * self.beta.to(wide.dtype).view(1, -1, 1, 1)
        return torch.addcmul(shift, centred, scale).to(x.dtype)  # (B, C, H, W)

    def extra_repr(self) -> str:
        return f"{self.channels}, beta={self.beta is not None}, eps={self.eps}, stats={self.stats!r}"
