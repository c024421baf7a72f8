"""Which samples a step takes: one endless stream, a pure function of (seed, step, rank, world).

Shuffled:

    position in the stream   0 1 2 3 | 4 5 6 7 | 8 ...       batch = 4, world = 2
    epoch                    0 0 0 0 | 0 0 1 1 | 1 ...       length = 6: batches straddle epochs
    rank                     0 0 1 1 | 0 0 1 1 | 0 ...

Continuous text in columns, of which every rank has its own; here 8 windows, 2 columns of 4:

    step in the epoch        0 | 1 | 2 | 3 |
    column 0                 0 | 1 | 2 | 3 |
    column 1                 4 | 5 | 6 | 7 |

Nothing is remembered from one step to the next, so a run resumes at any step without walking up to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from compressnet.data.protocol import Key
from compressnet.errors import CompressnetError, UsageError


def generator(seed: int, *words: int) -> np.random.Generator:
    """The random generator of one choice, named by whole numbers >= 0: a pure function of them."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order of an epoch. From raw bits, whose sequence numpy promises not to change between versions."""
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(length)
    return np.argsort(bits, kind="stable")


def endless_batches(
    length: int,
    batch: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    start_batch: int = 0,
) -> Iterator[list[Key]]:
    """This rank's share of every global batch, from batch `start_batch` on, for ever.

    Args:
        length: samples in the data.
        batch: samples of a step over all ranks; rank r takes the r-th of `world` equal pieces.

    Raises:
        CompressnetError: no data.
        UsageError: the batch does not divide among the ranks.
    """
    _check(length, batch, world)
    return _stream(length, batch, seed, rank, world, start_batch)


def _stream(
    length: int,
    batch: int,
    seed: int,
    rank: int,
    world: int,
    start_batch: int,
) -> Iterator[list[Key]]:
    share = batch // world
    orders: dict[int, np.ndarray] = {}
    for step in itertools.count(start_batch):
        keys = []
        for draw in range(step * batch + rank * share, step * batch + (rank + 1) * share):
            epoch, offset = divmod(draw, length)
            if epoch not in orders:
                orders = {epoch: permutation(seed, epoch, length)}
            keys.append(Key(epoch, int(orders[epoch][offset]), draw))
        yield keys


def column_batches(
    length: int, batch: int, rank: int = 0, world: int = 1, start_batch: int = 0, accumulate: int = 1
) -> Iterator[list[Key]]:
    """This rank's columns, window after window, from batch `start_batch` on, for ever.

    The keys of a batch: all columns of its first window, then, if gradients are accumulated, of the next.
    What is left when the windows are dealt out is not read.

    Args:
        length: windows in the text.
        batch: windows of a step over all ranks: columns x `accumulate`.

    Raises:
        CompressnetError: fewer windows than columns.
        UsageError: the batch does not divide among the ranks.
    """
    columns = batch // accumulate
    _check(length, columns, world)
    return _column_stream(
        windows_read(length, columns) // columns, columns, rank, world, start_batch, accumulate
    )


def windows_read(length: int, columns: int) -> int:
    """How many of the windows of a text fill the columns; the rest is not read.

    Raises:
        CompressnetError: fewer windows than columns.
    """
    if length < columns:
        raise CompressnetError(
            f"the text has {length} windows, fewer than the {columns} columns of train.batch: "
            "lower train.batch or data.unroll, or take a longer text"
        )
    return length - length % columns


def _column_stream(
    height: int, columns: int, rank: int, world: int, start_batch: int, accumulate: int
) -> Iterator[list[Key]]:
    share = columns // world
    for step in itertools.count(start_batch):
        keys = []
        for window in range(step * accumulate, (step + 1) * accumulate):
            epoch, row = divmod(window, height)
            own = range(rank * share, (rank + 1) * share)
            keys += [Key(epoch, column * height + row, window * columns + column) for column in own]
        yield keys


def _check(length: int, batch: int, world: int) -> None:
    if length < 1:
        raise CompressnetError("there is nothing to train on: the split is empty")
    if batch < 1 or batch % world:
        raise UsageError(f"train.batch is {batch}: it must be a multiple of the {world} processes")


def evaluation_keys(length: int, rank: int = 0, world: int = 1) -> list[Key]:
    """Every sample once, in order, dealt out to the ranks: nothing is padded, so ranks may differ by one."""
    return [Key(0, index, index) for index in range(rank, length, world)]
