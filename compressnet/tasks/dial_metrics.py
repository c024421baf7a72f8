"""Figures of a network with a dial, and the curve over the strengths that were measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image as PILImage

from compressnet.data.conditions import Dial
from compressnet.tasks.image_metrics import ImageMetrics

Point = tuple[float, float, float]  # the setting, PSNR of the network, PSNR of doing nothing


class DialMetrics(ImageMetrics):
    """As `ImageMetrics`, and `pictures` has the curve of PSNR over the dial."""

    def __init__(self, dial: Dial) -> None:
        super().__init__()
        self._dial = dial

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        """Nothing where fewer than two strengths were measured."""
        found = self.compute()
        points = [
            (
                told.numbers[0] * self._dial.unit,
                found[f"psnr/{told.name}"],
                found[f"psnr_nothing/{told.name}"],
            )
            for told in self._dial.positions()
            if f"psnr/{told.name}" in found
        ]
        if len(points) > 1:
            yield f"dial, {self._dial.key}", dial_curve(self._dial.key, points)


def dial_curve(key: str, points: Sequence[Point]) -> PILImage.Image:
    """PSNR to the operator's output over its setting: of the network, and of doing nothing.

    Args:
        key: the setting.
        points: by rising settings, which are above 0. PSNR in dB; what is infinite is not drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    settings, network, nothing = zip(*points, strict=True)
    axes.plot(settings, [*map(_drawn, network)], marker="o", color="tab:blue", label="network")
    axes.plot(settings, [*map(_drawn, nothing)], "--", marker=".", color="tab:gray", label="doing nothing")
    axes.set_xscale("log")
    axes.set_xticks(settings, [f"{value:.3g}" for value in settings], fontsize=8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(key)
    axes.set_ylabel("PSNR to the operator (dB)")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.draw()
    return PILImage.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _drawn(figure: float) -> float:
    return figure if math.isfinite(figure) else math.nan
