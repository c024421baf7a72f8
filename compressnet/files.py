"""Writes that are there whole or not at all, and folders that appear in one rename."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressnet.errors import CompressnetError


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` atomically: a neighbour file, flushed to the disk, renamed into place.

    Raises:
        CompressnetError: the disk is full or read-only, the folder missing; what stood at `path` still does.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; figures as `finite` has them."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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
        CompressnetError: the disk is full or read-only.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _sync_folder(temporary)
        if replace and target.exists():
            old = temporary.with_name(f"{temporary.name.removesuffix('.tmp')}-old.tmp")
            os.replace(target, old)
            os.replace(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise write_error(target, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove(path: Path) -> None:
    """Delete a file, whether or not it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a read-only file system holds no temporary of ours either
        return


def remove_stale(folder: Path) -> None:
    """Remove what killed processes left half-written in `folder`."""
    for leftover in folder.glob(".*.tmp"):
        owner = leftover.name.split(".")[-2]
        if owner.isdigit() and process_alive(int(owner)):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            remove(leftover)


def process_alive(pid: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_error(path: Path, error: OSError) -> CompressnetError:
    """One line for a failed write: which file, why, and how much room there is."""
    reason = error.strerror or str(error)
    return CompressnetError(f"cannot write {path}: {reason}{_room(path)}; nothing that was there is lost")


def _room(path: Path) -> str:
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), None)
    if folder is None:
        return ""
    return f" ({shutil.disk_usage(folder).free / 1e9:.1f} GB free)"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
