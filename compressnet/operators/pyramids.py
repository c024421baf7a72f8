"""Gaussian and Laplacian pyramids of a plane.

P. Burt, E. Adelson: The Laplacian Pyramid as a Compact Image Code. IEEE Trans. Communications 31, 1983:
the filter .05 .25 .4 .25 .05 (a = 0.4). At the borders each sum is divided by that of the weights within the
picture: constants stay constants, in both directions.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.floating[Any]]

_CENTRE, _NEXT, _FAR = 0.4, 0.25, 0.05


def levels_for(height: int, width: int) -> int:
    """How many levels the local Laplacian filter's authors give a picture: the last has a side of 2 to 6."""
    return math.ceil(math.log(min(height, width)) - math.log(2)) + 2


def downsample(plane: Real) -> Real:
    """(H, W) filtered, every second row and column: (ceil(H / 2), ceil(W / 2))."""
    return _halved(_halved(plane, 0), 1)


def upsample(plane: Real, shape: tuple[int, ...]) -> Real:
    """Its opposite: to `shape` (H, W), of which `plane` has half the rows and columns, rounded up."""
    return _doubled(_doubled(plane, 0, shape[0]), 1, shape[1])


def gaussian_pyramid(plane: Real, levels: int) -> list[Real]:
    """The plane, and `levels` - 1 smaller ones; the first is `plane` itself."""
    pyramid = [plane]
    for _ in range(levels - 1):
        pyramid.append(downsample(pyramid[-1]))
    return pyramid


def laplacian_pyramid(plane: Real, levels: int) -> list[Real]:
    """What each level has over the next one, and the last level of the Gaussian pyramid."""
    return differences(gaussian_pyramid(plane, levels))


def differences(gaussian: list[Real]) -> list[Real]:
    """The Laplacian pyramid of a Gaussian one."""
    finer = [one - upsample(coarser, one.shape) for one, coarser in pairwise(gaussian)]
    return [*finer, gaussian[-1]]


def collapse(pyramid: list[Real]) -> Real:
    """The plane that a Laplacian pyramid is of."""
    plane = pyramid[-1]
    for level in reversed(pyramid[:-1]):
        plane = upsample(plane, level.shape) + level
    return plane


def _halved(plane: Real, axis: int) -> Real:
    result = _filtered_half(np.moveaxis(plane, axis, 0))
    weights = _filtered_half(np.ones(plane.shape[axis]))
    result /= weights[:, None]
    return np.moveaxis(result, 0, axis)


def _filtered_half(values: Real) -> Real:
    """The filter at every second place of the first axis; nothing lies beyond the ends."""
    even, odd = values[::2], values[1::2]
    result = _CENTRE * even
    result[: len(odd)] += _NEXT * odd
    result[1:] += _NEXT * odd[: len(even) - 1]
    result[:-1] += _FAR * even[1:]
    result[1:] += _FAR * even[:-1]
    return result


def _doubled(plane: Real, axis: int, length: int) -> Real:
    result = _filtered_double(np.moveaxis(plane, axis, 0), length)
    weights = _filtered_double(np.ones(plane.shape[axis]), length)
    result /= weights[:, None]
    return np.moveaxis(result, 0, axis)


def _filtered_double(values: Real, length: int) -> Real:
    """The filter over `values` at the even places of the first axis and zeros between."""
    result = np.empty((length, *values.shape[1:]), dtype=values.dtype)
    even, odd = result[::2], result[1::2]
    np.multiply(values, _CENTRE, out=even)
    even[:-1] += _FAR * values[1:]
    even[1:] += _FAR * values[:-1]
    np.multiply(values[: len(odd)], _NEXT, out=odd)
    between = len(values) - 1  # an odd place at the end has one neighbour
    odd[:between] += _NEXT * values[1:]
    return result
