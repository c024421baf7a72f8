"""stdout and stderr that may be closed, full, or without a reader: no work is lost for it, and it is told."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_lost: dict[str, Exception] = {}  # streams that could not be written, and why
_NAMES = "names-as-bytes"


def open_all() -> None:
    """Make sure that there are streams: the number of a closed one would go to the next file opened."""
    _lost.clear()
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # stdout is opened for reading only: what is written to it fails, and that is told.
            if (opened := os.open(os.devnull, flags)) != number:
                os.dup2(opened, number)
    codecs.register_error(_NAMES, _as_bytes)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            # A terminal without UTF-8 shows '?', and no traceback.
            stream.reconfigure(errors=_NAMES)


def _as_bytes(error: UnicodeError) -> tuple[bytes, int]:
    """Names that are no text go out as the bytes that they are; letters that the encoding lacks as '?'."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return b"".join(
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else b"?" for c in letters
    ), error.end


def write(name: str, text: str) -> None:
    """Write to `stdout` or `stderr`."""
    with guarded(name):
        getattr(sys, name).write(text)


def is_terminal(name: str) -> bool:
    """Whether a person sees it."""
    with suppress(ValueError):
        return bool(getattr(sys, name).isatty())
    return False


def is_utf8(name: str) -> bool:
    """Whether every letter can be written."""
    return (getattr(sys, name).encoding or "").lower().replace("-", "") == "utf8"


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Write to a stream within this: a failure ends nothing and is remembered; the rest goes nowhere."""
    try:
        yield
    except (OSError, ValueError) as error:
        stream: IO[str] = getattr(sys, name)
        if isinstance(error, ValueError) and not stream.closed:
            raise
        _lost.setdefault(name, error)
        _silence(name, stream)


def _silence(name: str, stream: IO[str]) -> None:
    """Send what is still in the buffers nowhere: the interpreter flushes them when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):  # closed, or no file
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    finally:
        os.close(nowhere)


def flush() -> Exception | None:
    """Write what is in the buffers; why stdout could not be written, if it could not."""
    for name in ("stdout", "stderr"):
        with guarded(name):
            getattr(sys, name).flush()
    return _lost.get("stdout")


def lose(name: str, error: Exception) -> None:
    """Remember a failure that somebody else's write to a stream met."""
    with guarded(name):
        raise error
