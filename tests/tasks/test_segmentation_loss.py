"""What segmentation learns from: which pixels count, and how much."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from compressnet.tasks.segmentation_loss import Kind, Weights, class_weights, dice, pixel_loss

PIXELS = [700, 200, 100, 1000]  # three classes, and as many ignored pixels


def test_enet_weights_follow_from_shares() -> None:
    weights = class_weights(PIXELS, "enet", ignore_output=False)
    assert weights is not None
    plain = 1 / np.log(1.02 + np.array([0.7, 0.2, 0.1]))
    np.testing.assert_allclose(weights, plain / (plain @ [0.7, 0.2, 0.1]), rtol=1e-6)
    root = class_weights(PIXELS, "enet_sqrt", ignore_output=False)
    assert root is not None
    np.testing.assert_allclose(root / root[0], np.sqrt(plain / plain[0]), rtol=1e-6)


def test_released_weights_count_what_is_ignored() -> None:
    weights = class_weights(PIXELS, "released", ignore_output=True)
    assert weights is not None
    np.testing.assert_allclose(weights, 1 / np.log(1.02 + np.array([0.35, 0.1, 0.05, 0.5])), rtol=1e-6)
    without = class_weights(PIXELS, "released", ignore_output=False)
    assert without is not None
    np.testing.assert_allclose(without, weights[:3])


@pytest.mark.parametrize("kind", ["none", "enet", "enet_sqrt", "released"])
def test_classes_that_never_occur_have_finite_weights(kind: Weights) -> None:
    for pixels in ([0, 0, 0], [5, 0, 0], [0, 0, 9]):
        weights = class_weights(pixels, kind, ignore_output=False)
        assert weights is None or bool(weights.isfinite().all())


def made(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, 3, 8, 8, generator=random, requires_grad=True)
    labels = torch.randint(0, 3, (2, 8, 8), generator=random)
    labels[0, :3] = 255
    return scores, labels


def test_plain_is_the_mean_over_pixels_that_count() -> None:
    scores, labels = made()
    mean, count = pixel_loss(scores, labels, None, "plain")
    assert count == 2 * 64 - 24
    torch.testing.assert_close(mean, F.cross_entropy(scores, labels, ignore_index=255))


def test_bootstrap_takes_the_worst_quarter_of_each_picture() -> None:
    scores, labels = made()
    mean, count = pixel_loss(scores, labels, None, "bootstrap")
    losses = F.cross_entropy(scores, labels, ignore_index=255, reduction="none").flatten(1)
    assert count == 32
    torch.testing.assert_close(mean, losses.topk(16, dim=1).values.mean())


def test_ohem_leaves_out_what_is_sure() -> None:
    _, labels = made()
    with torch.no_grad():
        sure = F.one_hot(torch.where(labels == 255, 0, labels), 3).movedim(-1, 1) * 20.0
        sure[1, :, 0, 0] = torch.tensor([0.0, 0.0, 0.0])
    mean, count = pixel_loss(sure.requires_grad_(), labels, None, "ohem")
    assert count >= 2 * 64 // 16  # a sixteenth of the pixels at least
    assert mean.item() == pytest.approx(math.log(3) / count, rel=1e-3)
    unsure, all_of_them = pixel_loss(torch.zeros(2, 3, 8, 8), labels, None, "ohem")
    assert all_of_them == 2 * 64 - 24
    assert unsure.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("kind", ["plain", "bootstrap", "ohem"])
def test_all_ignored_is_nothing_to_learn(kind: Kind) -> None:
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    mean, count = pixel_loss(scores, labels, torch.ones(3), kind)
    (mean + dice(scores, labels)).backward()
    assert (mean.item(), count) == (0, 0)
    assert scores.grad is not None
    assert bool((scores.grad == 0).all())


def test_dice_is_the_overlap() -> None:
    labels = torch.tensor([[[0, 0, 1, 255]]])
    right = F.one_hot(torch.tensor([[[0, 0, 1, 2]]]), 3).movedim(-1, 1) * 100.0
    assert dice(right, labels).item() == pytest.approx(0, abs=1e-6)
    wrong = right.roll(1, dims=1)
    assert dice(wrong, labels).item() == pytest.approx(1, abs=1e-6)
