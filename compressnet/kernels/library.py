"""Finds and loads what setuptools built from a C source of this folder.

A source is an optional extension in setup.py: where no compiler is, the package installs without it and the
torch reference runs. It has no Python in it, so ctypes loads it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

NAMES = ("lstm", "lstm_1997", "sru")
NONE_BUILT = "none (no C compiler at installation, or not loadable): torch's operations run instead"


@cache
def load(name: str) -> ctypes.CDLL | None:
    """The library of a kernel; None where it was not built or does not load here."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_{name}{suffix}")
        if path.is_file():
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                return None
    return None


def built() -> list[str]:
    """The kernels that can be used here."""
    return [name for name in NAMES if load(name) is not None]
