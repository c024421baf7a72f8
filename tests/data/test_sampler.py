from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.data.protocol import Key
from compressnet.data.sampler import (
    column_batches,
    endless_batches,
    evaluation_keys,
    generator,
    permutation,
)
from compressnet.errors import CompressnetError, UsageError


def take(count: int, *args: Any, **options: Any) -> list[list[Key]]:
    return list(itertools.islice(endless_batches(*args, **options), count))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**31), st.integers(0, 30))
@settings(deadline=None)
def test_resumes_anywhere(length: int, batch: int, seed: int, start: int) -> None:
    assert take(3, length, batch, seed, start_batch=start) == take(start + 3, length, batch, seed)[start:]


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
@settings(deadline=None)
def test_ranks_together_see_what_one_process_sees(length: int, share: int, world: int, seed: int) -> None:
    single = take(5, length, share * world, seed)
    ranks = [take(5, length, share * world, seed, rank=rank, world=world) for rank in range(world)]
    for step in range(5):
        assert [key for rank in ranks for key in rank[step]] == single[step]
        assert {len(rank[step]) for rank in ranks} == {share}


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 1000))
@settings(deadline=None)
def test_every_epoch_is_a_permutation_and_draws_count_up(length: int, batch: int, seed: int) -> None:
    keys = [key for step in take(3 * length, length, batch, seed) for key in step][: 3 * length]
    assert [key.draw for key in keys] == list(range(3 * length))
    for epoch in range(3):
        part = keys[epoch * length : (epoch + 1) * length]
        assert {key.epoch for key in part} == {epoch}
        assert sorted(key.index for key in part) == list(range(length))


def test_epochs_and_seeds_differ() -> None:
    orders = [permutation(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_order_is_the_same_for_ever() -> None:
    """A resumed run must meet the order of the run that began, perhaps under another numpy."""
    assert permutation(0, 0, 8).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(CompressnetError, match="empty"):
        endless_batches(0, 1, 0)
    with pytest.raises(UsageError, match=r"train\.batch is 3.*2 processes"):
        endless_batches(5, 3, 0, world=2)


@given(st.integers(0, 40), st.integers(1, 5))
def test_evaluation_deals_every_sample_once(length: int, world: int) -> None:
    ranks = [evaluation_keys(length, rank, world) for rank in range(world)]
    assert sorted(key.index for rank in ranks for key in rank) == list(range(length))
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


def test_generator_is_a_function_of_all_its_words() -> None:
    draws = [generator(0, *words).random() for words in ((1,), (1,), (2,), (1, 1))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
    assert isinstance(generator(3), np.random.Generator)


def columns(count: int, *args: Any, **options: Any) -> list[list[Key]]:
    return list(itertools.islice(column_batches(*args, **options), count))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9), st.integers(0, 3))
def test_columns_go_on_where_they_were(
    height: int, share: int, accumulate: int, start: int, rest: int
) -> None:
    batch = share * accumulate
    length = height * share + min(rest, share - 1)
    steps = columns(3 * height, length, batch, accumulate=accumulate)
    assert (
        columns(4, length, batch, start_batch=start, accumulate=accumulate)
        == columns(start + 4, length, batch, accumulate=accumulate)[start:]
    )
    rows = [step[i * share : (i + 1) * share] for step in steps for i in range(accumulate)]
    for before, after in itertools.pairwise(rows):
        for one, next_ in zip(before, after, strict=True):
            same_epoch = next_.epoch == one.epoch
            assert next_.index - one.index == (1 if same_epoch else 1 - height)
            assert same_epoch or next_.epoch == one.epoch + 1
    epoch = [key.index for row in rows[:height] for key in row]
    assert sorted(epoch) == list(range(height * share))


def test_ranks_have_columns_of_their_own() -> None:
    whole = columns(6, 24, 4)
    ranks = [columns(6, 24, 4, rank, 2) for rank in range(2)]
    for step in range(6):
        assert ranks[0][step] + ranks[1][step] == whole[step]
    seen = [{key.index for step in rank for key in step} for rank in ranks]
    assert not seen[0] & seen[1]


def test_fewer_windows_than_columns() -> None:
    with pytest.raises(CompressnetError, match=r"3 windows, fewer than the 4 columns of train\.batch"):
        column_batches(3, 4)
    with pytest.raises(UsageError, match="2 processes"):
        column_batches(30, 3, world=2)
