"""Writes are whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from compressnet import files
from compressnet.errors import CompressnetError


@pytest.fixture(params=["fsync", "replace", "open"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One step of writing fails with a full disk."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if request.param == "open":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(files.os, request.param, fail)
    return str(request.param)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(CompressnetError, match=r"cannot write .*No space left on device \(.* GB free\)"):
        files.write_bytes(path, b"new")
    assert path.stat().st_size == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match="no/file"):
        files.write_text(tmp_path / "no" / "file", "x")


def test_json_and_text(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": [1, "ü"]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": [\n    1,\n    "ü"\n  ]\n}\n'
    files.write_json(tmp_path / "a.json", {"b": (float("inf"), float("nan"))})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": ["inf", "nan"]}


def test_the_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "x", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with files.new_folder(tmp_path / "good") as folder:
        (folder / "x").write_text("x")
        assert not (tmp_path / "good").exists()
    assert (tmp_path / "good" / "x").read_text() == "x"
    with pytest.raises(KeyboardInterrupt), files.new_folder(tmp_path / "bad") as folder:
        interrupted_write(folder)
    with pytest.raises(CompressnetError, match="cannot write"), files.new_folder(tmp_path / "bad"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_what_dead_processes_left_is_removed_and_only_that(tmp_path: Path) -> None:
    dead = 2**22 + 1  # above the largest number that Linux gives
    for name in (f".a.{dead}.tmp", f".b.{os.getpid()}.tmp", ".hidden", "c.tmp"):
        (tmp_path / name).touch()
    (tmp_path / f".step-3.{dead}.tmp").mkdir()
    files.remove_stale(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".b.{os.getpid()}.tmp", ".hidden", "c.tmp"}


def interrupted_write(folder: Path) -> None:
    (folder / "x").write_text("x")
    raise KeyboardInterrupt
