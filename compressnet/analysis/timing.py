"""Honest timing: several ways of doing one thing, interleaved in one process, compared round by round.

On a machine that others use, what runs second meets another load than what runs first. So every round runs
every form once, in an order that turns from round to round; ratios are taken within rounds; and their
uncertainty comes from resampling rounds (bootstrap; B. Efron, 1979).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

_RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline: the median over rounds and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Timing:
    """Seconds of one form, a round each.

    Attributes:
        ratio: against the baseline; 1 for the baseline itself.
    """

    name: str
    seconds: tuple[float, ...]
    ratio: Ratio

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds below which a quarter and three quarters of the rounds are."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(low), float(high)

    @property
    def best(self) -> float:
        return min(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """What was measured, and on what.

    Attributes:
        baseline: the name of the form that ratios refer to.
        load: the load average of one minute before and after (NaN where the system tells none). More than
            the processors there are means that others slowed this down.
        threads: of torch within an operation.
    """

    timings: tuple[Timing, ...]
    baseline: str
    load: tuple[float, float]
    threads: int
    processors: int
    device: str
    torch: str

    def __getitem__(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; with the medians and quartiles."""
        rows = [
            {**asdict(timing), "median": timing.median, "quartiles": timing.quartiles}
            for timing in self.timings
        ]
        return {**asdict(self), "timings": rows}


def compare(
    forms: Mapping[str, Callable[[], object]],
    rounds: int = 10,
    warmup: int = 1,
    device: str | torch.device = "cpu",
) -> Comparison:
    """Time callables against the first of them.

    Args:
        forms: what to time by name; the first is the baseline. On CUDA each is timed to the end of its work.
        rounds: how often each runs; from 6 on the interval means something.
        warmup: rounds before that are not counted (compilation, caches, first touch of memory).

    Raises:
        ValueError: no forms, or less than one round.
    """
    if not forms or rounds < 1 or warmup < 0:
        raise ValueError("compare: needs at least one form, one round and no negative warm-up")
    device = torch.device(device)
    for _ in range(warmup):
        for form in forms.values():
            _seconds(form, device)
    before = _load()
    names = list(forms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(_seconds(forms[name], device))
    timings = tuple(
        Timing(name, tuple(seconds[name]), paired_ratio(seconds[names[0]], seconds[name])) for name in names
    )
    return Comparison(
        timings,
        baseline=names[0],
        load=(before, _load()),
        threads=torch.get_num_threads(),
        processors=os.cpu_count() or 1,
        device=_device_name(device),
        torch=torch.__version__,
    )


def paired_ratio(baseline: list[float], seconds: list[float], seed: int = 0) -> Ratio:
    """Median of baseline / seconds over rounds, and the 95 % interval that resampling the rounds gives."""
    ratios = np.asarray(baseline) / np.asarray(seconds)
    draws = np.random.default_rng(seed).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def peak_gflops(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048, rounds: int = 7
) -> float:
    """What a large matrix product reaches with torch's threads, best of `rounds`.

    In 10^9 operations a second; a multiply-add is two. It is what convolutions can be measured against:
    a network cannot be faster unless it does fewer operations.
    """
    device = torch.device(device)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    torch.mm(a, b)
    best = min(_seconds(lambda: torch.mm(a, b), device) for _ in range(rounds))
    return 2e-9 * size**3 / best


def _seconds(form: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    form()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return float("nan")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() or platform.machine()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
            return f"{next(names, '')}, {torch.backends.cpu.get_cpu_capability()}"
    except OSError:
        return ""
