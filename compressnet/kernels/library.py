"""Finds, loads and switches what setuptools built from a C source of this folder.

A source is an optional extension in setup.py: where no compiler is, the package installs without it and the
torch reference runs. It has no Python in it, so ctypes loads it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

NAMES = (
    "best_output",
    "can_gradient",
    "can_layer",
    "cross_entropy",
    "log_mel",
    "lstm",
    "lstm_1997",
    "sru",
    "svdf",
)
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


class Kernel:
    """One of `NAMES`, as the Python file beside its source uses it.

    Attributes:
        is_built: plain attributes, so that torch.compile can see through what asks for them.
        is_enabled: not switched off by `reference`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_built = load(name) is not None
        self.is_enabled = True

    def available(self) -> bool:
        """Whether it was built, loads here and is not switched off."""
        return self.is_enabled and self.is_built

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within it the torch reference runs, to compare with it."""
        before, self.is_enabled = self.is_enabled, False
        try:
            yield
        finally:
            self.is_enabled = before

    def call(
        self,
        name: str,
        tensors: Sequence[Tensor | None],
        sizes: Sequence[int],
        flags: Sequence[int] = (),
        reals: Sequence[float] = (),
    ) -> None:
        """Call `compressnet_<name>` with pointers, sizes, flags and real numbers, in this order."""
        function = self.function(name, len(tensors), len(sizes), len(flags), len(reals))
        function(*(None if x is None else x.data_ptr() for x in tensors), *sizes, *flags, *reals)

    def size(self, name: str, *sizes: int) -> int:
        """What `compressnet_<name>` says of such sizes."""
        return int(self.function(name, 0, len(sizes), 0, returns_size=True)(*sizes))

    @cache  # noqa: B019  kernels live as long as the process
    def function(
        self, name: str, pointers: int, sizes: int, flags: int, reals: int = 0, returns_size: bool = False
    ) -> Any:
        """`compressnet_<name>` of the library, which takes so many of each, in this order."""
        library = load(self.name)
        assert library is not None
        found = getattr(library, f"compressnet_{name}")
        kinds: list[Any] = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * sizes + [ctypes.c_int] * flags
        kinds += [ctypes.c_float] * reals
        found.argtypes, found.restype = kinds, ctypes.c_int64 if returns_size else None
        return found
