"""ROF: total-variation denoising.

L. Rudin, S. Osher, E. Fatemi: Nonlinear total variation based noise removal algorithms. Physica D 60, 1992.
Solved by scikit-image with A. Chambolle's algorithm (JMIV 20, 2004).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from compressnet.bounds import Fraction, Repeats
from compressnet.operators.protocol import Pixels, check_arguments, check_pixels

Weight = Annotated[float, Field(ge=1e-6, le=1e6)]


class ROF:
    """Minimise TV(u) + norm(u - image)^2 / (2 weight) in each channel by itself; Neumann borders.

    Args:
        weight: strength on the [0, 1] scale, above 0; 1 / lambda of the other common form. The default
            is the fit to the network released for arXiv 1709.00643 (lambda about 18).
        eps: stop when the energy changes by less than this part of its first value in one iteration.
        max_iterations: stop there in any case.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        weight: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.055,
        eps: Fraction = 1e-5,
        max_iterations: Repeats = 500,
    ) -> None:
        check_arguments(self, "rof", weight=weight, eps=eps, max_iterations=max_iterations)
        self.weight, self.eps, self.max_iterations = weight, eps, max_iterations

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, C) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        # Here, not above: it imports scipy.stats, over half a second that naming an operator need not take.
        from skimage.restoration import denoise_tv_chambolle

        check_pixels(image, "rof")
        result = np.empty_like(image)
        for channel in range(image.shape[2]):
            result[..., channel] = denoise_tv_chambolle(
                np.ascontiguousarray(image[..., channel]),
                weight=self.weight,
                eps=self.eps,
                max_num_iter=self.max_iterations,
            )
        return np.clip(result, 0, 1, out=result)
