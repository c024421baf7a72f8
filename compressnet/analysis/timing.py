"""Honest timing: several ways of doing one thing, interleaved, compared round by round.

    samplers (run once, return seconds) -> warm-up -> rounds -> Comparison (raw seconds, quantiles, ratios)

On a machine that others use, what runs second meets another load than what runs first. So every round runs
every form once (`rounds.py`), and ratios are taken within rounds (`ratio.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from compressnet.analysis.given import check_forms
from compressnet.analysis.ratio import Ratio, paired_ratio, pooled_ratio
from compressnet.analysis.rounds import USUAL, Effort, Sampler, measure, warm_up
from compressnet.errors import CompressnetError

Clock = Literal["wall", "cpu"]

_CALM = 0.10  # of the median: a wider middle half is worth a warning


@dataclass(frozen=True)
class Timing:
    """Seconds of one form, a round each, in the order of measurement.

    Attributes:
        ratio: how many times as fast as the baseline; 1 for the baseline itself.
        first_seconds: of the very first call, with compilation and autotuning.
        warmup_runs: that are not in `seconds`; the first call is one of them.
        stable: whether the medians of two successive blocks of five warm-up runs came within 2 %; None: there
            were too few to say (a slow form).
    """

    name: str
    seconds: tuple[float, ...]
    ratio: Ratio
    first_seconds: float
    warmup_runs: int
    stable: bool | None

    @property
    def median(self) -> float:
        return self.percentile(50)

    @property
    def p10(self) -> float:
        return self.percentile(10)

    @property
    def p90(self) -> float:
        return self.percentile(90)

    @property
    def p99(self) -> float:
        """Below 100 rounds between the two slowest."""
        return self.percentile(99)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds below which a quarter and three quarters of the rounds are."""
        return self.percentile(25), self.percentile(75)

    @property
    def spread(self) -> float:
        """The distance of the quartiles as a part of the median."""
        low, high = self.quartiles
        return (high - low) / self.median

    @property
    def best(self) -> float:
        return min(self.seconds)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; with what follows from the seconds."""
        derived = ("median", "p10", "p90", "p99", "quartiles", "spread", "best")
        values = {**asdict(self), **{name: getattr(self, name) for name in derived}}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Timing:
        """From `as_dict`; what follows from the seconds is computed anew."""
        return cls(
            name=str(data["name"]),
            seconds=tuple(float(value) for value in data["seconds"]),
            ratio=Ratio(**{key: float(data["ratio"][key]) for key in ("value", "low", "high")}),
            first_seconds=float(data["first_seconds"]),
            warmup_runs=int(data["warmup_runs"]),
            stable=None if data["stable"] is None else bool(data["stable"]),
        )


@dataclass(frozen=True)
class Comparison:
    """What was measured; on what is for `machine.facts` to say.

    Attributes:
        baseline: the name of the form that ratios refer to.
        clock: "wall", or "cpu": the time of all processors that the process used, added up.
        load: the system's load average of one minute before and after; None where the system tells none.
        processors: of the system, as the load is: a higher load means that others slowed this down.
    """

    timings: tuple[Timing, ...]
    baseline: str
    clock: Clock
    load: tuple[float, float] | None
    processors: int

    def __getitem__(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: raw seconds, quantiles and ratios."""
        return {
            "baseline": self.baseline,
            "clock": self.clock,
            "load": list(self.load) if self.load else None,
            "processors": self.processors,
            "timings": [timing.as_dict() for timing in self.timings],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """From `as_dict`.

        Raises:
            CompressnetError: something is missing or not what it should be.
        """
        try:
            before_after = data["load"]
            return cls(
                timings=tuple(Timing.from_dict(row) for row in data["timings"]),
                baseline=str(data["baseline"]),
                clock="cpu" if data["clock"] == "cpu" else "wall",
                load=(float(before_after[0]), float(before_after[1])) if before_after else None,
                processors=int(data["processors"]),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CompressnetError(f"not a comparison of timings: {type(error).__name__}: {error}") from error


def compare(
    forms: Mapping[str, Callable[[], object]],
    how: Effort = USUAL,
    device: str | torch.device = "cpu",
    clock: Clock = "wall",
) -> Comparison:
    """Time callables against the first of them, in this process.

    Args:
        forms: what to time by name, called without arguments; the first is the baseline.
        device: whose work is waited for.
        clock: "cpu" on noisy hosts: processor time of this process, all its threads added up. What others
            do changes it less; how well threads share the work it does not see.

    Raises:
        UsageError: a form is no callable.
        ValueError: no forms, or processor time of what another device does.
    """
    check_forms(forms, "compare")
    return interleave({name: sampler(form, device, clock) for name, form in forms.items()}, how, clock)


def interleave(samplers: Mapping[str, Sampler], how: Effort = USUAL, clock: Clock = "wall") -> Comparison:
    """Compare what runs once per call and returns its seconds, perhaps in another process, with the first.

    Args:
        samplers: by name; the first is the baseline.
        clock: what the samplers' seconds are; recorded.

    Raises:
        ValueError: no samplers.
        CompressnetError: a sampler's clock is too coarse for it.
    """
    if not samplers:
        raise ValueError("nothing to time: needs at least one form")
    before = _load()
    warm = warm_up(samplers, how)
    seconds = measure(samplers, how)
    after = _load()
    baseline = next(iter(samplers))
    timings = tuple(
        Timing(
            name,
            tuple(seconds[name]),
            paired_ratio(seconds[baseline], seconds[name]),
            first_seconds=warm[name].seconds[0],
            warmup_runs=len(warm[name].seconds),
            stable=warm[name].stable,
        )
        for name in samplers
    )
    load = (before, after) if before is not None and after is not None else None
    return Comparison(timings, baseline, clock, load, processors=os.cpu_count() or 1)


def pooled(comparisons: Sequence[Comparison]) -> Comparison:
    """Comparisons of the same forms in several processes as one: rounds in a row, ratios by `pooled_ratio`.

    Raises:
        ValueError: none, or of different forms.
    """
    if not comparisons:
        raise ValueError("pooled: no comparisons")
    first, last = comparisons[0], comparisons[-1]
    names = [timing.name for timing in first.timings]
    if any([timing.name for timing in other.timings] != names for other in comparisons):
        raise ValueError("pooled: the comparisons are of different forms")
    if len(comparisons) == 1:
        return first
    timings = []
    for name in names:
        parts = [comparison[name] for comparison in comparisons]
        is_baseline = name == first.baseline
        timings.append(
            Timing(
                name,
                tuple(seconds for part in parts for seconds in part.seconds),
                Ratio(1.0, 1.0, 1.0) if is_baseline else pooled_ratio([part.ratio for part in parts]),
                first_seconds=parts[0].first_seconds,
                warmup_runs=sum(part.warmup_runs for part in parts),
                stable=_all(part.stable for part in parts),
            )
        )
    load = (first.load[0], last.load[1]) if first.load and last.load else None
    return Comparison(tuple(timings), first.baseline, first.clock, load, first.processors)


def sampler(form: Callable[[], object], device: str | torch.device = "cpu", clock: Clock = "wall") -> Sampler:
    """What runs `form` once, waits for the device, returns seconds.

    Raises:
        ValueError: processor time of what another device does.
    """
    device = torch.device(device)
    if clock == "cpu" and device.type != "cpu":
        raise ValueError(f"processor time says nothing about work on {device}: use the wall clock")

    def sample() -> float:
        now = time.process_time if clock == "cpu" else time.perf_counter
        _wait(device)
        start = now()
        form()
        _wait(device)
        return now() - start

    return sample


def warnings(comparison: Comparison) -> list[str]:
    """What keeps the numbers from deciding, a line each; empty if they can be trusted."""
    lines = []
    load = max(comparison.load or (0.0,))
    if load > comparison.processors:
        lines.append(f"load {load:.1f} on {comparison.processors} processors: other work slowed this down")
    for timing in comparison.timings:
        if timing.stable is False:
            lines.append(f"{timing.name}: not stable after {timing.warmup_runs} warm-up runs")
        if timing.spread > _CALM:
            lines.append(f"{timing.name}: the middle half of rounds spans {timing.spread:.0%} of the median")
    lines += [
        f"no difference shown between {comparison.baseline} and {timing.name}: {timing.ratio}"
        for timing in comparison.timings
        if timing.name != comparison.baseline and not timing.ratio.shows_difference
    ]
    return lines


def peak_gflops(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048, rounds: int = 7
) -> float:
    """What a large matrix product reaches with torch's threads, best of `rounds`.

    In 10^9 operations a second; a multiply-add is two. It is what convolutions can be measured against:
    a network cannot be faster unless it does fewer operations.
    """
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    torch.mm(a, b)
    sample = sampler(lambda: torch.mm(a, b), device)
    return 2e-9 * size**3 / min(sample() for _ in range(rounds))


def _all(answers: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is."""
    found = set(answers)
    return False if False in found else None if None in found else True


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
