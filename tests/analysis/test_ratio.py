"""Intervals hold what they promise: simulated comparisons of a thing with itself, where the truth is 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from compressnet.analysis.ratio import Ratio, paired_ratio, pooled_ratio, unpaired_ratio

Noise = Callable[[np.random.Generator, int], np.ndarray]


def lasting(generator: np.random.Generator, count: int) -> np.ndarray:
    """Log seconds: AR(1) with coefficient 0.5 and Student's t (3) as innovations, of 3 %."""
    shocks = 0.03 * generator.standard_t(3, count + 30)
    values = np.zeros(count + 30)
    for place in range(1, count + 30):
        values[place] = 0.5 * values[place - 1] + shocks[place]
    return values[30:]


def two_lasting(generator: np.random.Generator, count: int) -> np.ndarray:
    return np.stack([lasting(generator, count), lasting(generator, count)])


def drifting(generator: np.random.Generator, count: int) -> np.ndarray:
    """The same on a load that rises by 60 % with a wave on it; a goes first in every other round."""
    slots = np.arange(2 * count) / (2 * count)
    load = (0.6 * slots + 0.1 * np.sin(6 * np.pi * slots)).reshape(count, 2)
    load[1::2] = load[1::2, ::-1]
    return two_lasting(generator, count) + load.T


def independent(generator: np.random.Generator, count: int) -> np.ndarray:
    return 0.05 * generator.standard_normal((2, count))


def covered(noise: Noise, counts: tuple[int, ...], times: int, ratio: Callable[..., Ratio]) -> float:
    """The share of comparisons of a thing with itself whose interval holds 1."""
    hits = 0
    for count in counts:
        for seed in range(times):
            a, b = np.exp(noise(np.random.default_rng([count, seed]), count))
            hits += not ratio(a.tolist(), b.tolist()).shows_difference
    return hits / (times * len(counts))


def round_by_round(a: list[float], b: list[float]) -> Ratio:
    """What is usual: medians of rounds resampled as if they were independent."""
    ratios = np.asarray(a) / np.asarray(b)
    draws = np.random.default_rng(0).integers(0, len(ratios), (1000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), low, high)


@pytest.mark.parametrize("noise", [two_lasting, drifting])
def test_holds_the_truth_in_lasting_noise(noise: Noise) -> None:
    """0.95 wanted; 240 comparisons have a standard error of 0.014."""
    assert covered(noise, (12, 30, 50), 80, paired_ratio) >= 0.92
    assert covered(noise, (12, 30, 50), 80, round_by_round) < 0.86


def test_holds_the_truth_of_many_rounds_and_of_independent_ones() -> None:
    assert covered(two_lasting, (200,), 60, paired_ratio) >= 0.90
    assert covered(independent, (12, 50), 60, paired_ratio) >= 0.92


def test_unpaired_holds_the_truth() -> None:
    def within(a: list[float], b: list[float]) -> Ratio:
        return unpaired_ratio(a, b, between=0)

    assert covered(two_lasting, (12, 30, 50), 40, within) >= 0.92


def test_shows_a_difference_where_there_is_one() -> None:
    """10 % in noise of 5 %: 30 rounds are plenty, so intervals are not just wide."""
    shown = 0
    for seed in range(40):
        a, b = np.exp(independent(np.random.default_rng(seed), 30))
        ratio = paired_ratio((1.1 * a).tolist(), b.tolist())
        shown += ratio.shows_difference and ratio.low < 1.1 < ratio.high
    assert shown >= 36


def test_interval_shrinks_as_the_root_of_rounds() -> None:
    def width(count: int) -> float:
        a, b = np.exp(independent(np.random.default_rng(3), count))
        ratio = paired_ratio(a.tolist(), b.tolist())
        return ratio.high - ratio.low

    assert width(50) / width(800) == pytest.approx(4, rel=0.35)


def test_what_runs_second_being_slower_cancels() -> None:
    """7 rounds a first, 6 rounds b first, 5 % each way: the median would say 1.05."""
    order = np.where(np.arange(13) % 2, -1, 1)
    ratio = paired_ratio(np.exp(0.05 * order).tolist(), [1.0] * 13)
    assert math.exp(np.median(0.05 * order)) == pytest.approx(1.0513, abs=1e-4)
    # By hand: 3 of each side are cut, of 7 in the middle 4 are up: 0.05 / 7.
    assert ratio.value == pytest.approx(math.exp(0.05 / 7))
    assert not ratio.shows_difference


def test_outliers_do_not_move_it() -> None:
    """Three of twelve rounds are cut on either side, so two wild ones weigh nothing."""
    ratio = paired_ratio([2.0] * 9 + [50.0, 2.0, 90.0], [1.0] * 12)
    assert ratio.value == pytest.approx(2)
    assert ratio.low == pytest.approx(2)


def test_two_sessions_are_less_sure_than_one() -> None:
    """Steady within: all that is left is 1.96 standard deviations of what changes between sessions."""
    old, new = [2.0] * 12, [1.0] * 30
    ratio = unpaired_ratio(old, new, between=0.05)
    assert ratio.value == pytest.approx(2)
    assert math.log(ratio.high / ratio.low) == pytest.approx(2 * 1.96 * 0.05, rel=0.06)
    within = unpaired_ratio(old, new, between=0)
    assert (within.low, within.high) == pytest.approx((2, 2))


def test_is_the_same_each_time() -> None:
    a, b = np.exp(independent(np.random.default_rng(0), 20)).tolist()
    assert paired_ratio(a, b) == paired_ratio(a, b)
    assert paired_ratio(a, b) != paired_ratio(a, b, seed=1)


def test_against_itself() -> None:
    assert paired_ratio([3.0, 1.0, 2.0], [3.0, 1.0, 2.0]) == Ratio(1, 1, 1)


def test_two_rounds_say_little() -> None:
    ratio = paired_ratio([1.1, 1.0], [1.0, 1.0])
    assert ratio.low < 0.7
    assert ratio.high > 1.5


@pytest.mark.parametrize(
    ("a", "b"), [([1.0], [1.0]), ([], []), ([1.0, 0.0], [1.0, 1.0]), ([1.0, math.nan], [1.0, 1.0])]
)
def test_refuses_what_has_no_ratio(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="two rounds of positive seconds"):
        paired_ratio(a, b)
    with pytest.raises(ValueError, match="two rounds of positive seconds"):
        unpaired_ratio(a, b)


def test_refuses_unequal_rounds() -> None:
    with pytest.raises(ValueError, match="2 and 3 rounds"):
        paired_ratio([1.0, 1.0], [1.0, 1.0, 1.0])


def test_is_read_as_times() -> None:
    assert str(Ratio(3, 2.5, 3.125)) == "3.00x [2.50, 3.12]"
    assert [Ratio(1, low, high).shows_difference for low, high in ((0.9, 1.1), (1.01, 1.1), (0.8, 0.9))] == [
        *(False, True, True)
    ]


def test_pooled_holds_the_truth_when_processes_differ() -> None:
    hits = {3: 0, 5: 0}
    for processes in hits:
        for seed in range(200):
            generator = np.random.default_rng([processes, seed])
            ratios = []
            for _ in range(processes):
                a, b = np.exp(two_lasting(generator, 8))
                ratios.append(paired_ratio(a, b * math.exp(0.04 * generator.standard_normal())))
            hits[processes] += not pooled_ratio(ratios).shows_difference
    assert min(hits.values()) >= 0.93 * 200


def test_pooled_is_narrower_with_more_processes() -> None:
    same = Ratio(1.5, 1.49, 1.51)
    widths = [math.log(r.high / r.low) for r in (pooled_ratio([same] * n) for n in (2, 3, 5, 20))]
    assert widths == sorted(widths, reverse=True)
    assert pooled_ratio([same] * 3).value == pytest.approx(1.5)
    assert pooled_ratio([same]) == same
    with pytest.raises(ValueError, match="no ratios"):
        pooled_ratio([])
