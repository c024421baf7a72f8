"""Curves: nothing that was logged is lost or made up, and every line lies in its picture."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressnet.report.curves import charts, smoothed_of
from compressnet.report.drawing import HEIGHT, WIDTH, Axis, draw

FIGURES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from(["nan", "inf", "-inf", "<b>", True, None]),
)
ROWS = st.lists(
    st.builds(
        lambda event, step, figures: {"event": event, "step": step, **figures},
        st.sampled_from(["train", "evaluation", "resume", "start", "?"]),
        st.integers(0, 2**64 - 1),
        st.dictionaries(st.sampled_from(["loss", "lr", "psnr", "psnr_nothing", "x" * 99]), FIGURES),
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, st.integers(0, 3))
def test_whatever_is_logged_is_drawn_within_the_picture(rows: list[dict[str, Any]], best: int) -> None:
    for chart in charts(rows, "psnr", best):
        drawn = draw(chart)
        for path in re.findall(r' d="M([^"]*)"', drawn):
            for x, y in (map(float, pair.split()) for pair in path.split("L")):
                assert 0 <= x <= WIDTH
                assert 0 <= y <= HEIGHT


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9), st.booleans())
def test_ticks_are_round_and_on_the_axis(low: float, span: float, log: bool) -> None:
    low = abs(low) + 1e-6 if log else low
    axis = Axis([low, low + span], 0, 100, log=log)
    ticks = axis.ticks()
    assert len(ticks) <= 7
    assert ticks == sorted(ticks)
    assert all(-0.5 <= axis(tick) <= 100.5 for tick in ticks)


def _rows(values: list[float]) -> list[dict[str, Any]]:
    return [{"event": "train", "step": step, "loss": value} for step, value in enumerate(values, 1)]


def test_a_spike_and_the_last_point_of_a_long_log_are_seen() -> None:
    values = [1.0] * 5000
    values[3210], values[-1] = 9.0, 2.0
    (chart,) = charts(_rows(values), "psnr", None)
    raw, smooth = chart.curves
    assert (3211, 9.0) in raw.points
    assert raw.points[-1] == (5000, 2.0)
    assert max(len(raw.points), len(smooth.points)) <= 601


@given(st.floats(-1e6, 1e6), st.floats(2, 50), st.integers(1, 60))
def test_smoothing_keeps_a_constant(value: float, window: float, count: int) -> None:
    for _, smoothed in smoothed_of([(step, value) for step in range(count)], window):
        assert smoothed == pytest.approx(value)


def test_the_best_is_marked_in_every_chart_of_the_validation() -> None:
    rows = [
        {"event": "evaluation", "step": step, "psnr": psnr, "mse": mse, "psnr_nothing": 29.5}
        for step, psnr, mse in [(5, 30.0, 3.0), (10, 32.0, 2.0), (15, 31.0, 1.0)]
    ]
    first, second = charts(rows, "psnr", 10)
    assert (first.metric, first.best, first.nothing) == ("psnr", (10, 32.0), 29.5)
    assert "best 32.00 at step 10" in draw(first)
    assert (second.metric, second.best) == ("mse", (10, 2.0))
    assert "2.00 at the best step, 10" in draw(second)
    assert draw(second).count('class="best"') == 1


def test_figures_that_are_not_finite_are_counted() -> None:
    rows = [{"event": "evaluation", "step": step, "loss": loss} for step, loss in [(1, "nan"), (2, 0.5)]]
    (chart,) = charts(rows, "loss", 2)
    assert chart.lost == 1
    assert "1 not finite, not drawn" in draw(chart)


@pytest.mark.parametrize(("values", "log"), [([1.0, 30.0], True), ([1.0, 3.0], False), ([0.0, 30.0], False)])
def test_an_axis_is_logarithmic_where_that_fits(values: list[float], log: bool) -> None:
    (chart,) = charts(_rows(values), "psnr", None)
    assert ("logarithmic" in draw(chart)) == log


def test_an_axis_of_the_smallest_numbers_there_are() -> None:
    ticks = Axis([2e-313, 1.0], 0, 100, log=True).widened(0.04).ticks()
    assert ticks
    assert all(0 < tick <= 1 for tick in ticks)


def test_logarithmic_places() -> None:
    axis = Axis([1.0, 100.0], 0, 100, log=True)
    assert axis(10.0) == pytest.approx(50)
    assert [math.log10(tick) for tick in Axis([1, 1e6], 0, 1, log=True).ticks()] == pytest.approx(
        [0, 2, 4, 6]
    )
