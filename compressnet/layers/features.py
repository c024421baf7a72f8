"""What keyword spotters hear: mel-frequency cepstral coefficients (MFCC) and log-mel energies.

    audio (B, N) -> frames (B, T, W) -> |DFT| (B, T, bins) -> mel bank (B, T, bands) -> ln
                                                           -> DCT-II (B, T, coefficients)      MFCC
                                                           -> (x - mean) / scale -> (T, B, features)

The operators AudioSpectrogram and Mfcc of tensorflow/examples/speech_commands: a periodic Hann window of W
samples, magnitudes of a DFT of the next power of two, triangles that are linear in
mel(f) = 1127·ln(1 + f/700), no normalisation of areas, ln(max(x, 1e-12)), and a DCT that scales all
coefficients by sqrt(2 / bands).

The DFT is a product with the windowed cosines and sines of the bins that the mel bank uses: no slower than an
FFT at these sizes, as exact, and its multiplications can be counted. Seen from the middle of a window cosines
are even and sines odd, so that each half of it is multiplied once. All is computed in float32 at least, under
autocast and in modules of 16-bit numbers too: MFCCs differ in what such numbers cannot hold. Without
gradients the CPU takes an FFT in C (`kernels/log_mel.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.bounds import Factor, Kernel, OneOrTwo, Positive, Real
from compressnet.cost import Term
from compressnet.kernels import log_mel

Rate = Annotated[int, Field(ge=1000, le=384_000)]  # samples per second
Milliseconds = Annotated[float, Field(gt=0, le=10_000)]
Means = Annotated[list[Real], Field(min_length=1, max_length=1000)]
Scales = Annotated[list[Positive], Field(min_length=1, max_length=1000)]

_LEAST = 1e-12
_LONGEST = 4096  # samples of a window: the matrix of its DFT has 4 million numbers then


class LogMel(nn.Module):
    """Audio (B, samples) in [-1, 1) to the logarithms of mel bands (T, B, bands), or hop by hop, by `step`.

    Args:
        sample_rate: of the audio, in Hz.
        window_ms, hop_ms: length of a frame, and from one to the next.
        bands: of the mel bank.
        low_hz, high_hz: where it begins and ends.
        power: 1 sums magnitudes, as TensorFlow, 2 their squares.
        offset: is added to the bands before the logarithm is taken.
        mean, scale: of each feature, as they are in the training data: features are (x - mean) / scale;
            None: 0 and 1.

    Raises:
        ValueError: a window shorter than the hop, a bank that ends above half the rate, or means that are not
            one a feature.
    """

    cosines: Tensor
    sines: Tensor
    mel: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        sample_rate: Rate = 16_000,
        window_ms: Milliseconds = 30.0,
        hop_ms: Milliseconds = 10.0,
        bands: Kernel = 40,
        low_hz: Factor = 20.0,
        high_hz: Positive = 4000.0,
        power: OneOrTwo = 1,
        offset: Factor = 0.0,
        mean: Means | None = None,
        scale: Scales | None = None,
    ) -> None:
        super().__init__()
        self.sample_rate, self.bands, self.power, self.offset = sample_rate, bands, power, offset
        self.window_ms, self.hop_ms = window_ms, hop_ms
        self.window, self.hop = (int(sample_rate * ms / 1000) for ms in (window_ms, hop_ms))
        self.low_hz, self.high_hz = low_hz, high_hz
        if not 1 <= self.hop <= self.window:
            raise ValueError(
                f"features: windows of {self.window} samples every {self.hop}: a hop is 1 to a whole window"
            )
        if self.window > _LONGEST:
            raise ValueError(f"features: windows of {self.window} samples: at most {_LONGEST}")
        if not low_hz < high_hz <= sample_rate / 2:
            raise ValueError(
                f"features: {low_hz:g} to {high_hz:g} Hz: {sample_rate} samples a second hold up to "
                f"{sample_rate / 2:g} Hz"
            )
        first, last = self._bins()
        if first >= last:
            raise ValueError(
                f"features: no bin of the DFT is within {low_hz:g} to {high_hz:g} Hz: widen them"
            )
        self.statistics = tuple(None if x is None else list(x) for x in (mean, scale))
        for values in self.statistics:
            if values is not None and len(values) != self.width:
                raise ValueError(f"features: {len(values)} means or scales for {self.width} features")
        self.make_buffers()

    @property
    def width(self) -> int:
        """F, features of a frame."""
        return self.bands

    def make_buffers(self) -> None:
        """What follows from the arguments, and is not stored."""
        self._make_buffers(torch.get_default_device(), torch.float32)

    def frames(self, samples: int) -> int:
        """T: whole windows in so many samples."""
        return max(0, 1 + (samples - self.window) // self.hop)

    def samples(self, frames: int) -> int:
        """The least that have so many frames."""
        return self.window + (frames - 1) * self.hop

    def forward(self, audio: Tensor) -> Tensor:
        """(B, samples) in [-1, 1) to (T, B, F).

        Raises:
            ValueError: not a whole window, or not two axes; integers.
        """
        if audio.ndim != 2 or audio.shape[1] < self.window:
            raise ValueError(
                f"features: take audio (B, samples), {self.window} samples or more, got {tuple(audio.shape)}"
            )
        if not audio.is_floating_point():
            raise ValueError(f"features: take samples in [-1, 1), got {audio.dtype}: divide int16 by 32768")
        constants = self._kernel_constants()
        if log_mel.serves(audio, constants, self.window):
            first, squared = self._bins()[0], self.power == 2
            return log_mel.frames(audio, constants, self.window, self.hop, first, squared, self.offset)
        is_autocast = audio.device.type != "meta" and torch.is_autocast_enabled(audio.device.type)
        with torch.autocast(audio.device.type, enabled=False) if is_autocast else nullcontext():
            return self._of_frames(audio.to(self.cosines.dtype).unfold(1, self.window, self.hop)).transpose(
                0, 1
            )

    def step(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next n·hop samples (B, n·hop) of a stream to n frames (n, B, F), and the state.

        Raises:
            ValueError: not a multiple of the hop.
        """
        if samples.ndim != 2 or not samples.shape[1] or samples.shape[1] % self.hop:
            raise ValueError(
                f"features: a step takes (B, n·{self.hop}) samples, n hops, got {tuple(samples.shape)}"
            )
        whole = torch.cat([state, samples.to(state.dtype)], 1)
        return self(whole), whole[:, samples.shape[1] :]

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Silence: the samples before the first hop, (batch, window - hop)."""
        return self.cosines.new_zeros(batch, self.window - self.hop, device=device, dtype=dtype)

    def example(self, batch: int = 1, size: int = 98) -> tuple[Tensor]:
        """Noise of `size` frames, for counting and timing."""
        return (torch.rand(batch, self.samples(size)) * 0.2 - 0.1,)

    def example_step(self, batch: int = 1) -> tuple[Tensor]:
        """A hop."""
        return (torch.rand(batch, self.hop) * 0.2 - 0.1,)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of audio (B, samples)."""
        batch, samples = input_shape
        half, bins = self.cosines.shape
        symbols = {"B": batch, "T": self.frames(samples), "w": half, "K": bins, "C": self.bands}
        return [
            Term("macs", "DFT", "B·T·w·2·K", symbols),
            Term("macs", "mel bank", "B·T·K·C", symbols),
            Term("elementwise", "magnitudes, logarithms", "B·T·(K+C)", symbols),
            Term("state", "samples", "B·(W-h)", {"B": batch, "W": self.window, "h": self.hop}),
        ]

    def extra_repr(self) -> str:
        return (
            f"{self.sample_rate} Hz, window={self.window}, hop={self.hop}, bands={self.bands}, "
            f"{self.low_hz:g}-{self.high_hz:g} Hz"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LogMel:
        """Constants are not converted but made anew, with all the digits that their type holds."""
        before = self.cosines
        super()._apply(fn, recurse)
        if (after := self.cosines).dtype != before.dtype:
            wide = torch.promote_types(after.dtype, torch.float32)
            self._make_buffers(after.device, wide)
        return self

    def _make_buffers(self, device: torch.device, dtype: torch.dtype) -> None:
        for name, value in self._constants(*self._bins()).items():
            self.register_buffer(name, value.to(device, dtype), persistent=False)

    def _bins(self) -> tuple[int, int]:
        """The first bin of the DFT that the mel bank uses, and the one after the last."""
        spacing = self.sample_rate / _power_of_two(self.window)
        return int(1.5 + self.low_hz / spacing), int(self.high_hz / spacing) + 1

    def _constants(self, first: int, last: int) -> dict[str, Tensor]:
        """float64: `cosines`, `sines` (W/2, bins), `mel` (bins, bands), `mean`, `scale` (F,)."""
        size = _power_of_two(self.window)
        places = torch.arange(self.window // 2, dtype=torch.float64, device="cpu") + self.window % 2 / 2
        hann = 0.5 + 0.5 * torch.cos(2 * math.pi * places / self.window)  # periodic, from its middle
        hann[places == 0] /= 2  # the middle is in both halves
        bins = torch.arange(first, last, dtype=torch.float64, device="cpu")
        angles = 2 * math.pi * places[:, None] * bins / size
        cosines, sines = (wave * hann[:, None] for wave in (angles.cos(), angles.sin()))
        edges = torch.linspace(
            _mel(self.low_hz), _mel(self.high_hz), self.bands + 2, dtype=torch.float64, device="cpu"
        )
        at = 1127 * torch.log1p(bins * (self.sample_rate / size) / 700)
        rising = (at[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - at[:, None]) / (edges[2:] - edges[1:-1])
        bank = torch.minimum(rising, falling).clamp_min(0)
        mean, scale = (
            torch.full((self.width,), usual, dtype=torch.float64, device="cpu")
            if values is None
            else torch.tensor(values, dtype=torch.float64, device="cpu")
            for values, usual in zip(self.statistics, (0.0, 1.0), strict=True)
        )
        return {"cosines": cosines, "sines": sines, "mel": bank, "mean": mean, "scale": scale}

    def _kernel_constants(self) -> log_mel.Constants:
        own = self._buffers  # attributes take a tenth of a frame
        return log_mel.Constants(*(own.get(name) for name in log_mel.Constants._fields))  # type: ignore[arg-type]

    def _of_frames(self, frames: Tensor) -> Tensor:
        """(B, T, W) to (B, T, F)."""
        return (self._logarithms(frames) - self.mean) / self.scale

    def _logarithms(self, frames: Tensor) -> Tensor:
        half = self.window // 2
        after, before = frames[..., self.window - half :], frames[..., 1 : half + 1].flip(-1)
        even, odd = (after + before) @ self.cosines, (after - before) @ self.sines  # (B, T, bins)
        energy = even.square() + odd.square()
        bands = (energy if self.power == 2 else energy.sqrt()) @ self.mel
        return (bands + self.offset).clamp_min(_LEAST).log()


class MFCC(LogMel):
    """Audio (B, samples) in [-1, 1) to mel-frequency cepstral coefficients (T, B, coefficients).

    Args:
        coefficients: the first so many of the cosine transform.
        sample_rate, window_ms, hop_ms, bands, low_hz, high_hz, mean, scale: as of `LogMel`.

    Raises:
        ValueError: as of `LogMel`; more coefficients than bands.
    """

    dct: Tensor

    def __init__(
        self,
        sample_rate: Rate = 16_000,
        window_ms: Milliseconds = 30.0,
        hop_ms: Milliseconds = 10.0,
        bands: Kernel = 40,
        coefficients: Kernel = 40,
        low_hz: Factor = 20.0,
        high_hz: Positive = 4000.0,
        mean: Means | None = None,
        scale: Scales | None = None,
    ) -> None:
        if coefficients > bands:
            raise ValueError(
                f"features: {coefficients} coefficients of {bands} bands: there are no more than these"
            )
        self.coefficients = coefficients
        super().__init__(sample_rate, window_ms, hop_ms, bands, low_hz, high_hz, mean=mean, scale=scale)

    @property
    def width(self) -> int:
        return self.coefficients

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        symbols = {"B": input_shape[0], "T": self.frames(input_shape[1]), "C": self.bands}
        transform = Term("macs", "DCT", "B·T·C·D", {**symbols, "D": self.coefficients})
        return [*super().cost(input_shape), transform]

    def _constants(self, first: int, last: int) -> dict[str, Tensor]:
        orders = torch.arange(self.coefficients, dtype=torch.float64, device="cpu")
        places = torch.arange(self.bands, dtype=torch.float64, device="cpu")[:, None] + 0.5
        cosines = torch.cos(math.pi / self.bands * places * orders) * math.sqrt(2 / self.bands)
        return {**super()._constants(first, last), "dct": cosines}  # (bands, coefficients)

    def _logarithms(self, frames: Tensor) -> Tensor:
        return super()._logarithms(frames) @ self.dct


def _power_of_two(length: int) -> int:
    """The smallest that is no smaller."""
    return 1 << (length - 1).bit_length()


def _mel(hertz: float) -> float:
    return 1127 * math.log1p(hertz / 700)
