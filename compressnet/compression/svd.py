"""`svd`: a linear layer or a 1x1 convolution as two, by truncated singular values.

    y = W x + b     ->     y = A (B x) + b'        W (n, m), B (r, m), A (n, r): r (n + m) MACs

R. Girshick: Fast R-CNN. ICCV 2015, arXiv 1504.08083 (its linear layers, without data)

With data the error of the outputs is smallest, not that of the weights: the singular values are those of
W L, L the root of the inputs' covariance. On the smaller side of W: where it has fewer outputs than inputs,
the eigenvectors of the outputs' covariance W L² Wᵀ are all that is needed, and the inputs' is never formed.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from compressnet.compression.factors import Factorisation, Moments, channel_root, input_bias, output_bias
from compressnet.compression.matrices import balanced, directions
from compressnet.compression.moments import Side
from compressnet.compression.part import Part, Piece, Sizes
from compressnet.compression.ranks import Ranks


class SVD(Factorisation):
    """Two layers in the place of one that mixes channels alone."""

    def refusal(self, part: Part) -> str | None:
        return None if part.is_pointwise else "not a linear layer or a 1x1 convolution"

    def reads(self, part: Part) -> Side:
        return "outputs" if part.outputs <= part.inputs else "inputs"

    def full(self, part: Part) -> Ranks:
        return (min(part.outputs, part.inputs),)

    def sizes(self, part: Part, ranks: Ranks) -> Sequence[Sizes]:
        (r,) = ranks
        positions = part.whole.positions
        return Sizes(r, part.inputs, 1, positions), Sizes(part.outputs, r, 1, positions)

    def spectra(self, part: Part, moments: Moments) -> Sequence[Tensor]:
        return (self._found(part, moments)[0],)

    def pieces(self, part: Part, moments: Moments, ranks: Ranks) -> Sequence[Piece]:
        (r,) = ranks
        matrix = part.weight.flatten(1)  # (n, m)
        basis = self._found(part, moments)[1][:, :r]
        if self.reads(part) == "outputs":
            first, second = balanced(basis.T @ matrix, basis)
            bias = output_bias(part, moments, basis)
        else:
            wide, inverse = channel_root(part, moments)
            first, second = balanced(basis.T @ inverse, matrix @ wide @ basis)
            bias = input_bias(part, moments, (second @ first).view_as(part.weight))
        return part.spread(first.view(r, *part.weight.shape[1:])), part.pointwise(second, bias)

    def _found(self, part: Part, moments: Moments) -> tuple[Tensor, Tensor]:
        matrix = part.weight.flatten(1)
        if self.reads(part) == "outputs":
            return directions(moments["outputs"].covariance if "outputs" in moments else matrix @ matrix.T)
        wide = matrix @ channel_root(part, moments)[0]
        return directions(wide.T @ wide)
