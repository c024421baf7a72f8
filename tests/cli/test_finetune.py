"""Compressed runs: every command opens them, and `--finetune` trains them on, however often it is killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from compressnet import weights
from compressnet.errors import CompressnetError
from compressnet.run import Run
from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("hardly_timed")

RECIPE = """
version: 1
task: {name: sequence_classification}
model: {name: sequence_classifier, hidden_size: 8, num_layers: 1, embedding_size: 6, dropout: 0.1}
data: {name: sentences, root: ., set: SUBJ, fold: 0}
train: {schedule: pieces, pieces: [[20, 0.02], [10, 0.01]], steps: 30, batch: 4, previews: 1}
"""
COMPRESS = [
    "compress",
    "parent",
    "--method",
    "svd:rank=1",
    "--device",
    "cpu",
    "--clock",
    "cpu",
    "--seq-len",
    "3",
]
EPOCHS = ["--set=train.epochs=1", "--set=train.schedule=constant", "--set=train.pieces=[]"]
FINETUNE = [
    "--finetune=60",
    "--set=train.checkpoint_every=5",
    "--set=train.evaluate_every=20",
    "--set=train.keep=2",
    "--set=train.distill.weight=0.7",
]


def write_data(folder: Path) -> None:
    rows = [f"{n // 30} it {'says' if n < 30 else 'seems'} {'so ' * (n % 4)}" for n in range(60)]
    (folder / "subj.all").write_text("\n".join(rows) + "\n")


@pytest.fixture
def parent(cli: Cli, place: Path) -> Path:
    """A small classifier of sentences, trained."""
    torch.set_num_threads(1)
    write_data(place)
    (place / "small.yaml").write_text(RECIPE)
    cli("train", "small.yaml", "-o", "parent", "--device", "cpu")
    return place / "parent"


def test_a_compressed_run_of_epochs_has_no_training_either(cli: Cli, parent: Path, place: Path) -> None:
    cli("train", "small.yaml", *EPOCHS, "-o", "short", "--device", "cpu")
    cli("compress", "short", *COMPRESS[2:], "--data-free", "-o", "small")
    assert "has no training to go on with" in cli("train", "--resume", "small", code=1).error


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "compress.json").read_text())
    return found


def kill_when(path: Path, folder: Path, environment: dict[str, str], *words: str) -> None:
    """Run a command, and kill it as soon as `path` is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "compressnet_cli", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_every_command_opens_a_compressed_run(cli: Cli, parent: Path, place: Path) -> None:
    before = facts(parent)["digest"]
    cli(*COMPRESS, "-o", "runs/small")
    run = place / "runs" / "small"
    assert facts(run)["parent"] == {"run": "parent", "digest": report(run)["parent"]}
    assert [row["of"] for row in json.loads(cli("runs", "ls", "--json").stdout)] == [0]
    assert json.loads(cli("eval", "runs/small", "--json").stdout)["data"]["count"] == 6
    cli("eval", "runs/small", "--record", "small", "--results", "results")
    assert json.loads((place / "results" / "small.json").read_text())["training"]["parent"]["run"] == "parent"
    (place / "a.txt").write_text("it says so\n")
    assert "jective" in cli("apply", "runs/small", "a.txt").stdout
    cli("count-params", "runs/small")
    assert "nothing" in cli("fold", "runs/small", "-o", "folded.safetensors", code=1).error
    cli("export", "runs/small", "-o", "small.onnx")
    page = cli("report", "runs/small", "-o", "page.html")
    assert page.code == 0
    html = (place / "page.html").read_text()
    assert "Compression" in html
    assert "svd:rank=1" in html
    assert "data:image/png" in html
    refused = cli("train", "--resume", "runs/small", code=1).error
    assert "has no training to go on with" in refused
    assert "--set init=runs/small" in refused
    cli("train", "small.yaml", *EPOCHS, "--set", "init=runs/small", "-o", "on", "--device", "cpu")
    assert facts(place / "on")["parent"]["digest"] == facts(run)["digest"]
    assert facts(parent)["digest"] == before


def test_finetuned_killed_and_resumed_is_the_same(
    cli: Cli, parent: Path, place: Path, environment: dict[str, str]
) -> None:
    cli(*COMPRESS, *FINETUNE, "-o", "whole")
    whole = place / "whole"
    assert Run.open(whole).recipe.train.lr == pytest.approx(0.002)
    assert (whole / "checkpoints" / "step-0").is_dir()
    evaluated = {row["step"]: row["accuracy"] for row in Run.open(whole).metrics("evaluation")}
    assert list(evaluated) == [0, 20, 40, 60]
    assert list(report(whole)["validation"]) == ["parent", "converted", "fine-tuned"]
    assert report(whole)["validation"]["fine-tuned"] == max(evaluated.values()) == facts(whole)["best"]
    assert evaluated[0] == report(whole)["validation"]["converted"]
    assert facts(whole)["teacher"]["digest"] == facts(whole)["parent"]["digest"]

    killed = place / "killed"
    kill_when(killed / "checkpoints" / "step-10", place, environment, *COMPRESS, *FINETUNE, "-o", "killed")
    assert facts(killed)["status"] == "running"
    cli("train", "--resume", "killed", "--device", "cpu")
    assert facts(killed)["digest"] == facts(whole)["digest"]
    assert facts(killed)["command"][:2] == ["compressnet", "compress"]
    assert list(report(killed)["validation"]) == ["parent", "converted", "fine-tuned"]
    assert facts(killed)["parent"] == facts(whole)["parent"]

    # One that was killed before its first checkpoint has its step 0 alone, and begins again from there.
    before = place / "before"
    shutil.copytree(whole, before)
    for step in Run.open(before).steps()[1:]:
        shutil.rmtree(before / "checkpoints" / f"step-{step}")
    for pointer in ("last", "best"):
        (before / "checkpoints" / pointer).write_text("step-0\n")
    Run.open(before).update(status="running", digest="")
    cli("train", "--resume", "before", "--device", "cpu")
    assert facts(before)["digest"] == facts(whole)["digest"]
    assert [row["step"] for row in Run.open(before).metrics("evaluation")] == [0, 20, 40, 60]


def test_what_cannot_be_fine_tuned(cli: Cli, parent: Path, place: Path) -> None:
    weights = str(parent / "checkpoints" / "step-30" / "model.safetensors")
    of_a_file = ["compress", weights, "--method", "svd:rank=1", "--finetune", "4"]
    assert "add --recipe NAME" in cli(*of_a_file, code=2).error
    assert "fip_sample" not in cli(*of_a_file, "--recipe", "small.yaml", "--dry-run", code=2).error
    assert "is for the task 'image_operator'" in cli(*of_a_file, "--recipe", "fip_sample", code=2).error
    steps = [*COMPRESS, "--finetune", "4"]
    assert "leave --recipe away" in cli(*steps, "--recipe", "small.yaml", code=2).error
    other = cli(*steps, "--set", "train.distill.teacher=zoo:rof", code=2).error
    assert "trained for the task 'image_operator'" in other
    assert "--finetune says how long" in cli(*steps, "--set", "train.steps=9", code=2).error
    assert "the network is the compressed one" in cli(*steps, "--set", "model.hidden_size=9", code=2).error
    assert "weight" in cli(*steps, "--set", "train.distill.weight=2", code=2).error
    assert "name its folder" in cli(*steps, "-o", "x.safetensors", code=2).error
    assert "is for --finetune STEPS" in cli(*COMPRESS, "--set", "train.lr=1", code=2).error
    assert not (place / "runs").exists()


def test_a_file_is_fine_tuned_by_a_recipe_that_is_named(cli: Cli, parent: Path, place: Path) -> None:
    weights = parent / "checkpoints" / "step-30" / "model.safetensors"
    cli("compress", weights, *COMPRESS[2:], "--data-free", "--finetune", "4", "--recipe", "small.yaml")
    run = place / "runs" / "small-svd-1"
    assert facts(run)["status"] == "done"
    assert facts(run)["step"] == 4
    assert list(report(run)["validation"]) == ["fine-tuned"]
    cli("eval", run)


def test_what_was_not_written_is_not_trained(
    cli: Cli, parent: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves a run without weights: its parent's recipe must not begin anew in it."""

    def full(*_: object) -> None:
        raise CompressnetError("No space left on device")

    monkeypatch.setattr(weights, "save", full)
    cli(*COMPRESS, "--data-free", "-o", "small", code=1)
    monkeypatch.undo()
    cli("train", "--resume", "small", code=1)
    assert not list((place / "small" / "checkpoints").glob("step-*"))
