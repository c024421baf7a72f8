"""The report as a picture: what each layer takes before and after, and how far its outputs moved."""

from __future__ import annotations

import io

from compressnet.compression.report import Report

_MOST = 60  # layers that a picture has room for


def png(report: Report, title: str) -> bytes:
    """Bars of milliseconds (of MACs where nothing was timed) by layer, beside bars of the relative error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = report.rows[:_MOST]
    is_timed = any(row.timing is not None for row in rows)
    figure = Figure(figsize=(10, 1.6 + 0.34 * len(rows)), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    costs, errors = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    places = range(len(rows))
    for shift, when, colour in ((-0.2, "before", "#9aa7b5"), (0.2, "after", "#2a6fbb")):
        values = [_cost(row, when, is_timed) for row in rows]
        costs.barh([place + shift for place in places], values, 0.4, label=when, color=colour)
    costs.set_yticks(list(places), [row.path for row in rows])
    costs.invert_yaxis()
    costs.set_xlabel("milliseconds" if is_timed else "million MACs")
    costs.legend()
    costs.set_title(title, loc="left", fontsize=10)
    for place, row in zip(places, rows, strict=True):
        if row.verdict.endswith("slower"):
            costs.annotate("slower", (_cost(row, "after", is_timed), place + 0.2), va="center", fontsize=7)
    errors.barh(list(places), [row.error or 0.0 for row in rows], 0.5, color="#c65b3f")
    errors.set_xlabel("relative error of its outputs")
    for axes in (costs, errors):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _cost(row: object, when: str, is_timed: bool) -> float:
    timing = getattr(row, "timing", None)
    if is_timed:
        return 0.0 if timing is None else 1e3 * timing[when].median
    macs: int = getattr(row, when).macs
    return macs / 1e6
