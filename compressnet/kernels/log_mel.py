"""Frames of log-mel energies or MFCCs, as an operation of torch: `compressnet::log_mel_frames`.

    audio (B, N) -> windows of W every `hop` -> |FFT| (K) -> mel bank (C) -> ln -> DCT (F) -> (T, B, F)

Counted as what the reference computes, a DFT by a product; a fast one has fewer multiplications.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import gradient, library

_kernel = library.Kernel("log_mel")
available, reference = _kernel.available, _kernel.reference
_operations = torch.library.Library("compressnet", "FRAGMENT")
_operations.define(
    "log_mel_frames(Tensor audio, Tensor mel, Tensor? dct, Tensor mean, Tensor scale, int window, int hop,"
    " int first, bool squared, float offset) -> Tensor"
)
_LONGEST, _MOST_BANDS = 4096, 1024  # samples of a window and bands that the kernel has room for


class Constants(NamedTuple):
    """What frames are multiplied with, contiguous float32.

    Attributes:
        mel: (K, C), of the bins of the DFT from `first` on.
        dct: (C, F); None: the bands are the features.
        mean, scale: (F,).
    """

    mel: Tensor
    dct: Tensor | None
    mean: Tensor
    scale: Tensor


def serves(audio: Tensor, constants: Constants, window: int) -> bool:
    """Whether the kernel can work on these: float32 on the CPU, no gradients and no graph."""
    if torch.compiler.is_compiling() or not (_kernel.is_enabled and _kernel.is_built):
        return False
    return (
        audio.is_cpu
        and constants.mel.is_cpu
        and constants.mel.dtype == torch.float32
        and audio.is_floating_point()
        and audio.dtype != torch.float64
        and 2 <= window <= _LONGEST
        and constants.mel.shape[1] <= _MOST_BANDS
        and not gradient.is_wanted(audio)
    )


def frames(
    audio: Tensor, constants: Constants, window: int, hop: int, first: int, squared: bool, offset: float
) -> Tensor:
    """Audio (B, N) to features (T, B, F), of tensors that it `serves`: the caller asks. No gradients.

    Args:
        window, hop: samples of a frame, and from one to the next.
        first: the bin of the DFT, of the next power of two, that `mel` begins with.
        squared: sum the squares of magnitudes, not these.
        offset: is added to the bands.
    """
    # The way through torch's dispatcher is longer than the work: only where somebody looks on there.
    watched = torch._C._len_torch_dispatch_stack() or torch._C._is_torch_function_mode_enabled()
    call = torch.ops.compressnet.log_mel_frames if watched else _run
    result: Tensor = call(audio, *constants, window, hop, first, squared, offset)
    return result


def _frames(
    audio: Tensor,
    mel: Tensor,
    dct: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    window: int,
    hop: int,
    first: int,
    squared: bool,
    offset: float,
) -> Tensor:
    bins, bands = mel.shape
    width = len(mean)
    fits = (
        audio.ndim == 2
        and 2 <= window <= min(audio.shape[1], _LONGEST)
        and 1 <= hop <= window
        and 0 <= first <= first + bins <= _power_of_two(window) // 2 + 1
        and max(bands, width) <= _MOST_BANDS
        and (bands == width if dct is None else dct.shape == (bands, width))
        and mean.shape == scale.shape == (width,)
    )
    if not fits:  # C believes its sizes: what does not fit would be read from behind the end
        given = (audio, mel, dct, mean, scale)
        shapes = ", ".join("none" if tensor is None else str(tuple(tensor.shape)) for tensor in given)
        raise ValueError(
            f"log_mel_frames: windows of {window}, hops of {hop} and bins from {first} do not fit: {shapes}"
        )
    return _run(audio, mel, dct, mean, scale, window, hop, first, squared, offset)


def _run(
    audio: Tensor,
    mel: Tensor,
    dct: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    window: int,
    hop: int,
    first: int,
    squared: bool,
    offset: float,
) -> Tensor:
    batch, samples = audio.shape
    count, width = 1 + (samples - window) // hop, len(mean)
    audio = audio.float().contiguous()
    given = [None if x is None else x.contiguous() for x in (*_tables(window), mel, dct, mean, scale)]
    out = audio.new_empty((count, batch, width))
    _kernel.function("log_mel_frames", 8, 10, 2, 1)(
        audio.data_ptr(),
        *(None if x is None else x.data_ptr() for x in given),
        out.data_ptr(),
        count,
        batch,
        samples,
        window,
        hop,
        _power_of_two(window),
        first,
        *mel.shape,
        width,
        squared,
        torch.get_num_threads(),
        offset,
    )
    return out


@lru_cache(maxsize=8)
def _tables(window: int) -> tuple[Tensor, Tensor]:
    """A periodic Hann window (W,), and cosines and sines of 2 pi k / S, (2, S/2 + 1)."""
    size = _power_of_two(window)
    places = torch.arange(window, dtype=torch.float64, device="cpu")
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi / window * places)
    angles = 2 * math.pi / size * torch.arange(size // 2 + 1, dtype=torch.float64, device="cpu")
    return hann.float(), torch.stack([angles.cos(), angles.sin()]).float()


def _power_of_two(length: int) -> int:
    """The smallest that is no smaller."""
    return 1 << (length - 1).bit_length()


def _fake_frames(
    audio: Tensor,
    mel: Tensor,
    dct: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    window: int,
    hop: int,
    first: int,
    squared: bool,
    offset: float,
) -> Tensor:
    return mean.new_empty(1 + (audio.shape[1] - window) // hop, audio.shape[0], len(mean))


_operations.impl("log_mel_frames", _frames, "CPU")
torch.library.register_fake("compressnet::log_mel_frames", _fake_frames, lib=_operations)


@register_flop_formula(torch.ops.compressnet.log_mel_frames)
def _flops(
    audio: list[int],
    mel: list[int],
    dct: list[int] | None,
    mean: list[int],
    scale: list[int],
    window: int,
    hop: int,
    *_: object,
    **__: object,
) -> int:
    frames = audio[0] * (1 + (audio[1] - window) // hop)
    transform = 0 if dct is None else dct[0] * dct[1]
    return 2 * frames * (2 * (window // 2) * mel[0] + mel[0] * mel[1] + transform)
