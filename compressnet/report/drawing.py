"""Charts as SVG: axes with round ticks, lines, a legend. Style and script of the page know its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compressnet.report.curves import Chart, Curve
from compressnet.report.figures import figure, name_of
from compressnet.report.markup import Html, join, tag

WIDTH, HEIGHT = 400, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 12, 34
_LOG_FROM = 20.0  # times that the largest value is the smallest: then the axis is logarithmic


class Axis:
    """Values onto a stretch of the picture, with ticks at round ones.

    Args:
        values: what must be seen, at least one.
        begin, end: the places of the lowest and the highest.
        log: equal factors get equal lengths; all values are above 0.
    """

    def __init__(self, values: Sequence[float], begin: float, end: float, *, log: bool = False) -> None:
        self.begin, self.end, self.log = begin, end, log
        low, high = (self._inner(bound(values)) for bound in (min, max))
        if low == high:
            room = abs(low) * 0.1 or 1.0
            low, high = low - room, high + room
        self.low, self.high = low, high

    def widened(self, share: float) -> Axis:
        """The same with room above and below."""
        wider = Axis([1.0], self.begin, self.end, log=self.log)
        room = share * (self.high - self.low)
        wider.low, wider.high = self.low - room, self.high + room
        return wider

    def __call__(self, value: float) -> float:
        share = (self._inner(value) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values that lie on the axis, rising."""
        if self.log and (found := self._decades(most)):
            return found
        low, high = (math.exp(x) if self.log else x for x in (self.low, self.high))
        rough = (high - low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first = math.ceil(low / step - 1e-9)
        return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]

    def _decades(self, most: int) -> list[float]:
        low, high = (x / math.log(10) for x in (self.low, self.high))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            powers = range(math.floor(low), math.ceil(high) + 1)
            every = [factor * 10.0**power for power in powers for factor in factors]
            # A power of ten may be too small for a float where the values are not.
            found = [value for value in every if value > 0 and self.low <= math.log(value) <= self.high]
            if len(found) <= most:
                break
        found = found[:: math.ceil(len(found) / most) or 1]
        return found if len(found) > 1 else []

    def _inner(self, value: float) -> float:
        return math.log(value) if self.log else value


def draw(chart: Chart) -> Html:
    """A figure with the chart, its legend and a line that the pointer fills."""
    points = [point for curve in chart.curves for point in curve.points]
    steps, values = [float(step) for step, _ in points], [value for _, value in points]
    if chart.nothing is not None:
        values = [*values, chart.nothing]
    x = Axis([min(0.0, *steps), *steps], _LEFT, WIDTH - _RIGHT)
    log = min(values) > 0 and max(values) / min(values) >= _LOG_FROM and chart.metric != "lr"
    y = Axis(values, HEIGHT - _BOTTOM, _TOP, log=log).widened(0.04)
    inside = [*_grid(x, y), *(_resumed(step, x) for step in chart.resumed)]
    if chart.nothing is not None:
        inside.append(_level(y(chart.nothing), "nothing"))
    inside += [_curve(curve, chart.metric, x, y) for curve in chart.curves]
    if chart.best is not None:
        step, value = chart.best
        title = tag("title", _of_best(chart))
        inside.append(tag("circle", title, class_="best", cx=_place(x(step)), cy=_place(y(value)), r=7))
    inside.append(tag("line", class_="cross", y1=_TOP, y2=HEIGHT - _BOTTOM, x1=_LEFT, x2=_LEFT))
    name = name_of(chart.metric)
    picture = tag(
        "svg",
        *inside,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{name} over steps. {_summary(chart)}",
        data_from=f"{x.low:.6g}",
        data_to=f"{x.high:.6g}",
        data_left=_LEFT,
        data_right=WIDTH - _RIGHT,
    )
    heading = tag("h3", name, tag("small", " logarithmic") if log else None)
    legend = tag("p", *_legend(chart), class_="legend")
    summary = tag("p", _summary(chart), class_="readout")
    return tag("figure", heading, picture, tag("figcaption", legend, summary), class_="chart")


def _grid(x: Axis, y: Axis) -> list[Html]:
    lines = []
    for value in y.ticks():
        lines.append(_level(y(value), "grid"))
        label = tag("text", _tick(value), class_="y", x=_LEFT - 6, y=_place(y(value) + 4))
        lines.append(label)
    whole = [step for step in x.ticks(5) if step == int(step)]
    lines += [tag("text", _tick(s), class_="x", x=_place(x(s)), y=HEIGHT - _BOTTOM + 16) for s in whole]
    lines.append(tag("text", "step", class_="x axis", x=(WIDTH + _LEFT - _RIGHT) // 2, y=HEIGHT - 3))
    return lines


def _level(height: float, kind: str) -> Html:
    return tag("line", class_=kind, x1=_LEFT, x2=WIDTH - _RIGHT, y1=_place(height), y2=_place(height))


def _resumed(step: int, x: Axis) -> Html | None:
    if not x.low < step < x.high:
        return None
    place = _place(x(step))
    title = tag("title", f"resumed from step {step:,}")
    return tag("line", title, class_="resumed", x1=place, x2=place, y1=_TOP, y2=HEIGHT - _BOTTOM)


def _curve(curve: Curve, metric: str, x: Axis, y: Axis) -> Html:
    places = [f"{_place(x(step))} {_place(y(value))}" for step, value in curve.points]
    data = " ".join(f"{step},{value:.6g}" for step, value in curve.points)
    line = tag("path", class_=curve.kind, d="M" + "L".join(places), data_name=curve.name, data_points=data)
    if curve.kind != "points" and len(curve.points) > 1:
        return line
    marks = [
        tag(
            "circle",
            tag("title", f"{figure(metric, value)} at step {step:,}"),
            class_=f"mark {curve.kind}",
            cx=_place(x(step)),
            cy=_place(y(value)),
            r=3,
        )
        for step, value in (curve.points if len(curve.points) <= 60 else [])
    ]
    return join(line, *marks)


def _legend(chart: Chart) -> list[Html]:
    kinds: list[tuple[str, str]] = [(curve.name, curve.kind) for curve in chart.curves]
    if chart.nothing is not None:
        kinds.append(("doing nothing", "nothing"))
    return [
        tag(
            "span",
            tag(
                "svg",
                tag("line", class_=f"sample {kind}", x1=0, x2=18, y1=5, y2=5),
                tag("circle", class_=f"mark {kind}", cx=9, cy=5, r=3) if kind == "points" else None,
                viewBox="0 0 18 10",
                aria_hidden="true",
            ),
            name,
        )
        for name, kind in kinds
    ]


def _summary(chart: Chart) -> str:
    """What a reader without the picture wants to know."""
    parts = []
    if chart.best is not None:
        parts.append(_of_best(chart))
    last = chart.curves[-1].points[-1]
    if last != chart.best:
        parts.append(f"last {figure(chart.metric, last[1])} at step {last[0]:,}")
    if chart.nothing is not None:
        parts.append(f"doing nothing {figure(chart.metric, chart.nothing)}")
    if chart.lost:
        parts.append(f"{chart.lost:,} not finite, not drawn")
    return "; ".join(parts)


def _of_best(chart: Chart) -> str:
    assert chart.best is not None
    step, value = chart.best
    if chart.is_metric:
        return f"best {figure(chart.metric, value)} at step {step:,}"
    return f"{figure(chart.metric, value)} at the best step, {step:,}"


def _tick(value: float) -> str:
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) < 1e12:
            return f"{value / size:.4g}{prefix}"
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e+")


def _place(value: float) -> str:
    return f"{value:.1f}"
