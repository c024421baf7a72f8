"""What an image operator is to the rest of the project."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from compressnet import signature

Pixels = NDArray[np.floating[Any]]
_LUMA = (0.2989360212937753, 0.5870430744511212, 0.1140209042551035)


class Operator(Protocol):
    """A deterministic function of one whole image.

    `version` is part of every cache key: it grows when the output for the same arguments changes.
    """

    version: ClassVar[int]

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, C) in [0, 1] to the same shape and float type in [0, 1]; the input is not modified."""


def check_arguments(operator: Operator, name: str, **arguments: Any) -> None:
    """Refuse what the signature of an operator does not allow.

    Args:
        name: of the operator, for messages.
        arguments: of its constructor, all of them.

    Raises:
        ValueError: one of them is of another type, or out of its range.
    """
    given = {key.removesuffix("_"): value for key, value in arguments.items()}
    _, problems = signature.check(type(operator), given)
    if problems:
        raise ValueError(f"{name}: {problems[0].message}")


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


def check_colour(image: Pixels, operator: str) -> None:
    """As `check_pixels`, for operators that need red, green and blue.

    Raises:
        ValueError: not a finite floating-point array (H, W, 3) of at least one pixel.
    """
    check_pixels(image, operator)
    if image.shape[2] != 3:
        raise ValueError(f"{operator}: expected three channels, red, green and blue, got {image.shape[2]}")


def luminance(image: Pixels) -> NDArray[np.float64]:
    """The gray form (H, W) of an image (H, W, 3): luma of BT.601, as MATLAB's `rgb2gray` has it."""
    red, green, blue = _LUMA
    result = np.multiply(image[..., 0], red, dtype=np.float64)
    result += np.multiply(image[..., 1], green, dtype=np.float64)
    result += np.multiply(image[..., 2], blue, dtype=np.float64)
    return result
