"""Transforms that put a row of smaller layers in the place of one linear layer or convolution.

    Part, Moments -> ranks -> pieces -> Change

Each file of a transform has a class of this protocol; `factorised` is what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from compressnet.compression.change import Change, Replaced
from compressnet.compression.moments import Second, Side, root
from compressnet.compression.network import Kept, Network
from compressnet.compression.part import Part, Piece, Sizes
from compressnet.compression.ranks import Energy, KeptLayer, Rank, Ranks, Ratio, chosen, shown
from compressnet.errors import UsageError

Moments = Mapping[Side, Second]
"""What was collected of one layer; empty: nothing (`--data-free`)."""


class Factorisation(Protocol):
    """Constructed with `ratio`, `rank` or `energy`, which it hands to `ranks.chosen`."""

    ratio: float | None
    rank: Rank | None
    energy: float | None

    def refusal(self, part: Part) -> str | None:
        """Why this is nothing for a layer; None: it is."""

    def reads(self, part: Part) -> Side:
        """Which moments of the layer it wants."""

    def full(self, part: Part) -> Ranks:
        """The ranks at which nothing is lost."""

    def sizes(self, part: Part, ranks: Ranks) -> Sequence[Sizes]:
        """Of the pieces."""

    def spectra(self, part: Part, moments: Moments) -> Sequence[Tensor]:
        """The energies along each side, falling."""

    def pieces(self, part: Part, moments: Moments, ranks: Ranks) -> Sequence[Piece]:
        """The layers in its place, float64."""


def check_size(name: str, ratio: Ratio | None, rank: Rank | None, energy: Energy | None) -> None:
    """Refuse two ways to say a size.

    Raises:
        UsageError: more than one was given.
    """
    given = [
        key for key, value in (("ratio", ratio), ("rank", rank), ("energy", energy)) if value is not None
    ]
    if len(given) > 1:
        raise UsageError(f"method {name}: {given[0]} and {given[1]} both say how large: keep one")


def changes(how: Factorisation, network: Network) -> Iterator[Replaced | Kept]:
    """What becomes of every layer of a network, each for itself."""
    parts, wanted = [], {}
    for part in network.parts:
        if reason := part.refusal() or how.refusal(part):
            yield Kept(part.path, type(part.layer).__name__, reason)
        else:
            parts.append(part)
            wanted[part.path] = (how.reads(part),)
    found = network.moments(wanted)
    for part in parts:
        moments = {side: found[part.path, side] for side in wanted[part.path] if found}
        try:
            change, ranks = factorised(how, part, moments)
        except KeptLayer as error:
            yield Kept(part.path, type(part.layer).__name__, str(error))
            continue
        thin = [second for second in moments.values() if second.is_thin]
        yield Replaced((part.path,), type(part.layer).__name__, f"rank {shown(ranks)}", change, bool(thin))


def factorised(how: Factorisation, part: Part, moments: Moments) -> tuple[Change, Ranks]:
    """What comes in the place of a layer.

    Raises:
        KeptLayer: it stays, and why.
    """
    ranks = ranks_of(how, part, moments)
    return part.replaced(how.pieces(part, moments, ranks)), ranks


def ranks_of(how: Factorisation, part: Part, moments: Moments) -> Ranks:
    """The sizes of a layer's factors.

    Raises:
        KeptLayer: it stays, and why.
    """
    return chosen(
        part.path,
        part.whole.macs,
        how.full(part),
        lambda ranks: sum(piece.macs for piece in how.sizes(part, ranks)),
        lambda: how.spectra(part, moments),
        how.ratio,
        how.rank,
        how.energy,
    )


def channel_root(part: Part, moments: Moments) -> tuple[Tensor, Tensor]:
    """The root of the covariance of the input channels and its inverse; identities without data."""
    if "inputs" in moments:
        return root(moments["inputs"].covariance)
    identity = torch.eye(part.inputs, dtype=torch.float64)
    return identity, identity


def input_bias(part: Part, moments: Moments, weight: Tensor) -> Tensor | None:
    """The bias with which the mean output stays, where the weights (n, m, *kernel) have become `weight`.

    Zeros that a convolution pads with are no data: at the border it is not exact.
    """
    if "inputs" not in moments or part.has_norm:
        return part.bias
    off = (part.weight - weight).flatten(2).sum(2) if part.kernel else part.weight - weight  # (n, m)
    more = off @ moments["inputs"].mean
    return more if part.bias is None else part.bias + more


def output_bias(part: Part, moments: Moments, basis: Tensor) -> Tensor | None:
    """The same where outputs are projected on the columns of `basis` (n, r)."""
    if "outputs" not in moments or part.has_norm:
        return part.bias  # it is added behind the product, as it was
    mean = moments["outputs"].mean
    centred = mean if part.bias is None else mean - part.bias
    return mean - basis @ (basis.T @ centred)
