"""Training in C kernels as commands use it: what a run takes, says, and stays with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compressnet.kernels import can_gradient, can_layer
from tests.cli.conftest import Cli
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    not can_gradient.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)
SMALL = [
    str(ROOT / "recipes" / "fip_sample.yaml"),
    "--device=cpu",
    "--set=train.batch=2",
    "--set=train.checkpoint_every=2",
    "--set=train.evaluate_every=100",
    "--set=train.log_every=1",
    "--set=train.schedule=constant",
    "--set=train.warmup_steps=0",
    "--set=data.min_side=64",
    "--set=data.max_side=80",
    "--set=data.crop=40",
]

BFLOAT16 = ["--set=train.dtype=bfloat16", "--set=train.channels_last=false"]


def facts(run: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run) / "run.json").read_text())
    return found


def losses(run: str) -> list[float]:
    rows = map(json.loads, (Path(run) / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["event"] == "train"]


def _as_of_old(run: str) -> None:
    """Its record says nothing of kernels, and its recipe leaves it to what is there."""
    old = facts(run)
    del old["cpu"]["kernels"]
    (Path(run) / "run.json").write_text(json.dumps(old))
    recipe = Path(run) / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("cpu_kernels: 'off'", "cpu_kernels: auto"))
    assert "cpu_kernels: auto" in recipe.read_text()


def test_an_installation_without_kernels_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressnet.training.train.built", list)
    assert "C kernels: none (no C compiler at installation" in cli("train", *SMALL, "-o", "slow").stderr


def test_a_run_stays_with_what_it_was_begun_with(cli: Cli) -> None:
    adam = "--set=train.optimizer=adam", "--set=train.lr=1e-3"  # whose steps tell rounding least
    for way in ("auto", "off"):
        options = [*SMALL, *adam, "--set", f"train.cpu_kernels={way}"]
        whole = cli("train", *options, "--set", "train.steps=6", "-o", way)
        assert ("trained in C kernels" in whole.stderr) == (way == "auto")
        assert ("C kernels off" in whole.stderr) == (way == "off")
        assert facts(way)["cpu"]["kernels"] == (way == "auto")
        cli("train", *options, "--set", "train.steps=3", "-o", f"{way}-2")
    assert losses("auto") == pytest.approx(losses("off"), rel=1e-4)
    assert facts("auto")["digest"] != facts("off")["digest"]
    _as_of_old("off-2")
    for way in ("auto", "off"):
        done = cli("train", "--resume", f"{way}-2", "--device=cpu", "--set", "train.steps=6")
        assert ("trained in C kernels" in done.stderr) == (way == "auto")
        assert facts(f"{way}-2")["digest"] == facts(way)["digest"]


def test_killed_and_resumed_is_the_same_run_with_two_threads(
    cli: Cli, place: Path, environment: dict[str, str]
) -> None:
    """With one: `test_train.py`."""
    options = [*SMALL, "--set=train.steps=12", "--threads=2"]
    cli("train", *options, "-o", "whole")
    command = [sys.executable, "-m", "compressnet_cli", "train", *options, "-o", "run"]
    process = subprocess.Popen(command, cwd=place, env={**os.environ, **environment}, stderr=subprocess.PIPE)
    while not (place / "run" / "checkpoints" / "step-2").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert facts("run")["status"] == "running"
    done = cli("train", "--resume", "run", "--device=cpu")
    assert "trained in C kernels" in done.stderr
    assert facts("run")["digest"] == facts("whole")["digest"]
    assert facts("run")["cpu"]["kernels"] is True


def test_kernels_that_are_gone_are_told_in_a_line(cli: Cli) -> None:
    cli("train", *SMALL, "--set=train.steps=2", "-o", "run")
    with can_gradient._kernel.reference():
        words = ["train", "--resume", "run", "--device=cpu", "--set", "train.steps=4"]
        assert "run was begun with the C kernels of its network" in cli(*words, code=1).error
        cli("train", *SMALL, "--set=train.steps=2", "-o", "plain")
    assert facts("plain")["cpu"]["kernels"] is False


def test_what_the_recipe_asks_for_otherwise_is_not_in_kernels(cli: Cli) -> None:
    cli("train", *SMALL, "--set=train.steps=1", *BFLOAT16, "-o", "run")
    assert facts("run")["cpu"]["kernels"] is False


def test_other_values_are_refused(cli: Cli, place: Path) -> None:
    error = cli("train", *SMALL, "--set=train.cpu_kernels=on", "-o", "run", code=2).error
    assert "train.cpu_kernels" in error
    cli("train", *SMALL, "--set=train.steps=2", "-o", "run")
    changed = cli("train", "--resume", "run", "--set=train.cpu_kernels=off", code=2).error
    assert "begun with train.cpu_kernels=auto, not off" in changed
