"""Keyword spotting by depthwise separable convolutions: each looks around within a map, then at all maps.

    Y. Zhang, N. Suda, L. Lai, V. Chandra: Hello Edge: Keyword Spotting on Microcontrollers. 2017,
    arXiv:1711.07128

    frames (49, B, 10) of MFCCs, windows of 40 ms
      |  10x4 (time x features), norm, ReLU                                   (B, C, h, w)
      |  blocks: 3x3 in each map, norm, ReLU -> 1x1, norm, ReLU               (B, C, h', w')
      |  mean over the map -> linear
    scores (B, K)

          C    stride    blocks                     map       parameters   MACs       12 classes
    S     64   2, 2      4                          25 x 5        23,756    2.66 M
    M    172   2, 1      4, the first by 2, 2       13 x 5       138,128    9.82 M
    L    276   2, 1      5, the first by 2, 2       13 x 5       416,772   28.33 M

Convolutions have biases beside their norms, as the authors' have; `fold` leaves one of both. Maps are padded
as TensorFlow's SAME. It takes clips of any length and does not stream: its edges are padded, and its mean is
over the whole clip.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Kernel
from compressnet.layers.features import MFCC, Milliseconds
from compressnet.models.keyword_spotting import (
    ClipMs,
    FeatureMean,
    FeatureScale,
    KeywordSpotter,
    NumClasses,
    SampleRate,
)
from compressnet.models.kws_tf import pad_same


class Sizes(NamedTuple):
    """Of DS-CNN.

    Attributes:
        width: C, maps of every layer.
        stride: of the first convolution, in time and features.
        block_strides: of each block, in both.
    """

    width: int
    stride: tuple[int, int]
    block_strides: tuple[int, ...]


SIZES = {
    "S": Sizes(64, (2, 2), (1, 1, 1, 1)),
    "M": Sizes(172, (2, 1), (2, 1, 1, 1)),
    "L": Sizes(276, (2, 1), (2, 1, 1, 1, 1)),
}


class Block(nn.Module):
    """A depthwise and a pointwise convolution. (B, C, h, w) to (B, C, h / stride, w / stride), rounded up."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=int(stride == 1), groups=width)
        self.depthwise_norm = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.pointwise_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise.stride != (1, 1):
            x = pad_same(x, self.depthwise)
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        return F.relu(self.pointwise_norm(self.pointwise(x)))


class DSCNN(nn.Module):
    """The network of the module's docstring.

    Args:
        sizes: of its layers.
        num_classes: K.
    """

    window = None  # any number of frames

    def __init__(self, sizes: Sizes, num_classes: int) -> None:
        super().__init__()
        width = sizes.width
        self.conv = nn.Conv2d(1, width, (10, 4), sizes.stride)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width, stride) for stride in sizes.block_strides))
        self.output = nn.Linear(width, num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """(T, B, F) to scores (B, K)."""
        x = frames.transpose(0, 1).unsqueeze(1)  # (B, 1, T, F)
        x = F.relu(self.norm(self.conv(pad_same(x, self.conv))))  # (B, C, T / 2, w)
        x = self.blocks(x).mean((2, 3))  # (B, C)
        scores: Tensor = self.output(x)
        return scores

    def foldable(self) -> list[list[str]]:
        chains = [["conv", "norm"]]
        for number in range(len(self.blocks)):
            block = f"blocks.{number}"
            chains += [[f"{block}.{kind}", f"{block}.{kind}_norm"] for kind in ("depthwise", "pointwise")]
        return chains


def kws_ds_cnn(
    num_classes: NumClasses = 12,
    size: Literal["S", "M", "L"] = "S",
    window_ms: Milliseconds = 40.0,
    hop_ms: Milliseconds = 20.0,
    coefficients: Kernel = 10,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> KeywordSpotter:
    """DS-CNN of Hello Edge: 23,756 to 416,772 parameters, 2.7 to 28 million MACs beside the front end.

    Args:
        size: as in the table of the module.
        window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale: as of `features.MFCC`.
    """
    features = MFCC(
        sample_rate, window_ms, hop_ms, coefficients=coefficients, mean=feature_mean, scale=feature_scale
    )
    return KeywordSpotter(features, DSCNN(SIZES[size], num_classes), clip_ms)
