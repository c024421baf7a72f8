"""Keyword spotters of rank-constrained filters: one SVDF over the whole clip, or several stacked.

    P. Nakkiran, R. Alvarez, R. Prabhavalkar, C. Parada: Compressing Deep Neural Networks using a
    Rank-Constrained Topology. Interspeech 2015, pp. 1473-1477
    R. Alvarez, H.-J. Park: End-to-End Streaming Keyword Spotting. ICASSP 2019, arXiv:1812.02802

kws_low_latency_svdf, that of tensorflow/examples/speech_commands; 98 frames of 40 MFCCs:

    frames (98, B, 40) -> SVDF, 1280 nodes of rank 2 -> ReLU -> 256 -> 256 -> K       no ReLU between the last

kws_svdf, the `svdf` of google-research/kws_streaming (O. Rybakov et al., arXiv:2005.06720); 49 frames:

    frames (49, B, F) -> [ features n -> time m -> (norm) -> ReLU -> linear p ] x 6 -> (1, B, 256) -> K
                          memories 4, 10, 10, 10, 10, 10: 46, 37, 28, 19, 10, 1 frames are left

Streams compute every frame once. Neither is the most accurate family: `kws_ds_cnn` and `kws_bc_resnet` are
more so at fewer weights; what these save is multiplications by the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Kernel, Probability, Size
from compressnet.layers.features import MFCC, Milliseconds
from compressnet.layers.svdf import SVDF, Form
from compressnet.models.keyword_spotting import (
    ClipMs,
    FeatureMean,
    FeatureScale,
    NumClasses,
    SampleRate,
    State,
    StreamingSpotter,
    WindowNetwork,
    frames_of,
    truncated_normal,
)

Rank = Annotated[int, Field(ge=0, le=1000)]
_MEMORIES = (4, 10, 10, 10, 10, 10)


class Stack(NamedTuple):
    """Sizes of kws_svdf.

    Attributes:
        coefficients: of 80 mel bands.
        units: n of each layer.
        projections: p of each but the last, which has none.
    """

    coefficients: int
    units: tuple[int, ...]
    projections: tuple[int, ...]


STACKS = {
    "354k": Stack(30, (256,) * 6, (128,) * 5),
    "30k": Stack(40, (16, 32, 32, 32, 64, 128), (40, 40, 64, 64, 64)),
}


class LowLatencySVDF(WindowNetwork):
    """The network of `kws_low_latency_svdf`.

    Args:
        width: F, features of a frame.
        window: T, frames of a clip.
        units: nodes of the first layer.
        rank: of its filters; 0: they are as they like, a linear layer over T·F.
        form: how they are computed of whole windows, as of `SVDF`.
        hidden_size: of the two layers behind it.
        num_classes: K.
        dropout: behind each layer, in training.
    """

    def __init__(
        self,
        width: int,
        window: int,
        units: int,
        rank: int,
        hidden_size: int,
        num_classes: int,
        dropout: float,
        form: Form = "auto",
    ) -> None:
        super().__init__(window, width)
        if rank:
            self.first: nn.Module = SVDF(width, units, window, rank, form=form)
        else:
            self.first = nn.Linear(window * width, units)
        self.hidden1 = nn.Linear(units, hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, num_classes)
        self.dropout = nn.Dropout(dropout)
        truncated_normal(self, 0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """(T, B, F) to scores (B, K)."""
        return self._rest(self.first(frames.transpose(0, 1).flatten(1)))

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: of an SVDF its memory; else the frames before the first, (T - 1, batch, F)."""
        if isinstance(self.first, SVDF):
            return self.first.init_state(batch, device, dtype)
        return super().init_state(batch, device, dtype)

    def step(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """n frames (n, B, F) to the scores of the windows that end in them, (n, B, K), and the state."""
        if not isinstance(self.first, SVDF):
            return super().step(frames, state)
        ring, position = state
        x, state = self.first.step(frames, (ring, position))  # (n, B, units)
        return self._rest(x), state

    def advance(self, frames: Tensor, state: State) -> State:
        """The state behind n frames (n, B, F), whose scores nobody asks for."""
        if not isinstance(self.first, SVDF):
            return super().advance(frames, state)
        ring, position = state
        return self.first.step(frames, (ring, position))[1]

    def foldable(self) -> list[list[str]]:
        return [["hidden1", "hidden2", "output"]]

    def _rest(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(x))
        x = self.dropout(self.hidden1(x))
        x = self.dropout(self.hidden2(x))
        scores: Tensor = self.output(x)
        return scores


class Block(nn.Module):
    """An SVDF of rank 1 over time, and a projection. Frames (T, B, F) to (T - memory + 1, B, p).

    Args:
        norm: batch norm behind the time filter.
        projection: p; 0: none.
    """

    def __init__(self, width: int, units: int, memory: int, projection: int, norm: bool) -> None:
        super().__init__()
        self.filter = SVDF(width, units, memory)
        self.norm = nn.BatchNorm1d(units) if norm else nn.Identity()
        self.projection = nn.Linear(units, projection) if projection else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self._rest(self.filter(x))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """n frames (n, B, F) of a stream to as many."""
        ring, position = state
        x, after = self.filter.step(x, (ring, position))
        return self._rest(x), after

    def _rest(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.BatchNorm1d):
            x = self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        projected: Tensor = self.projection(F.relu(x))
        return projected


class StackedSVDF(nn.Module):
    """The network of `kws_svdf`.

    Args:
        width: F, features of a frame.
        units, projections, memories: of each layer; the last has no projection.
        num_classes: K.
        norm: batch norm behind each time filter.

    Attributes:
        window: frames that a score depends on: 1 + the sum of memory - 1.
    """

    def __init__(
        self,
        width: int,
        units: Sequence[int],
        projections: Sequence[int],
        memories: Sequence[int],
        num_classes: int,
        norm: bool,
    ) -> None:
        super().__init__()
        outputs = [*projections, 0]
        inputs = [width, *projections]
        sizes = zip(inputs, units, memories, outputs, strict=True)
        self.blocks = nn.ModuleList(Block(n, u, memory, p, norm) for n, u, memory, p in sizes)
        self.output = nn.Linear(units[-1], num_classes)

    @property
    def window(self) -> int:
        return 1 + sum(block.filter.memory - 1 for block in self._blocks())

    def forward(self, frames: Tensor) -> Tensor:
        """(window, B, F) to scores (B, K)."""
        for block in self._blocks():
            frames = block(frames)
        scores: Tensor = self.output(frames[-1])
        return scores

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: the memory of each layer."""
        states = (block.filter.init_state(batch, device, dtype) for block in self._blocks())
        return tuple(part for state in states for part in state)

    def step(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """n frames (n, B, F) to the scores of the windows that end in them, (n, B, K), and the state."""
        after: list[Tensor] = []
        for number, block in enumerate(self._blocks()):
            frames, part = block.step(frames, state[2 * number : 2 * number + 2])
            after += part
        return self.output(frames), tuple(after)

    def advance(self, frames: Tensor, state: State) -> State:
        """The state behind n frames (n, B, F), whose scores nobody asks for."""
        return self.step(frames, state)[1]

    def foldable(self) -> list[list[str]]:
        return [[f"blocks.{number}.filter", f"blocks.{number}.norm"] for number in range(len(self.blocks))]

    def _blocks(self) -> list[Any]:
        return list(self.blocks)


def kws_low_latency_svdf(
    num_classes: NumClasses = 12,
    units: Size = 1280,
    rank: Rank = 2,
    hidden_size: Size = 256,
    dropout: Probability = 0.5,
    form: Form = "auto",
    window_ms: Milliseconds = 30.0,
    hop_ms: Milliseconds = 10.0,
    coefficients: Kernel = 40,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> StreamingSpotter:
    """TensorFlow's `low_latency_svdf`: 751,372 parameters, 749,568 MACs a frame beside the front end.

    Args:
        rank: of the filters of the first layer; 0: the linear layer that they stand for.
        form: how the filters are computed of whole clips, as of `layers.svdf.SVDF`.
        window_ms, hop_ms, coefficients, sample_rate, feature_mean, feature_scale: as of
            `layers.features.MFCC`.
    """
    features = MFCC(
        sample_rate, window_ms, hop_ms, coefficients=coefficients, mean=feature_mean, scale=feature_scale
    )
    frames = frames_of(features, clip_ms)
    network = LowLatencySVDF(coefficients, frames, units, rank, hidden_size, num_classes, dropout, form)
    return StreamingSpotter(features, network, clip_ms)


def kws_svdf(
    num_classes: NumClasses = 12,
    size: Literal["354k", "30k"] = "354k",
    norm: bool = False,
    window_ms: Milliseconds = 40.0,
    hop_ms: Milliseconds = 20.0,
    coefficients: Kernel | None = None,
    sample_rate: SampleRate = 16_000,
    clip_ms: ClipMs = 1000.0,
    feature_mean: FeatureMean = None,
    feature_scale: FeatureScale = None,
) -> StreamingSpotter:
    """Stacked SVDF of kws_streaming: 354,444 or 32,716 parameters, 352 k or 32 k MACs a frame.

    Args:
        norm: batch norm behind the time filters, which folds into them: from torch's beginnings they learn
            far better with it. The paper has none.
        coefficients: of 80 mel bands from 20 Hz to 7.6 kHz, or to half the sample rate; None: 30 of "354k",
            40 of "30k".
        window_ms, hop_ms, sample_rate, feature_mean, feature_scale: as of `layers.features.MFCC`.

    Raises:
        ValueError: clips of another length than the memories see: 49 frames.
    """
    stack = STACKS[size]
    width = coefficients or stack.coefficients
    high_hz = min(7600.0, sample_rate / 2)
    features = MFCC(
        sample_rate, window_ms, hop_ms, 80, width, high_hz=high_hz, mean=feature_mean, scale=feature_scale
    )
    network = StackedSVDF(width, stack.units, stack.projections, _MEMORIES, num_classes, norm)
    frames = frames_of(features, clip_ms)
    if frames != network.window:
        raise ValueError(f"its memories see {network.window} frames, clips have {frames}")
    return StreamingSpotter(features, network, clip_ms)
