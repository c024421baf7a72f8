from __future__ import annotations

import numpy as np
import pytest

from compressnet.operators import pyramids

FILTER = {-2: 0.05, -1: 0.25, 0: 0.4, 1: 0.25, 2: 0.05}
SHAPES = [(1, 1), (1, 2), (2, 1), (1, 9), (2, 2), (3, 4), (7, 8), (16, 5)]


def _matrix(length: int) -> np.ndarray:
    """The filter as a matrix; what it has beyond the ends is left out."""
    places = range(length)
    return np.array([[FILTER.get(column - row, 0.0) for column in places] for row in places])


def _filtered(plane: np.ndarray) -> np.ndarray:
    return _matrix(plane.shape[0]) @ plane @ _matrix(plane.shape[1]).T


@pytest.mark.parametrize("shape", SHAPES)
def test_downsampling_is_a_weighted_mean_at_every_second_pixel(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random(shape)
    expected = (_filtered(plane) / _filtered(np.ones(shape)))[::2, ::2]
    np.testing.assert_allclose(pyramids.downsample(plane), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_upsampling_is_a_weighted_mean_of_what_is_there(shape: tuple[int, int]) -> None:
    spread, weights = np.zeros(shape), np.zeros(shape)
    plane = np.random.default_rng(0).random(spread[::2, ::2].shape)
    spread[::2, ::2], weights[::2, ::2] = plane, 1
    expected = _filtered(spread) / _filtered(weights)
    np.testing.assert_allclose(pyramids.upsample(plane, shape), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_laplacian_pyramid_holds_the_picture(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random(shape)
    levels = pyramids.levels_for(*shape)
    assert levels >= 2
    pyramid = pyramids.laplacian_pyramid(plane, levels)
    assert len(pyramid) == levels
    np.testing.assert_allclose(pyramids.collapse(pyramid), plane, rtol=0, atol=1e-14)


def test_a_constant_has_no_detail() -> None:
    *details, rest = pyramids.laplacian_pyramid(np.full((13, 22), 0.7), 5)
    assert all(np.abs(level).max() < 1e-14 for level in details)
    np.testing.assert_allclose(rest, 0.7, rtol=0, atol=1e-14)


def test_the_last_level_is_small() -> None:
    assert pyramids.levels_for(96, 200) == 6
    assert pyramids.levels_for(1080, 1920) == 9
    smallest = pyramids.gaussian_pyramid(np.zeros((96, 200)), 6)[-1]
    assert smallest.shape == (3, 7)
