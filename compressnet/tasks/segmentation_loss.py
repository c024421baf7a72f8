"""What segmentation learns from: cross-entropy over pixels, weighted by class, of all pixels or the worst.

    scores (N, K), labels (N,) of the pixels that count -> ln p of the labels -> weights -> mean
                                                        -> which pixels: all, the worst of each picture, OHEM
    scores (B, K, H, W) -> softmax -> overlap with each class (Dice)                           added, if asked

Class weights follow from p, the share of training pixels that a class has:

none        1
enet        1 / ln(1.02 + p): A. Paszke et al., ENet, arXiv:1606.02147; p of the pixels that are not ignored
enet_sqrt   its square root
released    as ENet's, as the authors of ShuffleSeg have it: p of all pixels, the ignored ones a class too

All but "released" are scaled so that their mean over training pixels is 1: the learning rate keeps its sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.data.label_classes import IGNORED

Weights = Literal["none", "enet", "enet_sqrt", "released"]
Kind = Literal["plain", "bootstrap", "ohem"]

_ENET = 1.02
_WORST = 0.25  # of the pixels of a picture: "bootstrap", as released
_SURE = 0.7  # probabilities of true classes: below, "ohem" learns
_LEAST = 1 / 16  # of the pixels: it learns from so many anyway


def class_weights(pixels: Sequence[int], kind: Weights, ignore_output: bool) -> Tensor | None:
    """Weights of the outputs, float32 (K,); None: all the same.

    Args:
        pixels: of each class in training, the ignored ones last.
        ignore_output: the last output is "ignored".
    """
    if kind == "none":
        return None
    counts = np.asarray(pixels, np.float64)
    counts = counts if ignore_output else counts[:-1]
    # Released: what is ignored counts in p even where it has no output.
    total = float(np.sum(pixels)) if kind == "released" else float(counts.sum())
    shares = counts / max(total, 1)
    weights = 1 / np.log(_ENET + shares)
    if kind == "enet_sqrt":
        weights = np.sqrt(weights)
    if kind != "released" and shares.any():
        weights /= (shares * weights).sum() / shares.sum()
    return torch.from_numpy(weights.astype(np.float32))


def pixel_loss(scores: Tensor, labels: Tensor, weights: Tensor | None, kind: Kind) -> tuple[Tensor, int]:
    """The mean over pixels, and over how many.

    Args:
        scores: float32 (B, K, H, W).
        labels: int64 (B, H, W), 255 where ignored.

    Returns:
        a scalar, 0 where all pixels are ignored; pixels that count.
    """
    weights = None if weights is None else weights.to(scores)
    if kind == "plain":
        total = F.cross_entropy(scores, labels, weights, ignore_index=IGNORED, reduction="sum")
        count = int((labels != IGNORED).sum())
        return total / max(count, 1), count
    losses = F.cross_entropy(scores, labels, weights, ignore_index=IGNORED, reduction="none")  # 0: ignored
    kept = _worst(losses) if kind == "bootstrap" else _unsure(scores, labels)
    kept = kept & (labels != IGNORED)
    count = int(kept.sum())
    return (losses * kept).sum() / max(count, 1), count


def dice(scores: Tensor, labels: Tensor) -> Tensor:
    """1 - the overlap of probabilities and labels, mean over the classes that are there: a scalar."""
    valid = labels != IGNORED
    probabilities = scores.softmax(1) * valid[:, None]
    truth = F.one_hot(torch.where(valid, labels, 0), scores.shape[1]).movedim(-1, 1) * valid[:, None]
    axes = (0, 2, 3)
    common, sizes = (probabilities * truth).sum(axes), probabilities.sum(axes) + truth.sum(axes)
    there = truth.sum(axes) > 0
    overlaps = torch.where(there, 1 - 2 * common / sizes.clamp_min(1e-6), 0)
    return overlaps.sum() / there.sum().clamp_min(1)


def _worst(losses: Tensor) -> Tensor:
    """Of each picture the quarter of its pixels that is worst, (B, H, W)."""
    rows = losses.detach().flatten(1)
    least = rows.topk(max(1, int(rows.shape[1] * _WORST)), dim=1).values[:, -1]
    return losses.detach() >= least[:, None, None]


def _unsure(scores: Tensor, labels: Tensor) -> Tensor:
    """Pixels whose true class has less than `_SURE`; a share of them all at least, (B, H, W)."""
    with torch.no_grad():
        true = scores.log_softmax(1).gather(1, torch.where(labels == IGNORED, 0, labels)[:, None])[:, 0]
        true = torch.where(labels == IGNORED, torch.inf, true)
        least = max(1, int(true.numel() * _LEAST))
        bound = true.flatten().kthvalue(least).values.clamp_min(float(np.log(_SURE)))
        return true <= bound
