"""Non-local image dehazing: how far each pixel is moved along the line from its colour to that of the haze.

D. Berman, T. Treibitz, S. Avidan: Non-Local Image Dehazing. CVPR 2016. Written from the equations.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from compressnet.bounds import three
from compressnet.operators import air_light as haze
from compressnet.operators.grid_system import GridSystem, Real, Solver, strips
from compressnet.operators.protocol import Pixels, check_arguments, check_colour, luminance

_DIRECTIONS = 1000
_LEAST = 0.1  # transmission
_LEFT = 1.06  # 6 % of the haze stay, for depth
_SMOOTHNESS = 0.1
_EPS = 1e-5
_STRETCH = (0.005, 0.995)
_OWN = 0.2  # part of a channel's own limits in those of its stretch; the rest is common

# Of one channel. Nearer to 0 the picture divided by it says nothing.
Air = Annotated[float, Field(ge=0.01, le=1, strict=True)]
AirLight = (
    Literal["haze_lines"] | Annotated[tuple[Air, Air, Air], Field(strict=False), BeforeValidator(three)]
)
Gamma = Annotated[float, Field(ge=0.2, le=5)]


class NonLocal:
    """Remove haze, with few colours behind it: image = J t + A (1 - t) (settings not confirmed).

    Pixels are grouped by their direction from A; t is the distance from A over the largest one of the group,
    smoothed along the picture where groups are small or narrow. 6 % of the haze stay, and the contrast is
    stretched. As in the authors' code the top row counts as the farthest; unlike there the 1,000 directions
    are a Fibonacci lattice.

    Not confirmed: the output of the network released for arXiv 1709.00643 is 31.9 dB away, with an air light
    picked by hand.

    Args:
        air_light: A: `haze_lines`, the colour at which most lines of colours end; or red, green and blue,
            each from 0.01 to 1.
        gamma: the exponent that makes the image linear; 1 leaves it as it is.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(self, air_light: AirLight = "haze_lines", gamma: Gamma = 1.0) -> None:
        check_arguments(self, "non_local", air_light=air_light, gamma=gamma)
        self.air_light = air_light if isinstance(air_light, str) else tuple(air_light)
        self.gamma = gamma

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, 3) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_colour(image, "non_local")
        linear = np.clip(image.astype(np.float64), 0, 1) ** self.gamma
        air = haze.air_light(linear) if isinstance(self.air_light, str) else np.array(self.air_light)
        thickness = transmission(linear, air)[..., None]
        clear = linear - (1 - _LEFT * thickness) * air
        clear /= np.maximum(thickness, _LEAST)
        clear = np.clip(clear, 0, 1) ** (1 / self.gamma)
        return _stretched(clear).astype(image.dtype)


def transmission(image: Real, air: Real, solver: Solver = "auto") -> Real:
    """Regularised transmission (H, W) of a linear image (H, W, 3) in [0, 1] in the air light (3,)."""
    estimate, reliability = _by_haze_lines(image, air)
    np.maximum(estimate, 1 - (image / air).min(axis=2), out=estimate)
    reliability -= reliability.min()
    reliability /= reliability.max() + _EPS
    # The top row is the boundary: where it knows little, the least transmission of the column.
    vague = reliability[0] < 0.6
    estimate[0, vague] = estimate.min(axis=0)[vague]
    reliability[0, vague] = 0.8
    gray = luminance(image)
    horizontal, vertical = (_SMOOTHNESS / (np.diff(gray, axis=axis) ** 2 + _EPS) for axis in (1, 0))
    system = GridSystem(horizontal, vertical, solver, data=reliability)
    return system.solve(reliability * estimate, start=estimate)


def _by_haze_lines(image: Real, air: Real) -> tuple[Real, Real]:
    """Estimate of the transmission, and how reliable it is, both (H, W)."""
    radius, line = _spherical(image, air)
    count = np.bincount(line, minlength=_DIRECTIONS)
    largest = np.zeros(_DIRECTIONS)
    np.maximum.at(largest, line, radius)
    mean = np.bincount(line, radius, _DIRECTIONS) / np.maximum(count, 1)
    spread = np.bincount(line, (radius - mean[line]) ** 2, _DIRECTIONS)
    deviation = np.sqrt(spread / np.maximum(count - 1, 1))
    deviation /= max(deviation.max(), np.finfo(np.float64).tiny)
    trust = np.minimum(1, count / 50) * np.minimum(1, 3 * np.maximum(0.001, deviation - 0.1))
    longest = np.where(largest > 0, largest, 1)[line]  # 1: a pixel of the air light's colour is all haze
    estimate = np.clip(radius / longest, _LEAST, 1)
    return estimate.reshape(image.shape[:2]), trust[line].reshape(image.shape[:2])


def _spherical(image: Real, air: Real) -> tuple[Real, NDArray[np.int64]]:
    """Each pixel's distance from the air light, and the number of the nearest direction: (H * W,)."""
    from scipy.spatial import KDTree  # here: it takes a while to import

    tree = KDTree(_directions())
    height, width = image.shape[:2]
    radius, line = np.empty((height, width)), np.empty((height, width), dtype=np.int64)
    for top, bottom in strips(height, width):
        offset = image[top:bottom] - air
        length = np.sqrt(np.square(offset).sum(axis=2))
        offset /= np.where(length > 0, length, 1)[..., None]
        radius[top:bottom] = length
        line[top:bottom] = tree.query(offset)[1]
    return radius.ravel(), line.ravel()


def _directions() -> Real:
    """Points (1000, 3) of the unit sphere, evenly spaced: a Fibonacci lattice."""
    number = np.arange(_DIRECTIONS)
    z = 1 - (2 * number + 1) / _DIRECTIONS
    angle = number * (math.pi * (3 - math.sqrt(5)))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _stretched(image: Real) -> Real:
    """To [0, 1], then each channel linearly from near its percentiles; what has one value stays."""
    low, high = image.min(), image.max()
    if not low < high:
        return image
    image = (image - low) / (high - low)
    bottom, top = np.quantile(image.reshape(-1, image.shape[2]), _STRETCH, axis=0)
    top = np.maximum(top, 0.2)
    top = _OWN * top + (1 - _OWN) * np.maximum(top, top.mean())
    bottom = _OWN * bottom + (1 - _OWN) * np.minimum(bottom, bottom.mean())
    return np.clip((image - bottom) / np.where(bottom < top, top - bottom, 1), 0, 1)
