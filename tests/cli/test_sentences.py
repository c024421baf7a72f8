"""Classifiers of sentences as a user has them: train, resume, evaluate, label, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

import compressnet
from compressnet import registry
from compressnet.analysis.example import example
from compressnet.errors import Interrupted
from compressnet.recipe import Recipe
from compressnet.run import Run
from compressnet.tasks.confusion import confusion_picture
from compressnet.tasks.sequence_classification import ClassMetrics, SequenceClassification
from compressnet.training.train import train
from tests.cli.conftest import Cli
from tests.training.test_loop import CPU, StopAt

RECIPE = """
version: 1
task: {name: sequence_classification}
model: {name: sequence_classifier, hidden_size: 8, num_layers: 1, embedding_size: 6, dropout: 0.1}
data: {name: sentences, root: ., set: SUBJ, fold: 0}
train: {epochs: 3, batch: 4, lr: 0.02, evaluate_every: 10, checkpoint_every: 5, previews: 1}
"""


@pytest.fixture
def files(place: Path) -> Path:
    """SUBJ in small, to be told apart by one word."""
    rows = [f"{n // 30} it {'says' if n < 30 else 'seems'} {'so ' * (n % 4)}" for n in range(60)]
    (place / "subj.all").write_text("\n".join(rows) + "\n")
    return place


def test_stopped_and_resumed_is_the_same(files: Path) -> None:
    whole = train(Run.create(Recipe.parse(RECIPE, "s.yaml"), files / "whole"), device=CPU)
    run = Run.create(Recipe.parse(RECIPE, "s.yaml"), files / "stopped")
    with pytest.raises(Interrupted):
        train(run, device=CPU, reporter=StopAt(8))
    assert train(Run.open(run.folder), device=CPU).digest == whole.digest


def test_a_run_learns_evaluates_and_labels(cli: Cli, files: Path) -> None:
    (files / "r.yaml").write_text(RECIPE)
    cli("train", "r.yaml", "-o", "run", "--device", "cpu", "--set", "train.epochs=8")
    report = json.loads(cli("eval", "run", "--json").stdout)
    assert report["metrics"]["accuracy"] == 1
    assert report["rows"]["objective"] == {
        "loss": report["rows"]["objective"]["loss"],
        "accuracy": 1,
        "count": 3,
    }
    assert (report["data"]["set"], report["data"]["fold"], report["data"]["count"]) == ("SUBJ", 0, 6)
    assert report["measures"] == {}
    assert report["details"] == {
        "confusion": {"classes": ["subjective", "objective"], "counts": [[3, 0], [0, 3]]}
    }
    cli("eval", "run", "--pictures", "seen")
    assert Image.open("seen/confusion.png").size[0] > 200
    assert "--set top: run has one way to be measured" in cli("eval", "run", "--set", "top=2", code=2).error
    (files / "a.txt").write_text("it says so\n\nit seems\n")
    (files / "b.txt").write_text("so it seems\n")
    document = json.loads(cli("apply", "run", "a.txt", "b.txt", "--json").stdout)
    found = [(Path(f["input"]).name, n["line"], n["label"]) for f in document["files"] for n in f["lines"]]
    assert found == [("a.txt", 1, "subjective"), ("a.txt", 3, "objective"), ("b.txt", 1, "objective")]
    shown = cli("apply", "run", "a.txt").stdout
    assert "subjective" in shown
    cli("apply", "run", "a.txt", "b.txt", "-o", "out.tsv")
    rows = [row.split("\t") for row in (files / "out.tsv").read_text().splitlines()]
    assert rows[0] == ["input", "line", "label", "probability", "text"]
    assert [(row[0], row[1], row[2], row[4]) for row in rows[1:]] == [
        ("a.txt", "1", "subjective", "it says so"),
        ("a.txt", "3", "objective", "it seems"),
        ("b.txt", "1", "objective", "so it seems"),
    ]
    assert "exists: add --force" in cli("apply", "run", "a.txt", "-o", "out.tsv", code=1).error
    for words, message in (
        ((), "name at least one input: text files, a folder of them, or -"),
        (("--prompt", "it"), "writes no text"),
        (("a.txt", "--set", "batch=0"), "batch"),
    ):
        assert message in cli("apply", "run", *words, code=2).error
    (files / "latin").write_bytes(b"caf\xe9\n")
    assert "not UTF-8" in cli("apply", "run", "latin", code=1).error
    assert "the network knows subjective" in cli("eval", "run", "--data", "sentence_sample", code=1).error


def test_smoke_run(cli: Cli, place: Path) -> None:
    cli("train", "sentences_sru", "--smoke", "-o", "run", "--device", "cpu")
    (place / "a.txt").write_text("The class of a name.\n")
    done = cli("apply", "run", "a.txt")
    assert "smoke run" in done.stderr
    assert "The class of a name." in done.stdout


def test_bad_files_end_with_one_line_each(cli: Cli, files: Path) -> None:
    (files / "subj.all").write_text("0 a b\nno label\n7 x\n0 \n")
    done = cli("data", "check", "sentences:root=.,set=SUBJ", code=1)
    assert [line.split(", ")[1].split(":")[0] for line in done.errors] == ["line 2", "line 3", "line 4"]
    (files / "r.yaml").write_text(RECIPE)
    assert "line 2: no label" in cli("train", "r.yaml", "-o", "run", code=1).error
    assert "has splits of its own" in cli("data", "check", "sentences:set=TREC,fold=1", code=2).error
    assert "should be 'MR', 'SUBJ'" in cli("data", "check", "sentences:set=IMDB", code=2).error


@dataclass(frozen=True)
class Top:
    top: Annotated[int, Field(ge=1)] = 1


class TopClasses(SequenceClassification):
    """A task with a choice of how to measure: right is what is among the first `top`."""

    measures: ClassVar[type] = Top
    unit: ClassVar[str] = "sentence"
    top = 1

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return inputs[0].shape[1]

    def measure(self, settings: Mapping[str, Any]) -> None:
        self.top = Top(**settings).top

    def metrics(self) -> ClassMetrics:
        return TopMetrics(self.classes, self.top)


class TopMetrics(ClassMetrics):
    def __init__(self, classes: list[str], top: int) -> None:
        super().__init__(classes)
        self.top, self.among, self.count = top, 0, 0

    def update(self, output: Tensor, batch: Any) -> None:
        super().update(output, batch)
        self.among += int((output.topk(self.top).indices == batch.labels[:, None]).sum())
        self.count += len(output)

    def compute(self) -> dict[str, float]:
        return {**super().compute(), f"top_{self.top}": self.among / self.count, "extra/one": 1.0}


def test_eval_measures_as_it_is_told(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TASKS, "top_classes", f"{__name__}:TopClasses")
    (files / "r.yaml").write_text(RECIPE.replace("sequence_classification", "top_classes"))
    cli("train", "r.yaml", "-o", "run", "--device", "cpu", "--set", "train.epochs=1")
    for words, top in (([], 1), (["--set", "top=2"], 2)):
        report = json.loads(cli("eval", "run", *words, "--json").stdout)
        assert report["measures"] == {"top": top}
        assert f"top_{top}" in report["metrics"]
    assert report["metrics"]["top_2"] == 1  # of two classes
    assert "extra" in cli("eval", "run").stdout  # a column that only a row has
    cli("eval", "run", "--set", "top=2", "--record", "two")
    record = json.loads((files / "results" / "two.json").read_text())
    assert (record["measures"], record["details"]["confusion"]["classes"]) == (
        {"top": 2},
        ["subjective", "objective"],
    )
    cost = record["cost"]
    assert cost["weights_bytes"] == 4 * record["parameters"]
    network = compressnet.load("run").model
    assert (cost["macs"], cost["unit"]) == (compressnet.count(network, example(network)).macs, "sentence")
    for wrong, message in (
        ("top=0", "--set top: "),
        ("tops=2", "did you mean 'top'?"),
        ("top", "write it as key=value"),
    ):
        assert message in cli("eval", "run", "--set", wrong, code=2).error


def test_a_confusion_matrix_of_many_classes_is_drawn() -> None:
    counts = torch.randint(0, 50, (35, 35)).numpy()
    picture = confusion_picture([f"a class with a name too long for an axis {n}" for n in range(35)], counts)
    assert picture.size[0] <= 2000
    assert np.asarray(picture).min() < 60  # something dark is on it
