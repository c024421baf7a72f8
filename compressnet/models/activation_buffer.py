"""Activations (H, W, C) of one layer in memory or in an unnamed file, by interleaved rows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from compressnet.errors import CompressnetError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Strip:
    """Rows `first + g + i * step` of a picture, g < phases, begin <= i < end.

    Attributes:
        step: the pictures that are interleaved; `first + g` names one of them.
        total: rows of each of these.
    """

    step: int
    first: int
    phases: int
    begin: int
    end: int
    total: int

    @property
    def count(self) -> int:
        """Rows of each picture that the strip holds."""
        return self.end - self.begin

    @property
    def rows(self) -> int:
        return self.phases * self.count

    def row(self, number: int) -> Strip:
        """One row of the same picture."""
        return replace(self, begin=number, end=number + 1)

    def longer(self, rows: int) -> Strip:
        """With so many rows more at the end."""
        return replace(self, end=self.end + rows)


class Buffer(Protocol):
    """Activations of one layer."""

    shape: Shape
    row_bytes: int

    def read(self, strip: Strip) -> Tensor:
        """(phases, count, W, C); not to be written to."""

    def write(self, strip: Strip, values: Tensor) -> None:
        """Overwrite the rows of `strip` with (phases, count, W, C)."""

    def new(self, shape: tuple[int, ...]) -> Tensor:
        """Not initialised, of this buffer's type and device."""


class MemoryBuffer(AbstractContextManager["MemoryBuffer"]):
    """A contiguous tensor (H, W, C)."""

    def __init__(self, values: Tensor) -> None:
        height, width, channels = values.shape
        self.values, self.shape = values, (height, width, channels)
        self.row_bytes = width * channels * values.element_size()

    @classmethod
    def empty(cls, shape: Shape, dtype: torch.dtype, device: torch.device) -> MemoryBuffer:
        return cls(torch.empty(shape, dtype=dtype, device=device))

    def read(self, strip: Strip) -> Tensor:
        return self._rows(strip)

    def write(self, strip: Strip, values: Tensor) -> None:
        self._rows(strip).copy_(values)

    def new(self, shape: tuple[int, ...]) -> Tensor:
        return self.values.new_empty(shape)

    def _rows(self, strip: Strip) -> Tensor:
        _, width, channels = self.shape
        row = width * channels
        return self.values.as_strided(
            (strip.phases, strip.count, width, channels),
            (row, strip.step * row, channels, 1),
            self.values.storage_offset() + (strip.first + strip.begin * strip.step) * row,
        )

    def __exit__(self, *_: object) -> None:
        pass


class FileBuffer(AbstractContextManager["FileBuffer"]):
    """The same in a temporary file without a name, in the folder that TMPDIR names.

    Read and written by `preadv` and `pwritev`: pages of a mapped file would count as memory of the process.

    Raises:
        CompressnetError: the file cannot be written, for instance on a full disk.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self.row_bytes = shape[1] * shape[2] * dtype.itemsize
        try:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise _explained(error) from None

    def read(self, strip: Strip) -> Tensor:
        rows = torch.empty(strip.phases, strip.count, *self.shape[1:], dtype=self.dtype)
        for view, offset in self._pieces(strip, rows):
            _all_of(os.preadv, self._file.fileno(), view, offset)
        return rows.to(self.device)

    def write(self, strip: Strip, values: Tensor) -> None:
        try:
            for view, offset in self._pieces(strip, values.cpu().contiguous()):
                _all_of(os.pwritev, self._file.fileno(), view, offset)
        except OSError as error:
            raise _explained(error) from None

    def new(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _pieces(self, strip: Strip, rows: Tensor) -> Iterator[tuple[memoryview, int]]:
        """Memory and place in the file of each run of rows that is contiguous in both."""
        memory = rows.view(-1).view(torch.uint8).numpy().data
        size = self.row_bytes * (strip.count if strip.step == 1 else 1)
        for number, start in enumerate(range(0, len(memory), size)):
            phase, row = divmod(number, strip.count) if strip.step > 1 else (0, 0)
            line = strip.first + phase + (strip.begin + row) * strip.step
            yield memory[start : start + size], line * self.row_bytes

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _all_of(call: object, descriptor: int, memory: memoryview, offset: int) -> None:
    """Repeat a read or write that the system has cut short."""
    while memory:
        done = call(descriptor, [memory], offset)  # type: ignore[operator]
        if not done:
            raise OSError("the temporary file is shorter than what was written")
        memory, offset = memory[done:], offset + done


def _explained(error: OSError) -> CompressnetError:
    return CompressnetError(
        f"{tempfile.gettempdir()}: cannot hold the activations of a large photograph: "
        f"{error.strerror or error}; set TMPDIR to a folder with more room, or give more max_memory"
    )
