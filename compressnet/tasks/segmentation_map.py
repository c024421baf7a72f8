"""What `apply` makes of a photograph: its label map, drawn or as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from compressnet.data.label_classes import IGNORED, LabelClasses
from compressnet.errors import UsageError, named
from compressnet.registry import suggestion
from compressnet.tasks.segmentation_pictures import overlay, palette, with_legend

Output = Literal["overlay", "labels", "label_ids", "mask"]


@dataclass(frozen=True)
class LabelMap:
    """The classes of a photograph's pixels.

    Attributes:
        image: uint8 (3, H, W), upright.
        labels: uint8 (H, W): outputs, 255 where "ignored" was found.
        only: numbers of the outputs that are drawn; the others are left out.
    """

    image: Tensor
    labels: Tensor
    classes: LabelClasses
    output: Output
    only: Sequence[int]
    opacity: float
    legend: bool
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    printed: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def write(self, path: Path) -> list[str]:
        self._drawn().save(path, "PNG")
        return []

    def rows(self) -> None:
        return None

    def as_json(self) -> dict[str, Any]:
        """The share of the picture that every class has, 0 to 1, the largest first."""
        counts = np.bincount(self.labels.numpy().reshape(-1), minlength=256)
        return {"shares": shares(counts, self.classes, self.only)}

    def _drawn(self) -> PILImage.Image:
        shown = torch.isin(self.labels, torch.tensor(list(self.only), dtype=torch.uint8))
        if self.output == "mask":
            return PILImage.fromarray(np.where(shown.numpy(), 255, 0).astype(np.uint8))
        if self.output == "overlay":
            pixels = overlay(self.image, self.labels, self.classes, self.opacity, shown)
            there = [number for number in torch.unique(self.labels[shown]).tolist() if number != IGNORED]
            return PILImage.fromarray(with_legend(pixels, self.classes, there) if self.legend else pixels)
        if self.output == "label_ids":
            values = np.full(256, self._nothing(), np.uint8)
            values[list(self.only)] = [self.classes.ids[number] for number in self.only]
            return PILImage.fromarray(values[self.labels.numpy()])
        kept = torch.where(shown, self.labels, IGNORED)
        picture = PILImage.fromarray(kept.numpy()).convert("P")
        picture.frombytes(kept.numpy().tobytes())
        picture.putpalette(palette(self.classes).tobytes())
        return picture

    def _nothing(self) -> int:
        """The id of what is none of the classes."""
        values = (*self.classes.ignored_ids, 0, IGNORED, *range(256))  # one is free: outputs are 254 at most
        return next(value for value in values if value not in self.classes.ids)


def shares(counts: np.ndarray, classes: LabelClasses, only: Sequence[int]) -> dict[str, float]:
    """What part of all pixels some classes have, 0 to 1, the largest first; absent ones left out.

    Args:
        counts: of every value of a map, (256,).
        only: numbers of the outputs that are told.
    """
    parts = {classes.names[number]: int(counts[number]) / max(int(counts.sum()), 1) for number in only}
    return {name: round(part, 6) for name, part in sorted(parts.items(), key=lambda entry: -entry[1]) if part}


def check_only(only: Sequence[str] | None, classes: LabelClasses) -> list[int]:
    """The numbers of the outputs that are asked for.

    Raises:
        UsageError: there is no such class.
    """
    if only is None:
        return list(range(len(classes)))
    for name in only:
        if name not in classes.names:
            raise UsageError(f"only: '{named(name)}' is no class{suggestion(name, classes.names)}")
    return [classes.names.index(name) for name in only]
