"""`spatial`: a convolution along the height, and one along the width.

    kh x kw, m -> n     ->     kh x 1, m -> r     1 x kw, r -> n        r (m kh + n kw) MACs a pixel

M. Jaderberg, A. Vedaldi, A. Zisserman: Speeding up Convolutional Neural Networks with Low Rank Expansions.
BMVC 2014, arXiv 1405.3866 (scheme 2, here by singular values)

With data the channels are weighted by the root of their covariance; neighbouring pixels are taken to be
independent, which they are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressnet.compression.factors import Factorisation, Moments, channel_root, input_bias
from compressnet.compression.matrices import balanced, directions
from compressnet.compression.moments import Side
from compressnet.compression.part import Part, Piece, Sizes
from compressnet.compression.ranks import Ranks


class Spatial(Factorisation):
    """A column of taps, then a row of taps."""

    def refusal(self, part: Part) -> str | None:
        flat = len(part.kernel) != 2 or min(part.kernel) < 2
        return "its kernel has no height and width to part" if flat else None

    def reads(self, part: Part) -> Side:
        return "inputs"

    def full(self, part: Part) -> Ranks:
        height, width = part.kernel
        return (min(part.inputs * height, part.outputs * width),)

    def sizes(self, part: Part, ranks: Ranks) -> Sequence[Sizes]:
        (r,), (height, width) = ranks, part.kernel
        between = part.outside[0] * part.inside[1]
        return Sizes(r, part.inputs, height, between), Sizes(part.outputs, r, width, part.whole.positions)

    def spectra(self, part: Part, moments: Moments) -> Sequence[Tensor]:
        return (self._found(part, moments)[0],)

    def pieces(self, part: Part, moments: Moments, ranks: Ranks) -> Sequence[Piece]:
        (r,), (height, width) = ranks, part.kernel
        _, basis, matrix = self._found(part, moments)
        basis = basis[:, :r]
        if len(basis) == matrix.shape[0]:  # rows: (m, kh)
            columns, rows = basis, basis.T @ matrix
        else:
            columns, rows = matrix @ basis, basis.T
        _, inverse = channel_root(part, moments)
        columns = torch.einsum("mp,phr->rmh", inverse, columns.view(part.inputs, height, r))
        columns, rows = balanced(columns, rows.view(r, part.outputs, width).transpose(0, 1))
        weight = torch.einsum("rmh,nrw->nmhw", columns, rows)
        bias = input_bias(part, moments, weight)
        return part.along(0, columns[..., None]), part.along(1, rows[:, :, None], bias)

    def _found(self, part: Part, moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
        """Energies and directions of the smaller side, and the matrix (m·kh, n·kw)."""
        wide, _ = channel_root(part, moments)
        matrix = torch.einsum("mp,nphw->mhnw", wide, part.weight)
        matrix = matrix.flatten(2).flatten(0, 1)
        is_tall = matrix.shape[0] > matrix.shape[1]
        return *directions(matrix.T @ matrix if is_tall else matrix @ matrix.T), matrix
