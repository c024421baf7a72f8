"""Which size of Winograd's tiles a layer of a CAN takes: by how many it needs, and what one costs here.

A dilated convolution is a plain one on each of d x d interleaved pictures (phases). Large tiles have the
fewest products a pixel, and the most waste at the ends of phases.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache

import torch

from compressnet import processor
from compressnet.kernels import can_layer

_HEIGHT, _WIDTH = 96, 1280  # of what is timed: more than a cache holds, as photographs are
_ROUNDS, _SECONDS = 7, 0.5
_clock = time.thread_time  # of one thread: what others do to the processor counts least


def choose(sizes: Sequence[int], channels: int, height: int, width: int, dilation: int) -> int:
    """The size of tiles, of those given, with which a layer takes the least time on this processor."""
    cost = costs(channels)
    return min(sizes, key=lambda size: cost[size] * count(size, height, width, dilation))


@cache
def costs(channels: int) -> Mapping[int, float]:
    """Microseconds of a tile of each size (of the direct form, 0: of a pixel), on one thread.

    Measured once on each processor and kept in the cache: half a second. A wrong figure costs time; results
    of one size or another differ by rounding.
    """
    names = [str(size) for size in can_layer.TILES]
    key = {"kernel": "can_layer", "channels": str(channels), "level": str(can_layer.level())}
    found = processor.measured_once(key, names, lambda: _measured(channels))
    return {size: found[str(size)] for size in can_layer.TILES}


def count(size: int, height: int, width: int, dilation: int) -> float:
    """Tiles of a layer; of the direct form pixels, of which those with fewer taps count less."""
    if size:
        return _along(size, height, dilation) * _along(size, width, dilation)
    if dilation < min(height, width):
        return height * width
    rows = (height + 2 * max(0, height - dilation)) / 3  # of three taps down a pixel beyond an edge has none
    return rows * width * (1 if dilation < width else 1 / 3)


def _along(size: int, length: int, dilation: int) -> int:
    """Tiles along a side, of all phases."""
    longer, whole = length % dilation, length // dilation  # so many phases have a pixel more than the others
    return longer * -(-(whole + 1) // size) + (min(dilation, length) - longer) * -(-whole // size)


def _measured(channels: int) -> dict[str, float]:
    """In turns, the shortest of each: a burst of other work hits a turn, not the figure."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(channels, channels, 3, 3, generator=random) / (9 * channels) ** 0.5
    weights = {size: can_layer.transformed(weight, size) for size in can_layer.TILES}
    image = torch.randn(_HEIGHT, _WIDTH, channels, generator=random)
    scale, shift = torch.ones(channels), torch.zeros(channels)
    shortest = dict.fromkeys(can_layer.TILES, float("inf"))
    threads, end = torch.get_num_threads(), _clock() + _SECONDS
    try:
        torch.set_num_threads(1)
        for turn in range(_ROUNDS):
            if turn > 2 and _clock() > end:
                break
            for size, transformed in weights.items():
                start = _clock()
                can_layer.middle(image, scale, shift, 0.2, transformed, size, 1, can_layer.level())
                shortest[size] = min(shortest[size], _clock() - start)
    finally:
        torch.set_num_threads(threads)
    return {str(size): 1e6 * seconds / count(size, _HEIGHT, _WIDTH, 1) for size, seconds in shortest.items()}
