"""Photographic style: the tones and the local contrast of a reference picture.

M. Aubry, S. Paris, S. Hasinoff, J. Kautz, F. Durand: Fast Local Laplacian Filters: Theory and Applications,
section 6. ACM Transactions on Graphics 33(5), 2014. Written from the equations.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compressnet.errors import CompressnetError
from compressnet.operators.local_laplacian import local_laplacian
from compressnet.operators.protocol import Pixels, check_arguments, check_colour, luminance
from compressnet.signature import FILE

Real = NDArray[np.floating[Any]]

_LEVELS = 2**8  # of a table
_FINE_LEVELS = 2**16  # of what a table is inverted from


class Style:
    """A gray picture with the intensities and gradients of a reference (settings not confirmed).

    The distribution of intensities is matched to the reference's, then `iterations` times: a local Laplacian
    filter whose remapping f matches that of gradients, the range stretched to [0, 1], and intensities again.

    Not confirmed: the reference of arXiv 1709.00643 is not known, and the settings are those of others'
    scripts (23.8 dB to the released network; doing nothing has 17.4).

    Args:
        reference: a picture, gray or in colour; its luminance counts. Networks keep its name as it was
            written; only who computes targets needs the file. Default: scikit-image's cameraman.
        iterations: rounds of gradients and intensities.
        levels: gray values around which the local Laplacian filter remaps the picture.
        variant: a difference d to such a value becomes d + sign(d) f(|d|) with `released`, as in the
            authors' code, whose results are harder, and sign(d) f(|d|) with `paper`.

    Raises:
        ValueError: an argument out of range, or a reference that cannot be read.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        reference: Annotated[str | None, FILE] = None,
        iterations: Annotated[int, Field(ge=1, le=100)] = 4,
        levels: Annotated[int, Field(ge=2, le=256)] = 10,
        variant: Literal["released", "paper"] = "released",
    ) -> None:
        check_arguments(
            self, "style", reference=reference, iterations=iterations, levels=levels, variant=variant
        )
        self.iterations, self.levels, self.variant = iterations, levels, variant
        model = _reference(reference)
        self._intensities, self._gradients = _shares(model), _shares(gradients(model))

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, 3) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_colour(image, "style")
        plane = self.transferred(np.clip(luminance(image), 0, 1))
        return np.repeat(plane[..., None], 3, axis=2).astype(image.dtype)

    def transferred(self, plane: Real) -> Real:
        """The gray picture (H, W) of another in [0, 1], float64."""
        plane = _matched(plane, self._intensities)
        for _ in range(self.iterations):
            detail = partial(_odd, table=_transfer(gradients(plane), self._gradients))
            plane = local_laplacian(plane, detail, self.levels, own=1 if self.variant == "released" else 0)
            plane -= plane.min()
            most = plane.max()
            if most > 0:
                plane /= most
            plane = _matched(plane, self._intensities)
        return plane


def gradients(plane: Real) -> Real:
    """Lengths of the gradients of (H, W) by forward differences: (H - 1, W - 1), of a line of N its N - 1."""
    down, right = np.diff(plane, axis=0), np.diff(plane, axis=1)
    if down.size == 0 or right.size == 0:
        return np.abs(down if down.size else right).ravel() if plane.size > 1 else np.zeros(1)
    result = np.square(down[:, :-1])
    result += np.square(right[:-1])
    return np.sqrt(result, out=result)


def _reference(path: str | None) -> Real:
    """The luminance of a picture, float64 (H, W) in [0, 1]."""
    if path is None:
        # Here, not above: it takes half a second.
        from skimage import data

        return data.camera() / 255
    # Here, not above: data lies above operators, and reads pictures for all.
    from compressnet.data.images import read_image

    try:
        pixels = read_image(Path(path).expanduser(), srgb=True).pixels
    except CompressnetError as error:
        raise ValueError(f"style: reference: {error}") from error
    return pixels[..., 0].astype(np.float64) if pixels.shape[2] == 1 else luminance(pixels)


def _shares(values: Real) -> Real:
    """The cumulative distribution of values in [0, 1] (what is above counts as 1) at fine levels."""
    return _cumulative(values, _FINE_LEVELS)


def _cumulative(values: Real, levels: int) -> Real:
    nearest = np.rint(np.minimum(values, 1) * (levels - 1)).astype(np.intp)
    return np.cumsum(np.bincount(nearest.ravel(), minlength=levels)) / values.size


def _transfer(values: Real, shares: Real) -> Real:
    """A table over [0, 1] that gives `values` the distribution of `shares`: inverse(cumulative(value))."""
    found = np.searchsorted(shares, _cumulative(values, _LEVELS))
    return np.minimum(found, _FINE_LEVELS - 1) / (_FINE_LEVELS - 1)


def _matched(plane: Real, shares: Real) -> Real:
    return _looked_up(plane, _transfer(plane, shares))


def _odd(difference: Real, table: Real) -> Real:
    """sign(d) table(|d|)"""
    result = _looked_up(np.abs(difference), table)
    result *= np.sign(difference)
    return result


def _looked_up(values: Real, table: Real) -> Real:
    """Linear between the entries of a table over [0, 1]."""
    return np.interp(values, np.linspace(0, 1, len(table)), table)
