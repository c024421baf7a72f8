"""TensorBoard gets what metrics.jsonl gets."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from compressnet import registry
from compressnet.errors import CompressnetError
from compressnet.recipe import Recipe
from compressnet.run import CHANGEABLE, Run
from compressnet.training import track
from compressnet.training.train import train
from tests.training import toy

TEXT = """version: 1
task: {name: image_operator, operator: rof}
model: {name: can24}
data: {name: sample}
train: {steps: 1, track: %s}
"""
installed = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard (extra `track`) is not installed"
)


def make_run(folder: Path, value: str) -> Run:
    return Run.create(Recipe.parse(TEXT % value, "x.yaml"), folder=folder / "run")


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the run's event files: {name: [(step, value), ...]}."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    events = importlib.import_module(module).EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@installed
def test_event_files_hold_the_scalars_of_the_log(tmp_path: Path) -> None:
    run = make_run(tmp_path, "tensorboard")
    tracker = track.Tracker(run)
    tracker.log("train", 5, loss=0.5, lr=1e-3)
    tracker.log("train", 10, loss=0.25, lr=1e-3)
    tracker.log("evaluation", 10, psnr=30.0, split="val")
    found = scalars(run)  # before the writer is closed: a killed run keeps what it has logged
    tracker.close()
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name in set(row) - {"event", "step", "split"}:
            expected.setdefault(f"{row['event']}/{name}", []).append((row["step"], row[name]))
    assert set(found) == set(expected) == {"train/loss", "train/lr", "evaluation/psnr"}
    for name, values in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in values]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in values])


@installed
def test_steps_done_again_after_a_kill_are_there_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, "tensorboard")
    for begin, values in ((1, (0.9, 0.8, 0.7)), (2, (0.5, 0.4))):
        tracker = track.Tracker(run)
        for step, value in enumerate(values, begin):
            tracker.log("train", step, loss=value)
        tracker.close()
    assert scalars(run)["train/loss"] == [
        (1, pytest.approx(0.9)),
        (2, pytest.approx(0.5)),
        (3, pytest.approx(0.4)),
    ]


@installed
def test_a_training_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registered, value in {"TASKS": "ToyTask", "MODELS": "make_model", "DATASETS": "ToyData"}.items():
        monkeypatch.setitem(getattr(registry, registered), "toy", f"tests.training.toy:{value}")
    recipe = Recipe.parse(toy.RECIPE, "toy.yaml", ["train.track=tensorboard", "train.steps=5"])
    run = Run.create(recipe, folder=tmp_path / "run")
    train(run, device=torch.device("cpu"))
    found = scalars(run)
    assert [step for step, _ in found["train/loss"]] == [row["step"] for row in run.metrics("train")]
    (row,) = run.metrics("evaluation")
    assert found["evaluation/mse"] == [(5, pytest.approx(row["mse"]))]


def test_none_writes_no_event_files(tmp_path: Path) -> None:
    run = make_run(tmp_path, "none")
    track.Tracker(run).log("train", 1, loss=1.0)
    assert not (run.folder / "tensorboard").exists()
    assert run.metrics("train") == [{"event": "train", "step": 1, "loss": 1.0}]


def test_a_missing_package_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track.importlib.util, "find_spec", lambda name: None)
    run = make_run(tmp_path, "tensorboard")
    with pytest.raises(CompressnetError, match=r"pip install 'compressnet\[track\]'"):
        train(run)
    assert not (run.folder / "metrics.jsonl").exists()
    track.check_installed("none")


def test_a_resumed_run_may_change_it() -> None:
    assert "train.track" in CHANGEABLE
