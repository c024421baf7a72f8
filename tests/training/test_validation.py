"""What training does with the figures of validation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from compressnet import registry
from compressnet.recipe import Recipe
from compressnet.reporter import Silent
from compressnet.run import Run
from compressnet.training.distributed import Group
from compressnet.training.train import train
from compressnet.training.validation import Validation
from tests.training import toy


class Perfect(toy.ToyMetrics):
    """Every picture is hit exactly: an infinite PSNR."""

    def compute(self) -> dict[str, float]:
        return {"psnr": math.inf}


class PerfectTask(toy.ToyTask):
    best = ("psnr", "max")

    def metrics(self) -> Perfect:
        return Perfect()


@pytest.fixture(autouse=True)
def _register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TASKS, "toy", "tests.training.test_validation:PerfectTask")
    monkeypatch.setitem(registry.MODELS, "toy", "tests.training.toy:make_model")
    monkeypatch.setitem(registry.DATASETS, "toy", "tests.training.toy:ToyData")


def test_an_infinite_figure_breaks_neither_files_nor_resuming(tmp_path: Path) -> None:
    run = Run.create(Recipe.parse(toy.RECIPE, "toy.yaml", ["train.steps=5"]), folder=tmp_path / "run")
    assert train(run, device=torch.device("cpu")).best == math.inf
    assert run.facts["best"] == "inf"
    assert run.metrics("evaluation")[0]["psnr"] == "inf"
    state = json.loads((run.checkpoint("last") / "state.json").read_text())
    assert state["best"] == "inf"
    resumed = Run.open(run.folder)
    resumed.change(["train.steps=10"])
    assert train(resumed, device=torch.device("cpu")).best == math.inf
    assert run.checkpoint("best").name == "step-5"  # as good as it was: no reason to move


def history(run: Run, *figures: float, best: str = "min") -> Validation:
    """A validation that has seen `figures`, of which the lower are the better."""
    job = SimpleNamespace(task=SimpleNamespace(best=("mse", best)))
    validation = Validation(SimpleNamespace(run=run), job, None, Group(), Silent())  # type: ignore[arg-type]
    validation.history = list(figures)
    return validation


def test_what_schedules_see_of_the_results(tmp_path: Path) -> None:
    run = Run.create(Recipe.parse(toy.RECIPE, "toy.yaml"), folder=tmp_path / "run")
    assert history(run, 5.0, 4.0, 4.5, 4.4, 4.4, 6.0).rises == 2
    assert history(run, 5.0, 4.0, 4.5, best="max").rises == 1
    assert history(run).rises == 0
    # Worse than the best of those up to two before it: 4.0 is one of them in the last case only.
    assert not history(run, 5.0, 4.0).stagnates(2)
    assert not history(run, 5.0, 4.0, 4.5).stagnates(2)
    assert history(run, 5.0, 4.0, 3.9, 4.5).stagnates(2)


def test_averaging_begins_when_the_figures_no_longer_improve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([5.0, 4.0, 3.0, 3.5, 3.6, 3.7])
    monkeypatch.setattr(Perfect, "compute", lambda self: {"psnr": -next(figures)})
    settings = ["train.steps=6", "train.evaluate_every=1", "train.average_after=1"]
    run = Run.create(Recipe.parse(toy.RECIPE, "toy.yaml", settings), folder=tmp_path / "run")
    train(run, device=torch.device("cpu"))
    assert json.loads((run.checkpoint("last") / "state.json").read_text())["average_since"] == 4
