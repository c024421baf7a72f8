"""Names and digits of figures, and how a reader is told them."""

from __future__ import annotations

import math
from typing import Any

NOTHING = "_nothing"
_NAMES = {
    "mse": "MSE",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
}
_DIGITS = {
    "psnr": 2,
    "ssim": 4,
    "mse": 2,
    "perplexity": 2,
    "bits_per_character": 3,
    "accuracy": 4,
    "count": 0,
}
_PREFIXES = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
_LONGEST_NAME = 60
_LARGEST_COUNT = 1e15  # floats tell larger whole numbers only roughly


def name_of(metric: str) -> str:
    """`psnr` as a heading: "PSNR, dB"."""
    return _NAMES.get(metric, metric.replace("_", " ")[:_LONGEST_NAME])


def figure(metric: str, value: Any) -> str:
    """A value of a metric with the digits that are usual for it; `-` where there is none."""
    number = number_of(value, finite=False)
    if number is None:
        return "-"
    digits = _DIGITS.get(metric)
    if digits is None and number.is_integer() and abs(number) < _LARGEST_COUNT:
        return f"{number:,.0f}"
    if digits is None or not 0.1 <= abs(number) < 1e9 or not math.isfinite(number):
        return f"{number:.4g}"
    return f"{number:,.{digits}f}"


def number_of(value: Any, *, finite: bool = True) -> float | None:
    """A figure of a log or record; None: it is none. Those that are not finite are texts in JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        return None
    number = float(value)
    return number if math.isfinite(number) or not finite else None


def short(value: float, unit: str = "") -> str:
    """Four digits and a prefix: "37.01 G"."""
    for prefix, size in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}".rstrip()


def many(count: int, thing: str) -> str:
    """ "1 target", "2 targets"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
