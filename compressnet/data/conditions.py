"""What a network of several operators, or of one with a dial, is told of each sample.

What its task stores, and so hands to every data set of photographs (`assets`):

    {"operators": ["l0:lambda=0.01", "rof"], "weights": [2.0, 1.0]}      Choice: a one-hot condition
    {"operators": ["l0"], "dial": {"lambda": [0.002, 0.02]}}             Dial: the strength, default = 1

Which operator or strength a sample of training has is a pure function of (seed, key). Evaluation sees every
photograph with every operator, or at nine strengths; or as `asked` says, a list of `Told` that `eval --set`
adds to the assets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from compressnet import signature

_STRENGTHS = 4  # of a dial at which a photograph is trained: targets take long
_POSITIONS = 9  # of a dial that are measured


class Told(NamedTuple):
    """One choice.

    Attributes:
        operators: that make the target, with their arguments.
        numbers: of the condition.
        name: for people, as in "rof", "0.5 rof + 0.5 l0" or "lambda=0.01".
        shares: of the operators in the target, which is the mean of their outputs.
    """

    operators: tuple[str, ...]
    numbers: tuple[float, ...]
    name: str
    shares: tuple[float, ...] = (1.0,)


class Choice:
    """One of several operators.

    Args:
        operators: as subjects, in the order of the condition.
        weights: how often each is drawn, up to a factor.
    """

    key = "operator"

    def __init__(self, operators: Sequence[str], weights: Sequence[float] | None = None) -> None:
        self.operators = list(operators)
        given = np.ones(len(operators)) if weights is None else np.asarray(weights, dtype=np.float64)
        self._shares = given / given.sum()

    @property
    def count(self) -> int:
        """The numbers of a condition."""
        return len(self.operators)

    @property
    def meaning(self) -> str:
        """Of the numbers of a condition, for who has to fill them in."""
        return f"the shares of {', '.join(names_of(self.operators))}, in this order, which add to 1"

    def draw(self, seed: int, random: np.random.Generator) -> Told:
        return self.positions()[int(random.choice(self.count, p=self._shares))]

    def of_photograph(self, seed: int) -> list[Told]:
        """All that a photograph is trained with."""
        return self.positions()

    def positions(self) -> list[Told]:
        """What is measured: each operator."""
        names = names_of(self.operators)
        return [
            Told((operator,), tuple(float(other == number) for other in range(self.count)), names[number])
            for number, operator in enumerate(self.operators)
        ]

    def blend(self, shares: Mapping[str, float]) -> Told:
        """Between operators, which are given by the names that `positions` has, with shares that add to 1."""
        every = self.positions()
        parts = [(told, shares[told.name]) for told in every if shares.get(told.name)]
        return Told(
            tuple(told.operators[0] for told, _ in parts),
            tuple(shares.get(told.name, 0.0) for told in every),
            " + ".join(told.name if share == 1 else f"{share:g} {told.name}" for told, share in parts),
            tuple(share for _, share in parts),
        )


class Dial:
    """One operator of which a setting is chosen when it is applied.

    Args:
        operator: as a subject, without that setting.
        key: the setting.
        low, high: its range; drawn evenly by its logarithm.
    """

    count = 1

    def __init__(self, operator: str, key: str, low: float, high: float) -> None:
        self.operator, self.key, self.low, self.high = operator, key, low, high
        self.unit = unit_of(operator, key)

    def told(self, value: float) -> Told:
        name, arguments = signature.read_named(self.operator.removeprefix("operator:"))
        text = signature.write_named(name, {**arguments, self.key: value})
        return Told((text,), (value / self.unit,), f"{self.key}={value:g}")

    @property
    def meaning(self) -> str:
        """Of the number of a condition, for who has to fill it in."""
        low, high = self.low / self.unit, self.high / self.unit
        return f"{self.key} / {self.unit:g}, from {low:g} to {high:g}"

    def draw(self, seed: int, random: np.random.Generator) -> Told:
        """One of a few strengths, which depend on `seed` alone: of the photograph, not of the run."""
        return self.of_photograph(seed)[int(random.integers(_STRENGTHS))]

    def of_photograph(self, seed: int) -> list[Told]:
        """All that a photograph is trained with: a strength from each of four equal parts of the range."""
        places = np.random.default_rng(seed).random(_STRENGTHS)
        return [self.told(self._at((number + place) / _STRENGTHS)) for number, place in enumerate(places)]

    def positions(self) -> list[Told]:
        """What is measured: nine strengths from end to end."""
        return [self.told(self._at(number / (_POSITIONS - 1))) for number in range(_POSITIONS)]

    def _at(self, place: float) -> float:
        """Of 0 to 1 along the range; four digits, so that its text is short and means the same number."""
        value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        return min(max(float(f"{value:.4g}"), self.low), self.high)


def conditions_of(assets: Mapping[str, Any]) -> Choice | Dial | None:
    """What the task of a network stored; None: it does one thing."""
    if "operators" not in assets:
        return None
    if dial := assets.get("dial"):
        ((key, (low, high)),) = dial.items()
        return Dial(assets["operators"][0], key, low, high)
    return Choice(assets["operators"], assets.get("weights"))


def names_of(operators: Sequence[str]) -> list[str]:
    """What people call them: the operator's name, or the whole text where two have the same."""
    short = [signature.read_named(text.removeprefix("operator:"))[0] for text in operators]
    return [name if short.count(name) == 1 else text for name, text in zip(short, operators, strict=True)]


def unit_of(operator: str, key: str) -> float:
    """What a number of a dial's condition is measured in: the default of that setting."""
    from compressnet import registry

    name, _ = signature.read_named(operator.removeprefix("operator:"))
    return float(signature.parameters(registry.find("operator", name))[key].default)
