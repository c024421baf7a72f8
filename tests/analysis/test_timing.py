from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, pairwise, repeat

import numpy as np
import pytest
import torch

from compressnet.analysis import timing
from compressnet.analysis.ratio import Ratio, pooled_ratio
from compressnet.analysis.rounds import Effort
from compressnet.analysis.timing import Comparison, Timing, compare, interleave, peak_gflops, pooled, warnings
from compressnet.errors import CompressnetError

SHORT = Effort(warmup_seconds=0, rounds=2)  # two runs each to warm up, two measured


class FakeClock:
    """Wall and processor time that only `work` moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.cpu = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(time, "process_time", lambda: self.cpu)

    def work(self, seconds: float, cpu: float = 0.0) -> None:
        self.wall += seconds
        self.cpu += cpu

    def runs(self, seconds: Iterator[float]) -> Callable[[], float]:
        """A sampler whose runs take these seconds, one after the other."""

        def run() -> float:
            one = next(seconds)
            self.work(one)
            return one

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock(monkeypatch)


def steady(name: str = "a", seconds: tuple[float, ...] = (1.0,) * 10, **changes: object) -> Timing:
    values = {"ratio": Ratio(1, 1, 1), "first_seconds": 1.0, "warmup_runs": 10, "stable": True}
    return Timing(name, seconds, **{**values, **changes})  # type: ignore[arg-type]


def test_rounds_run_every_form_once_in_turning_orders() -> None:
    calls: list[str] = []
    forms = {name: partial(calls.append, name) for name in "abc"}
    result = compare(forms, Effort(warmup_seconds=0, rounds=6))
    assert "".join(calls) == "abcabc" + "abc" + "cba" + "bca" + "acb" + "cab" + "bac"
    assert all(len(t.seconds) == 6 for t in result.timings)
    assert result.baseline == "a"


@pytest.mark.parametrize("names", ["ab", "abc", "abcd", "abcde", "abcdefgh"])
def test_each_form_follows_each_other_equally_often(names: str) -> None:
    calls: list[str] = []
    cycle = len(names) * (1 + len(names) % 2)
    compare({n: partial(calls.append, n) for n in names}, Effort(warmup_seconds=0, rounds=cycle))
    measured = calls[2 * len(names) :]
    rounds = [measured[start : start + len(names)] for start in range(0, len(measured), len(names))]
    pairs = [pair for one in rounds for pair in pairwise(one)]
    assert {pairs.count((a, b)) for a in names for b in names if a != b} == {cycle // len(names)}
    assert {tuple(sorted(one)) for one in rounds} == {tuple(names)}
    assert {[one[0] for one in rounds].count(name) for name in names} == {cycle // len(names)}


def test_ratio_says_how_many_times_as_fast(clock: FakeClock) -> None:
    """`slow` takes 3 s, `fast` 1 s; a round's load stretches both."""
    load = chain([1, 1, 1, 1], [1, 1, 2, 2, 1, 1, 7, 7, 1, 1, 3, 3])
    forms = {name: lambda s=s: clock.work(s * next(load)) for name, s in (("slow", 3.0), ("fast", 1.0))}
    result = compare(forms, Effort(warmup_seconds=0, rounds=6))
    ratio = result["fast"].ratio
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert result["slow"].ratio.value == 1
    assert result["fast"].seconds == (1, 2, 1, 7, 1, 3)


def test_quantiles_by_hand() -> None:
    one = steady(seconds=tuple(float(n) for n in range(11, 0, -1)))
    assert (one.best, one.p10, one.median, one.p90) == (1, 2, 6, 10)
    assert one.quartiles == (3.5, 8.5)
    assert one.spread == pytest.approx(5 / 6)
    assert one.p99 == pytest.approx(10.9)


def test_warms_up_until_two_blocks_agree(clock: FakeClock) -> None:
    """Blocks of five: 9, 9, 5, 3, 3: the fifth is the first that agrees with the one before."""
    slowly = clock.runs(chain([9.0] * 3, [9.5] * 7, [5.0] * 5, repeat(3.0)))
    result = interleave({"a": slowly}, Effort(warmup_seconds=1000, rounds=2))
    assert result["a"].first_seconds == 9
    assert result["a"].warmup_runs == 25
    assert result["a"].stable
    assert result["a"].seconds == (3, 3)


def test_warm_up_takes_ten_runs_even_of_a_steady_form(clock: FakeClock) -> None:
    one = interleave({"a": clock.runs(repeat(0.01))}, Effort(rounds=2))["a"]
    assert (one.warmup_runs, one.stable) == (10, True)
    assert (
        interleave({"a": clock.runs(repeat(0.01))}, Effort(warmup_rounds=30, rounds=2))["a"].warmup_runs == 30
    )


def test_a_slow_form_does_not_warm_up_for_minutes(clock: FakeClock) -> None:
    result = interleave({"slow": clock.runs(repeat(60.0)), "fast": clock.runs(repeat(0.5))}, Effort(rounds=2))
    assert (result["slow"].warmup_runs, result["slow"].stable) == (2, None)
    # The first run is free; six more of half a second use up the three seconds.
    assert (result["fast"].warmup_runs, result["fast"].stable) == (7, None)


def test_compilation_does_not_use_up_the_warm_up(clock: FakeClock) -> None:
    one = interleave({"a": clock.runs(chain([40.0], repeat(0.01)))}, Effort(rounds=2))["a"]
    assert (one.first_seconds, one.warmup_runs, one.stable) == (40, 10, True)
    assert max(one.seconds) == 0.01


def test_a_form_that_never_steadies_says_so(clock: FakeClock) -> None:
    grows = clock.runs(0.01 * 1.01**n for n in count())
    assert not interleave({"a": grows}, Effort(rounds=2))["a"].stable


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [(1e-3, 200), (0.01, 200), (0.05, 40), (0.15, 14), (0.2, 10), (5.0, 10)],
)
def test_measures_two_seconds_a_form_within_bounds(clock: FakeClock, seconds: float, rounds: int) -> None:
    forms = {name: clock.runs(repeat(seconds)) for name in "ab"}
    assert len(interleave(forms)["a"].seconds) in (rounds, rounds + 1)  # sums of 0.05 are not exact


def test_processor_time(clock: FakeClock) -> None:
    """Two threads for a second each, of which the host gave nothing to others: 2 s of work in 1 s."""
    forms = {"a": lambda: clock.work(1.0, cpu=2.0)}
    wall, cpu = compare(forms, SHORT), compare(forms, SHORT, clock="cpu")
    assert (wall.clock, wall["a"].seconds) == ("wall", (1, 1))
    assert (cpu.clock, cpu["a"].seconds, cpu["a"].first_seconds) == ("cpu", (2, 2), 2)
    with pytest.raises(ValueError, match="processor time"):
        compare(forms, SHORT, device="cuda", clock="cpu")


def test_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: events.append(f"wait {device}"))
    timing.sampler(lambda: events.append("run"), "cuda:1")()
    assert events == ["wait cuda:1", "run", "wait cuda:1"]


def test_json_and_back() -> None:
    result = compare({"a": lambda: sum(range(99)), "b": lambda: sum(range(999))}, SHORT)
    text = json.dumps(result.as_dict(), allow_nan=False)
    assert Comparison.from_dict(json.loads(text)) == result
    row = json.loads(text)["timings"][1]
    assert row["name"] == "b"
    assert row["seconds"] == list(result["b"].seconds)
    assert {"median", "p10", "p90", "p99", "quartiles", "spread", "ratio", "first_seconds"} <= set(row)
    assert row["ratio"]["value"] == result["b"].ratio.value


@pytest.mark.parametrize(
    "broken",
    [{}, [], None, {"timings": 3}, {"timings": [{"name": "a"}], "load": None}, {"load": [1]}],
)
def test_broken_json_is_one_line(broken: object) -> None:
    with pytest.raises(CompressnetError, match="not a comparison of timings") as caught:
        Comparison.from_dict(broken)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_refuses_nothing_to_time() -> None:
    with pytest.raises(ValueError, match="at least one form"):
        compare({})
    for wrong in ({"rounds": 1}, {"min_rounds": 1}, {"max_rounds": 0}, {"warmup_seconds": -1}):
        with pytest.raises(ValueError, match="two rounds"):
            Effort(**wrong)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clock_too_coarse_is_an_error(seconds: float) -> None:
    with pytest.raises(CompressnetError, match="b: the clock says"):
        interleave({"a": lambda: 1.0, "b": lambda: seconds}, SHORT)


def test_without_a_load_average(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", missing)
    result = compare({"a": lambda: None}, SHORT)
    assert result.load is None
    assert Comparison.from_dict(json.loads(json.dumps(result.as_dict()))).load is None
    assert not any("load" in line for line in warnings(result))


def test_warnings_name_what_is_in_doubt() -> None:
    quiet = Comparison((steady(), steady("b", ratio=Ratio(2, 1.9, 2.1))), "a", "wall", (0.1, 1.9), 2)
    assert warnings(quiet) == []
    noisy = Comparison(
        timings=(
            steady("a", (1.0, 1.0, 1.2, 1.2)),
            steady("b", ratio=Ratio(1.01, 0.98, 1.04), stable=False, warmup_runs=7),
        ),
        baseline="a",
        clock="wall",
        load=(0.5, 2.5),
        processors=2,
    )
    assert warnings(noisy) == [
        "load 2.5 on 2 processors: other work slowed this down",
        "a: the middle half of rounds spans 18% of the median",
        "b: not stable after 7 warm-up runs",
        "no difference shown between a and b: 1.01x [0.98, 1.04]",
    ]


def test_peak_counts_two_operations_a_multiply_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "sampler", lambda form, device: lambda: 0.5)
    assert peak_gflops(size=100) == pytest.approx(2e6 / 0.5 / 1e9)
    monkeypatch.undo()
    assert peak_gflops(size=128, rounds=2) > 0.01


def test_pooled_comparisons() -> None:
    parts = [interleave(_pair(seed), Effort(rounds=4)) for seed in range(3)]
    whole = pooled(parts)
    assert len(whole["b"].seconds) == 12
    assert whole["b"].seconds[4:8] == parts[1]["b"].seconds
    assert whole["a"].ratio == Ratio(1.0, 1.0, 1.0)
    assert whole["b"].ratio == pooled_ratio([part["b"].ratio for part in parts])
    assert whole.load == (parts[0].load and parts[0].load[0], parts[2].load and parts[2].load[1])
    assert pooled(parts[:1]) == parts[0]
    with pytest.raises(ValueError, match="different forms"):
        pooled([parts[0], interleave({"c": lambda: 1.0}, Effort(rounds=2))])


def _pair(seed: int) -> dict[str, Callable[[], float]]:
    generator = np.random.default_rng(seed)
    return {name: lambda: float(generator.uniform(1, 2)) for name in ("a", "b")}
