"""Segmentation of clips: every frame is labelled as a photograph is, and drawn over or in its place.

frame uint8 (H, W, 3) -> `Labeller` -> labels (H, W) -> overlay | colours | mask, uint8
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from compressnet.data.label_classes import LabelClasses
from compressnet.errors import UsageError
from compressnet.tasks.segmentation_labelling import Labeller
from compressnet.tasks.segmentation_map import Output, shares
from compressnet.tasks.segmentation_pictures import palette, with_legend


def refuse_clip_output(output: object) -> None:
    """Refuse what a film would blur.

    Raises:
        UsageError: the output is values of classes.
    """
    if output == "label_ids":
        raise UsageError(
            "output=label_ids: a film does not keep values: of clips take overlay, labels or mask"
        )


class FrameDrawing:
    """Label frames and draw what was found.

    Args:
        only: numbers of the outputs that are drawn; the others are left out.
        opacity: of the colours of an overlay.
        legend: below an overlay: of all that is drawn, since pictures of a clip have one size.
    """

    def __init__(
        self,
        labeller: Labeller,
        classes: LabelClasses,
        output: Output,
        only: Sequence[int],
        opacity: float,
        legend: bool,
        device: torch.device,
    ) -> None:
        self._labeller, self._classes, self._device = labeller, classes, device
        self._output, self._only, self._opacity = output, list(only), opacity
        self._legend = legend and output == "overlay"
        self._shown = np.isin(np.arange(256), self._only)
        self._colours = np.where(self._shown[:, None], palette(classes), 0)
        self._counts = np.zeros(256, np.int64)
        self._strip: np.ndarray | None = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to (h, W, 3), h with the legend; of a mask (H, W).

        Raises:
            NotFinite: the network's output is not.
        """
        photograph = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self._device)
        labels = self._labeller(photograph)[0].cpu().numpy()
        self._counts += np.bincount(labels.reshape(-1), minlength=256)
        if self._output == "mask":
            return np.where(self._shown, np.uint8(255), np.uint8(0))[labels]
        if self._output == "labels":
            return self._colours[labels]
        mixed = self._mixed(pixels, labels)
        if not self._legend:
            return mixed
        if self._strip is None:
            self._strip = with_legend(mixed[:0], self._classes, self._only)
        return np.concatenate([mixed, self._strip])

    def facts(self) -> dict[str, Any]:
        """The share of all frames that every class has, 0 to 1, the largest first."""
        return {"shares": shares(self._counts, self._classes, self._only)}

    def _mixed(self, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Colours over a frame. In small whole numbers: a film has 25 of these a second."""
        weight = np.where(self._shown, round(self._opacity * 256), 0).astype(np.uint16)  # of 256, by class
        colours = self._colours.astype(np.uint16) * weight[:, None] + 128
        below = pixels * (256 - weight)[labels][..., None]
        below += colours[labels]
        return (below >> 8).astype(np.uint8)
