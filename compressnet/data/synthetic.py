"""The problems of the paper on LSTM, made up sequence by sequence: long time lags, and nothing on disk.

    S. Hochreiter, J. Schmidhuber: Long Short-Term Memory. Neural Computation 9(8):1735-1780, 1997, section 5

    reber              symbols of a grammar; after each, what may come next (5.1)
    two_sequence       N numbers ±1, then noise; at the end, which of both they were (5.3, "3a")
    adding             numbers, two of them marked; at the end, their sum (5.4)
    multiplication     as adding; at the end, their product (5.5)
    temporal_order_6a  two symbols X or Y far apart among others; at the end, which came in which order (5.6)
    temporal_order_6b  three of them

Every sequence is a pure function of (seed, split, number); in training the number is the draw, so that no
sequence comes twice, as in the paper.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from compressnet.bounds import Count, Repeats
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter

Array = NDArray[Any]
Random = np.random.Generator
Name = Literal["reber", "two_sequence", "adding", "multiplication", "temporal_order_6a", "temporal_order_6b"]
_SPLITS = ("train", "val", "test")
_OWN = 1997  # keeps the random choices made here apart from those of the sampler
_INFORMATIVE = 3  # N of the two-sequence problem

# The symbols of the grammar, and its arrows (G. Reber's finite automaton): place -> symbol -> next place.
REBER = "BTPSXVE"
_ARROWS = [
    {"T": 1, "P": 5},
    {"S": 1, "X": 2},
    {"S": 3, "X": 5},
    {"E": 6},
    {"V": 3, "P": 2},
    {"T": 5, "V": 4},
]
_LAST = 6
ORDER = "EBabcdXY"  # what begins and ends a sequence, what means nothing, what counts


class SequenceBatch(NamedTuple):
    """Sequences side by side, padded with zeros behind their ends; a single one has no B.

    Attributes:
        inputs: (T, B, n_i).
        targets: (T, B, n_o), 0 to 1.
        scored: (T, B), whether a step has a target.
        legal: (T, B, n_o), the outputs of which one may come true; None: the target is all there is.
    """

    inputs: Tensor
    targets: Tensor
    scored: Tensor
    legal: Tensor | None


class Problem(NamedTuple):
    """What there is to know of a problem.

    Attributes:
        make: of random numbers and T: inputs (T', n_i), targets (S, n_o) of the last S steps, legal outputs.
        tolerance: a sequence is processed correctly if all outputs are off by less; None: if the legal
            outputs are more active than all others, at every step.
        symbols: what the inputs stand for, where one of them is 1 and the others 0.
        outputs: what they stand for, where that has a name: the next symbol, or which came in which order.
        logistic: output units are; else linear. Which the paper has for adding we do not know: with a
            logistic one none of five seeds met its criterion, with a linear one all did (`task.logistic`).
    """

    make: Callable[[Random, int], tuple[Array, Array, Array | None]]
    input_size: int
    output_size: int
    tolerance: float | None
    symbols: str = ""
    outputs: tuple[str, ...] = ()
    logistic: bool = True


class SyntheticSplit:
    """Sequences of one problem.

    Args:
        name: of the problem.
        steps: T.
        length: sequences of an epoch.
        fresh: other ones in every epoch.
        split: 0, 1 or 2, so that no split has the sequences of another.
    """

    continuous = False
    derives = False
    has_targets = True

    def __init__(self, name: str, steps: int, length: int, fresh: bool, split: int, seed: int) -> None:
        self.problem_name, self.problem = name, PROBLEMS[name]
        self.steps, self.fresh = steps, fresh
        self._length, self._words = length, (seed, _OWN, split)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Key) -> SequenceBatch:
        """A sequence: inputs (T, n_i), targets and legal outputs (T, n_o), scored (T,)."""
        random = generator(*self._words, key.draw if self.fresh else key.index)
        inputs, ends, legal = self.problem.make(random, self.steps)
        targets = np.zeros((len(inputs), self.problem.output_size), np.float32)
        targets[-len(ends) :] = ends
        scored = torch.zeros(len(inputs), dtype=torch.bool)
        scored[-len(ends) :] = True
        allowed = None if legal is None else torch.from_numpy(legal)
        return SequenceBatch(
            torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets), scored, allowed
        )

    def name(self, index: int) -> str:
        return f"{self.problem_name} {index}"

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def collate(self, samples: list[SequenceBatch]) -> SequenceBatch:
        inputs, targets, scored, legal = zip(*samples, strict=True)
        allowed = None if legal[0] is None else pad_sequence(list(legal))
        padded = [pad_sequence(list(side)) for side in (inputs, targets, scored)]
        return SequenceBatch(padded[0], padded[1], padded[2], allowed)

    def facts(self) -> dict[str, Any]:
        """How many, and the beginning of the SHA-256 of what makes them, with the first of them."""
        first = self[Key(0, 0, 0)]
        text = json.dumps([self.problem_name, self.steps, self._length, self.fresh, self._words])
        parts = [text.encode(), first.inputs.numpy().tobytes(), first.targets.numpy().tobytes()]
        return {"count": self._length, "fingerprint": hashlib.sha256(b"".join(parts)).hexdigest()[:16]}


class Synthetic:
    """Sequences of a problem of the paper on LSTM.

    Args:
        problem: which.
        steps: T: sequences have T to T + T/10 steps; those of reber end where the grammar says.
        count: sequences of an epoch of training.
        fresh: train on other sequences in every epoch; False: the same `count` all the time.
        val_count, test_count: sequences to validate and to test on, always the same.
    """

    sample_type: ClassVar[str] = "sequence"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        problem: Name = "adding",
        steps: Annotated[int, Field(ge=10, le=100_000)] = 100,
        count: Count = 10_000,
        fresh: bool = True,
        val_count: Repeats = 2_000,
        test_count: Repeats = 2_560,
    ) -> None:
        self._problem, self._steps, self._fresh = problem, steps, fresh
        self._counts = {"train": count, "val": val_count, "test": test_count}

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> SyntheticSplit:
        if split not in _SPLITS:
            raise NoSuchSplit(f"synthetic has no split '{split}': only train, val and test")
        if assets and assets["problem"] != self._problem:
            raise CompressnetError(
                f"the network has learned the problem '{assets['problem']}', data.problem is "
                f"'{self._problem}': set data.problem={assets['problem']}"
            )
        fresh = self._fresh and split == "train"
        number = _SPLITS.index(split)
        return SyntheticSplit(self._problem, self._steps, self._counts[split], fresh, number, seed)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        return []


def _reber(random: Random, steps: int) -> tuple[Array, Array, Array]:
    """An embedded string: the symbol in the second place comes again before the last."""
    outer = "TP"[random.integers(2)]
    text, legal = ["B", outer, "B"], ["TP", "B", "TP"]
    place = 0
    while place != _LAST:
        symbols = sorted(_ARROWS[place])
        symbol = symbols[random.integers(len(symbols))]
        place = _ARROWS[place][symbol]
        text.append(symbol)
        legal.append(outer if place == _LAST else "".join(_ARROWS[place]))
    text += [outer, "E"]
    legal.append("E")
    numbers = one_hot("".join(text), REBER)
    allowed = np.array([[symbol in after for symbol in REBER] for after in legal])
    return numbers[:-1], numbers[1:], allowed


def _two_sequence(random: Random, steps: int) -> tuple[Array, Array, None]:
    """Noise of variance 0.2 behind the first numbers."""
    length, is_first = _length(random, steps), int(random.integers(2))
    values = random.normal(0.0, 0.2**0.5, length)
    values[:_INFORMATIVE] = 2 * is_first - 1
    return values[:, None], np.array([[is_first]]), None


def _adding(random: Random, steps: int) -> tuple[Array, Array, None]:
    inputs, one, other = _marked(random, steps, -1.0, neutral=0.0)
    return inputs, np.array([[0.5 + (one + other) / 4]]), None


def _multiplication(random: Random, steps: int) -> tuple[Array, Array, None]:
    inputs, one, other = _marked(random, steps, 0.0, neutral=1.0)
    return inputs, np.array([[one * other]]), None


def _marked(random: Random, steps: int, least: float, neutral: float) -> tuple[Array, float, float]:
    """Pairs (value, marker): one of the first ten and another of the first T/2 - 1 are marked with 1.

    The first and the last pair have the marker -1; where the first is a marked one, its value is `neutral`.
    """
    length = _length(random, steps)
    inputs = np.zeros((length, 2))
    inputs[:, 0] = random.uniform(least, 1.0, length)
    inputs[[0, -1], 1] = -1.0
    one = int(random.integers(min(10, steps // 2 - 1)))
    other = int(random.integers(steps // 2 - 2))
    other += other >= one
    if 0 in (one, other):
        inputs[0, 0] = neutral
    inputs[[one, other], 1] = 1.0
    return inputs, float(inputs[one, 0]), float(inputs[other, 0])


def _temporal_order(places: tuple[float, ...]) -> Callable[[Random, int], tuple[Array, Array, None]]:
    """X or Y somewhere in a tenth of T from each of `places` (shares of T) on."""

    def make(random: Random, steps: int) -> tuple[Array, Array, None]:
        symbols = random.integers(2, 6, _length(random, steps))  # one of a, b, c, d
        symbols[0], symbols[-1] = 0, 1  # E ... B
        kind = 0
        for place in places:
            bit = int(random.integers(2))
            begin = int(place * steps)
            symbols[random.integers(begin, begin + steps // 10 + 1)] = 6 + bit
            kind = 2 * kind + bit
        return np.eye(len(ORDER))[symbols], np.eye(2 ** len(places))[[kind]], None

    return make


def _orders(count: int) -> tuple[str, ...]:
    """What the outputs of `count` symbols X or Y mean: XX, XY, ..."""
    return tuple(map("".join, product("XY", repeat=count)))


def _length(random: Random, steps: int) -> int:
    return int(random.integers(steps, steps + steps // 10 + 1))


def one_hot(text: str, symbols: str) -> Array:
    """(T, n): 1 where a symbol of the text is the one of the column.

    Raises:
        CompressnetError: it has others.
    """
    if unknown := sorted(set(text) - set(symbols)):
        raise CompressnetError(f"{unknown} are none of the symbols {symbols}")
    return np.eye(len(symbols))[[symbols.index(symbol) for symbol in text]]


PROBLEMS: dict[str, Problem] = {
    "reber": Problem(_reber, 7, 7, None, REBER, tuple(REBER)),
    "two_sequence": Problem(_two_sequence, 1, 1, 0.2),
    "adding": Problem(_adding, 2, 1, 0.04, logistic=False),
    "multiplication": Problem(_multiplication, 2, 1, 0.04, logistic=False),
    "temporal_order_6a": Problem(_temporal_order((0.1, 0.5)), 8, 4, 0.3, ORDER, _orders(2)),
    "temporal_order_6b": Problem(_temporal_order((0.1, 0.33, 0.66)), 8, 8, 0.3, ORDER, _orders(3)),
}
