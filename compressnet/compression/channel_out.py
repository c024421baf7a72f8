"""`channel_out`: a layer with fewer outputs, and a 1x1 layer that makes the outputs of them.

    k x k, m -> n     ->     k x k, m -> r     1x1, r -> n        r (m k² + n) MACs a pixel

X. Zhang, J. Zou, K. He, J. Sun: Accelerating Very Deep Convolutional Networks for Classification and
Detection. PAMI 2016, arXiv 1505.06798 (the linear case; asymmetric and with the ReLU: `als`)

With data the outputs are projected on the directions in which they vary most.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from compressnet.compression.factors import Factorisation, Moments, output_bias
from compressnet.compression.matrices import balanced, directions
from compressnet.compression.moments import Side
from compressnet.compression.part import Part, Piece, Sizes
from compressnet.compression.ranks import Ranks


class ChannelOut(Factorisation):
    """Fewer outputs, and a 1x1 layer behind them."""

    def refusal(self, part: Part) -> str | None:
        return "a linear layer or a 1x1 convolution: use svd" if part.is_pointwise else None

    def reads(self, part: Part) -> Side:
        return "outputs"

    def full(self, part: Part) -> Ranks:
        return (min(part.outputs, part.inputs * part.taps),)

    def sizes(self, part: Part, ranks: Ranks) -> Sequence[Sizes]:
        (r,) = ranks
        positions = part.whole.positions
        return Sizes(r, part.inputs, part.taps, positions), Sizes(part.outputs, r, 1, positions)

    def spectra(self, part: Part, moments: Moments) -> Sequence[Tensor]:
        return (_found(part, moments)[0][: self.full(part)[0]],)

    def pieces(self, part: Part, moments: Moments, ranks: Ranks) -> Sequence[Piece]:
        (r,) = ranks
        basis = _found(part, moments)[1][:, :r]  # (n, r)
        kernels, mix = balanced((basis.T @ part.weight.flatten(1)).unflatten(1, part.weight.shape[1:]), basis)
        return part.spread(kernels), part.pointwise(mix, output_bias(part, moments, basis))


def _found(part: Part, moments: Moments) -> tuple[Tensor, Tensor]:
    matrix = part.weight.flatten(1)
    return directions(moments["outputs"].covariance if "outputs" in moments else matrix @ matrix.T)
