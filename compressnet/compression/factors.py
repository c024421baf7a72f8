"""Transforms that put a row of smaller layers in the place of one linear layer or convolution.

    Part, Moments -> ranks -> pieces -> Change

Each file of a transform has a class of this kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from compressnet.compression.change import Replaced
from compressnet.compression.moments import Second, Side, root
from compressnet.compression.network import Kept, Network
from compressnet.compression.part import Part, Piece, Sizes
from compressnet.compression.ranks import HowLarge, KeptLayer, Ranks, shown

Moments = Mapping[Side, Second]
"""What was collected of one layer; empty: nothing (`--data-free`)."""


class Factorisation(HowLarge, ABC):
    """A transform of one layer at a time."""

    @abstractmethod
    def refusal(self, part: Part) -> str | None:
        """Why this is nothing for a layer; None: it is."""

    @abstractmethod
    def reads(self, part: Part) -> Side:
        """Which moments of the layer it wants."""

    @abstractmethod
    def full(self, part: Part) -> Ranks:
        """The ranks at which nothing is lost."""

    @abstractmethod
    def sizes(self, part: Part, ranks: Ranks) -> Sequence[Sizes]:
        """Of the pieces."""

    @abstractmethod
    def spectra(self, part: Part, moments: Moments) -> Sequence[Tensor]:
        """The energies along each side, falling."""

    @abstractmethod
    def pieces(self, part: Part, moments: Moments, ranks: Ranks) -> Sequence[Piece]:
        """The layers in its place, float64."""

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        """What becomes of every layer of a network, each for itself."""
        parts, wanted = [], {}
        for part in network.parts:
            if reason := part.refusal() or self.refusal(part):
                yield Kept(part.path, type(part.layer).__name__, reason)
            else:
                parts.append(part)
                wanted[part.path] = (self.reads(part),)
        found = network.moments(wanted)
        for part in parts:
            kind = type(part.layer).__name__
            if found and (part.path, self.reads(part)) not in found:
                yield Kept(part.path, kind, "the calibration data does not always come by it")
                continue
            moments = {side: found[part.path, side] for side in wanted[part.path] if found}
            try:
                ranks = self.ranks(part, moments)
            except KeptLayer as error:
                yield Kept(part.path, kind, str(error))
                continue
            change = part.replaced(self.pieces(part, moments, ranks))
            thin = any(second.is_thin for second in moments.values())
            yield Replaced((part.path,), kind, f"rank {shown(ranks)}", change, thin)

    def ranks(self, part: Part, moments: Moments) -> Ranks:
        """The sizes of a layer's factors.

        Raises:
            KeptLayer: it stays, and why.
        """
        return self.choose(
            part.path,
            part.whole.macs,
            self.full(part),
            lambda ranks: sum(piece.macs for piece in self.sizes(part, ranks)),
            lambda: self.spectra(part, moments),
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
