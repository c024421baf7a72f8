"""Which class is taken for which: counts, and their picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image as PILImage

_LONG_NAME = 24  # characters that an axis has room for
_FEW = 12  # classes whose counts are written into the cells


def confusion_details(classes: Sequence[str], counts: np.ndarray) -> dict[str, Any]:
    """For JSON: a row for each true class, a column for each that was predicted."""
    return {"classes": list(classes), "counts": counts.astype(int).tolist()}


def confusion_picture(classes: Sequence[str], counts: np.ndarray) -> PILImage.Image:
    """The counts (C, C), each row in shares of its sum."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    number = len(classes)
    side = min(4 + 0.35 * number, 16)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= _LONG_NAME else f"{name[:_LONG_NAME]}..." for name in classes]
    axes.set_xticks(range(number), names, rotation=45, ha="right")
    axes.set_yticks(range(number), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if number <= _FEW:
        for row, column in np.ndindex(number, number):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour)
    canvas.draw()
    return PILImage.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
