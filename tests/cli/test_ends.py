"""How commands end: results that cannot be written, streams that are gone, memory that is short."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from compressnet import files
from compressnet.operators.rof import ROF
from tests.cli.conftest import Cli, save
from tests.conftest import ROOT

# --- a batch -----------------------------------------------------------------------------------------------


@pytest.fixture
def album(place: Path) -> Path:
    """Five pictures, one of them in a folder."""
    for name in ("a.png", "b.png", "deep/c.png", "e.png", "z.png"):
        save(place / "album" / name)
    return place / "album"


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_batch_goes_on_past_what_cannot_be_written(cli: Cli, album: Path) -> None:
    out = album.parent / "out"
    (out / "b.png").mkdir(parents=True)  # a folder where a file must be
    (out / "deep").write_text("a file where a folder must be")
    save(album / "large.png", (300, 300)).rename(album / "large.bmp")
    with file_size_limit(20_000):
        done = cli("apply", "operator:rof", "album", "-o", "out", "--json", code=1)
    report = json.loads(done.stdout)
    assert {Path(row["output"]).name for row in report["files"]} == {"a.png", "e.png", "z.png"}
    failed = {Path(row["input"]).name: row["error"] for row in report["failed"]}
    expected = {
        "b.png": "cannot write out/b.png: it is a folder",
        "c.png": "cannot write out/deep: out/deep is not a folder",
        "large.bmp": "cannot write out/large.bmp: File too large",
    }
    for name, words in expected.items():
        assert failed.pop(name).startswith(words)
    assert len(done.errors) == len(report["failed"])
    assert written(out) == {"a.png", "e.png", "z.png", "deep"}


def test_where_nothing_can_be_written_the_list_is_the_same(cli: Cli, album: Path) -> None:
    (album.parent / "file").touch()
    done = cli("apply", "operator:rof", "album", "-o", "file/out", "--json", code=1)
    report = json.loads(done.stdout)
    assert report["files"] == []
    assert len(report["failed"]) == 5
    assert all("file is not a folder" in row["error"] for row in report["failed"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_a_batch_with_the_list(
    cli: Cli, album: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    link, calls = os.link, []

    def full(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > 2:
            raise OSError(number, os.strerror(number))
        link(source, target)

    monkeypatch.setattr(files.os, "link", full)
    done = cli("apply", "operator:rof", "album", "-o", "out", "--json", code=1)
    report = json.loads(done.stdout)
    assert [Path(row["input"]).name for row in report["files"]] == ["a.png", "b.png"]
    assert len(report["failed"]) == 3
    assert len(calls) == 3
    assert done.error.startswith("cannot write out/")
    assert os.strerror(number) in done.error
    assert done.error.endswith("; 2 more inputs were not processed")


def test_links_that_lead_elsewhere_are_followed_only_by_force(cli: Cli, album: Path) -> None:
    out, elsewhere = album.parent / "out", album.parent / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "deep").symlink_to(elsewhere)
    assert "out/deep is a link to" in cli("apply", "operator:rof", "album", "-o", "out", code=1).error
    (out / "deep").unlink()
    (out / "a.png").symlink_to("../elsewhere/a.png")
    assert "is not there: add --force" in cli("apply", "operator:rof", "album", "-o", "out", code=1).error
    assert written(album.parent) == {f"album/{name}" for name in written(album)}
    (out / "deep").symlink_to(elsewhere)
    cli("apply", "operator:rof", "album", "-o", "out", "--force")
    assert written(elsewhere) == {"a.png", "c.png"}
    assert (out / "a.png").is_symlink()
    (album.parent / "linked").symlink_to(elsewhere)  # the output itself may be one
    cli("apply", "operator:rof", "album/b.png", "-o", "linked")
    assert written(elsewhere) == {"a.png", "b.png", "c.png"}


def test_devices_are_written_into(cli: Cli, album: Path) -> None:
    picture = cli("apply", "operator:rof", "album/a.png", "-o", "out.png")
    for words in ("album -o /dev/null", "album/a.png -o /dev/null", "album/a.png -o /dev/null --force"):
        assert cli("apply", "operator:rof", *words.split()).stdout == ""
    assert "No space left" in cli("apply", "operator:rof", "album/a.png", "-o", "/dev/full", code=1).error
    cli("recipes", "cp", "fip_sample", "/dev/null")
    assert picture.stdout == "out.png\n"
    made = subprocess.run(
        f"{sys.executable} -m compressnet_cli apply operator:rof album/a.png -o /dev/stdout | cat > piped",
        shell=True,
        capture_output=True,
        check=True,
    )
    assert made.stdout == b""
    assert Path("piped").read_bytes() == Path("out.png").read_bytes()


# --- memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=["python", "cpu", "cuda", "c++"],
)
def test_a_picture_that_memory_does_not_hold_stops_no_other(
    cli: Cli, album: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    original, calls = ROF.__call__, []

    def short_of_memory(self: ROF, pixels: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return original(self, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(ROF, "__call__", short_of_memory)
    done = cli("apply", "operator:rof", "album", "-o", "out", code=1)
    assert done.error.startswith("album/b.png: out of memory: ")
    assert done.error.endswith("apply it to a smaller picture")
    assert len(written(Path("out"))) == 4


@pytest.mark.parametrize(
    ("command", "words"), [("eval RUN", "eval.batch"), ("export zoo:rof -o x.onnx", "smaller network")]
)
def test_memory_short_while_a_subject_is_opened(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str, words: str
) -> None:
    from compressnet import side, subject

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(side, "parse", fail)  # imported for the first time below, it would keep this one
    monkeypatch.setattr(subject, "parse", fail)
    error = cli(*command.split(), code=1).error
    assert error.startswith("out of memory: ")
    assert words in error


# --- streams -----------------------------------------------------------------------------------------------

NO_ROOM = "error: cannot write to stdout: No space left on device\n"
STREAMS = [
    ("recipes ls > /dev/full", 1, NO_ROOM),
    ("recipes ls --json > /dev/full", 1, NO_ROOM),
    ("--help > /dev/full", 1, None),
    ("recipes ls >&-", 1, "error: cannot write to stdout: Bad file descriptor\n"),
    ("recipes ls | head -1 > /dev/null", 0, ""),
    ("recipes ls | true", 0, ""),
    ("recipes show nothing 2>&-", 2, ""),
    ("recipes show nothing 2>/dev/full", 2, ""),
    ("recipes validate lm_sample <&- 2>&-", 0, ""),
    ("recipes ls <&- >&- 2>&-", 1, ""),
]


@pytest.mark.parametrize(("command", "code", "told"), STREAMS, ids=[command for command, _, _ in STREAMS])
def test_streams_that_are_closed_full_or_not_read(
    tmp_path: Path, environment: dict[str, str], command: str, code: int, told: str | None
) -> None:
    program = f"{sys.executable} -m compressnet_cli"
    done = subprocess.run(
        ["bash", "-c", f"{program} {command}"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert done.stderr == told if told is not None else done.stderr.startswith("error: ")
    assert "ignored" not in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_that_cannot_be_shown_are_written_all_the_same(
    cli: Cli, place: Path, smoke_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(smoke_run, place / "run")
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        done = cli("eval", "run", "--split", "train", code=1)
    assert done.error == "cannot write to stdout: No space left on device"
    assert json.loads((place / "run" / "eval.json").read_text())["split"] == "train"


def test_a_folder_without_permission_is_no_bug(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert cli("recipes", "show", photo.with_suffix(".yaml"), code=1).error.endswith("Permission denied")


# --- signals -----------------------------------------------------------------------------------------------


def wait_for_the_end_of_group(leader: int) -> None:
    """Python's resource tracker ends itself when it sees that its parent has ended."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("a process is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_while_workers_start(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    words = "train lstm_1997_tasks --set train.workers=3 --set train.steps=9 --set data.val_count=4 -o run"
    process = subprocess.Popen(
        [sys.executable, "-m", "compressnet_cli", *words.split()],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.endswith(f"error: {number.name}: stopped before the first step; nothing was lost\n")
    assert "Traceback" not in err
    wait_for_the_end_of_group(process.pid)  # no worker is left
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"


def test_a_working_folder_that_has_gone_is_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "here").mkdir()
    script = f"cd here && rmdir ../here && exec {sys.executable} -m compressnet_cli zoo ls"
    done = subprocess.run(
        script, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr == "error: the working folder has gone: change to one that is there\n"


def test_ctrl_c_while_the_program_starts_is_quiet(tmp_path: Path, environment: dict[str, str]) -> None:
    for delay in (0.1, 0.2, 0.3, 0.4):
        process = subprocess.Popen(
            [sys.executable, "-m", "compressnet_cli", "zoo", "ls"],
            cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        # Python itself, before it runs a line of ours, says what it likes.
        assert "compressnet_cli" not in err
        assert process.returncode in (0, 130, -signal.SIGINT) or "<frozen" in err or "import site" in err, err


def test_a_text_that_memory_does_not_hold_stops_no_other(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressnet.data import limits

    network = ROOT / "tests" / "fixtures" / "v0.1.0" / "text.safetensors"
    (place / "good.txt").write_text("the cat sat on the mat\n" * 3)
    with open(place / "sparse.txt", "wb") as file:
        file.truncate(10**9)
    monkeypatch.setattr(limits, "free_memory", lambda: 10**9)
    report = cli("apply", network, "sparse.txt", "/dev/zero", "good.txt", "--json", code=1)
    errors = report.errors
    assert errors[0].startswith("sparse.txt: 1.0 GB of text need about 25.0 GB, 1.0 GB are free")
    assert "/dev/zero" in errors[1]
    assert [row["input"] for row in json.loads(report.stdout)["files"]] == ["good.txt"]
