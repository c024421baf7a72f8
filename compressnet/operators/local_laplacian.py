"""Multiscale detail by the fast local Laplacian filter.

M. Aubry, S. Paris, S. Hasinoff, J. Kautz, F. Durand: Fast Local Laplacian Filters: Theory and Applications.
ACM Transactions on Graphics 33(5), 2014; the filter itself: S. Paris, S. Hasinoff, J. Kautz, Local Laplacian
Filters, SIGGRAPH 2011. Written from the equations. The remapping is Gaussian, as in the authors' code; there
is no tone mapping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compressnet.operators.protocol import Pixels, check_arguments, check_colour, luminance
from compressnet.operators.pyramids import (
    collapse,
    differences,
    gaussian_pyramid,
    laplacian_pyramid,
    levels_for,
)

Real = NDArray[np.floating[Any]]


class LocalLaplacian:
    """Strengthen details at all scales alike, and keep strong edges (settings not confirmed).

    The luminance is filtered; colours keep their ratio to it. Around each of `levels` gray values g the
    luminance x is remapped to x + factor (x - g) exp(-(x - g)^2 / (2 sigma^2)); every coefficient of the
    result's Laplacian pyramid is interpolated between the pyramids of the two nearest g.

    Not confirmed: the settings of arXiv 1709.00643 were not found. Of the released networks the one for ten
    operators shows about these (29.9 dB from the operator's output to its; 35 and more count as confirmed).

    Args:
        sigma: amplitude of what counts as a detail, on the [0, 1] scale; far stronger edges stay.
        factor: how much of it is added; -1 removes it.
        levels: gray values around which the luminance is remapped; more are slower and nearer to the filter
            of 2011.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        sigma: Annotated[float, Field(ge=0.01, le=10)] = 0.3,
        factor: Annotated[float, Field(ge=-1, le=10)] = 2.0,
        levels: Annotated[int, Field(ge=2, le=256)] = 10,
    ) -> None:
        check_arguments(self, "local_laplacian", sigma=sigma, factor=factor, levels=levels)
        self.sigma, self.factor, self.levels = sigma, factor, levels

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, 3) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_colour(image, "local_laplacian")
        before = luminance(image)
        after = local_laplacian(before, self.detail, self.levels)
        lit = before > np.finfo(np.float32).tiny
        scale = np.divide(after, before, out=np.zeros_like(before), where=lit)
        black = np.where(lit, 0, after)  # has no colour to keep
        result = np.empty_like(image)
        for channel in range(3):
            plane = image[..., channel] * scale
            plane += black
            np.clip(plane, 0, 1, out=result[..., channel], casting="same_kind")
        return result

    def detail(self, difference: Real) -> Real:
        """What the remapping adds to a luminance at this difference from a gray value."""
        bell = np.square(difference)
        bell *= -1 / (2 * self.sigma**2)
        np.exp(bell, out=bell)
        bell *= difference
        bell *= self.factor
        return bell


def local_laplacian(plane: Real, detail: Callable[[Real], Real], levels: int, own: float = 1) -> Real:
    """The filter, which is not clipped.

    Args:
        plane: (H, W), float64 in [0, 1].
        detail: what a difference to a gray value g contributes beside g, without the share of `own`.
        levels: how many gray values, evenly in [0, 1].
        own: what each coefficient of the plane itself is multiplied with: the remapping around g is
            x -> g + own (x - g) + detail(x - g).
    """
    scales = levels_for(*plane.shape)
    gaussian = gaussian_pyramid(plane, scales)
    result = [own * level for level in differences(gaussian)[:-1]]
    step = 1 / (levels - 1)
    for number in range(levels):
        gray = number * step
        remapped = laplacian_pyramid(detail(plane - gray), scales)
        for total, coefficients, value in zip(result, remapped[:-1], gaussian[:-1], strict=True):
            weight = value - gray  # falls from 1 at this gray value to 0 at its neighbours
            np.abs(weight, out=weight)
            weight *= -1 / step
            weight += 1
            np.maximum(weight, 0, out=weight)
            weight *= coefficients
            total += weight
    return collapse([*result, gaussian[-1]])
