"""Writes are whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
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


@pytest.mark.parametrize(
    "name",
    [
        "x" * 255,
        "é" * 127,
        "x" + "é" * 127,
        "a" * 39 + "世" * 72,
        b"\xff".decode(errors="surrogateescape") * 255,
    ],
)
def test_names_as_long_as_they_may_be(tmp_path: Path, name: str) -> None:
    files.write_text(tmp_path / name, "whole")
    with files.new_folder(tmp_path / name[1:]) as folder:
        assert len(os.fsencode(folder.name)) < 80
    assert {path.name for path in tmp_path.iterdir()} == {name, name[1:]}
    with pytest.raises(files.WriteError, match="File name too long") as told:
        files.write_text(tmp_path / (name + "xx"), "x")
    assert not told.value.is_of_the_disk
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o755, 0o640])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x"
    path.touch()
    path.chmod(mode)
    files.write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() == "new"


def test_a_link_stays_one_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")
    (tmp_path / "again").symlink_to("link")
    for name, text in (("link", "made"), ("again", "replaced")):
        files.write_text(tmp_path / name, text)
        assert (tmp_path / "far" / "file").read_text() == text
        assert (tmp_path / name).is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"far", "link", "again"}


def test_what_may_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("absent")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("file", "exists"),
        ("link", "exists"),
        ("nowhere", "link to absent, which is not there"),
    ):
        with pytest.raises(CompressnetError, match=f"{words}.*--force"):
            files.refuse_to_overwrite(tmp_path / name, force=False)
        files.refuse_to_overwrite(tmp_path / name, force=True)
    for path in (tmp_path / "new", tmp_path / "pipe", Path("/dev/null"), Path("/dev/stdout")):
        files.refuse_to_overwrite(path, force=False)


@pytest.mark.parametrize("links", [True, False])
def test_what_appears_meanwhile_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:  # as FAT
        monkeypatch.setattr(files.os, "link", refuse)
    files.write_text(tmp_path / "new", "ours", replace=False)
    with files.whole_file(tmp_path / "other", replace=False) as temporary:
        temporary.write_text("ours")
    assert {path.name: path.stat().st_nlink for path in tmp_path.iterdir()} == {"new": 1, "other": 1}
    (tmp_path / "link").symlink_to("absent")
    for name in ("new", "link"):
        with pytest.raises(files.Appeared, match=f"{name} appeared meanwhile.*add --force"):
            files.write_text(tmp_path / name, "late", replace=False)
        with (
            pytest.raises(files.Appeared, match=name),
            files.whole_file(tmp_path / name, replace=False) as temporary,
        ):
            temporary.write_text("late")
    assert (tmp_path / "new").read_text() == "ours"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "other", "link"}


def test_pipes_devices_and_open_files_are_written_into(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    files.write_bytes(pipe, bytes(100_000))
    reader.join()
    assert got == [bytes(100_000)]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    files.write_bytes(Path("/dev/null"), b"x")
    with open(tmp_path / "log", "wb", buffering=0) as log:
        log.write(b"before ")
        for folder in ("/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd"):
            files.write_bytes(Path(folder) / str(log.fileno()), b"into ")
        log.write(b"after")
    assert (tmp_path / "log").read_bytes() == b"before into into into after"
    with pytest.raises(files.WriteError, match="cannot write /dev/full: No space left on device$"):
        files.write_bytes(Path("/dev/full"), b"x")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.parametrize(
    "name",
    ["..tmp", ".x.tmp", ".x.0.tmp", ".step-1.-1.tmp", ".x.².tmp", ".x.٣.tmp", ".x.99999999999999999999.tmp",
     ".x.4294967296.tmp", ".x.1-zz.tmp", ".é.tmp", ".tmp", "x.1.tmp"],
)  # fmt: skip
def test_names_that_only_look_like_our_temporaries_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    files.remove_stale(tmp_path, alone=True)
    assert (tmp_path / name).exists()


def test_under_a_lock_the_number_of_a_living_process_keeps_nothing(tmp_path: Path) -> None:
    names = {f".a.{os.getpid()}.tmp", f".b.{os.getpid()}-00ff00ff.tmp", f".b\n.{os.getpid()}-00ff00ff.tmp"}
    for name in names:
        (tmp_path / name).touch()
    files.remove_stale(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names
    files.remove_stale(tmp_path, alone=True)
    files.remove_stale(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("absent")
    before = set(tmp_path.iterdir())
    for path in before:
        with pytest.raises(files.WriteError, match="File exists"), files.new_folder(path) as folder:
            (folder / "x").touch()
    with pytest.raises(files.WriteError, match="No such file"), files.new_folder(tmp_path / "no" / "x"):
        pass
    assert set(tmp_path.iterdir()) == before
