"""The folders of runs: the next free `<recipe>-<n>`, and what kills have left of new ones."""

from __future__ import annotations

import glob
import shutil
import time
from contextlib import suppress
from pathlib import Path

from compressnet import files
from compressnet.errors import CompressnetError

_MINUTE = 60.0


def take(temporary: Path, folder: Path | None, runs: Path, name: str) -> Path:
    """Rename a whole new run to `folder`, or to the next free `<name>-<n>`; another process may be first."""
    number = 0
    while True:
        number = max(number + 1, _next_free(runs, name))
        target = folder or runs / f"{name}-{number}"
        try:
            files.appear(temporary, target)
        except FileExistsError:
            if folder is not None:
                raise CompressnetError(f"{folder} is in use by another run") from None
        else:
            return target


def sweep(folder: Path) -> None:
    """Remove runs that were killed while they were made, unless another machine may be making them now."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            is_run = (leftover / "checkpoints").is_dir()
            if is_run and files.is_stale(leftover) and time.time() - leftover.stat().st_mtime > _MINUTE:
                shutil.rmtree(leftover, ignore_errors=True)


def _next_free(runs: Path, name: str) -> int:
    named = (path for path in runs.glob(f"{glob.escape(name)}-*"))
    taken = [number_of(path) for path in named if path.name == f"{name}-{number_of(path)}"]
    return max(taken, default=0) + 1


def number_of(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdecimal() else 0
