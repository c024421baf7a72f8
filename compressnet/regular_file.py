"""Reading what must be a plain file: from a stranger, its name may be a pipe, or a link to a device."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading; a pipe or a device, which may have no end, is refused.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
        reason = os.strerror(number) if number == errno.EISDIR else "not a plain file"
        raise OSError(number, reason, str(path))
    return os.fdopen(descriptor, "rb")
