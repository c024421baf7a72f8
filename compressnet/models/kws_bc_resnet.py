"""Keyword spotting by a residual network that sends what it sees in time back to all frequencies.

    B. Kim, S. Chang, J. Lee, D. Sung: Broadcasted Residual Learning for Efficient Keyword Spotting.
    Interspeech 2021, arXiv:2106.04140

    frames (98, B, 40) of log-mel energies, c = 8·tau
      |  5x5, 2c, frequency halved -> norm, ReLU                   (B, 2c, 20, T)
      |  2 blocks of c                                             (B, c, 20, T)
      |  2 blocks of 1.5·c, frequency halved, dilation 2           (B, 1.5·c, 10, T)
      |  4 blocks of 2·c, frequency halved, dilation 4             (B, 2c, 5, T)
      |  4 blocks of 2.5·c, dilation 8                             (B, 2.5·c, 5, T)
      |  5x5 in each map -> 1x1, 4c -> norm, ReLU -> mean          (B, 4c)
      |  linear
    scores (B, K)

    block: x -> (1x1, norm, ReLU where the width changes) -> 3x1 over frequency -> SubSpectralNorm = a
           a (B, w, F, T) -> mean over F -> 1x3 over time -> norm, SiLU -> 1x1 -> dropout = b (B, w, 1, T)
           ReLU(a + b), where the width does not change ReLU(a + b + x)

    tau              0.625       1     1.5       2       3        6        8
    parameters       4,585   9,232  17,154  27,284  54,168  187,812  321,068      12 classes
    million MACs      1.25    2.48    4.61    7.32    14.5     50.3     85.9      101 frames, convolutions

Written from the paper. Its clips have 101 frames, ours 98; mel bands are triangles on the mel
scale, from 20 Hz on, as TensorFlow's. It takes clips of any length and does not stream: it pads both edges of
time, and its mean is over the whole clip.

`fold` takes up every norm but `SubSpectralNorm`: that one scales the bands of a map differently, while the
convolution before it has one filter for all of them. In evaluation it costs a multiplication and an addition
for each number, no products.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Probability
from compressnet.layers.features import LogMel, Milliseconds
from compressnet.models.keyword_spotting import (
    ClipMs,
    FeatureMean,
    FeatureScale,
    KeywordSpotter,
    NumClasses,
    SampleRate,
)

# Below 0.25 two stages have one width.
Tau = Annotated[float, Field(ge=0.25, le=64)]

_MELS = 40  # halved three times they are the 5 that the last filters see
_BANDS = 5  # of SubSpectralNorm
# Of each stage: blocks, width over c, stride in frequency, dilation in time.
_STAGES = ((2, 1.0, 1, 1), (2, 1.5, 2, 2), (4, 2.0, 2, 4), (4, 2.5, 1, 8))


class SubSpectralNorm(nn.Module):
    """Batch norm of each band of frequencies of each channel.

        S. Chang, H. Park, J. Cho, H. Park, S. Yun, K. Hwang: SubSpectral Normalization for Neural Audio Data
        Processing. ICASSP 2021, arXiv:2103.13620

    Args:
        channels: of the maps.
        bands: into which their frequencies are cut.
    """

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.norm = nn.BatchNorm2d(channels * bands)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) to the same.

        Raises:
            ValueError: frequencies that cannot be cut into so many bands of one size.
        """
        batch, channels, frequencies, frames = x.shape
        if frequencies % self.bands:
            raise ValueError(f"SubSpectralNorm: {frequencies} frequencies for {self.bands} bands of one size")
        x = x.reshape(batch, channels * self.bands, frequencies // self.bands, frames)
        x = self.norm(x)
        return x.reshape(batch, channels, frequencies, frames)


class Block(nn.Module):
    """(B, inputs, F, T) to (B, width, F / stride, T), as in the module's docstring.

    Args:
        dilation: of the filter over time.
        dropout: of whole channels of b, in training.
    """

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.widen: nn.Sequential | None = None
        if inputs != width:
            conv = nn.Conv2d(inputs, width, 1, bias=False)
            self.widen = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
        self.frequency = nn.Conv2d(
            width, width, (3, 1), (stride, 1), padding=(1, 0), groups=width, bias=False
        )
        self.frequency_norm = SubSpectralNorm(width, _BANDS)
        self.time = nn.Conv2d(
            width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=width, bias=False
        )
        self.time_norm = nn.BatchNorm2d(width)
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.widen is None else self.widen(x)  # (B, w, F, T)
        a = self.frequency_norm(self.frequency(wide))  # (B, w, F / stride, T)
        b = a.mean(2, keepdim=True)  # (B, w, 1, T)
        b = F.silu(self.time_norm(self.time(b)))
        y = a + self.dropout(self.mix(b))
        return F.relu(y + x if self.widen is None else y)


class BCResNet(nn.Module):
    """The network of the module's docstring.

    Args:
        tau: of its widths.
        num_classes: K.
        dropout: of whole channels, in each block, in training.
    """

    window = None  # any number of frames

    def __init__(self, tau: float, num_classes: int, dropout: float) -> None:
        super().__init__()
        base = int(8 * tau)
        self.head = nn.Conv2d(1, 2 * base, 5, (2, 1), padding=2, bias=False)
        self.head_norm = nn.BatchNorm2d(2 * base)
        blocks = []
        inputs = 2 * base
        for count, factor, stride, dilation in _STAGES:
            width = int(factor * base)
            for number in range(count):
                blocks.append(Block(inputs, width, 1 if number else stride, dilation, dropout))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.depthwise = nn.Conv2d(inputs, inputs, 5, padding=(0, 2), groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, 4 * base, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(4 * base)
        self.output = nn.Linear(4 * base, num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """(T, B, 40) to scores (B, K)."""
        x = frames.permute(1, 2, 0).unsqueeze(1)  # (B, 1, 40, T)
        x = F.relu(self.head_norm(self.head(x)))  # (B, 2c, 20, T)
        x = self.blocks(x)  # (B, 2.5 c, 5, T)
        x = F.relu(self.pointwise_norm(self.pointwise(self.depthwise(x))))  # (B, 4c, 1, T)
        scores: Tensor = self.output(x.mean((2, 3)))
        return scores

    def foldable(self) -> list[list[str]]:
        chains = [["head", "head_norm"], ["depthwise", "pointwise", "pointwise_norm"]]
        for path, block in self.blocks.named_children():
            if isinstance(block, Block):
                chains += [[f"blocks.{path}.widen"]] if block.widen is not None else []
                chains.append([f"blocks.{path}.time", f"blocks.{path}.time_norm"])
        return chains


def kws_bc_resnet(
    num_classes: NumClasses = 12,
    tau: Tau = 1.0,
    dropout: Probability = 0.1,
    window_ms: Milliseconds = 30.0,
    hop_ms: Milliseconds = 10.0,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> KeywordSpotter:
    """BC-ResNet: with tau 1 9,232 parameters and 2.4 million MACs beside the front end.

    Args:
        tau: of its widths: the paper's are 1 to 8, and 0.625.
        dropout: of whole channels, in each block.
        window_ms, hop_ms, sample_rate, feature_mean, feature_scale: as of `layers.features.LogMel`: 40 bands
            of power from 20 Hz to half the sample rate, ln(x + 1e-6).
    """
    features = LogMel(
        sample_rate,
        window_ms,
        hop_ms,
        _MELS,
        high_hz=sample_rate / 2,
        power=2,
        offset=1e-6,
        mean=feature_mean,
        scale=feature_scale,
    )
    return KeywordSpotter(features, BCResNet(tau, num_classes, dropout), clip_ms)
