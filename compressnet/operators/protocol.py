"""What an image operator is to the rest of the project."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.floating[Any]]


class Operator(Protocol):
    """A deterministic function of one whole image.

    `version` is part of every cache key: it grows when the output for the same arguments changes.
    """

    version: ClassVar[int]

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, C) in [0, 1] to the same shape and float type in [0, 1]; the input is not modified."""


def check_pixels(image: Pixels, operator: str) -> None:
    """Refuse what no operator can work on, naming `operator`.

    Raises:
        ValueError: not a finite floating-point array (H, W, C) of at least one pixel.
    """
    if image.ndim != 3 or image.size == 0:
        raise ValueError(f"{operator}: expected an image (H, W, C), got an array of shape {image.shape}")
    if image.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"{operator}: expected float32 or float64 in [0, 1], got {image.dtype}; divide by 255 first"
        )
    # min and max carry NaN and infinity, without a mask as large as the image
    if not (np.isfinite(image.min()) and np.isfinite(image.max())):
        raise ValueError(f"{operator}: the image holds NaN or infinite values")
