"""Multiscale tone manipulation: exaggerate the details of two scales, compress what is coarser.

Z. Farbman, R. Fattal, D. Lischinski, R. Szeliski: Edge-Preserving Decompositions for Multi-Scale Tone and
Detail Manipulation. SIGGRAPH 2008. Written from the equations (sections 3 and 4).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from compressnet.operators.grid_system import GridSystem, Real, Solver
from compressnet.operators.lab import lab_to_rgb, rgb_to_lab
from compressnet.operators.protocol import Pixels, check_arguments, check_colour

_COARSER = 4  # lambda of the second smoothing over that of the first
_MIDDLE = 56  # of the lightness
_EPS = 1e-4

Lambda = Annotated[float, Field(ge=1e-4, le=25)]
Alpha = Annotated[float, Field(ge=0.1, le=3)]
Saturation = Annotated[float, Field(ge=0, le=4)]


class _Boost(NamedTuple):
    """Slopes of the sigmoids for fine details, medium details and the base, and the exposure of the base."""

    fine: float
    medium: float
    base: float
    exposure: float = 1


_BOOSTS = (_Boost(25, 1, 1), _Boost(1, 40, 1), _Boost(4, 1, 15, 1.1))  # fine, medium, coarse


class WLSTone:
    """The mean of three pictures, with fine, medium and coarse details boosted, each clipped to [0, 1].

    The lightness of CIE Lab (D50, 0 to 100) is smoothed twice by weighted least squares, with `lambda` and
    four times that; the differences and the base go through sigmoids, with the settings of the authors' demo.

    Args:
        lambda_: strength of the first smoothing, on the 0 to 100 scale.
        alpha: exponent of the gradients of the logarithm of lightness; larger keeps edges sharper.
        saturation: factor of the chroma.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(self, lambda_: Lambda = 0.125, alpha: Alpha = 1.2, saturation: Saturation = 1.1) -> None:
        check_arguments(self, "wls_tone", lambda_=lambda_, alpha=alpha, saturation=saturation)
        self.lambda_, self.alpha, self.saturation = lambda_, alpha, saturation

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, 3) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_colour(image, "wls_tone")
        lab = rgb_to_lab(image)
        lightness = lab[..., 0].copy()
        smooth = wls(lightness, self.lambda_, self.alpha)
        base = wls(lightness, self.lambda_ * _COARSER, self.alpha, start=smooth)
        fine, medium = lightness - smooth, smooth - base
        lab[..., 1:] *= self.saturation
        result = np.zeros(image.shape)
        for boost in _BOOSTS:
            lab[..., 0] = _manipulated(fine, medium, base, boost)
            result += np.clip(lab_to_rgb(lab), 0, 1)
        result /= len(_BOOSTS)
        return np.clip(result, 0, 1).astype(image.dtype)


def wls(
    lightness: Real, lambda_: float, alpha: float, solver: Solver = "auto", start: Real | None = None
) -> Real:
    """Edge-preserving smoothing of (H, W) in [0, 100] by weighted least squares."""
    logarithm = np.log(lightness + np.finfo(np.float64).eps)
    horizontal, vertical = (
        lambda_ / (np.abs(np.diff(logarithm, axis=axis)) ** alpha + _EPS) for axis in (1, 0)
    )
    return GridSystem(horizontal, vertical, solver).solve(lightness, start=start)


def _manipulated(fine: Real, medium: Real, base: Real, boost: _Boost) -> Real:
    lightness = _sigmoid(boost.exposure * base - _MIDDLE, boost.base) + _MIDDLE
    lightness += _sigmoid(medium, boost.medium)
    lightness += _sigmoid(fine, boost.fine)
    return np.clip(lightness, 0, 100, out=lightness)


def _sigmoid(values: Real, slope: float) -> Real:
    """An S curve through 0 and, on the 0 to 100 scale, +-50; steeper in the middle with `slope`."""
    # 1 / (1 + exp(-x)) - 1/2 = tanh(x / 2) / 2
    result = np.tanh(values * (slope / 200))
    result *= 50 / np.tanh(slope / 4)
    return result
