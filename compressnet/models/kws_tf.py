"""The keyword spotters of tensorflow/examples/speech_commands, but for its SVDF.

    T. N. Sainath, C. Parada: Convolutional Neural Networks for Small-footprint Keyword Spotting. Interspeech
    2015 (about what `kws_conv` and `kws_low_latency_conv` are)

Frames (98, B, 40) of MFCCs, kernels of time x features, a ReLU and dropout behind each convolution:

    kws_single_fc            -> K
    kws_conv                 -> 20x8, 64 (98, 40) -> maximum of 2x2 (49, 20) -> 10x4, 64 (49, 20) -> K
    kws_low_latency_conv     -> 98x8, 186 (1, 33) -> 128 -> 128 -> K      no ReLU behind the linear layers
    kws_tiny_conv            -> 10x8, 8, stride 2 (49, 20) -> K
    kws_tiny_embedding_conv  -> 10x8, 8, stride 2 (49, 20) -> 10x8, 8, stride 8 (7, 3) -> K

                              parameters      MACs     12 classes
    kws_single_fc                 47,052     0.047 M
    kws_conv                     926,860   201.5   M
    kws_low_latency_conv         949,862     5.6   M   219,678 parameters once its linear layers are one
    kws_tiny_conv                 94,740     0.721 M   16,652 with hop_ms 20 and 4 classes
    kws_tiny_embedding_conv        7,804     0.737 M    6,164 with hop_ms 20 and 4 classes

The convolutions of `kws_low_latency_conv` see all frames at once: it streams, as `kws_single_fc` does, by
keeping the frames of its window. The others pad their edges, and do not stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Kernel, Probability, Size
from compressnet.layers.features import MFCC, Milliseconds
from compressnet.models.keyword_spotting import (
    ClipMs,
    FeatureMean,
    FeatureScale,
    KeywordSpotter,
    NumClasses,
    SampleRate,
    StreamingSpotter,
    WindowNetwork,
    frames_of,
    truncated_normal,
)

_BAND = 8  # features of the filters of kws_low_latency_conv


class Convolution(NamedTuple):
    """One of `Convolutions`.

    Attributes:
        kernel, stride: in time and features.
        pool: side of the squares of which maxima are taken behind it; 1: none.
    """

    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pool: int = 1


class SingleFC(WindowNetwork):
    """The network of `kws_single_fc`: a linear layer.

    Args:
        width: F, features of a frame.
        window: T, frames of a clip.
        num_classes: K.
    """

    def __init__(self, width: int, window: int, num_classes: int) -> None:
        super().__init__(window, width)
        self.output = nn.Linear(window * width, num_classes)
        truncated_normal(self, 0.001)

    def forward(self, frames: Tensor) -> Tensor:
        """(T, B, F) to scores (B, K)."""
        scores: Tensor = self.output(frames.transpose(0, 1).flatten(1))
        return scores


class LowLatencyConv(WindowNetwork):
    """The network of `kws_low_latency_conv`.

    Args:
        width: F, features of a frame, 8 or more.
        window: T, frames of a clip.
        filters: of the convolution.
        hidden_size: of the two layers behind it.
        num_classes: K.
        dropout: behind each layer, in training.

    Raises:
        ValueError: fewer features than a filter has.
    """

    def __init__(
        self, width: int, window: int, filters: int, hidden_size: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__(window, width)
        if width < _BAND:
            raise ValueError(f"its filters see {_BAND} features, frames have {width}")
        self.conv = nn.Conv2d(1, filters, (window, _BAND))
        self.hidden1 = nn.Linear(filters * (width - _BAND + 1), hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, num_classes)
        self.dropout = nn.Dropout(dropout)
        truncated_normal(self, 0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """(T, B, F) to scores (B, K)."""
        x = _as_map(frames)  # (B, 1, T, F)
        x = self.dropout(F.relu(self.conv(x)).flatten(1))  # (B, filters * (F - 7))
        x = self.dropout(self.hidden1(x))  # (B, hidden_size)
        x = self.dropout(self.hidden2(x))  # (B, hidden_size)
        scores: Tensor = self.output(x)
        return scores

    def foldable(self) -> list[list[str]]:
        return [["hidden1", "hidden2", "output"]]


class Convolutions(nn.Module):
    """The network of `kws_conv` and the tiny ones: padded convolutions, and a linear layer.

    Args:
        width: F, features of a frame.
        window: T, frames of a clip.
        layers: the convolutions.
        num_classes: K.
        dropout: behind each of them, in training.
    """

    def __init__(
        self, width: int, window: int, layers: Sequence[Convolution], num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.window = window
        self.pools = [layer.pool for layer in layers]
        self.convs = nn.ModuleList()
        inputs, height = 1, window
        for filters, kernel, stride, pool in layers:
            self.convs.append(nn.Conv2d(inputs, filters, kernel, stride))
            height, width = (
                math.ceil(math.ceil(side / step) / pool)
                for side, step in zip((height, width), stride, strict=True)
            )
            inputs = filters
        self.output = nn.Linear(inputs * height * width, num_classes)
        self.dropout = nn.Dropout(dropout)
        truncated_normal(self, 0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """(T, B, F) to scores (B, K)."""
        x = _as_map(frames)  # (B, 1, T, F)
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = pad_same(x, conv)
            x = self.dropout(F.relu(conv(x)))  # (B, filters, T / stride, F / stride)
            if pool > 1:
                x = F.max_pool2d(x, pool, ceil_mode=True)
        scores: Tensor = self.output(x.flatten(1))
        return scores


def pad_same(x: Tensor, conv: nn.Module) -> Tensor:
    """Maps (B, C, H, W) with the zeros that TensorFlow's SAME sets around them before a convolution.

    Outputs are then as many as inputs over the stride, rounded up. Of an odd number of zeros one more is at
    the end, which no padding of `torch.nn.Conv2d` says.

    Args:
        conv: a convolution without padding; its stride is not larger than its kernel.
    """
    sides: list[int] = []
    sizes = zip(x.shape[2:], conv.kernel_size, conv.stride, strict=True)  # type: ignore[arg-type]
    for size, kernel, stride in sizes:
        zeros = kernel - stride + -size % stride
        sides = [zeros // 2, zeros - zeros // 2, *sides]  # F.pad begins with the last axis
    return F.pad(x, sides)


def kws_single_fc(
    num_classes: NumClasses = 12,
    window_ms: Milliseconds = 30.0,
    hop_ms: Milliseconds = 10.0,
    coefficients: Kernel = 40,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> StreamingSpotter:
    """TensorFlow's `single_fc`: 47,052 parameters, as many MACs less 12 beside the front end.

    Args:
        window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale: as of `features.MFCC`.
    """
    features = _mfcc(window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale)
    network = SingleFC(coefficients, frames_of(features, clip_ms), num_classes)
    return StreamingSpotter(features, network, clip_ms)


def kws_conv(
    num_classes: NumClasses = 12,
    filters: Size = 64,
    dropout: Probability = 0.5,
    window_ms: Milliseconds = 30.0,
    hop_ms: Milliseconds = 10.0,
    coefficients: Kernel = 40,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> KeywordSpotter:
    """TensorFlow's `conv`: 926,860 parameters, 201,456,640 MACs beside the front end.

    Args:
        filters: of both convolutions.
        window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale: as of `features.MFCC`.
    """
    layers = [Convolution(filters, (20, 8), pool=2), Convolution(filters, (10, 4))]
    features = _mfcc(window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale)
    return _convolutions(features, layers, num_classes, dropout, clip_ms)


def kws_low_latency_conv(
    num_classes: NumClasses = 12,
    filters: Size = 186,
    hidden_size: Size = 128,
    dropout: Probability = 0.5,
    window_ms: Milliseconds = 30.0,
    hop_ms: Milliseconds = 10.0,
    coefficients: Kernel = 40,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> StreamingSpotter:
    """TensorFlow's `low_latency_conv`: 949,862 parameters, 5,615,776 MACs beside the front end.

    Args:
        filters: of the convolution.
        hidden_size: of the two layers behind it.
        window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale: as of `features.MFCC`.

    Raises:
        ValueError: fewer than 8 coefficients.
    """
    features = _mfcc(window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale)
    frames = frames_of(features, clip_ms)
    network = LowLatencyConv(coefficients, frames, filters, hidden_size, num_classes, dropout)
    return StreamingSpotter(features, network, clip_ms)


def kws_tiny_conv(
    num_classes: NumClasses = 12,
    dropout: Probability = 0.5,
    window_ms: Milliseconds = 30.0,
    hop_ms: Milliseconds = 10.0,
    coefficients: Kernel = 40,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> KeywordSpotter:
    """TensorFlow's `tiny_conv`, for microcontrollers: 94,740 parameters, 721,280 MACs beside the front end.

    Args:
        window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale: as of `features.MFCC`.
    """
    features = _mfcc(window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale)
    return _convolutions(features, [Convolution(8, (10, 8), (2, 2))], num_classes, dropout, clip_ms)


def kws_tiny_embedding_conv(
    num_classes: NumClasses = 12,
    dropout: Probability = 0.5,
    window_ms: Milliseconds = 30.0,
    hop_ms: Milliseconds = 10.0,
    coefficients: Kernel = 40,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> KeywordSpotter:
    """TensorFlow's `tiny_embedding_conv`: 7,804 parameters, 736,736 MACs beside the front end.

    Args:
        window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale: as of `features.MFCC`.
    """
    layers = [Convolution(8, (10, 8), (2, 2)), Convolution(8, (10, 8), (8, 8))]
    features = _mfcc(window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale)
    return _convolutions(features, layers, num_classes, dropout, clip_ms)


def _mfcc(
    window_ms: float,
    hop_ms: float,
    coefficients: int,
    sample_rate: int,
    mean: list[float] | None,
    scale: list[float] | None,
) -> MFCC:
    return MFCC(sample_rate, window_ms, hop_ms, coefficients=coefficients, mean=mean, scale=scale)


def _convolutions(
    features: MFCC, layers: Sequence[Convolution], num_classes: int, dropout: float, clip_ms: float
) -> KeywordSpotter:
    frames = frames_of(features, clip_ms)
    network = Convolutions(features.width, frames, layers, num_classes, dropout)
    return KeywordSpotter(features, network, clip_ms)


def _as_map(frames: Tensor) -> Tensor:
    """(T, B, F) to (B, 1, T, F)."""
    return frames.transpose(0, 1).unsqueeze(1)
