"""MSE, PSNR and SSIM of images, each beside the figure of doing nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor

from compressnet.data.image_pair import ImageBatch

SSIM_WINDOW = 11  # side of the Gaussian window; a smaller image has no SSIM


class ImageMetrics:
    """Means of per-image figures on uint8 RGB; `*_nothing` compares the input itself with the target.

    MSE is in units of 255^2 = 1 level squared. PSNR is the mean of per-image PSNR, not the PSNR of the mean
    error. SSIM is that of Wang et al. 2004 (Gaussian window of 11, sigma 1.5), mean over channels; an image
    smaller than the window is left out of its mean.

    Where samples are of groups (operators, strengths of a dial), rows are the means of groups, and `details`
    has those of samples.
    """

    def __init__(self) -> None:
        self._rows: dict[int, tuple[str, str, dict[str, float]]] = {}  # by index: name, group, figures

    def update(self, output: Tensor, batch: ImageBatch) -> None:
        """Add a batch.

        Args:
            output: uint8 (B, 3, H, W).
            batch: with inputs and targets of the same shape.
        """
        groups = batch.groups or ("",) * len(batch.names)
        own = output, batch.inputs, batch.targets, batch.names, batch.indices, groups
        for one, source, target, name, index, group in zip(*own, strict=True):
            figures = compare(one, target)
            nothing = {f"{key}_nothing": value for key, value in compare(source, target).items()}
            self._rows[index] = (name, group, figures | nothing)

    def state(self) -> Any:
        return self._rows

    def merge(self, states: list[Any]) -> None:
        self._rows = {index: row for state in states for index, row in state.items()}

    def compute(self) -> dict[str, float]:
        rows = [row for _, row in sorted(self._rows.items())]
        groups = dict.fromkeys(group for _, group, _ in rows if group)
        shown = [(name, figures) for name, _, figures in rows]
        if groups:
            shown = [(group, _means(one for _, own, one in rows if own == group)) for group in groups]
        single = {f"{key}/{name}": value for name, figures in shown for key, value in figures.items()}
        return _means(figures for _, _, figures in rows) | single

    def details(self) -> dict[str, Any]:
        rows = [row for _, row in sorted(self._rows.items())]
        return {"samples": {name: figures for name, _, figures in rows}} if rows and rows[0][1] else {}

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        yield from ()


def _means(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Of each figure, over those that have it."""
    found: dict[str, list[float]] = {}
    for figures in rows:
        for key, value in figures.items():
            found.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in found.items()}


def compare(image: Tensor, target: Tensor) -> dict[str, float]:
    """MSE (levels squared), PSNR (dB; infinite when equal) and, where it fits, SSIM of uint8 (3, H, W)."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    error = (image.double() - target.double()).square().mean().item()
    figures = {"mse": error, "psnr": 10 * math.log10(255**2 / error) if error else math.inf}
    if min(image.shape[-2:]) >= SSIM_WINDOW:
        a, b = (tensor[None].to(torch.float32) / 255 for tensor in (image, target))
        figures["ssim"] = float(torch.as_tensor(ssim(a, b, data_range=1.0)))
    return figures
