"""How large the factors of a layer may be: by a share of its MACs, by a rank, or by the energy that stays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from compressnet.bounds import Fraction, Size
from compressnet.errors import CompressnetError

Ratio = Fraction
Energy = Annotated[float, Field(gt=0, le=1)]
Rank = Size | Annotated[list[Size], Field(min_length=2, max_length=2)]
Ranks = tuple[int, ...]
FEW = 8  # channels: of fewer none can be spared
_FINE, _COARSE = 16, 8  # up to so many every rank; above, multiples of 8: vectors have 8 or 16 lanes


class KeptLayer(CompressnetError):
    """A layer stays as it is; the message says why."""


def ladder(full: int) -> list[int]:
    """The ranks that are worth a try, rising: all up to 16, multiples of 8 above."""
    return [rank for rank in range(1, full + 1) if rank <= _FINE or rank % _COARSE == 0]


def in_proportion(full: Ranks) -> list[Ranks]:
    """Ranks of two sides that shrink alike, rising; that of the last side is on the ladder.

    A side of few channels (the colours of a picture) keeps all.
    """
    return [(*(_near(rank * side / full[-1], side) for side in full[:-1]), rank) for rank in ladder(full[-1])]


def _near(wanted: float, full: int) -> int:
    return full if full < FEW else min(ladder(full), key=lambda rank: abs(rank - wanted))


@dataclass(frozen=True)
class HowLarge:
    """How large the factors of a layer may be, said in one of three ways.

    Attributes:
        ratio: the largest share of the layer's MACs that they may cost (default: 0.5).
        rank: their rank; where there are two, [of the inputs, of the outputs] or that of the outputs.
        energy: the least share of the energy (of the outputs, with data) that stays.

    Raises:
        ValueError: two ways.
    """

    ratio: Ratio | None = None
    rank: Rank | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("ratio", "rank", "energy") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} both say how large: keep one")

    def choose(
        self,
        path: str,
        dense: int,
        full: Ranks,
        macs: Callable[[Ranks], int],
        spectra: Callable[[], Sequence[Tensor]],
    ) -> Ranks:
        """The ranks of a layer's factors.

        Args:
            path: of the layer.
            dense: its MACs.
            full: ranks at which nothing is lost.
            macs: those of the factors, by their ranks.
            spectra: energies along each side, falling; only called where `energy` asks.

        Raises:
            KeptLayer: none makes the layer smaller, or the rank is above full.
            CompressnetError: two ranks for factors of one.
        """
        if self.rank is not None:
            ranks, words = _given(path, full, self.rank), "rank {}"
        elif self.energy is not None:
            ranks = tuple(_enough(spectrum, self.energy) for spectrum in spectra())
            words = f"{self.energy:.2%} of its energy take rank {{}}, which"
        else:
            return _within(0.5 if self.ratio is None else self.ratio, dense, in_proportion(full), macs)
        if macs(ranks) >= dense:
            raise KeptLayer(f"{words.format(shown(ranks))} makes it larger: {_limit(full, macs, dense)}")
        return ranks


def _within(share: float, dense: int, rungs: Sequence[Ranks], macs: Callable[[Ranks], int]) -> Ranks:
    fitting = [ranks for ranks in rungs if macs(ranks) <= share * dense]
    if not fitting:
        raise KeptLayer(f"rank 1 already costs {macs(rungs[0]) / dense:.0%} of its MACs")
    return fitting[-1]


def shown(ranks: Ranks) -> str:
    """`24`, `24x48`."""
    return "x".join(map(str, ranks))


def _given(path: str, full: Ranks, rank: Rank) -> Ranks:
    given = tuple(rank) if isinstance(rank, list) else (rank,)
    if len(given) == 1 and len(full) > 1:
        given = (*(max(1, round(given[0] * side / full[-1])) for side in full[:-1]), given[0])
    if len(given) != len(full):
        raise CompressnetError(f"{path}: two ranks {list(given)} for factors of one: give one")
    if any(one > most for one, most in zip(given, full, strict=True)):
        raise KeptLayer(f"rank {shown(given)} is above its full rank {shown(full)}")
    return given


def _limit(full: Ranks, macs: Callable[[Ranks], int], dense: int) -> str:
    """Up to which rank the factors are smaller than the layer."""
    every = range(1, full[-1] + 1)
    pairs = [(*(max(1, round(rank * side / full[-1])) for side in full[:-1]), rank) for rank in every]
    under = list(itertools.takewhile(lambda ranks: macs(ranks) < dense, pairs))
    return f"it breaks even above rank {shown(under[-1])}" if under else "no rank makes it smaller"


def _enough(spectrum: Tensor, energy: float) -> int:
    """The fewest values that hold this share of the sum, rounded up to the ladder."""
    total = float(spectrum.sum())
    if not total > 0:
        return 1
    shares = spectrum.cumsum(0) / total
    count = int((shares < energy - 1e-12).sum()) + 1
    return next((rank for rank in ladder(len(spectrum)) if rank >= count), len(spectrum))
