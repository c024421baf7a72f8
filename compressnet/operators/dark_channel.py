"""Dark channel dehazing: what the darkest of three channels says of the haze.

K. He, J. Sun, X. Tang: Single Image Haze Removal Using Dark Channel Prior. CVPR 2009. Written
from the equations. The transmission is refined by the guided filter (same authors, ECCV 2010) in the place
of soft matting.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from scipy import ndimage

from compressnet.bounds import three
from compressnet.operators.guided_filter import guided_filter
from compressnet.operators.protocol import Pixels, check_arguments, check_colour, luminance

Real = NDArray[np.floating[Any]]
# Of one channel. Nearer to 0 the picture divided by it says nothing.
Air = Annotated[float, Field(ge=0.01, le=1, strict=True)]
AirLight = Literal["top", "he"] | Annotated[tuple[Air, Air, Air], Field(strict=False), BeforeValidator(three)]

_LEAST_AIR = 0.01
_LEAST_TRANSMISSION = 0.1  # section 4.3 of the paper
_SHARE = {"top": 0.01, "he": 0.001}


class DarkChannel:
    """Remove haze: solve image = J t + A (1 - t) for the picture J, with t = 1 - omega dark(image / A).

    dark(x) is the least value of any channel within a window; t is refined by a guided filter. The defaults
    are the fit to the network released for arXiv 1709.00643: the paper's own window is 15.

    Args:
        window: side of the window in pixels, odd.
        radius: of the guided filter.
        omega: share of the haze that is removed.
        eps: of the guided filter: variance of the guide that counts as flat.
        guide: the guided filter follows the gray picture, or its colours (slower).
        air_light: A: `top`, the mean of the 1 % of pixels with the highest dark channel; `he`, the brightest
            of the 0.1 % (as in the paper); or red, green and blue, each from 0.01 to 1. Pixels that are
            equal count equally.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        window: Annotated[int, Field(ge=1, le=999)] = 5,
        radius: Annotated[int, Field(ge=1, le=9999)] = 15,
        omega: Annotated[float, Field(gt=0, le=1)] = 0.95,
        eps: Annotated[float, Field(ge=1e-6, le=1)] = 1e-3,
        guide: Literal["gray", "colour"] = "gray",
        air_light: AirLight = "top",
    ) -> None:
        check_arguments(
            self,
            "dark_channel",
            window=window,
            radius=radius,
            omega=omega,
            eps=eps,
            guide=guide,
            air_light=air_light,
        )
        if window % 2 == 0:
            raise ValueError(f"dark_channel: 'window' should be odd (got {window})")
        self.window, self.radius, self.omega, self.eps, self.guide = window, radius, omega, eps, guide
        self.air_light = air_light if isinstance(air_light, str) else tuple(air_light)

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, 3) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_colour(image, "dark_channel")
        air = self._air(image)
        rough = transmission(image, air, self.omega, self.window)
        guide = luminance(image) if self.guide == "gray" else image
        fine = guided_filter(guide, rough, self.radius, self.eps)
        np.maximum(fine, _LEAST_TRANSMISSION, out=fine)
        result = np.empty_like(image)
        for channel in range(3):
            plane = np.subtract(image[..., channel], air[channel], dtype=np.float64)
            plane /= fine
            plane += air[channel]
            np.clip(plane, 0, 1, out=result[..., channel], casting="same_kind")
        return result

    def _air(self, image: Pixels) -> Real:
        if not isinstance(self.air_light, str):
            return np.array(self.air_light)
        dark = dark_channel(image, self.window)
        share = _SHARE[self.air_light]
        air = mean_of_top(image, dark, share) if self.air_light == "top" else brightest(image, dark, share)
        return np.clip(air, _LEAST_AIR, 1)


def dark_channel(image: Pixels, window: int) -> Pixels:
    """The least value of (H, W, 3) over the channels and a window, cut off at the borders: (H, W)."""
    return _least(image[..., 0], image[..., 1], image[..., 2], window)


def transmission(image: Pixels, air: Real, omega: float, window: int) -> Real:
    """t (H, W) before it is refined: the share of light that reaches the camera.

    Args:
        air: the light of the air, red, green and blue, each above 0.
    """
    red, green, blue = (image[..., channel] / air[channel] for channel in range(3))
    darkest = _least(red, green, blue, window)
    darkest *= -omega
    darkest += 1
    return darkest


def _least(red: Pixels, green: Pixels, blue: Pixels, window: int) -> Pixels:
    least = np.minimum(red, green)
    np.minimum(least, blue, out=least)
    darkest: Pixels = ndimage.minimum_filter(least, window, mode="nearest")
    return darkest


def mean_of_top(image: Pixels, dark: Pixels, share: float) -> Real:
    """The mean colour of that share of the pixels, at least one, whose dark channel is highest.

    Of pixels that are equally dark at the limit each counts a part, so that their order plays no role.
    """
    count, limit = _top(dark, share)
    above, at = dark > limit, dark == limit
    total = image[above].sum(axis=0, dtype=np.float64)
    total += image[at].mean(axis=0, dtype=np.float64) * (count - np.count_nonzero(above))
    return np.asarray(total / count)


def brightest(image: Pixels, dark: Pixels, share: float) -> Real:
    """The colour of the brightest (sum of the channels) of the pixels that `mean_of_top` takes."""
    colours = image[dark >= _top(dark, share)[1]].astype(np.float64)  # (N, 3)
    sums = colours.sum(axis=1)
    return np.asarray(colours[sums == sums.max()].mean(axis=0))


def _top(dark: Pixels, share: float) -> tuple[int, float]:
    """How many pixels that share is, and the least dark channel among them."""
    count = max(1, int(dark.size * share))
    return count, float(np.partition(dark, dark.size - count, axis=None)[dark.size - count])
