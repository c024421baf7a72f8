"""Classifiers of sentences as a user has them: train, resume, evaluate, label, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressnet.errors import Interrupted
from compressnet.recipe import Recipe
from compressnet.run import Run
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
        ((), "name at least one text file"),
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
