"""`channel_in`: a 1x1 layer to fewer channels, and the layer on those.

    k x k, m -> n     ->     1x1, m -> r     k x k, r -> n        r (m + n k²) MACs a pixel

It is what a look-up network with a dense dictionary computes. The 1x1 layer runs on the grid that comes in:
before a stride that is the larger one.

With data the channels are weighted by the root of their covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compressnet.compression.factors import Factorisation, Moments, channel_root, input_bias
from compressnet.compression.matrices import balanced, directions
from compressnet.compression.moments import Side
from compressnet.compression.part import Part, Piece, Sizes
from compressnet.compression.ranks import FEW, Ranks


class ChannelIn(Factorisation):
    """Fewer inputs, and a 1x1 layer before them."""

    def refusal(self, part: Part) -> str | None:
        if part.inputs < FEW:
            return f"only {part.inputs} channels come in: none can be spared"
        return "a linear layer or a 1x1 convolution: use svd" if part.is_pointwise else None

    def reads(self, part: Part) -> Side:
        return "inputs"

    def full(self, part: Part) -> Ranks:
        return (min(part.inputs, part.outputs * part.taps),)

    def sizes(self, part: Part, ranks: Ranks) -> Sequence[Sizes]:
        (r,) = ranks
        first = Sizes(r, part.inputs, 1, math.prod(part.inside))
        return first, Sizes(part.outputs, r, part.taps, part.whole.positions)

    def spectra(self, part: Part, moments: Moments) -> Sequence[Tensor]:
        return (_found(part, moments)[0][: self.full(part)[0]],)

    def pieces(self, part: Part, moments: Moments, ranks: Ranks) -> Sequence[Piece]:
        (r,) = ranks
        wide, inverse = channel_root(part, moments)
        basis = _found(part, moments)[1][:, :r]  # (m, r)
        mix = basis.T @ inverse  # (r, m)
        kernels = torch.einsum("nm...,mr->nr...", part.weight, wide @ basis)
        mix, kernels = balanced(mix, kernels)
        bias = input_bias(part, moments, torch.einsum("nr...,rm->nm...", kernels, mix))
        return part.pointwise(mix), part.spread(kernels, bias)


def _found(part: Part, moments: Moments) -> tuple[Tensor, Tensor]:
    wide, _ = channel_root(part, moments)
    unfolded = part.weight.transpose(0, 1).flatten(1)  # (m, n·taps)
    return directions(wide @ (unfolded @ unfolded.T) @ wide)
