from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from compressnet import files, run_lock
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
    run.checkpoints.point("last", step)


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
    with pytest.raises(CompressnetError, match=r"run\.json: damaged, not JSON"):
        Run.open(run.folder)


def test_checkpoints_by_name(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    with pytest.raises(CompressnetError, match="no checkpoint 'best' \\(there are: none yet\\)"):
        run.checkpoint()
    checkpoint(run, 5)
    checkpoint(run, 10)
    run.checkpoints.point("best", 5)
    assert run.checkpoint().name == "step-5"
    assert run.checkpoint("last").name == "step-10"
    assert run.checkpoint("step-10").name == "step-10"
    with pytest.raises(CompressnetError, match="there are: step-5, step-10"):
        run.checkpoint("step-7")


def test_pruning_keeps_the_newest_and_the_best(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    for step in (1, 2, 3, 10):
        checkpoint(run, step)
    run.checkpoints.point("best", 1)
    run.checkpoints.prune(keep=2)
    assert run.steps() == [1, 3, 10]
    assert (run.checkpoint("step-3") / "state.json").exists()  # the newest may turn out to be damaged
    assert not (run.checkpoint("step-1") / "state.json").exists()
    assert (run.checkpoint("step-10") / "state.json").exists()


def test_a_torn_last_line_of_the_metrics_is_left_out(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    run.log("train", step=1, loss=0.5)
    run.log("train", step=2, loss=float("inf"))
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"event": "tra')
    assert [row["loss"] for row in run.metrics("train")] == [0.5, "inf"]


def test_a_run_is_locked_while_it_is_trained(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    with run.lock():
        for intruder in (Run.open(run.folder).lock(), run.lock()):
            with pytest.raises(CompressnetError, match=f"in use by process {os.getpid()} on"), intruder:
                pass
    with run.lock():
        pass


def test_the_lock_of_a_killed_process_is_free(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    script = "import sys, time; from pathlib import Path; from compressnet.run import Run\n"
    script += "with Run.open(Path(sys.argv[1])).lock(): print('locked', flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", script, str(run.folder)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    with pytest.raises(CompressnetError, match=f"process {owner.pid}"), run.lock():
        pass
    owner.kill()
    owner.wait()
    with run.lock():
        pass


def test_settings_are_not_changed_under_the_hands_of_a_training(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    before = (run.folder / "recipe.yaml").read_text()
    with run.lock(), pytest.raises(CompressnetError, match="in use"):
        Run.open(run.folder).change(["train.steps=99"])
    assert (run.folder / "recipe.yaml").read_text() == before


def test_a_null_in_a_recipe_stays_one(tmp_path: Path) -> None:
    text = TEXT.replace("steps: 10", "steps: 10, checkpoint_every: null, checkpoint_minutes: null")
    run = Run.create(Recipe.parse(text, "try.yaml"), tmp_path)
    assert Run.open(run.folder).recipe.train.checkpoint_every is None


def test_a_damaged_run_does_not_stand_in_the_way_of_auto(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    checkpoint(run, 1)
    other = Run.create(recipe, tmp_path)
    (other.folder / "run.json").write_text("{")
    found = find_unfinished(tmp_path, recipe)
    assert found is not None
    assert found.folder == run.folder


def test_a_kill_between_a_checkpoint_and_its_pointer_costs_nothing(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    checkpoint(run, 4)
    checkpoint(run, 8)
    run.checkpoints.point("last", 4)
    assert run.resume_point() == run.checkpoint("step-8")
    run.checkpoints.prune(keep=3)
    assert (run.checkpoint("step-4") / "state.json").exists()


def test_steps_done_again_count_once_and_a_torn_line_harms_no_other(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(recipe, tmp_path)
    for step in (1, 2, 3):
        run.log("train", step=step, loss=1.0)
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"event": "tra')
    run.log("resume", step=1)
    run.log("train", step=2, loss=2.0)
    assert [(row["step"], row["loss"]) for row in run.metrics("train")] == [(1, 1.0), (2, 2.0)]
    assert len(run.metrics("resume")) == 1


def test_names_with_brackets_are_numbered_too(tmp_path: Path) -> None:
    recipe = Recipe.parse(TEXT, "exp[2].yaml")
    assert [Run.create(recipe, tmp_path).folder.name for _ in range(2)] == ["exp[2]-1", "exp[2]-2"]


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


def test_a_new_run_is_whole_or_not_there(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        assert not (tmp_path / "runs" / "mine").exists()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    for words in ({"folder": tmp_path / "runs" / "mine"}, {"runs": tmp_path / "runs"}):
        with pytest.raises(CompressnetError, match=r"cannot write .*(mine|try-1): No space left"):
            Run.create(recipe, **words)
    assert list((tmp_path / "runs").iterdir()) == []


def test_runs_made_at_once_have_names_of_their_own_and_one_name_has_one_winner(
    recipe: Recipe, tmp_path: Path
) -> None:
    made: list[str] = []

    def make(**words: Path) -> None:
        try:
            made.append(Run.create(recipe, **words).folder.name)
        except CompressnetError as error:
            made.append(str(error).rpartition("/")[2].partition(":")[0])

    threads = [threading.Thread(target=make, kwargs={"runs": tmp_path}) for _ in range(6)]
    threads += [threading.Thread(target=make, kwargs={"folder": tmp_path / "mine"}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [f"try-{number}" for number in range(1, 7)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", *names]
    assert sorted(name for name in made if name.startswith("try")) == names
    assert made.count("mine") == 1
    assert all(Run.open(path).recipe == recipe for path in tmp_path.iterdir())


def test_runs_that_were_killed_while_they_were_made_are_swept(recipe: Recipe, tmp_path: Path) -> None:
    for name in (".try-1.4194305-00.tmp", ".try-2.4194305-00.tmp", ".mine.4194305-00.tmp"):
        (tmp_path / name / ("photographs" if name.startswith(".mine") else "checkpoints")).mkdir(parents=True)
    for name in (".try-1.4194305-00.tmp", ".mine.4194305-00.tmp"):
        os.utime(tmp_path / name, (0, 0))
    Run.create(recipe, tmp_path)
    left = {".try-2.4194305-00.tmp", ".mine.4194305-00.tmp"}  # young: of another machine? and no run
    assert {path.name for path in tmp_path.iterdir()} == {"try-1", *left}


WRITES: dict[str, Callable[[Run], object]] = {
    "log": lambda run: run.log("train", step=1),
    "facts": lambda run: run.update(step=1),
    "pointer": lambda run: run.point("last", 1),
    "end": lambda run: run.finish("done"),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("what", ["deleted", "moved", "moved, and another made", "another put there"])
def test_a_run_that_goes_away_while_it_trains(recipe: Recipe, tmp_path: Path, what: str, write: str) -> None:
    run = Run.create(recipe, folder=tmp_path / "run")
    with run.lock():
        WRITES[write](run)
        if what == "deleted":
            shutil.rmtree(run.folder)
        else:
            run.folder.rename(tmp_path / "old")
        if "another" in what:
            Run.create(recipe, folder=tmp_path / "run")
        if what == "another put there":
            (run.folder / "lock").touch()
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(CompressnetError, match=r"run: the run's folder has gone \(moved or deleted\)"):
            WRITES[write](run)
        run.discard_if_never_started()
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, level: str, text: str) -> None:
        self.notes.append(f"{level}: {text}")

    def stage(self, *_: object, **__: object) -> None: ...

    def advance(self, *_: object, **__: object) -> None: ...


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_and_trained_on(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run, notes = Run.create(recipe, tmp_path), Notes()

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with run.lock(notes):
        run.log("train", step=1)
    assert len(notes.notes) == 1
    assert notes.notes[0].startswith(f"warning: {run.folder}: its file system (")
    assert f"has no locks ({os.strerror(number)})" in notes.notes[0]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EWOULDBLOCK, "in use by"), (errno.EIO, "cannot write .*lock: Input/output")]
)
def test_only_a_held_lock_means_in_use(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    run = Run.create(recipe, tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with pytest.raises(CompressnetError, match=words), run.lock():
        pass
