"""Latency against quality or size, as a picture: which networks no other one beats in both."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

Direction = Literal["lower", "higher"]

_INCHES = (7.0, 4.6)
_FRONT, _OTHER = "#0b6e99", "#8a8a8a"


@dataclass(frozen=True)
class Point:
    """One network.

    Attributes:
        ms: median latency in milliseconds.
        low_ms, high_ms: its p10 and p90.
        y: the metric, or the number of parameters.
    """

    name: str
    ms: float
    low_ms: float
    high_ms: float
    y: float


def pareto(points: Sequence[Point], direction: Direction) -> set[int]:
    """Indices of the points that no other one beats: none is as good in both and better in one.

    Args:
        direction: which y is better. Less latency always is.
    """
    sign = -1 if direction == "higher" else 1
    costs = [(point.ms, sign * point.y) for point in points]
    return {
        index
        for index, (x, y) in enumerate(costs)
        if not any(other != (x, y) and other[0] <= x and other[1] <= y for other in costs)
    }


def scatter(points: Sequence[Point], y_label: str, direction: Direction, title: str = "") -> bytes:
    """A PNG: latency to the right with bars from p10 to p90, y upwards, the Pareto front as steps.

    An axis is logarithmic if its values span more than a factor of ten.

    Raises:
        ValueError: no points, or one that is not finite.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not points or not all(math.isfinite(value) for point in points for value in astuple(point)[1:]):
        raise ValueError("needs points to draw, and all of them finite")
    figure = Figure(figsize=_INCHES, dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    front = sorted(pareto(points, direction), key=lambda index: (points[index].ms, points[index].y))
    _draw(axes, points, front)
    _scale(axes, points)
    steps = _steps(axes, [points[index] for index in front], direction)
    axes.plot(
        *zip(*steps, strict=True), color=_FRONT, linewidth=1, linestyle=(0, (4, 3)), label="Pareto front"
    )
    axes.set_xlabel("latency, ms (median; bars from p10 to p90)")
    axes.set_ylabel(f"{y_label} ({direction} is better)")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    canvas.draw()  # lays the axes out: labels are placed in pixels
    figure.set_layout_engine("none")
    _label(axes, points, front, steps)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _draw(axes: Any, points: Sequence[Point], front: list[int]) -> None:
    """Bars and both kinds of markers."""
    for index, point in enumerate(points):
        colour = _FRONT if index in front else _OTHER
        ends = [point.low_ms, point.high_ms]
        axes.plot(ends, [point.y] * 2, color=colour, linewidth=1.2, alpha=0.7, marker="|", markersize=5)
    rest = [index for index in range(len(points)) if index not in front]
    kinds = ((front, "D", _FRONT, "beaten by none"), (rest, "o", _OTHER, "beaten"))
    for indices, marker, colour, label in kinds:
        xs, ys = [points[index].ms for index in indices], [points[index].y for index in indices]
        if indices:
            axes.scatter(xs, ys, marker=marker, s=34, color=colour, zorder=3, label=label)


def _steps(axes: Any, best: Sequence[Point], direction: Direction) -> list[tuple[float, float]]:
    """Corners of the front within the frame: y holds to the right until something better comes."""
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    corners = [(best[0].ms, axes.get_ylim()[0 if direction == "higher" else 1])]
    for point, following in zip(best, [*best[1:], None], strict=True):
        corners += [(point.ms, point.y), (following.ms if following else axes.get_xlim()[1], point.y)]
    return corners


def _scale(axes: Any, points: Sequence[Point]) -> None:
    """Logarithmic axes where needed, plain numbers on them, and room around the points."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    ys = [point.y for point in points]
    spans = {
        "x": (min(p.low_ms for p in points), max(p.high_ms for p in points)),
        "y": (min(ys), max(ys)),
    }
    plain = FuncFormatter(lambda value, _: f"{value:.6g}")
    for name, (low, high) in spans.items():
        axis = getattr(axes, f"{name}axis")
        if low > 0 and high > 10 * low:
            getattr(axes, f"set_{name}scale")("log")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(EngFormatter(sep="") if name == "y" and high >= 1e4 else plain)
    axes.margins(0.14, 0.14)


def _label(axes: Any, points: Sequence[Point], front: list[int], steps: list[tuple[float, float]]) -> None:
    """Names beside the points, each where it covers least of markers, bars, steps and other names."""
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    taken = list(_obstacles(axes, points, steps))
    for index, point in enumerate(points):
        best: tuple[float, Any, Any] | None = None
        for cost, (dx, dy) in enumerate(_offsets()):
            text = axes.annotate(
                point.name,
                (point.ms, point.y),
                (dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
                fontsize=8,
                color="#222222" if index in front else "#666666",
                arrowprops={"arrowstyle": "-", "color": "#b5b5b5", "linewidth": 0.6} if cost >= 8 else None,
            )
            box = text.get_window_extent(renderer)
            hidden = sum(_overlap(box, other) for other in taken)
            outside = box.width * box.height - _overlap(box, frame)
            badness = hidden + 4 * outside + cost
            if best is None or badness < best[0]:
                if best:
                    best[1].remove()
                best = (badness, text, Bbox(box.get_points()))
            else:
                text.remove()
        if best:
            taken.append(best[2])


def _offsets() -> Iterator[tuple[float, float]]:
    """Places of a name in points from its marker, from near to far; those after the eighth need a line."""
    for distance in (6, 18, 32, 48):
        yield from ((distance, distance / 2), (-distance, distance / 2))
        yield from ((distance, -distance / 2), (-distance, -distance / 2))
        yield from ((0, distance + 1), (0, -distance - 1), (distance + 2, 0), (-distance - 2, 0))


def _obstacles(axes: Any, points: Sequence[Point], steps: list[tuple[float, float]]) -> Iterator[Any]:
    """Boxes in pixels around markers, bars and the steps of the front."""
    from matplotlib.transforms import Bbox

    def box(corners: list[tuple[float, float]], margin: float) -> Any:
        places = axes.transData.transform(corners)
        low, high = places.min(axis=0) - margin, places.max(axis=0) + margin
        return Bbox([low, high])

    for point in points:
        yield box([(point.ms, point.y)], 8)
        yield box([(point.low_ms, point.y), (point.high_ms, point.y)], 3)
    for ends in itertools.pairwise(steps):
        yield box(list(ends), 3)


def _overlap(a: Any, b: Any) -> float:
    """Pixels that two boxes share."""
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)
