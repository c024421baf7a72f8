"""Which form runs when: warm-up until stable, then rounds in orders that favour none.

Every round runs every form once, and the order changes from round to round such that each form follows each
other form equally often (E. J. Williams: Experimental designs balanced for the estimation of residual effects
of treatments. Australian Journal of Scientific Research 2, 1949). To turn the order alone would not do: b
would nearly always run in the caches that a left.

Nothing is dropped: outliers stay, the warm-up is counted and its first call kept apart.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from compressnet.errors import CompressnetError

Sampler = Callable[[], float]  # runs something once and returns its seconds

_BLOCK = 5  # warm-up runs whose median is compared with that of the next ones
_AGREE = 0.02


@dataclass(frozen=True)
class Effort:
    """How long to warm up and to measure. Seconds are of the wall clock.

    Attributes:
        warmup_rounds: runs of each form that are not counted, at least, unless its seconds are used up.
        warmup_seconds: of one form, its first call (compilation, autotuning) apart; ends its warm-up after
            two runs or more even if it is not stable.
        min_rounds: are measured in any case.
        max_rounds: end the measurement. Of what takes microseconds, 50 rounds are over within a millisecond,
            and intervals from so short a look were seen to be too narrow.
        min_seconds: times the number of forms: after these, `min_rounds` are enough.
        rounds: measure exactly these.
    """

    warmup_rounds: int = 10
    warmup_seconds: float = 3.0
    min_rounds: int = 10
    max_rounds: int = 200
    min_seconds: float = 2.0
    rounds: int | None = None

    def __post_init__(self) -> None:
        measured = self.rounds if self.rounds is not None else min(self.min_rounds, self.max_rounds)
        if measured < 2 or self.warmup_rounds < 0 or self.warmup_seconds < 0 or self.min_seconds < 0:
            raise ValueError("timing needs two rounds or more, and no negative warm-up or seconds")

    def shared(self, processes: int) -> Effort:
        """The effort of each of several processes that measure the same; each warms up for itself."""
        if processes == 1:
            return self
        return replace(
            self,
            warmup_seconds=self.warmup_seconds / 2,
            min_rounds=max(2, self.min_rounds // 2),
            max_rounds=max(2, -(-self.max_rounds // processes)),
            min_seconds=self.min_seconds / processes,
            rounds=None if self.rounds is None else max(2, -(-self.rounds // processes)),
        )

    def is_over(self, rounds: int, seconds: float) -> bool:
        """Whether `rounds`, which took `seconds` a form, are enough."""
        if self.rounds is not None:
            return rounds >= self.rounds
        return rounds >= self.max_rounds or (rounds >= self.min_rounds and seconds >= self.min_seconds)


USUAL = Effort()


class WarmUp:
    """The warm-up of one form.

    Attributes:
        seconds: of each run so far, the very first included.
        stable: whether the medians of two successive blocks of five runs came within 2 %; None: too few runs.
    """

    def __init__(self, name: str, sampler: Sampler) -> None:
        self._name, self._sampler = name, sampler
        self.seconds: list[float] = []
        self._spent = 0.0
        self.stable: bool | None = None

    def run(self) -> None:
        start = time.perf_counter()
        self.seconds.append(_positive(self._name, self._sampler()))
        # The first call may compile for a minute; that must not use up the warm-up of what it compiled.
        self._spent += time.perf_counter() - start if len(self.seconds) > 1 else 0.0
        if len(self.seconds) >= 2 * _BLOCK and len(self.seconds) % _BLOCK == 0:
            before, last = np.median(np.reshape(self.seconds[-2 * _BLOCK :], (2, _BLOCK)), axis=1)
            self.stable = bool(self.stable) or bool(abs(last - before) <= _AGREE * before)

    def may_run(self, how: Effort) -> bool:
        return len(self.seconds) < 2 or self._spent < how.warmup_seconds

    def is_over(self, how: Effort) -> bool:
        return not self.may_run(how) or (bool(self.stable) and len(self.seconds) >= how.warmup_rounds)


def warm_up(samplers: Mapping[str, Sampler], how: Effort) -> dict[str, WarmUp]:
    """In turns, as they will be measured, until all are stable or have used up their seconds."""
    warm = {name: WarmUp(name, sampler) for name, sampler in samplers.items()}
    while not all(one.is_over(how) for one in warm.values()):
        for one in warm.values():
            if one.may_run(how):
                one.run()
    return warm


def measure(samplers: Mapping[str, Sampler], how: Effort) -> dict[str, list[float]]:
    """Seconds of each form, a round each, in the order of rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    start = time.perf_counter()
    for number, order in enumerate(itertools.cycle(_orders(list(samplers)))):
        if how.is_over(number, (time.perf_counter() - start) / len(samplers)):
            break
        for name in order:
            seconds[name].append(_positive(name, samplers[name]()))
    return seconds


def _orders(names: list[str]) -> list[list[str]]:
    """Orders in which each name follows each other one equally often: Williams' square, or two of them.

    Zigzag 0, 1, n-1, 2, n-2, ... has every step between places once (n even) or, with its reverse, twice.
    """
    count = len(names)
    zigzag = [(place + 1) // 2 if place % 2 else -place // 2 for place in range(count)]
    square = [[names[(step + turn) % count] for step in zigzag] for turn in range(count)]
    return square if count % 2 == 0 else [order for row in square for order in (row, row[::-1])]


def _positive(name: str, seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds > 0):
        raise CompressnetError(f"{name}: the clock says {seconds} s for a run: time more work in one run")
    return seconds
