"""What training does with the figures of validation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from compressnet import registry
from compressnet.recipe import Recipe
from compressnet.run import Run
from compressnet.training.train import train
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
