"""Networks of a user's own: `py:FILE.py:NAME[:key=value,...]`, a class or function that returns a module.

The file is run: it is code, and only ever what was typed on the command line. What it takes is what its
`example(batch, size)` returns, or `--input 1x3x224x224`, once for each input.
"""

from __future__ import annotations

import inspect
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.errors import CompressnetError, UsageError, named, short

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "py"
FORM = "py:FILE.py:NAME[:key=value,...]"
_SHAPE = re.compile(r"([1-9][0-9]{0,8}(?:x[1-9][0-9]{0,8})*)(:int64)?", re.ASCII)
_LARGEST = 10**10  # values of an input: what is above is a slip of the keyboard


def read_name(rest: str) -> tuple[Path, str, str]:
    """What follows `py:` as file, name and arguments.

    Raises:
        UsageError: not of that form.
        CompressnetError: there is no such file.
    """
    file, suffix, after = rest.partition(".py:")
    name, _, arguments = after.partition(":")
    if not suffix or not file or not name.isidentifier():
        raise UsageError(f"py:{short(rest)}: write it as {FORM}")
    path = Path(f"{file}.py")
    if not path.is_file():
        raise CompressnetError(f"{path}: no such file")
    return path, name, arguments


def keys(path: Path, name: str) -> set[str]:
    """The arguments that a class or function takes."""
    return set(inspect.signature(_find(path, name)).parameters)


def build(path: Path, name: str, arguments: Mapping[str, Any], inputs: Sequence[str] = ()) -> nn.Module:
    """The module that a class or function of a file returns.

    Args:
        inputs: shapes, as `read_shape` takes them, in the place of its `example`.

    Raises:
        UsageError: there is no such name, it does not take these arguments, or returns something else.
        CompressnetError: the user's code failed; the message names its line.
    """
    from torch import nn

    target = _find(path, name)
    signature = inspect.signature(target)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        strange = [key for key in arguments if key not in signature.parameters]
        reason = f"there is no '{named(strange[0])}'" if strange else str(error)
        raise UsageError(f"{path}: {name}: {reason} (it takes: {takes})") from None
    with _explained(path.resolve()):
        module = target(**arguments)
    if not isinstance(module, nn.Module):
        raise UsageError(f"{path}: {name} returns no torch.nn.Module: {named(type(module).__name__)}")
    if inputs:
        module.example = Shapes([read_shape(text) for text in inputs])  # type: ignore[assignment]
    return module


def read_shape(text: str) -> tuple[tuple[int, ...], bool]:
    """`1x3x224x224` or `1x35:int64` as sizes, and whether they are of whole numbers.

    Raises:
        UsageError: not of that form.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise UsageError(f"--input {short(text)}: write it as 1x3x224x224 or, of whole numbers, 1x35:int64")
    sizes = tuple(map(int, found[1].split("x")))
    count = 1
    for size in sizes:
        count *= size
    if count > _LARGEST:
        raise UsageError(f"--input {short(text)}: {count:,} values")
    return sizes, found[2] is not None


class Shapes:
    """An `example` of given shapes: the first axis is the batch. Whole numbers are 0 and 1."""

    def __init__(self, shapes: list[tuple[tuple[int, ...], bool]]) -> None:
        self.shapes = shapes

    def __call__(self, batch: int = 1, size: object = None) -> tuple[Tensor, ...]:
        import torch

        if size is not None:
            raise ValueError("its sizes are those of --input")
        made = []
        for (first, *rest), whole in self.shapes:
            shape = (first * batch, *rest)
            made.append(torch.randint(2, shape) if whole else torch.rand(shape))
        return tuple(made)


def _find(path: Path, name: str) -> Callable[..., Any]:
    names = _run(path.resolve())
    found = names.get(name)
    if not callable(found):
        known = [key for key, value in names.items() if callable(value) and not key.startswith("_")]
        raise UsageError(
            f"{path}: it has no class or function '{name}' (it has: {', '.join(sorted(known)[:10])})"
        )
    return found


@cache
def _run(path: Path) -> dict[str, Any]:
    """The names of a file after it was run; its own folder is searched for what it imports."""
    sys.path.insert(0, str(path.parent))
    try:
        with _explained(path):
            return runpy.run_path(str(path), run_name=path.stem)
    finally:
        sys.path.remove(str(path.parent))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        with redirect_stdout(sys.stderr):  # what it prints is not what a command reports
            yield
    except CompressnetError:
        raise
    except Exception as error:
        inside = [place for place in traceback.extract_tb(error.__traceback__) if place.filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            line: int | None = error.lineno
        else:
            line = inside[-1].lineno if inside else None
        where = f"{os.path.relpath(path)}:{line}" if line else os.path.relpath(path)
        reason = " ".join(str(error).split())[:200]
        raise CompressnetError(f"{where}: {type(error).__name__}: {reason}") from error
