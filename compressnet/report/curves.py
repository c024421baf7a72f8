"""Curves of a training, from the lines of metrics.jsonl (`drawing.py` draws them).

"train" rows -> loss, learning rate, norm of the gradient: raw, and smoothed where there are many
"evaluation" rows -> every metric of the validation, beside that of doing nothing; the best is marked
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from compressnet.report.figures import NOTHING, number_of

_MOST_POINTS = 600  # of a curve; more cannot be told apart
_MOST_CHARTS = 12
_LARGEST = 1e100  # a figure above it is none, and would overflow on its way to a place in the picture
_MANY = 24  # rows of a log from which on a smoothed curve says more than the raw one
_TRAIN = ("loss", "lr", "grad_norm")
NO_METRICS = ("event", "step", "seconds", "split", "samples_per_s")

Point = tuple[int, float]


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        points: (step, value), finite, steps rising.
        kind: how it is drawn: raw is faint, line solid, points with a mark each.
    """

    name: str
    points: Sequence[Point]
    kind: Literal["raw", "line", "points"]


@dataclass(frozen=True)
class Chart:
    """Curves of one metric over steps.

    Attributes:
        nothing: the figure of doing nothing, a level line.
        best: the point that is marked: that of the checkpoint, which the task's metric chose.
        lost: how many figures were not finite, and are not drawn.
        resumed: steps from which training went on.
        is_metric: whether this is the task's metric.
    """

    metric: str
    curves: Sequence[Curve]
    nothing: float | None = None
    best: Point | None = None
    lost: int = 0
    resumed: Sequence[int] = ()
    is_metric: bool = False


def charts(rows: Sequence[Mapping[str, Any]], best_metric: str, best_step: int | None) -> list[Chart]:
    """The charts of a run: the loss, its best metric, the others of its validation, what steered it.

    Args:
        rows: of `Run.metrics`.
        best_metric: the task's.
        best_step: where its best value was found.
    """
    train = [row for row in rows if row["event"] == "train"]
    validated = [row for row in rows if row["event"] == "evaluation"]
    resumed = [row["step"] for row in rows if row["event"] == "resume"]
    logged = [key for row in train for key in row if key not in NO_METRICS]
    measured = [
        key for row in validated for key in row if key not in NO_METRICS and not key.endswith(NOTHING)
    ]
    names = ["loss", *([best_metric] if best_metric in measured else []), *measured]
    names += [key for key in logged if key not in _TRAIN] + ["lr", "grad_norm"]
    made = []
    for metric in list(dict.fromkeys(names))[:_MOST_CHARTS]:
        trained, lost = _points(train, metric)
        checked, lost_too = _points(validated, metric)
        nothing, _ = _points(validated, metric + NOTHING)
        curves = _of_log(trained, smooth=metric != "lr")
        if checked:
            curves.append(Curve("validation", _thin(checked), "points"))
        if not curves or (metric == "lr" and len({value for _, value in trained}) == 1):
            continue  # a rate that is constant is in the recipe
        at_best = [point for point in checked if point[0] == best_step]
        made.append(
            Chart(
                metric,
                curves,
                nothing[-1][1] if nothing else None,
                at_best[-1] if at_best else None,
                lost + lost_too,
                resumed[:100],
                metric == best_metric,
            )
        )
    return made


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[Point], int]:
    """The finite figures of a key, and how many others there are."""
    found = [(row["step"], number_of(row[key])) for row in rows if key in row]
    points = [(step, value) for step, value in found if value is not None and abs(value) < _LARGEST]
    return points, len(found) - len(points)


def _of_log(points: Sequence[Point], *, smooth: bool) -> list[Curve]:
    if not points:
        return []
    if not smooth or len(points) < _MANY:
        return [Curve("training", _thin(points), "line")]
    smoothed = smoothed_of(points, max(5.0, len(points) / 40))
    return [
        Curve("training, each", _thin(points), "raw"),
        Curve("training, smoothed", _thin(smoothed), "line"),
    ]


def smoothed_of(points: Sequence[Point], window: float) -> list[Point]:
    """An exponential moving average, without the bias of its start.

    Args:
        window: over about so many points.
    """
    keep = 1 - 1 / window
    total = weight = 0.0
    done = []
    for step, value in points:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        done.append((step, total / weight))
    return done


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    """At most `_MOST_POINTS`: of each stretch its lowest and its highest, so that no spike is lost."""
    if len(points) <= _MOST_POINTS:
        return points
    stretches = _MOST_POINTS // 2
    kept: list[Point] = []
    for number in range(stretches):
        begin, end = (len(points) * place // stretches for place in (number, number + 1))
        indices = range(begin, end)
        least, most = min(indices, key=lambda i: points[i][1]), max(indices, key=lambda i: points[i][1])
        kept += [points[index] for index in sorted({least, most})]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
