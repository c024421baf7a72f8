"""What a data set is, for the loop and for the tasks.

recipe `data:` -> DataSet(**args) -> open(split, assets, seed) -> Split -> split[Key] -> sample
                                                                          collate([sample]) -> batch
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from compressnet.reporter import Reporter


class Key(NamedTuple):
    """Names one sample. Every random choice of a data set is a pure function of (seed, key).

    Attributes:
        epoch: passes over the data that were completed before.
        index: position in the split.
        draw: position in the endless stream of samples, over all ranks.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # shadows tuple.index
    draw: int


class Split(Protocol):
    """One split of a data set, opened: knows its files, reads them when asked.

    Attributes:
        continuous: sample i + 1 goes on where sample i ends, and tasks carry a state from one to the next:
            training reads columns (see `sampler.column_batches`), evaluation one sample after the other.
        derives: samples need what takes long to compute (operator targets, decoded audio): see `prepare`.
        has_targets: samples tell what the network is to make of them. False: they are photographs alone, each
            its own target; only tasks without `needs_targets` take them.
    """

    continuous: bool
    derives: bool
    has_targets: bool

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Any:
        """One sample."""

    def name(self, index: int) -> str:
        """What a person calls sample `index`."""

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        """Compute ahead what these samples derive; only called where `derives`.

        Args:
            keys: read once; there may be tens of millions.

        Raises:
            BadFiles: files that cannot be read, all of them.
        """

    def collate(self, samples: list[Any]) -> Any:
        """A batch: a NamedTuple of tensors (moved to the device by the loop) and plain values."""

    def facts(self) -> dict[str, Any]:
        """What identifies the data in results: count and fingerprint at least; JSON values, no paths."""


class DataSet(Protocol):
    """A data set as a recipe names it. Construction reads nothing; `open` checks the layout."""

    sample_type: ClassVar[str]
    test_split: ClassVar[str]

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> Split:
        """Open `train`, `val` or `test`.

        Raises:
            CompressnetError: data missing or malformed: where it was looked for, how to obtain it.
            NoSuchSplit: the set has no such split (no validation data, say).
        """

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        """Every defect of the data on disk, one line each: missing, unpaired, unreadable.

        Args:
            headers: look at the headers of pictures only, instead of decoding them as training will.
            reporter: told of progress, and of files that are no defect but are not used.
        """


class NoSuchSplit(LookupError):
    """The data set has no such split."""
