"""L0 smoothing: flatten an image to regions while keeping a few strong edges.

L. Xu, C. Lu, Y. Xu, J. Jia: Image Smoothing via L0 Gradient Minimization. SIGGRAPH Asia 2011.
Written from the equations (algorithm 1: half-quadratic splitting, solved in the Fourier domain).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft

from compressnet.operators.protocol import Pixels, check_arguments, check_pixels

_BETA_MAX = 1e5  # section 3.1 of the paper

Real = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Lambda = Annotated[float, Field(ge=1e-6, le=1)]
Kappa = Annotated[float, Field(ge=1.01, le=10)]  # nearer to 1 the iterations have no end


class L0:
    """Minimise norm(S - image)^2 + lambda * (number of pixels with a gradient); circular borders.

    A pixel keeps its gradient in all channels or in none. Runs on one thread unless the caller sets more
    with `scipy.fft.set_workers(n)`.

    Args:
        lambda_: weight of a gradient on the [0, 1] scale; larger is flatter. The default is the setting of
            arXiv 1709.00643, not that of the original code (0.02).
        kappa: growth of beta per iteration, above 1 and at most 10; smaller is slower and finer.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        lambda_: Annotated[float, Field(ge=1e-6, le=1)] = 0.01,
        kappa: Annotated[float, Field(ge=1.01, le=10)] = 2.0,
    ) -> None:
        check_arguments(self, "l0", lambda_=lambda_, kappa=kappa)
        self.lambda_, self.kappa = lambda_, kappa

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, C) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_pixels(image, "l0")
        height, width, channels = image.shape
        # One plane a channel, float64: the threshold is a hard decision and float32 flips some of them.
        smooth = np.array(np.moveaxis(image, 2, 0), dtype=np.float64, order="C")
        data = [fft.rfft2(plane) for plane in smooth]  # channels x (H, W // 2 + 1)
        laplacian = _laplacian(height, width)  # (H, W // 2 + 1)
        beta = 2 * self.lambda_
        while beta < _BETA_MAX:
            flat = _flat(smooth, self.lambda_ / beta)  # (H, W)
            denominator = 1 + beta * laplacian
            for channel in range(channels):
                spectrum = fft.rfft2(_divergence(smooth[channel], flat), overwrite_x=True)
                spectrum *= beta
                spectrum += data[channel]
                spectrum /= denominator
                smooth[channel] = fft.irfft2(spectrum, s=(height, width), overwrite_x=True)
            beta *= self.kappa
        np.clip(smooth, 0, 1, out=smooth)
        return np.ascontiguousarray(np.moveaxis(smooth, 0, 2), dtype=image.dtype)


def _laplacian(height: int, width: int) -> Real:
    """|F(dx)|^2 + |F(dy)|^2 of circular forward differences on the half plane of rfft2."""
    rows = 2 - 2 * np.cos(2 * math.pi * np.arange(height) / height)
    columns = 2 - 2 * np.cos(2 * math.pi * np.arange(width // 2 + 1) / width)
    return rows[:, None] + columns[None, :]


def _difference(plane: Real, axis: int) -> Real:
    """Circular forward difference along `axis` of a plane (H, W)."""
    result = np.empty_like(plane)
    if axis == 0:
        np.subtract(plane[1:], plane[:-1], out=result[:-1])
        np.subtract(plane[0], plane[-1], out=result[-1])
    else:
        np.subtract(plane[:, 1:], plane[:, :-1], out=result[:, :-1])
        np.subtract(plane[:, 0], plane[:, -1], out=result[:, -1])
    return result


def _flat(planes: Real, threshold: float) -> Mask:
    """Where the squared gradient, summed over the channels of (C, H, W), is below `threshold`: (H, W)."""
    energy = np.zeros(planes.shape[1:], dtype=planes.dtype)
    for plane in planes:
        for axis in (0, 1):
            gradient = _difference(plane, axis)
            energy += np.square(gradient, out=gradient)
    return energy < threshold


def _divergence(plane: Real, flat: Mask) -> Real:
    """The adjoint of the differences, applied to the gradient of (H, W) with its `flat` pixels removed."""
    result = np.zeros_like(plane)
    for axis in (0, 1):
        gradient = _difference(plane, axis)
        gradient[flat] = 0
        result -= gradient
        if axis == 0:
            result[1:] += gradient[:-1]
            result[0] += gradient[-1]
        else:
            result[:, 1:] += gradient[:, :-1]
            result[:, 0] += gradient[:, -1]
    return result
