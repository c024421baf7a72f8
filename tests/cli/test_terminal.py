"""What a terminal is shown: no control characters, whoever wrote them; what a pipe gets is exact."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, save

CONTROLS = "\x1b]0;pwned\x07\x9b31m\x7f\r\u202egnp.exe\u2066\u200f\u2028\x00"
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def is_clean(text: str) -> bool:
    return not _UNSAFE.search(text)


NAMES = {
    "escape": (b"a\x1b[31m.png", r"a\x1b[31m.png"),
    "lines": (b"a\nerror: b.png", r"a\nerror: b.png"),
    "return and tab": (b"a\r\t.png", r"a\r\t.png"),
    "C1 and DEL": ("a\x9b\x7f.png".encode(), r"a\x9b\x7f.png"),
    "direction": ("a\u202egnp\u2067.png".encode(), r"a\u202egnp\u2067.png"),
    "separators": ("a\u2028\u2029\u200e.png".encode(), r"a\u2028\u2029\u200e.png"),
    "no text": (b"a\xff\xc3.png", r"a\udcff\udcc3.png"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["apply operator:rof NAME -o out", "recipes show ./NAME", "eval ./NAME"])
def test_the_name_of_a_file_in_an_error(cli: Cli, place: Path, command: str, name: str) -> None:
    raw, shown = NAMES[name]
    if command.startswith("apply"):
        Path(os.fsdecode(raw)).write_text("no picture")
    words = [word.replace("NAME", os.fsdecode(raw)) for word in command.split()]
    done = cli(*words, code=None)
    assert done.code in (1, 2)
    assert shown in done.error
    assert is_clean(done.stderr)


def test_what_was_typed_in_usage_errors(cli: Cli, place: Path) -> None:
    for words in (
        ["eval", "x", f"--dev{CONTROLS}"],
        [f"eval{CONTROLS}"],
        ["train", "fip_sample", "--set", f"a{CONTROLS}=1"],
    ):
        done = cli(*words, code=2)
        assert is_clean(done.stderr)
        assert r"\x1b" in done.error


def test_recipes_and_runs_of_strangers(cli: Cli, place: Path, smoke_run: Path) -> None:
    text = json.dumps(CONTROLS)
    Path("mine.yaml").write_text(f"version: 1\ntask: {{name: {text}}}\nmodel: {{name: can24, {text}: 1}}\n")
    assert is_clean(cli("train", "mine.yaml", code=2).stderr)
    shutil.copytree(smoke_run, place / "runs" / "a\x1b[2J\nb")
    facts = json.loads((smoke_run / "run.json").read_text())
    (place / "runs" / "a\x1b[2J\nb" / "run.json").write_text(
        json.dumps({**facts, "status": f"done{CONTROLS}"})
    )
    done = cli("runs", "ls")
    assert is_clean(done.stdout)
    assert r"a\x1b[2J\nb" in done.stdout


def test_names_in_json_can_be_mapped_back(cli: Cli, place: Path) -> None:
    raw = b"album/\xe9\xff\xc2\x9b.png"
    os.rename(save(place / "album" / "x.png"), raw)
    done = cli("apply", "operator:rof", "album", "-o", "out", "--json")
    (row,) = json.loads(done.stdout)["files"]
    assert is_clean(done.stdout)
    assert os.fsencode(row["input"]) == raw
    assert Path(row["output"]).is_file()


def test_names_that_are_no_text_train_and_are_checked(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # targets in this process: no start of others
    folder = os.fsdecode(b"photos\xe9")
    for name in (b"\xff.png", b"b\xfe.png", b"c\x1b.png"):
        save(place / folder / "x.png", (40, 40)).rename(place / folder / os.fsdecode(name))
    data = f"root={folder},min_side=32,max_side=40,sizes=1,crop=32,val_percent=50"
    assert cli("data", "check", f"photo_folder:{data}").errors == []
    settings = [f"--set=data.{pair}" for pair in data.split(",")]
    words = ["--set=train.steps=1", "--set=train.batch=2", "--set=train.previews=1", *settings]
    done = cli("train", "fip_photos", *words, "-o", "run", "--json")
    assert json.loads(done.stdout)["steps"] == 1
    assert cli("train", "--resume", "run", "--set", "train.steps=2").errors == []


def test_names_that_look_alike_are_told_apart(cli: Cli, place: Path) -> None:
    for name in ("\u00e9", "e\u0301", "\u1100\u1161", "\uac00"):
        Path(f"{name}.png").write_text("no picture")
    done = cli("apply", "operator:rof", *[path.name for path in place.glob("*.png")], "-o", "out", code=1)
    names = {line.partition(".png")[0] for line in done.errors}
    assert names == {"\u00e9", r"e\u0301", "\u1100" + r"\u1161", "\uac00"}


def test_a_warning_is_one_line_once(cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressnet.operators.rof import ROF

    original = ROF.__call__

    def warn(self: ROF, pixels: object) -> object:
        warnings.warn(
            "the first\nand \x1bthe second (Triggered internally at x.cpp:1.)", UserWarning, stacklevel=1
        )
        warnings.warn("of no use", FutureWarning, stacklevel=1)
        return original(self, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(ROF, "__call__", warn)
    save(photo.with_name("other.png"))
    done = cli("apply", "operator:rof", photo, "other.png", "-o", "out")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("device: ")]
    assert lines == [r"warning: the first and \x1bthe second"]


def on_a_terminal(command: str, environment: dict[str, str]) -> str:
    """What a command shows on a terminal."""
    parent, child = pty.openpty()
    program = [sys.executable, "-m", "compressnet_cli", *command.split()]
    process = subprocess.Popen(program, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # Linux's end of a terminal
            break
        if not part:
            break
        shown += part
    os.close(parent)
    process.wait()
    return shown.decode()


def test_a_text_is_exact_in_a_pipe_and_harmless_on_a_terminal(
    cli: Cli, place: Path, environment: dict[str, str]
) -> None:
    text = "# one\tline\n# \x1b[31mred\x07 \u202e\n"
    Path("mine.yaml").write_text(text)
    assert cli("recipes", "show", "mine.yaml").stdout == text
    shown = on_a_terminal("recipes show mine.yaml", environment)
    assert shown == "# one\tline\r\n# \\x1b[31mred\\x07 \\u202e\r\n"
