from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressnet.analysis.stored import Size, Stored


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_views_of_one_storage_are_counted_once(device: str) -> None:
    matrix = torch.empty(6, 8, device=device)
    stored = Stored()
    assert stored.add(matrix[:, :3]) == (6 * 3, 6 * 3 * 4)
    assert stored.add(matrix[:, 3:]) == (6 * 5, 6 * 5 * 4)
    for view in (matrix, matrix.t(), matrix.detach(), matrix.view(-1)[:10], matrix[::2]):
        assert stored.add(view) == (0, 0)
    assert stored.add(torch.empty(6, 8, device=device)) == (48, 192)


def test_pieces_of_a_flat_storage() -> None:
    flat = torch.empty(100, device="meta")
    stored = Stored()
    sizes = [stored.add(flat[begin:end]).elements for begin, end in ((0, 30), (60, 100), (20, 40), (0, 100))]
    assert sizes == [30, 40, 10, 20]


def test_types_and_layouts() -> None:
    stored = Stored()
    assert stored.add(torch.empty(3, dtype=torch.float64)) == (3, 24)
    assert stored.add(torch.empty(3).expand(5, 3)) == (3, 12)  # five times the same
    assert stored.add(torch.empty(0)) == (0, 0)
    assert stored.add(torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last)) == (120, 480)
    dense = torch.eye(4)[:3]
    assert stored.add(dense.to_sparse_csr()) == (3, 3 * 4 + 3 * 8 + 4 * 8)
    assert stored.add(dense.to_sparse_csc()) == (3, 3 * 4 + 3 * 8 + 5 * 8)
    assert stored.add(dense.to_sparse()) == (3, 3 * 4 + 2 * 3 * 8)


def test_memory_that_was_freed_is_not_taken_for_the_same() -> None:
    stored = Stored()
    assert [stored.add(torch.empty(7)).elements for _ in range(20)] == [7] * 20


def test_sharers_are_named() -> None:
    flat = torch.empty(10)
    stored = Stored()
    stored.add(flat[:5], "a")
    assert stored.sharer(flat[4:]) == "a"
    assert stored.sharer(flat[5:]) is None
    assert stored.sharer(torch.empty(10)) is None


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=8))
def test_contiguous_views_add_up_to_their_union(pieces: list[tuple[int, int]]) -> None:
    flat = torch.empty(60)
    stored, union = Stored(), set()
    total = Size(0, 0)
    for begin, length in pieces:
        more = stored.add(flat[begin : begin + length])
        total = Size(total.elements + more.elements, total.bytes + more.bytes)
        union |= set(range(begin, begin + length))
    assert total == (len(union), 4 * len(union))
