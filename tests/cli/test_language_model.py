"""Language models as a user has them: train, stop, resume, write, measure."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compressnet.errors import Interrupted
from compressnet.recipe import Recipe
from compressnet.run import Run
from compressnet.subject import read_weights
from compressnet.training.train import Outcome, train
from tests.cli.conftest import Cli
from tests.training.test_loop import CPU, StopAt

RECIPE = """
version: 1
task: {name: language_modelling}
model: {name: language_model, hidden_size: 8, num_layers: 1, dropout: 0.1}
data: {name: text_file, train: text.txt, level: character, unroll: 5}
train: {epochs: 3, batch: 4, accumulate: 2, lr: 0.01, evaluate_every: 20, checkpoint_every: 7, previews: 1}
"""


@pytest.fixture
def text(place: Path) -> Path:
    draw = random.Random(0)
    words = ["the cat sat. ", "a dog ran. ", "the dog sat.\n"]
    (place / "text.txt").write_text("".join(draw.choice(words) for _ in range(60)))
    return place


def outcome(folder: Path) -> Outcome:
    return train(Run.create(Recipe.parse(RECIPE, "lm.yaml"), folder), device=CPU)


@pytest.mark.parametrize("stop", [3, 11, 40])
def test_stopped_in_an_epoch_and_resumed_is_the_same(text: Path, stop: int) -> None:
    whole = outcome(text / "whole")
    run = Run.create(Recipe.parse(RECIPE, "lm.yaml"), text / "stopped")
    with pytest.raises(Interrupted):
        train(run, device=CPU, reporter=StopAt(stop))
    resumed = train(Run.open(run.folder), device=CPU)
    assert resumed.digest == whole.digest
    assert resumed.step == whole.step


def test_the_state_matters_to_the_weights(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would hold without it."""
    whole = outcome(text / "whole")
    from compressnet.tasks.language_modelling import LanguageModelling

    loss = LanguageModelling.loss
    monkeypatch.setattr(LanguageModelling, "loss", lambda self, m, b, state: loss(self, m, b, ()))
    assert outcome(text / "forgetful").digest != whole.digest


def test_smoke_run_writes_and_measures(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("train", "lm_sample", "--smoke", "-o", "run", "--device", "cpu")
    done = cli("apply", "run", "--prompt", "the class", "--set", "length=7", "--json")
    document = json.loads(done.stdout)
    assert document["smoke"] is True
    assert document["texts"][0].startswith("the class ")
    again = cli("apply", "run", "--prompt", "the class", "--set", "length=7")
    assert again.stdout.strip() == document["texts"][0].strip()
    assert "smoke run" in again.stderr
    done = cli("apply", "run", "--prompt", "the class", "--set", "length=2", "-o", "text.txt", "--json")
    document = json.loads(done.stdout)
    assert document["files"] == [{"input": "prompt", "output": "text.txt"}]
    assert (place / "text.txt").read_text() == f"{document['texts'][0]}\n"
    (place / "a.txt").write_text("The class of a name.\n")
    measured = json.loads(cli("apply", "run", "a.txt", "--json").stdout)["files"]
    assert measured[0]["symbols"] == 7
    assert measured[0]["unknown"] == 0
    (place / "b.txt").write_text("The zzyzx of a name.\n")
    assert json.loads(cli("apply", "run", "b.txt", "--json").stdout)["files"][0]["unknown"] == 1
    assert measured[0]["perplexity"] > 1
    assert "perplexity" in cli("apply", "run", "a.txt").stdout
    assert cli("apply", "run", "--prompt", "a", "-o", "out.txt").stdout == "out.txt\n"
    monkeypatch.setattr("sys.stdin", open(place / "a.txt"))  # noqa: SIM115
    piped = json.loads(cli("apply", "run", "-", "--json").stdout)["files"]
    assert piped == [{**measured[0], "input": "-"}]
    twice = cli("apply", "run", "--prompt", "a", "--set", "prompt=b", code=2).error
    assert twice == "--set prompt=...: --prompt says it already"
    assert (place / "out.txt").read_text().startswith("a ")
    assert "exists: add --force" in cli("apply", "run", "--prompt", "a", "-o", "out.txt", code=1).error
    for words, message in (
        ((), "give --prompt TEXT to continue"),
        (("--prompt", ""), "it is empty"),
        (
            ("a.txt", "--prompt", "a", "-o", "b.txt"),
            "-o takes the text of a --prompt or the results",
        ),
        (("a.txt", "-o", "b.txt"), "b.txt: cannot write this format; use one of .tsv .csv"),
        (("--prompt", "a", "-o", "b"), "name the file with its suffix, as b.txt"),
        (("--prompt", "a", "--set", "top_k=-1"), "top_k"),
    ):
        assert message in cli("apply", "run", *words, code=2).error
    assert "no such file" in cli("apply", "run", "none.txt", code=1).error.lower()
    figures = json.loads(cli("eval", "run", "--json").stdout)["metrics"]
    assert set(figures) == {"loss", "perplexity"}


def test_training_that_goes_on_from_weights_keeps_their_vocabulary(text: Path, cli: Cli) -> None:
    (text / "lm.yaml").write_text(RECIPE)
    cli("train", "lm.yaml", "-o", "first", "--device", "cpu")
    (text / "text.txt").write_text("dog dog dog dog sat sat cat the. " * 40)  # other frequencies
    cli("train", "lm.yaml", "-o", "second", "--device", "cpu", "--set", "init=./first")
    first, second = (read_weights(f"./{run}")[0].assets["vocabulary"] for run in ("first", "second"))
    assert first == second
    (text / "text.txt").write_text("zzz " * 90)
    settings = ("--set", "init=./first", "--set", "data.val_percent=0")
    assert "'z'" in cli("train", "lm.yaml", "-o", "third", "--device", "cpu", *settings, code=1).error


def test_a_text_shorter_than_its_columns_is_refused(text: Path, cli: Cli) -> None:
    (text / "lm.yaml").write_text(RECIPE)
    done = cli("train", "lm.yaml", "-o", "r", "--device", "cpu", "--set", "data.unroll=600", code=1)
    assert "fewer than the 2 columns of train.batch" in done.error


def test_two_processes_and_an_adaptive_softmax(text: Path, environment: dict[str, str], forked: Path) -> None:
    settings = ["model.softmax=adaptive", "model.cutoffs=[2, 4, 8]", "train.epochs=1", "data.unroll=1"]
    (text / "lm.yaml").write_text(RECIPE.replace("dropout: 0.1", "dropout: 0.0"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["--no-python", str(forked), "train", "lm.yaml", "-o", "two", "--device", "cpu", "--json"]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, cwd=text, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(set(json.loads(done.stdout)["ranks"])) == 1


def test_a_prompt_is_for_language_models(cli: Cli) -> None:
    assert "writes no text" in cli("apply", "operator:rof", "--prompt", "a", code=2).error


def test_two_processes_have_columns_of_their_own_and_train_as_one(
    text: Path, environment: dict[str, str], forked: Path, cli: Cli
) -> None:
    recipe = text / "lm.yaml"
    recipe.write_text(RECIPE.replace("dropout: 0.1", "dropout: 0.0").replace("previews: 1", "log_every: 1"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["--no-python", str(forked), "train", str(recipe), "-o", "two", "--device", "cpu", "--json"]
    done = subprocess.run(command, cwd=text, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ranks = json.loads(done.stdout)["ranks"]
    assert len(ranks) == 2
    assert len(set(ranks)) == 1
    cli("train", recipe, "-o", "one", "--device", "cpu")
    losses, figures = (
        [
            [
                row[key]
                for row in map(json.loads, (text / run / "metrics.jsonl").read_text().splitlines())
                if row["event"] == event
            ]
            for run in ("one", "two")
        ]
        for event, key in (("train", "loss"), ("evaluation", "perplexity"))
    )
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)


def test_killed_in_an_epoch_and_resumed_is_the_same(
    text: Path, environment: dict[str, str], forked: Path, cli: Cli
) -> None:
    (text / "lm.yaml").write_text(RECIPE)
    cli("train", "lm.yaml", "-o", "whole", "--device", "cpu", "--threads", "1")
    command = [str(forked), "train", "lm.yaml", "-o", "run", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=text, env=environment, stderr=subprocess.DEVNULL)
    while not list((text / "run" / "checkpoints").glob("step-*[0-9]")):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    cli("train", "--resume", "run", "--device", "cpu")
    digests = [json.loads((text / run / "run.json").read_text())["digest"] for run in ("whole", "run")]
    assert digests[0] == digests[1]
