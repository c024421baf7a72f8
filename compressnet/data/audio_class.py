"""A clip of sound and its class: the sample of keyword spotting.

clip -> float32 (samples,) in [-1, 1]      all clips of a set have one length
`_silence_` and `_unknown_` are classes like others, with names that no word has
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from compressnet.errors import CompressnetError

SILENCE, UNKNOWN = "_silence_", "_unknown_"


class AudioClass(NamedTuple):
    """One sample.

    Attributes:
        samples: float32 (samples,) in [-1, 1].
        label: number of its class.
        name: which clip, for reports: unique in its split, no absolute path.
    """

    samples: Tensor
    label: int
    name: str


class AudioClassBatch(NamedTuple):
    """Clips of one length, stacked: float32 (B, samples) and int64 (B,).

    Attributes:
        carried: they follow each other in one stream, whose state goes on from batch to batch.
    """

    audio: Tensor
    labels: Tensor
    names: list[str]
    carried: bool = False


def collate_audio_classes(samples: list[AudioClass]) -> AudioClassBatch:
    """Stack clips of one length."""
    audio, labels, names = zip(*samples, strict=True)
    return AudioClassBatch(torch.stack(audio), torch.tensor(labels), list(names))


def check_format(sample_rate: int, clip_ms: int, assets: Mapping[str, Any]) -> None:
    """Refuse clips of another rate or length than those that stored assets name.

    Raises:
        CompressnetError: they are others: which key to set.
    """
    for key, value in (("sample_rate", sample_rate), ("clip_ms", clip_ms)):
        if key in assets and assets[key] != value:
            raise CompressnetError(
                f"data.{key} is {value:,}; the network was trained with {assets[key]:,.10g}: "
                f"set data.{key}={assets[key]:.10g}"
            )


class Spoken(Protocol):
    """A split of clips, as what mixes long recordings of them wants it.

    Attributes:
        classes: the names of the classes.
        sample_rate: samples a second.
        clip_ms: the length of every clip.
    """

    classes: list[str]
    sample_rate: int
    clip_ms: int

    def __len__(self) -> int: ...

    def label(self, index: int) -> int:
        """The number of the class of a clip."""

    def clip(self, index: int) -> np.ndarray:
        """A clip as it was recorded, without noise or shift: float32 (samples,)."""

    def noises(self) -> list[np.ndarray]:
        """Recordings of noise, int16 (N,) each, of a clip's length at least.

        Raises:
            CompressnetError: there are none.
        """
