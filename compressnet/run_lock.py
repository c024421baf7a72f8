"""The lock of a run: one process trains it, and the system frees the lock of a process that dies."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from compressnet import files
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter

NAME = "lock"
_IN_USE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def hold(folder: Path, reporter: Reporter) -> Iterator[tuple[FileIO, bool]]:
    """Yield the open lock file of `folder`, and whether it is locked: some file systems have no locks.

    Args:
        reporter: told of such a file system.

    Raises:
        CompressnetError: another process holds it.
    """
    path = folder / NAME
    try:
        file = open(path, "ab+", buffering=0)  # noqa: SIM115  # held open: that is the lock
    except OSError as error:
        raise files.write_error(path, error) from error
    with file:
        is_locked = _take(file, folder, reporter)
        _say(file, f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield file, is_locked
        finally:
            _say(file, "")


def is_of(file: FileIO, folder: Path) -> bool:
    """Whether an open lock file is still the one in `folder`; not once that was moved, and another made."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / NAME))
    except OSError:
        return False


def _take(file: FileIO, folder: Path, reporter: Reporter) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _IN_USE:
            file.seek(0)
            owner = file.read().decode(errors="replace").strip() or "another process"
            raise CompressnetError(f"{folder} is in use by {owner}") from None
        if error.errno not in _NO_LOCKS:
            raise files.write_error(folder / NAME, error) from error
        place = files.file_system(folder)
        reporter.note(
            "warning",
            f"{folder}: its file system{f' ({place})' if place else ''} has no locks ({error.strerror}): "
            "see to it that no other process trains this run",
        )
        return False
    return True


def _say(file: FileIO, owner: str) -> None:
    """Write who holds a lock, for people; a full disk may keep it."""
    with suppress(OSError):
        file.truncate(0)
        file.write(owner.encode())
