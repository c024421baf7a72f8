from __future__ import annotations

import io
import itertools
import math
import sys
from typing import Any

import pytest
from PIL import Image

from compressnet.analysis import plot
from compressnet.analysis.plot import Point, pareto, scatter


def point(name: str, ms: float, y: float) -> Point:
    return Point(name, ms, 0.9 * ms, 1.2 * ms, y)


EIGHT = [
    point(name, ms, y)
    for name, ms, y in (
        *(("can24", 41.0, 33.1), ("can32", 68.0, 33.9), ("can24 bf16", 22.0, 33.0)),
        *(("can24 compile", 29.0, 33.1), ("bilateral_grid", 3.2, 30.2), ("dilated-9", 120.0, 34.1)),
        *(("unet-small", 88.0, 33.2), ("can24 threads=2", 23.5, 33.1)),
    )
]


def drawn(points: list[Point], direction: plot.Direction = "higher") -> Any:
    """The axes of a picture."""
    seen: list[Any] = []
    label = plot._label

    def spy(axes: Any, *rest: Any) -> None:
        label(axes, *rest)
        seen.append(axes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "_label", spy)
        scatter(points, "PSNR, dB", direction)
    return seen[0]


@pytest.fixture(scope="module")
def eight() -> Any:
    """The axes of all eight points."""
    return drawn(EIGHT)


def test_front_by_hand() -> None:
    """Higher is better: b is beaten by c (faster and better), d by a and c; e is slowest but best."""
    points = [point(*values) for values in (("a", 1, 1), ("b", 3, 2), ("c", 2, 3), ("d", 4, 1), ("e", 5, 4))]
    assert pareto(points, "higher") == {0, 2, 4}
    # Lower is better: a is fastest and has the least y.
    assert pareto(points, "lower") == {0}
    assert pareto([point("a", 1, 9), point("b", 2, 5), point("c", 3, 7), point("d", 4, 1)], "lower") == {
        0,
        1,
        3,
    }


def test_equals_beat_each_other_only_in_the_other_axis() -> None:
    assert pareto([point("a", 1, 1), point("b", 1, 1)], "higher") == {0, 1}
    assert pareto([point("a", 1, 1), point("b", 1, 2), point("c", 2, 2)], "higher") == {1}
    assert pareto([], "higher") == set()


@pytest.mark.parametrize("count", [1, 2, 8])
def test_is_a_png(count: int) -> None:
    data = scatter(EIGHT[:count], "PSNR, dB", "higher", title="1 thread")
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1050, 690)
        colours = picture.convert("RGB").getcolors(1 << 20) or []
    assert (0x0B, 0x6E, 0x99) in {colour for _, colour in colours}
    assert "matplotlib.pyplot" not in sys.modules


def test_names_units_and_front_are_in_it(eight: Any) -> None:
    axes = eight
    assert "ms" in axes.get_xlabel()
    assert axes.get_ylabel() == "PSNR, dB (higher is better)"
    assert sorted(text.get_text() for text in axes.texts) == sorted(p.name for p in EIGHT)
    front = next(line for line in axes.lines if line.get_label() == "Pareto front")
    corners = list(zip(*front.get_data(), strict=True))
    bottom, right = axes.get_ylim()[0], axes.get_xlim()[1]
    assert corners[:4] == [(3.2, bottom), (3.2, 30.2), (22, 30.2), (22, 33)]
    assert corners[-2:] == [(120, 34.1), (right, 34.1)]
    bars = [line.get_xdata() for line in axes.lines if line is not front]
    assert [list(bar) for bar in bars] == [[p.low_ms, p.high_ms] for p in EIGHT]


def test_axes_are_logarithmic_beyond_a_decade(eight: Any) -> None:
    assert (eight.get_xscale(), eight.get_yscale()) == ("log", "linear")
    axes = drawn([point("a", 3, 2e3), point("b", 4, 3e8)], "lower")
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert axes.yaxis.get_major_formatter()(2e6) == "2M"
    assert drawn([point("a", 3, -1), point("b", 4, 30)]).get_yscale() == "linear"


@pytest.mark.parametrize("close", [False, True])
def test_names_do_not_cover_each_other(eight: Any, close: bool) -> None:
    points = [point(f"variant {n}", 10 + 0.15 * n, 1 + 0.01 * (n % 3)) for n in range(8)]
    axes = drawn(points) if close else eight
    renderer, frame = axes.figure.canvas.get_renderer(), axes.get_window_extent()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and box.y1 <= frame.y1 for box in boxes)


@pytest.mark.parametrize("points", [[], [point("a", 1, math.nan)], [point("a", math.inf, 1)]])
def test_refuses_what_cannot_be_drawn(points: list[Point]) -> None:
    with pytest.raises(ValueError, match="points to draw"):
        scatter(points, "y", "lower")
