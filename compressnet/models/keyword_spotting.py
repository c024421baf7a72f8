"""What all keyword spotters share: a front end before a network, whole clips or streams, silence before them.

    audio (B, samples) -> front end (T, B, F) -> network -> scores of the classes (B, K)

    step: n hops (B, n·hop) -> n frames (n, B, F) -> network.step -> scores of the n windows that end in them,
                                                                    (n, B, K), and the state

A stream is preceded by silence: its scores are those of whole windows from its first hop on, as of a clip
with zeros before it. Nothing is computed twice where the network says how (`step`); `SlidingWindow` streams
any other by computing the window anew for each hop.

A network takes frames (T, B, F) and has `window`, the frames that it needs (None: any number). It streams if
it has `init_state`, `step` and `advance` on frames, from a state of zeros; `WindowNetwork` gives them to one
that needs all frames of the window again.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.bounds import Size
from compressnet.cost import Term
from compressnet.layers.features import LogMel, Means, Rate, Scales
from compressnet.signature import DERIVED

State = tuple[Tensor, ...]
NumClasses = Annotated[Size, DERIVED]
SampleRate = Annotated[Rate, DERIVED]
_AT_ONCE = 64  # windows
ClipMs = Annotated[float, Field(gt=0, le=60_000), DERIVED]
FeatureMean = Annotated[Means | None, DERIVED]
FeatureScale = Annotated[Scales | None, DERIVED]


class WindowNetwork(nn.Module):
    """A network that streams by keeping the frames of its window: a subclass has a `forward` of these.

    Args:
        window: frames that `forward` takes.
        width: F, features of a frame.
    """

    def __init__(self, window: int, width: int) -> None:
        super().__init__()
        self.window, self.width = window, width

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: the frames before the first, (window - 1, batch, F)."""
        like = next(self.parameters())
        return (like.new_zeros(self.window - 1, batch, self.width, device=device, dtype=dtype),)

    def step(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """n frames (n, B, F) to the scores of the windows that end in them, (n, B, K), and the state."""
        whole = torch.cat([state[0].to(frames.dtype), frames])  # (window - 1 + n, B, F)
        scores = [self(whole[begin : begin + self.window]) for begin in range(len(frames))]
        return torch.stack(scores), (whole[len(frames) :],)

    def advance(self, frames: Tensor, state: State) -> State:
        """The state behind n frames (n, B, F), whose scores nobody asks for."""
        whole = torch.cat([state[0].to(frames.dtype), frames])
        return (whole[len(frames) :],)

    def step_cost(self, batch: int) -> list[Term]:
        """What a step of one frame costs beside the layers of the network, which are called."""
        symbols = {"T": self.window, "B": batch, "F": self.width}
        return [Term("state", "frames", "(T-1)·B·F", symbols)]


class KeywordSpotter(nn.Module):
    """A front end and a network.

    Args:
        features: the front end.
        network: as in the docstring of the module.
        clip_ms: length of a clip; the network of a fixed window is made for this one.

    Attributes:
        sample_rate: of the audio, in Hz.
        hop: samples from one score of a stream to the next.
        frames: of a clip.
    """

    def __init__(self, features: LogMel, network: nn.Module, clip_ms: float) -> None:
        super().__init__()
        self.features, self.network = features, network
        self.sample_rate, self.hop = features.sample_rate, features.hop
        self.frames = frames_of(features, clip_ms)

    def forward(self, audio: Tensor) -> Tensor:
        """Clips (B, samples) to scores (B, K).

        Raises:
            ValueError: clips of another length than the network takes.
        """
        x = self.features(audio)  # (T, B, F)
        check_window(self.network, len(x))
        scores: Tensor = self.network(x)
        return scores

    def example(self, batch: int = 1, size: int | None = None) -> tuple[Tensor]:
        """Clips of `size` frames, for counting, timing and export; None: as long as in training.

        Raises:
            ValueError: a length that the network does not take.
        """
        if size is not None and not isinstance(size, int):
            raise ValueError("takes audio: its size is a number of frames")
        check_window(self.network, size or self.frames)
        return self.features.example(batch, size or self.frames)

    @property
    def values(self) -> str:
        """What goes in and comes out, for whoever gets an exported file."""
        return f"audio in [-1, 1), {self.sample_rate:,} samples a second; logits of the classes"

    def foldable(self) -> list[list[str]]:
        """What follows what in the network (`layers.data_flow`)."""
        inner = getattr(self.network, "foldable", None)
        return [[f"network.{path}" for path in chain] for chain in inner()] if inner else []


class StreamingSpotter(KeywordSpotter):
    """A keyword spotter whose network has `init_state`, `step` and `advance` too."""

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Of streams that were silent: the samples of the front end, and what the network carries."""
        samples = self.features.init_state(batch, device, dtype)
        network: Any = self.network
        with torch.no_grad():
            silence = self.features(samples.new_zeros(batch, self.features.window))  # (1, B, F)
            state = network.init_state(batch, device, dtype)
            silence = silence.to(state[0].dtype)
            state = network.advance(silence.expand(network.window, -1, -1), state)
        return (samples, *state)

    def step(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """The next n·hop samples (B, n·hop) to scores (n, B, K), and the state; the old one may change.

        Raises:
            ValueError: not a multiple of the hop.
        """
        frames, before = self.features.step(samples, state[0])
        network: Any = self.network
        scores, after = network.step(frames, state[1:])
        return scores, (before, *after)

    def example_step(self, batch: int = 1) -> tuple[Tensor]:
        """A hop."""
        return self.features.example_step(batch)


class SlidingWindow(nn.Module):
    """Streams any keyword spotter: its last clip is computed anew for each hop.

    Args:
        model: what takes clips (B, samples).
        samples: of a clip.
        hop: samples from one score to the next.
    """

    def __init__(self, model: nn.Module, samples: int, hop: int) -> None:
        super().__init__()
        if not 1 <= hop <= samples:
            raise ValueError(f"SlidingWindow: a hop of {hop} samples: 1 to the {samples} of a clip")
        self.model, self.samples, self.hop = model, samples, hop
        self.sample_rate = getattr(model, "sample_rate", None)

    @classmethod
    def of(cls, model: KeywordSpotter) -> SlidingWindow:
        """With the clips and hops of a keyword spotter of ours."""
        return cls(model, model.features.samples(model.frames), model.hop)

    def forward(self, audio: Tensor) -> Tensor:
        scores: Tensor = self.model(audio)
        return scores

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Silence: the samples before the first hop, (batch, samples - hop)."""
        like = next(self.model.parameters())
        return (like.new_zeros(batch, self.samples - self.hop, device=device, dtype=dtype),)

    def step(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """The next n·hop samples (B, n·hop) to scores (n, B, K), and the state.

        Raises:
            ValueError: not a multiple of the hop.
        """
        if samples.ndim != 2 or not samples.shape[1] or samples.shape[1] % self.hop:
            raise ValueError(f"SlidingWindow: a step takes (B, n·{self.hop}), got {tuple(samples.shape)}")
        whole = torch.cat([state[0].to(samples.dtype), samples], 1)
        clips = whole.unfold(1, self.samples, self.hop).transpose(0, 1)  # (n, B, samples)
        scores = [self.model(some.flatten(0, 1)) for some in clips.split(_AT_ONCE)]
        return torch.cat(scores).unflatten(0, clips.shape[:2]), (whole[:, samples.shape[1] :],)

    def example(self, batch: int = 1, size: int | None = None) -> tuple[Tensor, ...]:
        """As the model's."""
        inputs: tuple[Tensor, ...] = self.model.example(batch, size)  # type: ignore[operator]
        return inputs

    def example_step(self, batch: int = 1) -> tuple[Tensor]:
        """A hop."""
        return (torch.rand(batch, self.hop) * 0.2 - 0.1,)


def window_backend(module: nn.Module) -> nn.Module | None:
    """The back end `window`: a stream that computes its window anew at every hop; None of other modules."""
    return SlidingWindow.of(module) if isinstance(module, KeywordSpotter) else None


def frames_of(features: LogMel, clip_ms: float) -> int:
    """T, frames of a clip.

    Raises:
        ValueError: a clip shorter than a window.
    """
    frames = features.frames(int(features.sample_rate * clip_ms / 1000))
    if not frames:
        raise ValueError(f"clips of {clip_ms:g} ms are shorter than a window of {features.window} samples")
    return frames


def check_window(network: nn.Module, frames: int) -> None:
    """Refuse a length that the network does not take.

    Raises:
        ValueError: it is another.
    """
    window = getattr(network, "window", None)
    if window is not None and frames != window:
        raise ValueError(f"{type(network).__name__}: takes {window} frames, got {frames}")


@torch.no_grad()
def truncated_normal(network: nn.Module, std: float) -> None:
    """The beginning of TensorFlow's models: weights cut at two deviations, biases 0."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)
        else:
            nn.init.zeros_(parameter)
