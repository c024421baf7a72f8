from __future__ import annotations

import json
import math
import time
from functools import partial

import pytest
import torch

from compressnet.analysis import timing
from compressnet.analysis.timing import compare, paired_ratio, peak_gflops


def test_forms_are_interleaved_and_the_order_turns() -> None:
    calls: list[str] = []
    result = compare({name: partial(calls.append, name) for name in "abc"}, rounds=4, warmup=1)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert all(len(t.seconds) == 4 for t in result.timings)
    assert result.baseline == "a"
    assert result.threads == torch.get_num_threads()
    assert result.torch == torch.__version__


def test_ratio_says_how_many_times_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of its own: `slow` takes 3 s, `fast` 1 s, and a round's load doubles both."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    load = iter([1, 1, 2, 2, 1, 1, 7, 7, 1, 1, 3, 3])

    def work(seconds: float) -> None:
        now[0] += seconds * next(load)

    result = compare({"slow": lambda: work(3), "fast": lambda: work(1)}, rounds=6, warmup=0)
    ratio = result["fast"].ratio
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert result["slow"].ratio.value == 1
    assert result["fast"].median == 1.5
    assert result["fast"].quartiles == (1, 2.75)
    assert result["fast"].best == 1
    assert str(ratio) == "3.00x [3.00, 3.00]"


def test_interval_covers_the_truth_and_shrinks() -> None:
    generator = torch.Generator().manual_seed(0)

    def noisy(count: int) -> tuple[list[float], list[float]]:
        noise = 1 + 0.2 * torch.rand(2, count, generator=generator)
        return (2 * noise[0]).tolist(), noise[1].tolist()

    few, many = paired_ratio(*noisy(8)), paired_ratio(*noisy(200))
    assert few.low < 2 < few.high
    assert many.low < 2 < many.high
    assert many.high - many.low < few.high - few.low


def test_is_json() -> None:
    result = compare({"a": lambda: None}, rounds=2)
    data = json.loads(json.dumps(result.as_dict()))
    assert data["timings"][0]["name"] == "a"
    assert len(data["timings"][0]["seconds"]) == 2
    assert {"median", "quartiles", "ratio"} <= set(data["timings"][0])


def test_refuses_nothing_to_time() -> None:
    with pytest.raises(ValueError, match="at least one form"):
        compare({})
    with pytest.raises(ValueError, match="one round"):
        compare({"a": lambda: None}, rounds=0)


def test_without_a_load_average(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(timing.os, "getloadavg", missing)
    assert math.isnan(compare({"a": lambda: None}, rounds=1).load[0])


def test_peak_counts_two_operations_a_multiply_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_seconds", lambda form, device: 0.5)
    assert peak_gflops(size=100) == pytest.approx(2e6 / 0.5 / 1e9)
    monkeypatch.undo()
    assert peak_gflops(size=128, rounds=2) > 0.01
