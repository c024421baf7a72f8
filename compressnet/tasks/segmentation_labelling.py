"""From photographs to label maps: what `apply`, `eval` and validation have in common.

    photographs uint8 (B, 3, H, W)
      |  short side scaled to that of training           (B, 3, h, w) in [0, 1], channels_last
      |  network, folded                                 scores (B, K, h, w)
      |  enlarged, best output of each pixel, in one     uint8 (B, H, W), 255: the output "ignored"

Pictures mirrored and of other scales are averaged in probabilities, at the photograph's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.data.label_classes import IGNORED
from compressnet.data.limits import MAX_PIXELS
from compressnet.errors import CompressnetError
from compressnet.layers.folded import in_channels_last
from compressnet.models.seg_labels import best
from compressnet.models.segmentation import finite_scores

Upsample = Literal["logits", "nearest"]


class Labeller:
    """A network that labels photographs; what is changed about it for speed is a copy.

    Args:
        short_side: to which photographs are scaled; None: they stay as they are.
        ignored: the output that stands for "ignored", if there is one.
        upsample: scores to the photograph's size; or the labels, by the nearest, as the authors of
            ShuffleSeg measured.
        flip: average with the mirrored photograph.
        scales: factors of `short_side`, to average over.
        dtype: arithmetic of the network.
    """

    def __init__(
        self,
        model: nn.Module,
        short_side: int | None,
        ignored: int | None = None,
        upsample: Upsample = "logits",
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.network, self._short_side, self._ignored = in_channels_last(model), short_side, ignored
        self._upsample, self._flip, self._scales, self._dtype = upsample, flip, tuple(scales), dtype

    @torch.inference_mode()
    def __call__(self, photographs: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to the best outputs, uint8 (B, H, W).

        Raises:
            NotFinite: the scores are not.
        """
        size = photographs.shape[2], photographs.shape[3]
        if not self._flip and len(self._scales) == 1:
            x = self._input(photographs, self._scales[0])
            if self._upsample == "nearest":
                return self._mapped(enlarged(self._run(best, x), size))
            return self._mapped(self._run(best, x, size))
        total: Tensor | None = None
        for factor in self._scales:
            for mirrored in (False, True)[: 1 + self._flip]:
                given = photographs.flip(3) if mirrored else photographs
                p = _at(self._scores(self._input(given, factor)).softmax(1), size)
                p = p.flip(3) if mirrored else p
                total = p if total is None else total.add_(p)
        assert total is not None
        return self._mapped(total.argmax(1).to(torch.uint8))

    def _input(self, photographs: Tensor, factor: float) -> Tensor:
        x = at_side(photographs, self._short_side, factor).float().div_(255)
        return x.contiguous(memory_format=torch.channels_last)

    def _scores(self, x: Tensor) -> Tensor:
        return finite_scores(self._run(nn.Module.__call__, x))

    def _run(self, function: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
        is_half = self._dtype == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if is_half else nullcontext():
            return function(self.network, x, *rest)

    def _mapped(self, outputs: Tensor) -> Tensor:
        return outputs if self._ignored is None else outputs.masked_fill_(outputs == self._ignored, IGNORED)


def at_side(photographs: Tensor, short_side: int | None, factor: float = 1.0) -> Tensor:
    """uint8 (B, 3, H, W) scaled, as training scales it: antialiased where it is made smaller.

    Raises:
        CompressnetError: it would become larger than any photograph that is read.
    """
    height, width = photographs.shape[2:]
    scale = factor * (1.0 if short_side is None else short_side / min(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    if size == (height, width):
        return photographs
    if size[0] * size[1] > MAX_PIXELS:
        raise CompressnetError(
            f"{width}x{height} pixels would be scaled to {size[1]:,}x{size[0]:,}: take size=native"
        )
    return F.interpolate(photographs, size, mode="bilinear", antialias=True)


def enlarged(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels uint8 (B, h, w) to (B, H, W), each of the nearest."""
    return F.interpolate(labels[:, None], size, mode="nearest")[:, 0]


def _at(scores: Tensor, size: tuple[int, int]) -> Tensor:
    if scores.shape[2:] == size:
        return scores
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)
