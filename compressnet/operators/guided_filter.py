"""The guided filter: smooth one plane so that its edges are those of a guide.

K. He, J. Sun, X. Tang: Guided Image Filtering. ECCV 2010. Written from the equations (5, 6, 8 with a gray
guide, 14 to 16 with a colour one). Within each window the result is an affine function of the guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Real = NDArray[np.floating[Any]]


def guided_filter(guide: Real, target: Real, radius: int, eps: float) -> Real:
    """`target` (H, W), smoothed within regions of `guide`.

    The time does not depend on the radius.

    Args:
        guide: gray (H, W), or colour (H, W, 3).
        radius: of the square windows, (2 radius + 1) x (2 radius + 1) pixels, cut off at the borders.
        eps: what counts as flat: windows whose variance is far below it are averaged.

    Returns:
        float64 (H, W); it is not clipped.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if target.ndim != 2 or guide.shape not in (target.shape, (*target.shape, 3)):
        raise ValueError(
            f"the guide is (H, W) or (H, W, 3) of the target's (H, W), got {guide.shape} and {target.shape}"
        )
    guide, target = np.asarray(guide, np.float64), np.asarray(target, np.float64)
    if guide.ndim == 2:
        return _with_gray(guide, target, radius, eps)
    return _with_colour(guide, target, radius, eps)


def box_mean(plane: Real, radius: int) -> Real:
    """The mean of each window of (H, W), of its pixels within the picture; O(1) a pixel."""
    for axis, length in enumerate(plane.shape):
        reach = min(radius, length - 1)
        window = 2 * reach + 1
        plane = ndimage.uniform_filter1d(plane, window, axis=axis, mode="constant")
        place = np.arange(length)
        inside = np.minimum(place + reach, length - 1) - np.maximum(place - reach, 0) + 1
        plane *= np.expand_dims(window / inside, 1 - axis)
    return plane


def _with_gray(guide: Real, target: Real, radius: int, eps: float) -> Real:
    guide_mean, target_mean = box_mean(guide, radius), box_mean(target, radius)
    slope = box_mean(guide * target, radius)
    slope -= guide_mean * target_mean  # the covariance of guide and target
    variance = box_mean(guide * guide, radius)
    variance -= guide_mean * guide_mean
    variance += eps
    slope /= variance
    offset = target_mean - slope * guide_mean
    return box_mean(slope, radius) * guide + box_mean(offset, radius)


def _with_colour(guide: Real, target: Real, radius: int, eps: float) -> Real:
    planes = [np.ascontiguousarray(guide[..., channel]) for channel in range(3)]
    means = [box_mean(plane, radius) for plane in planes]
    target_mean = box_mean(target, radius)

    def covariance(one: int, other: int) -> Real:
        product = box_mean(planes[one] * planes[other], radius)
        product -= means[one] * means[other]
        return product

    with_target = [
        box_mean(plane * target, radius) - mean * target_mean
        for plane, mean in zip(planes, means, strict=True)
    ]
    red, green, blue = (covariance(channel, channel) + eps for channel in range(3))
    slopes = _solve(
        (red, covariance(0, 1), covariance(0, 2), green, covariance(1, 2), blue),
        with_target,
    )
    offset = target_mean
    for slope, mean in zip(slopes, means, strict=True):
        offset = offset - slope * mean
    result = box_mean(offset, radius)
    for slope, plane in zip(slopes, planes, strict=True):
        result += box_mean(slope, radius) * plane
    return result


def _solve(matrix: tuple[Real, ...], right: Sequence[Real]) -> list[Real]:
    """A symmetric 3x3 system a pixel, by its adjugate; `matrix` is its upper triangle, row by row."""
    a, b, c, d, e, f = matrix
    inverse = {
        (0, 0): d * f - e * e,
        (0, 1): c * e - b * f,
        (0, 2): b * e - c * d,
        (1, 1): a * f - c * c,
        (1, 2): b * c - a * e,
        (2, 2): a * d - b * b,
    }
    determinant = a * inverse[0, 0] + b * inverse[0, 1] + c * inverse[0, 2]
    solution: list[Real] = []
    for row in range(3):
        total = sum(inverse[min(row, k), max(row, k)] * right[k] for k in range(3))
        solution.append(np.asarray(total / determinant))
    return solution
