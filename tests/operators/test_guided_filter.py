from __future__ import annotations

import numpy as np
import pytest

from compressnet.operators.guided_filter import box_mean, guided_filter


def _windows(height: int, width: int, radius: int) -> list[tuple[slice, slice]]:
    return [
        (slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1))
        for y in range(height)
        for x in range(width)
    ]


def _direct(guide: np.ndarray, target: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """In every window a ridge regression of the target on the guide; a pixel is the mean of what they say."""
    height, width = target.shape
    guide = guide.reshape(height, width, -1)
    total, count = np.zeros(target.shape), np.zeros(target.shape)
    for window in _windows(height, width, radius):
        x, y = guide[window].reshape(-1, guide.shape[2]), target[window].ravel()
        deviation = x - x.mean(axis=0)
        covariance = deviation.T @ deviation / len(x) + eps * np.eye(x.shape[1])
        slope = np.linalg.solve(covariance, deviation.T @ (y - y.mean()) / len(x))
        total[window] += guide[window] @ slope + (y.mean() - x.mean(axis=0) @ slope)
        count[window] += 1
    return total / count


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (9, 13)])
@pytest.mark.parametrize("radius", [1, 2, 20])
@pytest.mark.parametrize("eps", [1e-4, 0.1])
@pytest.mark.parametrize("colour", [False, True])
def test_equals_a_regression_in_every_window(
    shape: tuple[int, int], radius: int, eps: float, colour: bool
) -> None:
    random = np.random.default_rng(0)
    guide = random.random((*shape, 3) if colour else shape)
    target = random.random(shape)
    result = guided_filter(guide, target, radius, eps)
    np.testing.assert_allclose(result, _direct(guide, target, radius, eps), rtol=0, atol=1e-9)


def test_the_colour_guide_sees_edges_that_have_no_gray() -> None:
    guide = np.full((20, 20, 3), 0.5)
    guide[:, 10:] += [0.3, -0.3 * 0.299 / 0.587, 0]
    target = np.repeat(np.arange(20)[None] >= 10, 20, axis=0).astype(float)
    by_colour = guided_filter(guide, target, 3, 1e-5)
    by_gray = guided_filter(guide @ [0.299, 0.587, 0.114], target, 3, 1e-5)
    assert np.abs(by_colour - target).max() < 0.01
    assert np.abs(by_gray - target).max() > 0.2


def test_keeps_constants_and_its_inputs() -> None:
    guide = np.random.default_rng(0).random((11, 7))
    target = np.full((11, 7), 0.3, np.float32)
    before = guide.copy()
    np.testing.assert_allclose(guided_filter(guide, target, 2, 1e-3), 0.3, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(guide, before)


@pytest.mark.parametrize("radius", [1, 3, 50])
def test_box_means_are_of_the_pixels_within(radius: int) -> None:
    plane = np.random.default_rng(0).random((9, 12))
    expected = [plane[window].mean() for window in _windows(9, 12, radius)]
    np.testing.assert_allclose(box_mean(plane, radius).ravel(), expected, rtol=0, atol=1e-12)


def test_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"guide is \(H, W\)"):
        guided_filter(np.zeros((4, 5)), np.zeros((5, 4)), 1, 0.1)
    with pytest.raises(ValueError, match=r"guide is \(H, W\)"):
        guided_filter(np.zeros((4, 5, 3)), np.zeros((4, 5, 3)), 1, 0.1)
