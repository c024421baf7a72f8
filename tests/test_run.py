from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from compressnet import files
from compressnet.errors import CompressnetError, RecipeError
from compressnet.recipe import Recipe
from compressnet.run import Run, find_unfinished

TEXT = """\
version: 1
task: {name: image_operator, operator: rof}
model: {name: can24}
data: {name: sample}
train: {steps: 10}
"""


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.parse(TEXT, "try.yaml")


def checkpoint(run: Run, step: int) -> None:
    folder = run.folder / "checkpoints" / f"step-{step}"
    folder.mkdir()
    for name in ("model.safetensors", "state.safetensors", "state.json"):
        (folder / name).write_text("x")
    run.point("last", step)


def test_numbers_go_up_and_a_directory_in_use_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    assert Run.create(recipe, tmp_path).folder.name == "try-1"
    assert Run.create(recipe, tmp_path).folder.name == "try-2"
    with pytest.raises(CompressnetError, match="--resume"):
        Run.create(recipe, folder=tmp_path / "try-1")


def test_a_run_opens_as_it_was_created(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    assert Run.open(run.folder).recipe == recipe
    with pytest.raises(CompressnetError, match=r"no run\.json"):
        Run.open(tmp_path)
    (run.folder / "run.json").write_text("{")
    with pytest.raises(CompressnetError, match=r"cannot read .*run\.json"):
        Run.open(run.folder)


def test_checkpoints_by_name(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    with pytest.raises(CompressnetError, match="no checkpoint 'best' \\(there are: none yet\\)"):
        run.checkpoint()
    checkpoint(run, 5)
    checkpoint(run, 10)
    run.point("best", 5)
    assert run.checkpoint().name == "step-5"
    assert run.checkpoint("last").name == "step-10"
    assert run.checkpoint("step-10").name == "step-10"
    with pytest.raises(CompressnetError, match="there are: step-5, step-10"):
        run.checkpoint("step-7")


def test_pruning_keeps_the_newest_and_the_best(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    for step in (1, 2, 3, 10):
        checkpoint(run, step)
    run.point("best", 1)
    run.prune(keep=2)
    assert run.steps() == [1, 3, 10]
    assert not (run.checkpoint("step-3") / "state.json").exists()
    assert (run.checkpoint("step-10") / "state.json").exists()


def test_a_torn_last_line_of_the_metrics_is_left_out(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    run.log("train", step=1, loss=0.5)
    run.log("train", step=2, loss=float("inf"))
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"event": "tra')
    assert [row["loss"] for row in run.metrics("train")] == [0.5, "inf"]


def test_a_run_is_locked_and_a_dead_lock_is_taken_over(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    with run.lock(), pytest.raises(CompressnetError, match=f"in use by process {os.getpid()}"), run.lock():
        pass
    assert not (run.folder / "lock").exists()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = {"host": socket.gethostname(), "pid": dead.pid, "started": "1"}
    (run.folder / "lock").write_text(json.dumps(owner))
    with run.lock():
        assert json.loads((run.folder / "lock").read_text())["pid"] == os.getpid()


def test_a_reused_process_number_is_no_owner(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": "not when this process started"}
    (run.folder / "lock").write_text(json.dumps(owner))
    with run.lock():
        pass


def test_a_lock_of_another_host_is_respected(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    (run.folder / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": None}))
    with pytest.raises(CompressnetError, match="on elsewhere"), run.lock():
        pass


def test_half_written_leftovers_are_swept(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    leftover = run.folder / "checkpoints" / ".step-5.999999999.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_text("half")
    with run.lock():
        assert not leftover.exists()


def test_what_a_resumed_run_may_change(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    run.change(["train.steps=20", "train.log_every=1"])
    assert Run.open(run.folder).recipe.train.steps == 20
    with pytest.raises(RecipeError, match=r"begun with train\.lr=0\.001, not 0\.1"):
        run.change(["train.lr=0.1"])
    with pytest.raises(RecipeError, match="task.operator=rof, not l0"):
        run.require(Recipe.parse(TEXT.replace("rof", "l0"), "try.yaml"))


def test_auto_finds_the_newest_unfinished_run_of_the_same_recipe(recipe: Recipe, tmp_path: Path) -> None:
    assert find_unfinished(tmp_path, recipe) is None
    runs = [Run.create(recipe, tmp_path) for _ in range(3)]
    for run in runs[:2]:
        checkpoint(run, 1)
    runs[0].update(status="interrupted")
    runs[1].update(status="done")
    found = find_unfinished(tmp_path, recipe)
    assert found is not None
    assert found.folder == runs[0].folder
    assert find_unfinished(tmp_path, Recipe.parse(TEXT.replace("10", "11"), "try.yaml")) is None


def test_a_folder_of_files_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill() -> None:
        with files.new_folder(tmp_path / "new") as folder:
            (folder / "a").write_text("a")
            raise OSError(28, os.strerror(28))

    with pytest.raises(CompressnetError, match="No space left"):
        fill()
    assert list(tmp_path.iterdir()) == []
