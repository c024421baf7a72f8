"""`als`: two layers in the place of one, fitted to what the whole network computes, one after the other.

    y = W x + b     ->     y' = A (B x') + b'       y of the dense network, x' of the compressed one before

X. Zhang, J. Zou, K. He, J. Sun: Accelerating Very Deep Convolutional Networks for Classification and
Detection. IEEE TPAMI 38(10), 2016, arXiv 1505.06798 (asymmetric: the error that came before is made good)

The layers are those of `channel_out`, or for what mixes channels alone of `svd`, which are also the start.
With z = B x', about means, 8 sweeps of

    A = E[y zᵀ] E[z zᵀ]⁻¹        B = (Aᵀ A)⁻¹ Aᵀ E[y x'ᵀ] E[x' x'ᵀ]⁻¹

x' are patches, all taps of all channels. E[y x'ᵀ] + λ W and E[x' x'ᵀ] + λ I hold what the data does not show
to the weights as they were. For each layer both networks run up to it. At most 64 positions a dimension of x'
are taken, evenly from all batches: that bounds the time; the memory is that of E[x' x'ᵀ].
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.compression.change import Replaced
from compressnet.compression.channel_out import ChannelOut
from compressnet.compression.factors import Factorisation
from compressnet.compression.matrices import balanced
from compressnet.compression.moments import Second
from compressnet.compression.network import Kept, Network
from compressnet.compression.part import Part, Piece
from compressnet.compression.ranks import HowLarge, KeptLayer, shown
from compressnet.compression.svd import SVD
from compressnet.errors import NotFinite, UsageError

_SWEEPS = 8
_ROWS = 64  # a dimension
_ROUNDING = 1e-12  # of the mean square: a smaller variance is not one
_RIDGE, _THIN_RIDGE = 1e-4, 1e-2  # of the mean variance; with fewer than ten rows a dimension


class ALS(HowLarge):
    """Two layers in the place of one, each made of what the layers before it became."""

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        if not network.calibration.is_data:
            raise UsageError("method als: it fits layers to data: use svd or channel_out with --data-free")
        parts = []
        for part in network.parts:
            if reason := part.refusal():
                yield Kept(part.path, type(part.layer).__name__, reason)
            else:
                parts.append(part)
        found = network.moments({part.path: (self._start(part).reads(part),) for part in parts})
        prefix = copy.deepcopy(network.module)
        for part in parts:
            start = self._start(part)
            side = start.reads(part)
            moments = {side: found[part.path, side]}
            kind = type(part.layer).__name__
            try:
                ranks = start.ranks(part, moments)
            except KeptLayer as error:
                yield Kept(part.path, kind, str(error))
                continue
            statistics = _Statistics(part)
            statistics.collect(network, prefix)
            pieces = _fitted(part, start.pieces(part, moments, ranks), statistics)
            part.replaced(pieces).apply(prefix)
            if part.has_norm:  # it is estimated anew: here at once, for what comes next reads it
                statistics.estimate(prefix.get_submodule(network.norms[part.path]), pieces)
                pieces = [pieces[0], pieces[1]._replace(bias=part.bias)]
            text = f"rank {shown(ranks)}"
            yield Replaced((part.path,), kind, text, part.replaced(pieces), statistics.is_thin)

    def _start(self, part: Part) -> Factorisation:
        kind = SVD if part.is_pointwise else ChannelOut
        return kind(self.ratio, self.rank, self.energy)


class _Statistics:
    """What a layer is given within the compressed network, and what it returned within the dense one.

    Attributes:
        width: of x', all taps of all channels.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self.width = part.inputs * part.taps
        self._x = Second(self.width)
        self._y = torch.zeros(part.outputs, dtype=torch.float64)
        self._products = torch.zeros(part.outputs, self.width, dtype=torch.float64)

    @property
    def is_thin(self) -> bool:
        return self._x.is_thin

    def collect(self, network: Network, prefix: nn.Module) -> None:
        """Run both.

        Raises:
            NotFinite: a value is infinite or NaN.
        """
        part, calibration = self._part, network.calibration
        most = max(1, _ROWS * self.width // max(1, calibration.batches))
        dense = calibration.up_to(network.module, part.path)
        for (_, y), (x, _) in zip(dense, calibration.up_to(prefix, part.path), strict=True):
            x, y = _batched(part, x), _batched(part, y)
            places = _places(part, y, most)
            self._add(_patches(part, x, places), _outputs(part, y, places))
        self._x.check(part.path)
        if not bool(torch.isfinite(self._products).all()):
            raise NotFinite(f"{part.path}: on the calibration data its values are not finite")

    def _add(self, x: Tensor, y: Tensor) -> None:
        self._x.add(x)
        y = y.double().cpu()
        self._y += y.sum(0)
        self._products += y.T @ x.double().cpu()

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        return self._x.mean, self._y / max(1, self._x.count)

    def estimate(self, norm: Any, pieces: Sequence[Piece]) -> None:
        """Give a batch norm the mean and variance of what the new layers put out."""
        first, last = (piece.weight.flatten(1) for piece in pieces)
        both = last @ first
        norm.running_mean.copy_(self.means[1])  # the bias sees to that
        norm.running_var.copy_(((both @ self._x.covariance) * both).sum(1))

    def regression(self) -> tuple[Tensor, Tensor]:
        """E[x' x'ᵀ] (d, d) and the best W (n, d), both held to what was there."""
        x, y = self.means
        covariance = self._x.covariance
        cross = self._products / max(1, self._x.count) - torch.outer(y, x)
        share = _THIN_RIDGE if self.is_thin else _RIDGE
        level = float(covariance.diagonal().mean())
        if level <= _ROUNDING * float(self._x.uncentred.diagonal().mean()):  # constant, but for rounding
            covariance, cross, level = covariance * 0, cross * 0, 0.0
        ridge = share * level or 1.0  # all dead: the weights alone count
        held = covariance + ridge * torch.eye(self.width, dtype=torch.float64)
        wanted = cross + ridge * self._part.weight.flatten(1)
        return held, torch.cholesky_solve(wanted.T, torch.linalg.cholesky(held)).T


def _batched(part: Part, x: Tensor) -> Tensor:
    """With the axis of samples, where a layer was given one alone."""
    return x[None] if x.ndim == len(part.kernel) + 1 else x


def _fitted(part: Part, pieces: Sequence[Piece], statistics: _Statistics) -> list[Piece]:
    first, last = pieces[0].weight.flatten(1), pieces[1].weight.flatten(1)  # B (r, d), A (n, r)
    held, best = statistics.regression()
    cross = best @ held
    for _ in range(_SWEEPS):
        last = cross @ first.T @ _inverse(first @ held @ first.T)
        first = _inverse(last.T @ last) @ (last.T @ best)
    last = cross @ first.T @ _inverse(first @ held @ first.T)
    first, last = balanced(first, last)
    x, y = statistics.means
    bias = y - last @ (first @ x)
    return [part.spread(first.unflatten(1, part.weight.shape[1:])), part.pointwise(last, bias)]


def _inverse(gram: Tensor) -> Tensor:
    return torch.linalg.pinv(gram, hermitian=True)


def _places(part: Part, y: Tensor, most: int) -> list[Tensor]:
    """Sample and position of at most so many outputs, evenly."""
    shape = [*y.shape[:-1]] if not part.kernel else [y.shape[0], *y.shape[2:]]
    count = torch.Size(shape).numel()
    chosen = torch.arange(0, count, max(1, -(-count // most)), device=y.device)
    return list(torch.unravel_index(chosen, shape))


def _outputs(part: Part, y: Tensor, places: Sequence[Tensor]) -> Tensor:
    """(N, n)."""
    found: Tensor = y[tuple(places)] if not part.kernel else y.movedim(1, -1)[tuple(places)]
    return found


def _patches(part: Part, x: Tensor, places: Sequence[Tensor]) -> Tensor:
    """What those outputs are made of, (N, m·taps) in the order of the weights."""
    if not part.kernel:
        rows: Tensor = x[tuple(places)]
        return rows
    padding, stride, dilation = (part.axes(name) for name in ("padding", "stride", "dilation"))
    sides = [side for axis in reversed(padding) for side in (axis, axis)]
    x = F.pad(x, sides).movedim(1, -1)  # (B, *grid, m)
    taps = []
    for tap in product(*(range(size) for size in part.kernel)):
        where: list[Any] = [places[0]]
        for axis, offset in enumerate(tap):
            where.append(places[1 + axis] * stride[axis] + offset * dilation[axis])
        taps.append(x[tuple(where)])
    return torch.stack(taps, dim=-1).flatten(1)
