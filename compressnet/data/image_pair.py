"""A picture and the picture it is to become: the sample that both photographs and paired folders give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from compressnet.errors import CompressnetError


class ImagePair(NamedTuple):
    """One sample.

    Attributes:
        input: uint8 (3, H, W) RGB.
        target: uint8 (3, H, W) RGB; the very tensor of the input where a photograph is its own target.
        name: which picture, for reports: unique in its split, no absolute path.
        index: its position in the split.
        condition: float32 (K,), what a network of several operators or with a dial is told; None: nothing.
        group: what it is measured together with, as the name of its operator; empty: with all.
    """

    input: torch.Tensor
    target: torch.Tensor
    name: str
    index: int  # type: ignore[assignment]  # shadows tuple.index
    condition: torch.Tensor | None = None
    group: str = ""


class ImageBatch(NamedTuple):
    """Samples of one size, stacked: uint8 (B, 3, H, W) inputs and targets, one tensor if theirs are.

    Attributes:
        conditions: (B, K); None: the network is told nothing.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    names: list[str]
    indices: list[int]
    conditions: torch.Tensor | None = None
    groups: tuple[str, ...] = ()


def image_pair(
    input_: np.ndarray,
    target: np.ndarray,
    name: str,
    index: int,
    condition: Sequence[float] | None = None,
    group: str = "",
) -> ImagePair:
    """A sample from two uint8 (H, W, 3) arrays of one size."""
    planes = _planes(input_)
    numbers = None if condition is None else torch.tensor(condition, dtype=torch.float32)
    return ImagePair(planes, planes if target is input_ else _planes(target), name, index, numbers, group)


def _planes(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def collate_pairs(samples: list[ImagePair]) -> ImageBatch:
    """Stack samples.

    Raises:
        CompressnetError: their sizes differ.
    """
    sizes = {tuple(sample.input.shape[1:]) for sample in samples}
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)[:3])
        more = ", ..." if len(sizes) > 3 else ""
        raise CompressnetError(
            f"pictures of different sizes ({shown}{more}) cannot share a micro-batch: "
            "take whole images one at a time (train.batch = train.accumulate x processes) or set data.crop"
        )
    inputs = torch.stack([sample.input for sample in samples])
    alone = all(sample.target is sample.input for sample in samples)
    conditions = [sample.condition for sample in samples if sample.condition is not None]
    return ImageBatch(
        inputs,
        inputs if alone else torch.stack([sample.target for sample in samples]),
        [sample.name for sample in samples],
        [sample.index for sample in samples],
        torch.stack(conditions) if conditions else None,
        tuple(sample.group for sample in samples),
    )
