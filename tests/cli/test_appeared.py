"""A file that appears while a command works is no more overwritten than one that was there before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressnet import files
from compressnet.data.audio import write_audio
from compressnet.subject import parse

from .conftest import Cli

TRAINED = "zoo:rof"
COMMANDS = {
    "apply": (f"apply {TRAINED} photo.png -o out.png", "out.png"),
    "apply, one file of all": ("apply zoo:words_svdf long.wav -o out.tsv", "out.tsv"),
    "fold": ("fold zoo:words_dscnn -o out.safetensors", "out.safetensors"),
    "compress": ("compress zoo:rof --method tucker --data-free -o out.safetensors", "out.safetensors"),
    "import": ("import net.safetensors -o out.safetensors", "out.safetensors"),
    "export": (f"export {TRAINED} -o out.onnx", "out.onnx"),
    "recipes cp": ("recipes cp fip_sample out.yaml", "out.yaml"),
    "data samples": ("data samples -o photos", "photos/coffee.png"),
    "data mix": ("data mix speech_sample -o out.wav --minutes 0.1", "out.wav"),
    "report": ("report ./RUN -o out.html", "out.html"),
    "bench": (
        "bench can24 --input-size 16 --threads 1 --rounds 2 --processes 1 --no-memory --plot out.png",
        "out.png",
    ),
}


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as a command has seen that there is no file, another process makes it."""
    looked = files.refuse_to_overwrite

    def look(path: Path, force: bool) -> None:
        looked(path, force)
        path.parent.mkdir(exist_ok=True)
        path.write_text("theirs")

    monkeypatch.setattr(files, "refuse_to_overwrite", look)
    monkeypatch.setattr("compressnet_cli.bench.command.refuse_to_overwrite", look)


@pytest.mark.usefixtures("others", "photo", "hardly_timed")
@pytest.mark.parametrize("name", COMMANDS)
def test_what_appears_meanwhile_is_left(cli: Cli, smoke_run: Path, name: str) -> None:
    if name == "export":
        pytest.importorskip("onnxruntime")
    words, output = COMMANDS[name]
    _prepare(smoke_run)
    done = cli(*words.split(), code=1)
    assert done.error == f"{output} appeared meanwhile, and is left as it is: add --force to overwrite it"
    assert Path(output).read_text() == "theirs"
    assert not list(Path().rglob(".*.tmp"))
    cli(*words.split(), "--force")
    assert Path(output).read_bytes() != b"theirs"


def _prepare(smoke_run: Path) -> None:
    network: Any = parse(TRAINED).path
    shutil.copy(network, "net.safetensors")
    shutil.copytree(smoke_run, "RUN")
    write_audio(Path("long.wav"), np.zeros(32000, np.float32), 16000)


def test_where_results_are_kept_what_appears_is_kept_too(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with `--skip-existing` may share a folder."""
    whole_file = files.whole_file

    def late(target: Path, *words: Any, **options: Any) -> Any:
        target.write_text("theirs")
        return whole_file(target, *words, **options)

    monkeypatch.setattr(files, "whole_file", late)
    done = cli("apply", "operator:rof", photo, "-o", "out", "--skip-existing", "--json")
    document = json.loads(done.stdout)
    assert (document["skipped"], document["files"], document["failed"]) == (["out/photo.png"], [], [])
    assert Path("out/photo.png").read_text() == "theirs"
