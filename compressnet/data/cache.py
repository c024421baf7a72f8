"""Everything derived from data (operator targets, decoded audio, video features), computed once.

    <cache>/3f/3fa9...e1.safetensors     named after the SHA-256 of the key: what the entry depends on
    <cache>/3f/3fa9...e1.bin, .json      one large array as it lies in memory, and what it is (`Cache.mapped`)

An entry is written in one rename, so that several processes may compute the same one and a killed process
leaves nothing broken. Each carries its key and checksums; one that does not fit them is computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from compressnet.errors import CompressnetError
from compressnet.files import WriteError, new_file, write_bytes
from compressnet.places import cache_dir

Arrays = dict[str, np.ndarray]
_BLOCK = 1 << 24  # bytes that are checked at once
_METADATA = "entry"  # one key: with several, safetensors writes them in random order


class Cache:
    """A folder of named arrays, by what they depend on.

    Args:
        folder: where; default the user's cache folder (`places.cache_dir()`), asked for at each use.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._write_lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Cache], tuple[Path | None]]:
        """A worker process gets a cache of the same folder, with a lock of its own."""
        return Cache, (self._folder,)

    @property
    def folder(self) -> Path:
        return self._folder if self._folder is not None else cache_dir() / "derived"

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where the entry of `key` (JSON values) is or would be."""
        digest = hashlib.sha256(_canonical(key).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether an entry is there; it may still turn out to be damaged when read."""
        return self.path(key).is_file()

    def get(self, key: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
        """The entry of `key`, computed and kept when it is missing or damaged.

        Raises:
            CompressnetError: the cache cannot be written.
        """
        path = self.path(key)
        found = _read(path, _canonical(key))
        if found is not None:
            return found
        arrays = {name: np.asarray(array, order="C") for name, array in compute().items()}
        self._write(path, _canonical(key), arrays)
        return arrays

    def mapped(self, key: Mapping[str, Any], compute: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
        """One large array that lies on the disk, read-only: memory holds what is looked at.

        It is checked once by the process that asks first; those that it starts take its word.

        Args:
            compute: its pieces along the first axis, in order, of one dtype; each is written and let go.

        Raises:
            CompressnetError: the cache cannot be written.
        """
        path = self.path(key).with_suffix(".bin")
        found = _open_mapped(path, _canonical(key))
        if found is None:
            with self._unwritable(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_pieces(path, _canonical(key), compute())
            found = _open_mapped(path, _canonical(key))
            if found is None:
                raise CompressnetError(f"{path}: damaged as soon as it was written: a fault of the disk?")
        return found

    def _write(self, path: Path, key: str, arrays: Arrays) -> None:
        entry = {"crc32": {name: _checksum(array) for name, array in arrays.items()}, "key": json.loads(key)}
        data = save(arrays, metadata={_METADATA: _canonical(entry)})
        with self._unwritable(path), self._write_lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)

    @contextmanager
    def _unwritable(self, path: Path) -> Iterator[None]:
        """Say of a failed write which option helps."""
        try:
            yield
        except (OSError, WriteError) as error:
            text = f"cannot write {path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise CompressnetError(f"{text}; choose another cache folder with --cache DIR") from None


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)


def _write_pieces(path: Path, key: str, pieces: Iterable[np.ndarray]) -> None:
    """The values, then what they are, each in one rename: what is cut short is no entry."""
    length, checksum, first = 0, 0, None
    with new_file(path) as file:
        for piece in pieces:
            piece = np.asarray(piece, order="C")
            first = piece if first is None else first
            if piece.dtype != first.dtype or piece.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"a piece is {piece.dtype} {piece.shape}, the first {first.dtype} {first.shape}"
                )
            data = piece.reshape(-1).view(np.uint8).data
            file.write(data)
            length, checksum = length + len(piece), zlib.crc32(data, checksum)
        if first is None:
            raise ValueError("no pieces: an array has at least one, which may be empty")
    entry = {"dtype": first.dtype.str, "shape": [length, *first.shape[1:]], "key": json.loads(key)}
    entry["crc32"] = _sealed(entry, checksum)
    write_bytes(path.with_suffix(".json"), _canonical(entry).encode())


_checked: set[tuple[Path, int]] = set()  # files that this process has read through, with their times


def _open_mapped(path: Path, key: str) -> np.ndarray | None:
    """The array of an entry; None when it is missing, cut short, changed, or another key's."""
    try:
        entry = json.loads(path.with_suffix(".json").read_bytes())
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        if _canonical(entry["key"]) != key or dtype.hasobject:
            return None
        if math.prod(shape) * dtype.itemsize != path.stat().st_size:
            return None
        array = np.memmap(path, dtype, "r", shape=shape) if math.prod(shape) else np.empty(shape, dtype)
        known = (path, path.stat().st_mtime_ns)
        if known not in _checked and multiprocessing.parent_process() is None:
            if _sealed(entry, _checksum_of(array)) != entry["crc32"]:
                return None
            _checked.add(known)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        SyntaxError,
        RecursionError,
    ):  # the last two: of a dtype
        return None
    return array


def _sealed(entry: Mapping[str, Any], checksum: int) -> int:
    """A checksum of the values and of what is said of them."""
    said = {name: entry[name] for name in ("dtype", "shape", "key")}
    return zlib.crc32(_canonical(said).encode(), checksum)


def _checksum_of(array: np.ndarray) -> int:
    checksum, octets = 0, array.reshape(-1).view(np.uint8)
    for begin in range(0, len(octets), _BLOCK):
        checksum = zlib.crc32(octets[begin : begin + _BLOCK].data, checksum)
    return checksum


def _read(path: Path, key: str) -> Arrays | None:
    """The arrays of an entry; None when it is missing, cut short, changed, or another key's."""
    try:
        with safe_open(path, framework="numpy") as file:
            entry = json.loads((file.metadata() or {})[_METADATA])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        intact = all(_checksum(array) == entry["crc32"][name] for name, array in arrays.items())
        complete = entry["crc32"].keys() == arrays.keys() and _canonical(entry["key"]) == key
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return arrays if intact and complete else None
