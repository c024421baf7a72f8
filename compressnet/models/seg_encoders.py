"""Encoders for segmentation: pictures to maps of a half, a quarter, ... a thirty-second of their size.

    X. Zhang, X. Zhou, M. Lin, J. Sun: ShuffleNet: An Extremely Efficient Convolutional Neural Network for
    Mobile Devices. CVPR 2018, arXiv 1707.01083
    A. Howard and others: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications.
    2017, arXiv 1704.04861
    K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition. CVPR 2016, arXiv 1512.03385

    x (B, 3, H, W), RGB in [0, 1], H and W multiples of 8 -> normalised
                     ShuffleNet, 3 groups        MobileNet               ResNet-18
      |  / 2         24   3x3                    64   1 block            64   7x7
      |  / 4         24   maximum                128  2 blocks           64   2 blocks
      |  / 8         240  4 units                256  2 blocks           128  2 blocks
      |  / 16        480  8 units                512  6 blocks           256  2 blocks
      |  / 32        960  4 units                1024 2 blocks           512  2 blocks
    maps: the last five, three or one of them, the largest first

"Released" is M. Siam's TFSegmentation, the network that ShuffleSeg was measured with. There ShuffleNet has
no padding before its first two layers (their maps are odd: 4k - 1 and 2k - 1 of 8k pixels), narrower
bottlenecks in the units that concatenate (a quarter of what they add, not of their result), biases beside
the norms, pictures as BGR less the means of Cityscapes, and TensorFlow's norms. A stride of 2 pads both
sides everywhere here, in TensorFlow only the bottom and right of an even map.

With the decoder "dilation" nothing is smaller than an eighth: in its two last stages ShuffleNet dilates the
first unit alone, and MobileNet has a dense dilated convolution in the place of the block that had a stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.layers.data_flow import chains_of_parts
from compressnet.layers.shuffle import ShuffleUnit
from compressnet.models.resnet import ResNet

Variant = Literal["released", "shufflenet_v1"]
Levels = Literal[1, 3, 5]

# Channels of the three stages by groups (table 1 of ShuffleNet), and how many units follow the first.
STAGES = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
_ADDING = (3, 7, 3)
_STEM = 24
_DILATIONS = (2, 4)  # of the last two stages, where they have no stride

# Of MobileNet: outputs and stride of every block, and what three and five levels read.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
_TAPS = {5: (0, 2, 4, 10, 12), 3: (3, 5, 12), 1: (12,)}
_FIRST = 32


class Norms(NamedTuple):
    """What norms of a network are made with."""

    eps: float
    momentum: float

    def __call__(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, self.eps, self.momentum)


TORCH = Norms(1e-5, 0.1)
TENSORFLOW = Norms(1e-3, 0.01)


class Normalise(nn.Module):
    """RGB in [0, 1] to what an encoder takes: less the mean, over the deviation.

    Args:
        mean: of red, green and blue.
        deviation: of each; None: not divided.
        bgr: the result is in the order blue, green, red.
    """

    mean: Tensor
    deviation: Tensor | None

    def __init__(
        self, mean: Sequence[float], deviation: Sequence[float] | None = None, bgr: bool = False
    ) -> None:
        super().__init__()
        self.statistics = mean, deviation
        self.bgr = bgr
        self.make_buffers()

    def make_buffers(self) -> None:
        """Constants that are not stored."""
        for name, values in zip(("mean", "deviation"), self.statistics, strict=True):
            constant = None if values is None else torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean
        if self.deviation is not None:
            x = x / self.deviation
        return x.flip(1) if self.bgr else x


def cityscapes() -> Normalise:
    """The released one: (255 x - mean of Cityscapes) / 255, BGR."""
    return Normalise([mean / 255 for mean in (72.5238962, 83.04442645, 73.29132098)], bgr=True)


def imagenet() -> Normalise:
    return Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ShuffleNet(nn.Module):
    """ShuffleNet without its classifier.

    Args:
        variant: as in the module's docstring; "shufflenet_v1" is the paper's.
        groups: 1, 2, 3, 4 or 8.
        width: scales the channels of the stages, rounded to multiples of 4 * groups; the first layer has 24.
        bias: of the convolutions, beside the norms.
        levels: how many maps, the deepest last; 1: nothing is smaller than an eighth.

    Attributes:
        widths: channels of the maps.
        norms: what its norms are made with, and those of a decoder behind it.

    Raises:
        ValueError: a width that leaves the first stage no channels of its own.
    """

    def __init__(self, variant: Variant, groups: int, width: float, bias: bool, levels: Levels) -> None:
        super().__init__()
        released = variant == "released"
        self.norms = norms = TENSORFLOW if released else TORCH
        sizes = [_rounded(channels * width, 4 * groups) for channels in STAGES[groups]]
        if sizes[0] <= _STEM:
            raise ValueError(f"width {width} leaves the first stage no channels: take a larger one")
        self.padded = not released
        self.levels = levels
        self.widths = [_STEM, _STEM, *sizes][-levels:]
        self.normalise = cityscapes() if released else imagenet()
        self.conv1 = nn.Conv2d(3, _STEM, 3, 2, padding=int(self.padded), bias=bias)
        self.norm1 = norms(_STEM)
        dilations = (1, *_DILATIONS) if levels == 1 else (1, 1, 1)
        self.stages = nn.ModuleList()
        inputs = _STEM
        for channels, count, dilation in zip(sizes, _ADDING, dilations, strict=True):
            added = channels - inputs if released else channels
            first = ShuffleUnit(
                inputs,
                channels,
                groups,
                stride=2 if dilation == 1 else 1,
                bottleneck=-(-added // (4 * groups)) * groups,
                dilation=dilation,
                whole_input=inputs == _STEM,
                bias=bias,
                **norms._asdict(),
            )
            others = (
                ShuffleUnit(channels, channels, groups, bias=bias, **norms._asdict()) for _ in range(count)
            )
            self.stages.append(nn.Sequential(first, *others))
            inputs = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) to maps."""
        maps = []  # held only if they are wanted: these two are the largest
        x = F.relu(self.norm1(self.conv1(self.normalise(x))), inplace=True)  # (B, 24, H/2, W/2)
        maps += [x] if self.levels == 5 else []
        x = F.max_pool2d(x, 3, 2, padding=int(self.padded))  # (B, 24, H/4, W/4)
        maps += [x] if self.levels == 5 else []
        for stage in self.stages:
            x = stage(x)  # (B, 240, H/8, W/8), (B, 480, H/16, W/16), (B, 960, H/32, W/32)
            maps.append(x)
        if self.levels == 5 and not self.padded:
            maps[:2] = (F.pad(odd, (0, 1, 0, 1)) for odd in maps[:2])
        return maps[-self.levels :]

    def foldable(self) -> list[list[str]]:
        return [["conv1", "norm1"], *chains_of_parts(self)]


def _rounded(channels: float, multiple: int) -> int:
    return max(1, round(channels / multiple)) * multiple


class SeparableBlock(nn.Module):
    """3x3 in each map and 1x1, each with norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=bias)
        self.depthwise_norm = TENSORFLOW(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=bias)
        self.pointwise_norm = TENSORFLOW(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.depthwise_norm(self.depthwise(x)), inplace=True)
        return F.relu6(self.pointwise_norm(self.pointwise(x)), inplace=True)

    def foldable(self) -> list[list[str]]:
        return [["depthwise", "depthwise_norm"], ["pointwise", "pointwise_norm"]]


class DilatedBlock(nn.Module):
    """A dense 3x3 convolution with holes, norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, dilation: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)
        self.norm = TENSORFLOW(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.norm(self.conv(x)), inplace=True)

    def foldable(self) -> list[list[str]]:
        return [["conv", "norm"]]


class MobileNet(nn.Module):
    """MobileNet without its classifier. Three maps are the first of each size, five the last, as released.

    Args:
        width: scales all channels.
        bias, levels: as of `ShuffleNet`.

    Attributes:
        widths: channels of the maps.
        norms: what its norms are made with, and those of a decoder behind it.
    """

    def __init__(self, width: float, bias: bool, levels: Levels) -> None:
        super().__init__()
        sizes = [max(1, round(channels * width)) for channels, _ in _BLOCKS]
        inputs = max(1, round(_FIRST * width))
        self.taps = _TAPS[levels]
        self.widths = [sizes[tap] for tap in self.taps]
        self.norms = TENSORFLOW
        self.normalise = cityscapes()
        self.conv1 = nn.Conv2d(3, inputs, 3, 2, padding=1, bias=bias)
        self.norm1 = TENSORFLOW(inputs)
        dilations = iter(_DILATIONS)
        self.blocks = nn.Sequential()
        for number, (size, (_, stride)) in enumerate(zip(sizes, _BLOCKS, strict=True)):
            dense = levels == 1 and stride == 2 and number > _TAPS[3][0]
            block = DilatedBlock(inputs, size, next(dilations), bias) if dense else None
            self.blocks.append(block or SeparableBlock(inputs, size, stride, bias))
            inputs = size

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) to maps."""
        x = self.normalise(x)
        x = F.relu6(self.norm1(self.conv1(x)), inplace=True)  # (B, 32, H/2, W/2)
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                maps.append(x)
        return maps

    def foldable(self) -> list[list[str]]:
        return [["conv1", "norm1"], *chains_of_parts(self)]


class ResNet18(ResNet):
    """ResNet-18 without its classifier; names of modules are still torchvision's.

    Args:
        width: scales all channels.
        levels: 3: an eighth and smaller; 5: a quarter and smaller, for LinkNet.

    Attributes:
        widths: channels of the maps.
        norms: what its norms are made with, and those of a decoder behind it.
    """

    def __init__(self, width: float, levels: Levels) -> None:
        widths = [max(1, round(channels * width)) for channels in (64, 128, 256, 512)]
        super().__init__([2, 2, 2, 2], widths, num_classes=1)
        del self.fc
        self.norms = TORCH
        self.normalise = imagenet()
        self.widths = widths[-levels:]

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Pictures (B, 3, H, W) to maps."""
        maps = self.features(self.normalise(x))
        return maps[-len(self.widths) :]
