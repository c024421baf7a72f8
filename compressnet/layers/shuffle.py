"""The unit of ShuffleNet: pointwise convolutions in groups, whose channels are shuffled between them.

X. Zhang, X. Zhou, M. Lin, J. Sun: ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices. CVPR 2018, arXiv 1707.01083.

    x (B, c, H, W)
      |  1x1 in groups, norm, ReLU    (B, b, H, W)      the bottleneck
      |  channels shuffled                              each group sees all others
      |  3x3 in each map, norm        (B, b, H / stride, W / stride)
      |  1x1 in groups, norm          (B, d, H / stride, W / stride)
    as large as x:    ReLU(x + y), d = c
    larger:           ReLU(mean of 3x3 of x beside y), c + d = the channels of the result
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Fraction, OneOrTwo, OptionalSize, Share, Size

_GROUPED_EPS = 1e-5
_SIDE = 28  # of the maps of stage 2 of ShuffleNet


class ShuffleUnit(nn.Module):
    """The unit of the module's docstring.

    With stride 1 and as many channels out as in it adds, else it concatenates. It keeps channels_last.

    Args:
        in_channels: c, of the input (B, c, H, W).
        out_channels: of the result.
        groups: of both pointwise convolutions.
        stride: of the 3x3 convolution and of the mean beside it.
        bottleneck: b; 0: a quarter of `out_channels`.
        dilation: of the 3x3 convolution.
        whole_input: the first pointwise convolution has no groups, and nothing is shuffled behind it (as in
            the first unit of ShuffleNet, whose input is narrow).
        bias: of the convolutions, beside the norms.
        eps: of the norms behind the 3x3 convolution and those without groups; behind groups it is 1e-5.
        momentum: of the norms.

    Raises:
        ValueError: channels that the groups do not divide, or that leave the unit nothing to add to.
    """

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        groups: Size = 3,
        stride: OneOrTwo = 1,
        bottleneck: OptionalSize = 0,
        dilation: Size = 1,
        whole_input: bool = False,
        bias: bool = False,
        eps: Fraction = 1e-5,
        momentum: Share = 0.1,
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and in_channels == out_channels
        own = out_channels if self.adds else out_channels - in_channels
        inner = bottleneck or out_channels // 4
        first = 1 if whole_input else groups
        _check(in_channels, first, "in_channels")
        _check(inner, groups, "bottleneck")
        _check(own, groups, "out_channels" if self.adds else "out_channels - in_channels")
        self.reduce = nn.Conv2d(in_channels, inner, 1, groups=first, bias=bias)
        self.reduce_norm = nn.BatchNorm2d(inner, eps if first == 1 else _GROUPED_EPS, momentum)
        self.depthwise = nn.Conv2d(
            inner, inner, 3, stride, padding=dilation, dilation=dilation, groups=inner, bias=bias
        )
        self.depthwise_norm = nn.BatchNorm2d(inner, eps, momentum)
        self.expand = nn.Conv2d(inner, own, 1, groups=groups, bias=bias)
        self.expand_norm = nn.BatchNorm2d(own, eps if groups == 1 else _GROUPED_EPS, momentum)
        self.groups, self.stride, self.whole_input = groups, stride, whole_input

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        y = F.relu(self.reduce_norm(self.reduce(x)), inplace=True)  # (B, b, H, W)
        if not self.whole_input:
            # Written as view, transpose, reshape it would come out channels first, and be copied back.
            y = F.channel_shuffle(y, self.groups)
        y = self.depthwise_norm(self.depthwise(y))  # (B, b, h, w)
        y = self.expand_norm(self.expand(y))  # (B, d, h, w)
        if self.adds:
            return F.relu(y.add_(x), inplace=True)  # the norm needs its result no more, in training neither
        beside = F.avg_pool2d(x, 3, self.stride, padding=1, count_include_pad=False)  # (B, c, h, w)
        return F.relu(torch.cat([beside, y], 1), inplace=True)

    def foldable(self) -> list[list[str]]:
        return [["reduce", "reduce_norm"], ["depthwise", "depthwise_norm", "expand", "expand_norm"]]

    def example(self, batch: int = 1, size: int | tuple[int, int] | None = None) -> tuple[Tensor]:
        """Features for counting, timing and export; 28x28."""
        height, width = size if isinstance(size, tuple) else (size or _SIDE,) * 2
        return (torch.rand(batch, self.reduce.in_channels, height, width),)


def _check(channels: int, groups: int, name: str) -> None:
    if channels < 1 or channels % groups:
        raise ValueError(f"shuffle_unit: {name} is {channels}: it must be a multiple of {groups} groups")
