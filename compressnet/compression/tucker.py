"""`tucker`: a 1x1 layer to fewer channels, a small kernel between few channels, a 1x1 layer back.

    k x k, m -> n     ->     1x1, m -> r1     k x k, r1 -> r2     1x1, r2 -> n     m r1 + r1 r2 k² + r2 n MACs

Y. Kim, E. Park, S. Yoo, T. Choi, L. Yang, D. Shin: Compression of Deep Convolutional Neural Networks for Fast
and Low Power Mobile Applications. ICLR 2016, arXiv 1511.06530 (Tucker-2; their ranks are by VBMF)

L. De Lathauwer, B. De Moor, J. Vandewalle: On the best rank-1 and rank-(R1, ..., RN) approximation of
higher-order tensors. SIAM J. Matrix Anal. Appl. 21, 2000 (HOSVD, refined by 3 sweeps of HOOI)

With data the input channels are weighted by the root of their covariance. A rank that is one number is that
of the outputs; that of the inputs is in proportion. Where all inputs stay (three colours), the kernel takes
up the first layer, which would spare nothing: two layers are left.
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
from compressnet.compression.ranks import Ranks

_SWEEPS = 3


class Tucker(Factorisation):
    """Fewer inputs and fewer outputs, between two 1x1 layers."""

    def refusal(self, part: Part) -> str | None:
        return "a linear layer or a 1x1 convolution: use svd" if part.is_pointwise else None

    def reads(self, part: Part) -> Side:
        return "inputs"

    def full(self, part: Part) -> Ranks:
        return part.inputs, part.outputs

    def sizes(self, part: Part, ranks: Ranks) -> Sequence[Sizes]:
        r1, r2 = ranks
        positions = part.whole.positions
        first = Sizes(r1, part.inputs, 1, math.prod(part.inside))
        rest = Sizes(r2, r1, part.taps, positions), Sizes(part.outputs, r2, 1, positions)
        return rest if r1 == part.inputs else (first, *rest)

    def spectra(self, part: Part, moments: Moments) -> Sequence[Tensor]:
        weight = self._weighted(part, moments)
        return tuple(directions(_gram(weight, mode))[0] for mode in (1, 0))

    def pieces(self, part: Part, moments: Moments, ranks: Ranks) -> Sequence[Piece]:
        weight = self._weighted(part, moments)
        into, out = _factors(weight, *ranks)  # (m, r1), (n, r2)
        core = torch.einsum("nm...,mp,nq->qp...", weight, into, out)  # (r2, r1, *kernel)
        _, inverse = channel_root(part, moments)
        first, core = balanced(into.T @ inverse, core)
        core, last = balanced(core, out)
        whole = torch.einsum("nq,qp...,pm->nm...", last, core, first)
        bias = input_bias(part, moments, whole)
        if len(first) == part.inputs:
            core = torch.einsum("qp...,pm->qm...", core, first)
            return part.spread(core), part.pointwise(last, bias)
        return part.pointwise(first), part.spread(core), part.pointwise(last, bias)

    def _weighted(self, part: Part, moments: Moments) -> Tensor:
        wide, _ = channel_root(part, moments)
        return torch.einsum("nm...,mp->np...", part.weight, wide)


def _factors(weight: Tensor, r1: int, r2: int) -> tuple[Tensor, Tensor]:
    """Orthonormal columns for the inputs (m, r1) and the outputs (n, r2)."""
    into = directions(_gram(weight, 1))[1][:, :r1]
    out = directions(_gram(weight, 0))[1][:, :r2]
    for _ in range(_SWEEPS):
        out = directions(_gram(torch.einsum("nm...,mp->np...", weight, into), 0))[1][:, :r2]
        into = directions(_gram(torch.einsum("nm...,nq->qm...", weight, out), 1))[1][:, :r1]
    return into, out


def _gram(weight: Tensor, mode: int) -> Tensor:
    unfolded = weight.movedim(mode, 0).flatten(1)
    return unfolded @ unfolded.T
