"""How many numbers a module really keeps: what shares its memory is counted once, on `meta` too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_COMPRESSED_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)
_COMPRESSED_ROWS = (torch.sparse_csr, torch.sparse_bsr)


class Size(NamedTuple):
    """Elements, and the bytes they take (of a sparse tensor with those of its indices)."""

    elements: int
    bytes: int


class _View(NamedTuple):
    begin: int  # bytes from the start of the storage
    end: int
    bytes: int


class Stored:
    """Memory that was seen so far.

    Tensors that overlap in one storage are counted by the bytes from the first to the last of them, or by
    the sum of theirs, whichever is less: exact for equal, nested and adjacent views, and for the columns of
    one matrix.
    """

    def __init__(self) -> None:
        self._views: dict[int, dict[_View, str]] = {}
        self._kept: list[torch.UntypedStorage] = []  # alive, so that no other gets the number of one

    def add(self, tensor: Tensor, name: str = "") -> Size:
        """What `tensor` takes beyond all that came before."""
        elements = taken = 0
        for part, is_index in _parts(tensor):
            more = self._add(part, name)
            taken += more
            elements += 0 if is_index else more // part.element_size()
        return Size(elements, taken)

    def sharer(self, tensor: Tensor) -> str | None:
        """The name of the first that shares memory with `tensor`, or None."""
        for part, _ in _parts(tensor):
            view = _view(part)
            for other, name in self._views.get(part.untyped_storage()._cdata, {}).items():
                if part.numel() and view.begin < other.end and other.begin < view.end:
                    return name
        return None

    def _add(self, tensor: Tensor, name: str) -> int:
        if not tensor.numel():
            return 0
        storage = tensor.untyped_storage()
        self._kept.append(storage)
        views = self._views.setdefault(storage._cdata, {})
        before = _covered(views)
        views.setdefault(_view(tensor), name)
        return _covered(views) - before


def _view(tensor: Tensor) -> _View:
    width = tensor.element_size()
    begin = int(tensor.storage_offset()) * width
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = begin + (last + 1) * width
    return _View(begin, end, min(tensor.numel() * width, end - begin))


def _covered(views: Iterable[_View]) -> int:
    """Bytes in the union of all views."""
    total = group_begin = group_end = group_bytes = 0
    for view in sorted(views):
        if view.begin >= group_end:
            total += min(group_bytes, group_end - group_begin)
            group_begin, group_end, group_bytes = view.begin, view.end, 0
        group_end = max(group_end, view.end)
        group_bytes += view.bytes
    return total + min(group_bytes, group_end - group_begin)


def _parts(tensor: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """The dense tensors that it is made of, and whether they are indices."""
    if tensor.layout == torch.strided:
        yield tensor.detach(), False
    elif tensor.layout == torch.sparse_coo:
        yield tensor.detach()._indices(), True
        yield tensor.detach()._values(), False
    elif tensor.layout in (*_COMPRESSED_ROWS, *_COMPRESSED_COLUMNS):
        rows = tensor.layout in _COMPRESSED_ROWS
        yield tensor.crow_indices() if rows else tensor.ccol_indices(), True
        yield tensor.col_indices() if rows else tensor.row_indices(), True
        yield tensor.detach().values(), False
    else:  # one that only its kernels can read
        yield tensor.detach().to_dense(), False
