"""Where data is read and where derived data is kept: one rule for the whole project.

The command line's `--data-root` and `--cache` set the two variables for the process and its children.
"""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "COMPRESSNET_DATA"
CACHE_VARIABLE = "COMPRESSNET_CACHE"


def data_root() -> Path:
    """The folder that relative data roots of recipes are looked up in (default: the current one)."""
    return Path(os.environ.get(DATA_VARIABLE, "."))


def resolve(root: str) -> Path:
    """A recipe's data root as a path: absolute and `~` paths as they are, others below `data_root()`."""
    return data_root() / Path(root).expanduser()


def cache_dir() -> Path:
    """The user's cache of derived data (`XDG_CACHE_HOME`, else `~/.cache`, unless `--cache` says else)."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "compressnet"
