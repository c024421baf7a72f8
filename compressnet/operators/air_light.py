"""The colour of haze, by the lines that colours in haze lie on.

D. Berman, T. Treibitz, S. Avidan: Air-Light Estimation Using Haze-Lines. ICCP 2017. Written from the
equations (a Hough transform in each pair of channels). Colours are grouped by a grid, not by a palette; not
compared with the authors' code.
"""

from __future__ import annotations

import math

import numpy as np

from compressnet.operators.grid_system import Real

_COLOURS = 1000
_ANGLES = 40
_STEP = 0.02  # between candidates, and the width of a line at its candidate
_DARKEST = 0.1


def air_light(image: Real) -> Real:
    """Red, green and blue, (3,) in [0.1, 1], of an image (H, W, 3) in [0, 1]."""
    colours, share = _grouped(image.reshape(-1, 3))
    values: Real = np.arange(round(_DARKEST / _STEP), round(1 / _STEP) + 1, dtype=np.float64) * _STEP
    red_green = _votes(colours[:, [0, 1]], share, values)
    green_blue = _votes(colours[:, [1, 2]], share, values)
    red_blue = _votes(colours[:, [0, 2]], share, values)
    together = red_green[:, :, None] * green_blue[None] * red_blue[:, None]
    best = np.unravel_index(int(together.argmax()), together.shape)
    return values[list(best)]


def _grouped(pixels: Real) -> tuple[Real, Real]:
    """At most 1,000 mean colours (n, 3), of the cells of the finest grid with no more, and their shares."""
    for cells in range(64, 0, -1):
        cell = np.minimum(pixels * cells, cells - 1).astype(np.int32)
        number = (cell[:, 0] * cells + cell[:, 1]) * cells + cell[:, 2]
        counts = np.bincount(number, minlength=cells**3)
        used = np.flatnonzero(counts)
        if len(used) <= _COLOURS:
            break
    means = [np.bincount(number, pixels[:, channel], cells**3)[used] / counts[used] for channel in range(3)]
    return np.stack(means, axis=1), counts[used] / len(pixels)


def _votes(points: Real, share: Real, values: Real) -> Real:
    """For each air light (values of one channel, values of the other): how much lies on lines that end there.

    A colour votes for an air light that is nowhere darker, once for each line through it that passes by the
    colour; near ones count more. A line needs two colours.
    """
    angles = np.arange(_ANGLES) * (np.pi / _ANGLES)
    votes = np.zeros((len(values), len(values)))
    for row, first in enumerate(values):
        darker = points[:, 0] <= first
        away = (first - points[darker, 0]).astype(np.float32)  # (colours,)
        along = (values[:, None] - points[darker, 1]).astype(np.float32)  # (candidates, colours)
        distance = np.hypot(away, along)
        width = _STEP * (1 + distance / math.sqrt(2))
        width[along < 0] = -1  # no vote
        lines = np.zeros(along.shape, np.uint8)
        for angle in angles:
            on_line = np.abs(math.sin(angle) * away - math.cos(angle) * along) < width
            on_line &= (np.count_nonzero(on_line, axis=1) >= 2)[:, None]
            lines += on_line
        votes[row] = (lines * (1 + 4 * np.exp(-distance)) * share[darker]).sum(axis=1)
    return votes
