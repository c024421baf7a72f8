"""RTV: smooth away texture, keep the structure.

L. Xu, Q. Yan, Y. Xia, J. Jia: Structure Extraction from Texture via Relative Total Variation. SIGGRAPH Asia
2012. Written from the equations (section 3.3: iteratively reweighted least squares).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy import ndimage

from compressnet.operators.grid_system import GridSystem, Real, Solver
from compressnet.operators.protocol import Pixels, check_arguments, check_pixels

_SMALLEST_SIGMA = 0.5
_EPS = 1e-3  # of the windowed variation

Lambda = Annotated[float, Field(ge=1e-6, le=1)]
Sigma = Annotated[float, Field(ge=_SMALLEST_SIGMA, le=100)]
Sharpness = Annotated[float, Field(ge=1e-3, le=1)]
Iterations = Annotated[int, Field(ge=1, le=100)]


class RTV:
    """Minimise norm(S - image)^2 + lambda / 2 * relative total variation; the channels share the weights.

    Like the authors' code, not the paper's text: the windowed total variation is taken at the pixel alone,
    differences are forward, and the Gaussian sees black beyond the borders.

    Args:
        lambda_: strength on the [0, 1] scale.
        sigma: of the Gaussian in pixels, about the size of the texture; halved after each iteration, down
            to 0.5.
        sharpness: gradients below it count as it; smaller keeps edges sharper.
        iterations: reweighted systems to solve.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        lambda_: Lambda = 0.01,
        sigma: Sigma = 3.0,
        sharpness: Sharpness = 0.02,
        iterations: Iterations = 4,
    ) -> None:
        check_arguments(self, "rtv", lambda_=lambda_, sigma=sigma, sharpness=sharpness, iterations=iterations)
        self.lambda_, self.sigma, self.sharpness, self.iterations = lambda_, sigma, sharpness, iterations

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, C) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_pixels(image, "rtv")
        return np.clip(self.smooth(image), 0, 1).astype(image.dtype)

    def smooth(self, image: Pixels, solver: Solver = "auto") -> Real:
        """The same in float64, not clipped."""
        planes = np.array(np.moveaxis(image, 2, 0), dtype=np.float64, order="C")
        result, sigma = planes, self.sigma
        for _ in range(self.iterations):
            horizontal, vertical = self._weights(result, sigma)
            result = GridSystem(horizontal, vertical, solver).solve(planes, start=result)
            sigma = max(sigma / 2, _SMALLEST_SIGMA)
        return np.ascontiguousarray(np.moveaxis(result, 0, 2))

    def _weights(self, planes: Real, sigma: float) -> tuple[Real, Real]:
        """Of the edges of the grid, (H, W - 1) and (H - 1, W), for planes (C, H, W)."""
        gradient = np.zeros(planes.shape[1:])
        across, down = np.zeros_like(gradient), np.zeros_like(gradient)
        blurred_across, blurred_down = np.zeros_like(gradient[:, 1:]), np.zeros_like(gradient[1:])
        for plane in planes:
            across[:, :-1] = np.diff(plane, axis=1)
            down[:-1] = np.diff(plane, axis=0)
            gradient += np.hypot(across, down)
            blurred = _blur(plane, sigma)
            blurred_across += np.abs(np.diff(blurred, axis=1))
            blurred_down += np.abs(np.diff(blurred, axis=0))
        strength = self.lambda_ / 2 / np.maximum(gradient / len(planes), self.sharpness)
        horizontal = strength[:, :-1] / np.maximum(blurred_across / len(planes), _EPS)
        vertical = strength[:-1] / np.maximum(blurred_down / len(planes), _EPS)
        return horizontal, vertical


def _blur(plane: Real, sigma: float) -> Real:
    """By a Gaussian of about 5 sigma, an odd number of pixels; black beyond the borders."""
    radius = int(5 * sigma + 0.5) // 2
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        plane = ndimage.correlate1d(plane, kernel, axis=axis, mode="constant")
    return plane
