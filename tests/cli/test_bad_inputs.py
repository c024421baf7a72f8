"""Bad inputs: one clear line each, the exit code as specified, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from compressnet import files, subject
from compressnet.run import Run
from compressnet.weights import KEY
from tests.cli.conftest import Cli, save

RECIPE = """version: 1
task: {name: image_operator, operator: rof}
model: {name: can24}
data: {name: sample}
train:
  steps: 8
  lr: 1e-3
  warmup_steps: 2
"""


def recipe(folder: Path, old: str, new: str) -> tuple[Path, int]:
    """mine.yaml with one change; the path and the line of the change."""
    assert RECIPE.count(old) == 1
    path = folder / "mine.yaml"
    path.write_text(RECIPE.replace(old, new))
    return path, RECIPE[: RECIPE.index(old)].count("\n") + 1


def everything_below(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- recipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("warmup_steps: 2", "warmup_stepz: 2", ["train.warmup_stepz", "did you mean 'warmup_steps'"]),
        ("steps: 8", "steps: many", ["train.steps", "integer", "'many'"]),
        ("can24", "can24, in_channels: 3", ["in_channels", "follows from the data"]),
    ],
    ids=["unknown key", "wrong type", "derived from the data"],
)
@pytest.mark.parametrize("command", ["train", "recipes validate"])
def test_a_mistake_in_a_recipe(
    cli: Cli, place: Path, command: str, old: str, new: str, words: list[str]
) -> None:
    path, line = recipe(place, old, new)
    done = cli(*command.split(), path, code=2)
    assert done.error.startswith(f"{path}:{line}: ")
    for word in words:
        assert word in done.error
    assert not (place / "runs").exists()


def test_all_mistakes_of_a_recipe_and_its_overrides_at_once(cli: Cli, place: Path) -> None:
    path, _ = recipe(place, "lr: 1e-3", "lr: -1\n  epochs: x")
    done = cli("train", path, "--set", "seed=-1", "--set", "train.bach=2", code=2)
    assert len(done.errors) == 4
    assert sum(line.startswith("--set ") for line in done.errors) == 2
    assert "did you mean 'batch'" in done.stderr


def test_missing_data_says_where_it_looked_and_what_to_do(cli: Cli, place: Path) -> None:
    for name in ("fip_photos", "fip_fivek"):
        error = cli("train", name, "--data-root", place / "nowhere", code=1).error
        assert str(place / "nowhere") in error
        assert "--smoke" in error
        assert "--data-root" in error
    assert "data.csail.mit.edu" in error  # how to obtain FiveK
    assert "inputs/" in error  # its layout


# --- pictures ----------------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG whose header says 60000 x 60000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("truncated.png", "damaged"),
        ("text.png", "not an image"),
        ("empty.png", "0 bytes"),
        ("bomb.png", "60000 x 60000"),
    ],
)
def test_a_picture_that_is_none(cli: Cli, photo: Path, name: str, words: str) -> None:
    content = {
        "truncated.png": save(photo.with_name("big.png"), (200, 200)).read_bytes()[:2000],
        "text.png": b"Dear diary",
        "empty.png": b"",
        "bomb.png": bomb(),
    }[name]
    photo.with_name("big.png").unlink(missing_ok=True)
    bad = photo.with_name(name)
    bad.write_bytes(content)
    before = everything_below(photo.parent)
    error = cli("apply", "operator:rof", bad, "-o", "out.png", code=1).error
    assert error.startswith(f"{bad}: ")
    assert words in error
    assert everything_below(photo.parent) == before
    checked = cli("data", "check", f"photo_folder:root={photo.parent}", code=1)
    assert name in checked.error


# --- disks -------------------------------------------------------------------------------------------------


class BrokenDisk:
    """In the place of `compressnet.files.os`: flushing to the disk fails."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC], ids=["read-only", "full"])
@pytest.mark.parametrize(
    "words",
    [
        "apply operator:rof photo.png -o out.png --force",
        "recipes cp fip_sample out.yaml --force",
        "data samples -o out --force",
        "eval RUN --json",
        "train fip_sample --smoke -o fresh",
    ],
)
def test_a_disk_that_cannot_be_written(
    cli: Cli, photo: Path, smoke_run: Path, monkeypatch: pytest.MonkeyPatch, words: str, number: int
) -> None:
    run = photo.parent / "RUN"
    shutil.copytree(smoke_run, run)
    (run / "eval.json").write_text("{}")
    for old in ("out.png", "out.yaml", "out/coffee.png"):
        (photo.parent / old).parent.mkdir(exist_ok=True)
        (photo.parent / old).write_text("what stood here")
    before = everything_below(photo.parent)
    monkeypatch.setattr(files, "os", BrokenDisk(number))
    error = cli(*words.split(), code=1).error
    assert error.startswith("cannot write ")
    assert os.strerror(number) in error
    assert everything_below(photo.parent) == before


def test_a_disk_where_no_folder_can_be_made(
    cli: Cli, photo: Path, smoke_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        for words in (
            "apply operator:rof photo.png -o out/",
            "data samples -o out",
            "train fip_sample --smoke",
            f"eval {smoke_run} --pictures out",
        ):
            error = cli(*words.split(), code=1).error
            assert error.startswith("cannot write "), error
            assert os.strerror(errno.EROFS) in error
    assert set(photo.parent.iterdir()) == {photo}
    photo.with_name("file").write_text("in the way")
    assert "cannot write" in cli("apply", "operator:rof", photo, "-o", "file/x.png", code=1).error


# --- devices and runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["apply operator:rof photo.png -o out.png", "train fip_sample --smoke"])
def test_an_unknown_device(cli: Cli, photo: Path, command: str) -> None:
    assert "auto, cpu, cuda" in cli(*command.split(), "--device", "gpu", code=2).error
    if not torch.cuda.is_available():
        assert "finds no GPU" in cli(*command.split(), "--device", "cuda", code=1).error
    assert set(photo.parent.iterdir()) == {photo}


def test_a_run_in_use_and_a_lock_left_by_a_dead_process(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = place / "run"
    shutil.copytree(smoke_run, run)
    before = everything_below(run)
    with Run.open(run).lock():
        error = cli("train", "--resume", run, "--set", "train.steps=9", code=1).error
    assert f"in use by process {os.getpid()}" in error
    (run / "lock").unlink()
    assert everything_below(run) == before
    assert "continue it with --resume" in cli("train", "fip_sample", "--smoke", "-o", run, code=1).error
    (run / "lock").write_text("process 1234567 on elsewhere")  # what a kill leaves behind
    assert cli("train", "--resume", run, "--set", "train.steps=9").errors == []
    assert json.loads((run / "run.json").read_text())["step"] == 9


# --- weights -----------------------------------------------------------------------------------------------


def test_weights_that_cannot_be_used(cli: Cli, photo: Path, smoke_run: Path) -> None:
    whole = smoke_run / "checkpoints" / "step-8" / "model.safetensors"
    with safetensors.safe_open(whole, framework="pt") as file:
        described = json.loads(file.metadata()[KEY])
    tensors = safetensors.torch.load_file(whole)
    newer = {KEY: json.dumps({**described, "format": 99, "something": "new"})}
    safetensors.torch.save_file(tensors, "newer.safetensors", metadata=newer)
    safetensors.torch.save_file(tensors, "foreign.safetensors")
    Path("truncated.safetensors").write_bytes(whole.read_bytes()[:-1000])
    Path("text.safetensors").write_text("no weights at all")
    expected = {
        "newer": "99 is newer",
        "foreign": "not one that compressnet wrote",
        "truncated": "damaged",
        "text": "damaged",
        "absent": "no such file",
    }
    for name, words in expected.items():
        error = cli("apply", f"{name}.safetensors", photo, "-o", "out.png", code=1).error
        assert f"{name}.safetensors: " in error
        assert words in error
    assert not Path("out.png").exists()


# --- what is typed -----------------------------------------------------------------------------------------


def test_a_name_that_means_two_things(cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = subject.names
    monkeypatch.setattr(subject, "names", lambda kind: ["rof"] if kind == "zoo" else names(kind))
    error = cli("apply", "rof", photo, "-o", "out.png", code=2).error
    assert "zoo:rof" in error
    assert "operator:rof" in error
    assert "did you mean 'zoo:" not in error
    assert cli("apply", "operator:rof", photo, "-o", "out.png").errors == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("photo.png -o old.png", 1, "old.png exists: add --force"),
        ("photo.png -o photo.png --force", 2, "photo.png is an input"),
        ("photo.png -o .", 2, "photo.png is an input"),
        ("photo.png other/photo.png -o out", 2, "would both be written to out/photo.png"),
        ("photo.png", 2, "-o"),
        ("photo.png -o out.xyz", 2, "cannot write this format"),
        ("absent.png -o out.png", 1, "absent.png: no such file"),
        ("empty -o out", 1, "no images"),
        ("photo.png -o out.png --set max_memry=3", 2, "no options beside its own keys: weight, eps"),
        ("photo.png -o out.png --set dtype=float16", 2, "no options beside its own keys: weight, eps"),
        ("photo.png -o out.png --set dtype", 2, "key=value"),
    ],
)
def test_apply_refuses_before_it_computes(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int, message: str
) -> None:
    save(photo.parent / "old.png")
    save(photo.parent / "other" / "photo.png")
    (photo.parent / "empty").mkdir()
    before = everything_below(photo.parent)
    from compressnet.operators.rof import ROF

    monkeypatch.setattr(ROF, "__call__", lambda *_: pytest.fail("it computed"))
    assert message in cli("apply", "operator:rof", *words.split(), code=code).error
    assert everything_below(photo.parent) == before
    assert not (photo.parent / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "Did you mean 'train'?"),
        ("recipes lss", "Did you mean 'ls'?"),
        ("eval x --devise cpu", "--device"),
        ("apply operator:rof:wait=1 photo.png -o out.png", "did you mean 'weight'"),
        ("apply operator:rof:weight=heavy photo.png -o out.png", "'heavy'"),
        ("apply operator:roff photo.png -o out.png", "did you mean 'rof'"),
        ("train fip_sampel", "did you mean 'fip_sample'"),
        ("data check photo_foldr:root=x", "did you mean 'photo_folder'"),
        ("eval fip_sample", "is of kind recipe"),
    ],
)
def test_a_slip_of_the_pen_gets_a_suggestion(cli: Cli, photo: Path, words: str, message: str) -> None:
    done = cli(*words.split(), code=2)
    assert message in done.stderr
    assert done.stderr.lower().count("error") == 1
    assert done.stdout == ""
