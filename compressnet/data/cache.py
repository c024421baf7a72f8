"""Everything derived from data (operator targets, decoded audio, video features), computed once.

    <cache>/3f/3fa9...e1.safetensors     named after the SHA-256 of the key: what the entry depends on

An entry is written in one rename, so that several processes may compute the same one and a killed process
leaves nothing broken. Each carries its key and checksums; one that does not fit them is computed again.
"""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from compressnet.errors import CompressnetError
from compressnet.files import write_bytes
from compressnet.places import cache_dir

Arrays = dict[str, np.ndarray]
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

    def _write(self, path: Path, key: str, arrays: Arrays) -> None:
        entry = {"crc32": {name: _checksum(array) for name, array in arrays.items()}, "key": json.loads(key)}
        data = save(arrays, metadata={_METADATA: _canonical(entry)})
        try:
            with self._write_lock:  # threads of one process share the name of the temporary file
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, data)
        except (OSError, CompressnetError) as error:
            text = f"cannot write {path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise CompressnetError(f"{text}; choose another cache folder with --cache DIR") from None


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)


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
