"""Writes that are there whole or not at all, and folders that appear in one rename."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from compressnet.errors import CompressnetError

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NAME_BYTES = 40  # of a file's name in that of its temporary: a name may have 255 bytes and no more
_TEMPORARY = re.compile(r"\..*\.(\d{1,10})(-[0-9a-f]+)?\.tmp", re.ASCII | re.DOTALL)
_DESCRIPTORS = re.compile(r"/proc/(\d+)(/task/\d+)?/fd")
_LARGEST_PID = 2**31 - 1
_WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
# What JSON may hold and a reader not: halves of pairs are no UTF-8, the others steer a terminal.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class WriteError(CompressnetError):
    """A file or folder that could not be written.

    Args:
        reason: the system's.
    """

    def __init__(self, problem: str, reason: OSError) -> None:
        super().__init__(problem)
        self.reason = reason

    def __reduce__(self) -> tuple[type[WriteError], tuple[str, OSError]]:
        return WriteError, (str(self), self.reason)

    @property
    def is_of_the_disk(self) -> bool:
        """Whether no other file can be written there either: the disk is full or read-only."""
        return self.reason.errno in _OF_THE_DISK


class Appeared(CompressnetError):
    """A file that was not there when the work for it began, and is when it is to be written."""


def write_bytes(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write `path` atomically: a neighbour file, flushed to the disk, renamed into place.

    The new file has the mode of the one it replaces. A link is followed: what it names is replaced, or made.
    Devices and pipes are written into.

    Args:
        replace: take the place of what is there. False: of nothing, not even of a file that another process
            makes while this one works.

    Raises:
        WriteError: the disk is full or read-only, the folder missing; what stood at `path` still does.
        Appeared: `path` is there, and `replace` is False.
    """
    try:
        if is_stream(path):
            _write_into(path, data)
        else:
            with new_file(_place(path, replace), replace=replace) as file:
                file.write(data)
    except OSError as error:
        raise write_error(path, error) from error


def _place(path: Path, replace: bool) -> Path:
    """Where the file of that name goes: what a link names, unless even a link is in the way."""
    return Path(os.path.realpath(path)) if replace and path.is_symlink() else path


@contextmanager
def whole_file(target: Path, suffix: str = "", *, replace: bool = True) -> Iterator[Path]:
    """Yield the name of a temporary to write; it takes the place of `target` once it is whole.

    The new file has the mode of the one it replaces. A link is followed. Devices and pipes get its bytes.

    Args:
        suffix: of the temporary of a device, which has none; else it has the name of `target`.
        replace: as of `write_bytes`.

    Raises:
        WriteError: the disk is full or read-only, the folder missing; what stood at `target` still does.
        Appeared: `target` is there, and `replace` is False.
        CompressnetError: what is raised within, of `target` instead of the temporary.
    """
    try:
        stream = is_stream(target)
        place = target if stream else _place(target, replace)
        beside = Path(tempfile.gettempdir(), f"stream{suffix}") if stream else place
        with temporary_folder(beside, mode=0o700) as folder:  # the target may be its owner's alone
            temporary = folder / beside.name
            try:
                yield temporary
            except CompressnetError as error:
                error.args = tuple(text.replace(str(temporary), str(target)) for text in error.problems)
                raise
            if stream:
                _write_into(target, temporary.read_bytes())
            else:
                _take_place(temporary, place, replace)
    except OSError as error:
        raise write_error(target, error) from error


def _take_place(temporary: Path, place: Path, replace: bool) -> None:
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        _like(place, descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _rename(temporary, place, replace)


def _rename(temporary: Path, place: Path, replace: bool) -> None:
    try:
        # No rename that Python has refuses to replace a file. A second name for it does; the first goes with
        # all temporaries.
        if not replace:
            os.link(temporary, place)
            return
    except FileExistsError:
        raise _appeared(place) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        if os.path.lexists(place):  # on FAT: another file may appear between this look and the rename
            raise _appeared(place) from None
    os.replace(temporary, place)


def _appeared(path: Path) -> Appeared:
    return Appeared(f"{path} appeared meanwhile, and is left as it is: add --force to overwrite it")


@contextmanager
def new_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Yield a new file to write into, piece by piece; it takes the place of `path` once it is whole.

    Args:
        replace: as of `write_bytes`.

    Raises:
        OSError: the disk is full or read-only, the folder missing; what stood at `path` still does.
        Appeared: `path` is there, and `replace` is False.
    """
    temporary = _temporary(path)
    try:
        # Python's open would follow a link that somebody has put there.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with open(descriptor, "wb") as file:
            _like(path, descriptor)
            yield file
            file.flush()
            os.fsync(descriptor)
        _rename(temporary, path, replace)
    finally:
        remove(temporary)


def _like(path: Path, descriptor: int) -> None:
    """Give an open file the owner, where that is allowed, and the mode of the file that it will replace."""
    try:
        before = path.stat()
    except OSError:
        return
    now = os.fstat(descriptor)
    if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        with suppress(OSError):
            os.fchown(descriptor, before.st_uid, before.st_gid)
    with suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def is_stream(path: Path) -> bool:
    """Whether `path` is a device, a pipe or an open file (/dev/stdout): written into, never replaced."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISDIR(mode) and (not stat.S_ISREG(mode) or _descriptor(path) is not None)


def is_stdout(path: Path) -> bool:
    """Whether what is written to `path` comes where the program prints."""
    try:
        return (
            is_stream(path)
            and os.path.samestat(os.stat(path), os.fstat(1))
            and not os.path.samefile(path, os.devnull)
        )
    except OSError:
        return False


def _descriptor(path: Path) -> int | None:
    """The number of this process's open file that `path` leads to, as /dev/stdout does to 1."""
    for _ in range(40):  # links at most, as in the system
        folder = _DESCRIPTORS.fullmatch(os.path.realpath(path.parent))
        if folder:
            is_ours = int(folder[1]) == os.getpid() and path.name.isascii() and path.name.isdecimal()
            return int(path.name) if is_ours else None
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return None


def _write_into(path: Path, data: bytes) -> None:
    # An open file goes on where it is: opened by its name it would begin anew, over what is in it.
    number = _descriptor(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY) if number is None else os.dup(number)
    with open(descriptor, "wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Look, before anything is computed, whether `path` may be written.

    What appears after this look is refused where it is written, with `replace=force`.

    Raises:
        CompressnetError: something is there, and `force` does not allow to replace it.
    """
    if force:
        return
    if os.path.exists(path):
        if not is_stream(path) or stat.S_ISBLK(os.stat(path).st_mode):
            raise CompressnetError(f"{path} exists: add --force to overwrite it")
    elif os.path.islink(path):
        raise CompressnetError(
            f"{path} is a link to {os.readlink(path)}, which is not there: add --force to write there"
        )


def write_text(path: Path, text: str, *, replace: bool = True) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode(), replace=replace)


def write_json(path: Path, value: Any, *, replace: bool = True) -> None:
    """Write `value` as indented JSON, atomically; see `json_text`."""
    write_text(path, json_text(value) + "\n", replace=replace)


def json_text(value: Any, *, plain: bool = False) -> str:
    """`value` as indented JSON; figures as `finite` has them.

    It is UTF-8 and safe to show: bytes of a name that are no text stand as `\\udcff`, controls as `\\u009b`.

    Args:
        plain: ASCII only.
    """
    text = json.dumps(finite(value), indent=2, ensure_ascii=plain, allow_nan=False)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: a float that is not finite (the PSNR of equal images) becomes a text."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a hidden neighbour folder to fill; it becomes `target` in one rename, or vanishes on an error.

    Args:
        replace: take the place of a folder that is there, which is moved away first.

    Raises:
        WriteError: the disk is full or read-only, the folder around it has gone, something is at `target`.
    """
    try:
        with temporary_folder(target) as temporary:
            yield temporary
            if replace and os.path.lexists(target):
                _exchange(temporary, target)
            else:
                appear(temporary, target)
    except OSError as error:
        raise write_error(target, error) from error


def _exchange(temporary: Path, target: Path) -> None:
    """Rename a filled folder to `target` and remove what was there."""
    old = _temporary(target)
    os.rename(target, old)
    try:
        appear(temporary, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def temporary_folder(target: Path, mode: int = 0o777) -> Iterator[Path]:
    """Yield a hidden new folder beside `target`, which is removed unless it was renamed (see `appear`).

    Args:
        mode: of the folder, less the umask.

    Raises:
        WriteError: of a file in it: names `target`, as the hidden name says nothing to a person.
    """
    temporary = _temporary(target)
    temporary.mkdir(mode)
    try:
        yield temporary
    except WriteError as error:
        raise write_error(target, error.reason) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def appear(temporary: Path, target: Path) -> None:
    """Rename a filled folder to `target`, which must not be there.

    Raises:
        FileExistsError: it is. (The system itself lets a folder replace an empty one, where nothing is lost.)
    """
    _sync_folder(temporary)
    try:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(temporary, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise
    _sync_folder(target.parent)


def _temporary(path: Path) -> Path:
    """`.NAME.PID-RANDOM.tmp` beside `path`, in the bytes that a name may have."""
    name = cut_name(path.name, _NAME_BYTES)
    return path.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def cut_name(name: str, most: int) -> str:
    """As much of the beginning of a file's name as `most` bytes hold."""
    data = os.fsencode(name)
    end = min(most, len(data))
    while end < len(data) and end > most - 4 and data[end] & 0xC0 == 0x80:
        end -= 1  # not in the middle of a character
    return os.fsdecode(data[:end])


def remove(path: Path) -> None:
    """Delete a file, whether or not it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a read-only file system holds no temporary of ours either
        return


def remove_stale(folder: Path, *, alone: bool = False) -> None:
    """Remove what killed processes left half-written in `folder`.

    Args:
        alone: a lock says that nobody else writes there: what carries the number of a living process goes
            as well. The number may have been given again, or be of another machine.
    """
    try:
        leftovers = [folder / name for name in os.listdir(folder)]
    except OSError:
        return
    for leftover in leftovers:
        if not is_stale(leftover, alone=alone):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            remove(leftover)


def is_stale(path: Path, *, alone: bool = False) -> bool:
    """Whether `path` has the name of a temporary of ours whose process is dead (`alone`: or lives)."""
    owner = _TEMPORARY.fullmatch(path.name)
    if owner is None or not 0 < int(owner[1]) <= _LARGEST_PID:
        return False
    return alone or not process_alive(int(owner[1]))


def process_alive(pid: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def file_system(path: Path) -> str:
    """What holds `path`, for messages: `nfs4 at /home`; empty where the system does not tell."""
    place = os.path.realpath(path)
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    mounts = [line.split(" ") for line in lines]
    around = [(words[1], words[2]) for words in mounts if os.path.commonpath([words[1], place]) == words[1]]
    if not around:
        return ""
    point, kind = max(around, key=lambda mount: len(mount[0]))
    return f"{kind} at {point}"


def write_error(path: Path, error: OSError) -> WriteError:
    """One line for a failed write: which file, why, and how much room there is."""
    reason = error.strerror or str(error)
    room = _room(path) if error.errno in _OF_THE_DISK else ""
    kept = "" if is_stream(path) else f"{room}; nothing that was there is lost"
    return WriteError(f"cannot write {path}: {reason}{kept}", error)


def _room(path: Path) -> str:
    folder = next((parent for parent in path.absolute().parents if os.path.isdir(parent)), None)
    try:
        return f" ({shutil.disk_usage(folder).free / 1e9:.1f} GB free)" if folder else ""
    except OSError:
        return ""


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
