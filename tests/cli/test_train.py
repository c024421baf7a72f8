"""Training as a user does it: killed, stopped, resumed, spread over processes."""

from __future__ import annotations

import json
import os
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
from tests.cli.conftest import Cli, save
from tests.conftest import ROOT

RECIPE = ROOT / "recipes" / "fip_sample.yaml"
# Random resolution, accumulation, averaging and an evaluation on the way; small enough for a few seconds.
SMALL = [
    "--set=train.steps=9",
    "--set=train.checkpoint_every=3",
    "--set=train.evaluate_every=5",
    "--set=train.previews=1",
    "--set=train.log_every=1",
    "--set=train.batch=2",
    "--set=train.accumulate=2",
    "--set=train.ema=0.9",
    "--set=data.min_side=64",
    "--set=data.max_side=96",
    "--set=data.sizes=3",
    "--set=data.crop=null",
]


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def events(run: Path, name: str) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == name]


PROGRAM = [sys.executable, "-m", "compressnet_cli"]


def start(
    program: list[str], folder: Path, environment: dict[str, str], *words: object
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, "train", str(RECIPE), *map(str, words)],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A whole run, to compare with."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    environment = {**os.environ, "COMPRESSNET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    assert start(PROGRAM, folder, environment, *SMALL, "-o", "run").wait(timeout=300) == 0
    return folder / "run"


def test_killed_and_resumed_is_the_same_run(
    tmp_path: Path, environment: dict[str, str], cli: Cli, uninterrupted: Path
) -> None:
    run = tmp_path / "runs" / "fip_sample-1"
    process = start(PROGRAM, tmp_path, environment, *SMALL)
    wait_for(run / "checkpoints" / "step-3", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert facts(run)["status"] == "running"
    cli("train", RECIPE, *SMALL, "--resume", "auto")
    assert events(run, "resume")[0]["step"] in (3, 6)
    assert facts(run)["digest"] == facts(uninterrupted)["digest"]
    assert facts(run)["status"] == "done"
    again = cli("train", "--resume", run)
    assert "is finished (9 steps)" in again.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_by_a_signal_it_saves_and_resumes(
    tmp_path: Path,
    environment: dict[str, str],
    forked: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Path,
    number: int,
) -> None:
    rarely = "--set=train.checkpoint_every=1000"
    process = start([str(forked)], tmp_path, environment, *SMALL, rarely, "-o", "run")
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    while not events(tmp_path / "run", "train"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "saved at step" in error
    saved = facts(tmp_path / "run")
    assert saved["status"] == "interrupted"
    assert 0 < saved["step"] < 9
    monkeypatch.setattr(sys, "argv", ["compressnet", "train", "--resume", "run"])  # which the run notes
    cli(*sys.argv[1:])
    assert "--resume" not in facts(tmp_path / "run")["command"]
    assert facts(tmp_path / "run")["resumed_with"] == [["compressnet", "train", "--resume", "run"]]
    assert events(tmp_path / "run", "resume")[0]["step"] == saved["step"]
    assert facts(tmp_path / "run")["digest"] == facts(uninterrupted)["digest"]


def test_auto_starts_afresh_where_nothing_is_to_resume(tmp_path: Path, cli: Cli) -> None:
    cli("train", RECIPE, "--smoke", "--resume", "auto")
    cli("train", RECIPE, "--smoke", "--resume", "auto")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "fip_sample-smoke-1",
        "fip_sample-smoke-2",
    }


def test_a_smoke_run_says_so_everywhere(tmp_path: Path, cli: Cli) -> None:
    done = cli("train", "fip_sample", "--smoke", "--json")
    result = json.loads(done.stdout)
    assert result["smoke"] is True
    assert "smoke run" in done.stderr
    run = tmp_path / result["run"]
    assert cli("eval", run).stdout.count("smoke run")
    assert "smoke" in cli("eval", run, "--record", "x", code=1).stderr
    assert not (tmp_path / "results").exists()
    (tmp_path / "bare.safetensors").write_bytes((run / "checkpoints/step-8/model.safetensors").read_bytes())
    assert json.loads(cli("eval", "bare.safetensors", "--json").stdout)["smoke"] is True


def test_fine_tuning_starts_from_the_parents_weights(tmp_path: Path, cli: Cli, smoke_run: Path) -> None:
    shutil.copytree(smoke_run, "parent")
    cli("train", "fip_sample", "--smoke", "-o", "child", "--set", "init=./parent", "--set", "train.steps=1")
    parent = facts(tmp_path / "child")["parent"]
    assert parent == {"run": "./parent", "digest": facts(tmp_path / "parent")["digest"]}
    skipped = cli(
        "train", "fip_sample", "--smoke", "--set", "init=./parent", "--set", "init_skip=[head]", code=2
    )
    assert "init_skip: the model has no 'head'" in skipped.stderr
    only = ["--set", "init=./parent", "--set", "init_only=[last]", "--set", "train.steps=1"]
    cli("train", "fip_sample", "--smoke", "-o", "last", *only, "--set", "train.lr=1e-9")
    kept, whole = (
        weights.load(tmp_path / run / "checkpoints" / f"step-{step}" / "model.safetensors")[1]
        for run, step in (("last", 1), ("parent", 8))
    )
    torch.testing.assert_close(kept["last.weight"], whole["last.weight"], rtol=0, atol=1e-6)
    assert not torch.allclose(kept["blocks.0.conv.weight"], whole["blocks.0.conv.weight"], atol=1e-3)


def test_the_stop_rule_ends_training(tmp_path: Path, cli: Cli) -> None:
    photos = tmp_path / "photos"
    cli("data", "samples", "-o", photos)
    words = [
        "train", ROOT / "recipes" / "fip_photos.yaml", "-o", "run",
        "--set=data.root=photos", "--set=data.val_percent=50", "--set=data.test_side=64",
        "--set=data.min_side=48", "--set=data.max_side=64", "--set=data.sizes=1", "--set=data.crop=null",
        "--set=train.steps=50", "--set=train.evaluate_every=2", "--set=train.compile=false",
    ]  # fmt: skip
    cli(*words, "--set", "train.stop={metric: psnr, threshold: 1.0}")
    assert facts(tmp_path / "run")["step"] == 2
    assert facts(tmp_path / "run")["best"] > 1.0
    misspelt = "train.stop={metric: psmr, threshold: 1, direction: max}"
    wrong = cli(*words[:3], tmp_path / "w", *words[4:], f"--set={misspelt}", code=1)
    assert "'psmr' is none of the metrics" in wrong.stderr


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path, cli: Cli) -> None:
    done = cli(
        "train", "fip_sample", "--smoke", "-o", "run", "--set", "train.lr=1e6", "--set", "train.steps=20",
        "--set", "train.checkpoint_every=1", "--set", "train.warmup_steps=0", code=1,
    )  # fmt: skip
    for word in ("not finite at step", "gradient norm", "lr ", "samples", "last good checkpoint"):
        assert word in done.stderr
    assert facts(tmp_path / "run")["status"] == "failed"
    assert "not finite" in facts(tmp_path / "run")["reason"]
    step = facts(tmp_path / "run")["step"]
    assert (tmp_path / "run" / "checkpoints" / "last").read_text() == f"step-{step}\n"


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
HALVES = [*SMALL, "--set=train.accumulate=1"]


def torchrun(
    program: list[str], folder: Path, environment: dict[str, str], *words: object
) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, *program, "train", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A whole run of two processes, each with half of a batch that one process takes in two steps."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "COMPRESSNET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = torchrun(["-m", "compressnet_cli"], folder, environment, RECIPE, *HALVES, "-o", "two", "--json")
    assert done.returncode == 0, done.stderr
    ranks = json.loads(done.stdout)["ranks"]
    assert len(set(ranks)) == 1
    assert len(ranks) == 2
    return folder / "two"


def test_two_processes_train_as_one(
    tmp_path: Path, environment: dict[str, str], forked: Path, cli: Cli, uninterrupted: Path, two: Path
) -> None:
    losses = [[row["loss"] for row in events(run, "train")] for run in (uninterrupted, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    shutil.copytree(two, "two")
    refused = cli("train", "--resume", "two", "--set", "train.steps=12", code=1)
    assert "trained by 2 process(es)" in refused.stderr
    assert "torchrun --nproc-per-node 2" in refused.stderr
    longer = torchrun(
        ["--no-python", str(forked)], tmp_path, environment, "--resume", "two", "--set", "train.steps=10"
    )
    assert longer.returncode == 0, longer.stderr
    assert events(tmp_path / "two", "resume")[-1]["step"] == 9


def test_worker_processes_change_nothing(tmp_path: Path, cli: Cli) -> None:
    for workers in (0, 2):
        cli("train", "fip_sample", "--smoke", "-o", f"w{workers}", "--set", f"train.workers={workers}")
    assert facts(tmp_path / "w0")["digest"] == facts(tmp_path / "w2")["digest"]


def test_two_processes_stop_together_and_resume(
    tmp_path: Path, environment: dict[str, str], forked: Path, two: Path
) -> None:
    program = ["--no-python", str(forked)]
    rarely = "--set=train.checkpoint_every=1000"
    command = [*TORCHRUN, *program, "train", str(RECIPE), *HALVES, rarely, "-o", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    while not events(tmp_path / "run", "train"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    saved = facts(tmp_path / "run")
    assert saved["status"] == "interrupted"
    assert 0 < saved["step"] < 9
    resumed = torchrun(program, tmp_path, environment, "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert facts(tmp_path / "run")["digest"] == facts(two)["digest"]


def test_a_signal_to_the_whole_group_saves_with_workers_too(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ["train", str(RECIPE), *SMALL, "--set=train.workers=2", "--set=train.steps=200", "-o", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "compressnet_cli", *words], cwd=tmp_path, env=environment,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    while not events(tmp_path / "run", "train"):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal or a batch system does
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert facts(tmp_path / "run")["status"] == "interrupted"
    step = facts(tmp_path / "run")["step"]
    assert (tmp_path / "run" / "checkpoints" / "last").read_text() == f"step-{step}\n"


def test_a_signal_while_targets_are_computed_ends_it(
    tmp_path: Path, environment: dict[str, str], forked: Path
) -> None:
    slow = {**environment, "COMPRESSNET_CACHE": str(tmp_path / "empty")}
    words = ["--set=task.operator=rof:eps=1e-12,max_iterations=100000", "--set=train.steps=50", "-o", "run"]
    process = start([str(forked)], tmp_path, slow, *words)
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "before the first step" in error


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "\u00e9" * 125 + ".png"])
def test_a_picture_with_the_longest_name_has_a_preview(cli: Cli, place: Path, name: str) -> None:
    save(place / "photos" / name, size=(40, 36))
    settings = [
        "data.root=photos",
        "data.min_side=32",
        "data.max_side=36",
        "data.sizes=1",
        "data.crop=32",
        "train.compile=false",
    ]
    settings += ["train.steps=1", "train.batch=1", "train.evaluate_every=1", "train.warmup_steps=0"]
    cli("train", "fip_photos", *(f"--set={setting}" for setting in settings), "-o", "run")
    (preview,) = (place / "run" / "previews").iterdir()
    assert preview.name.startswith("step-1-" + name[:90])
    assert preview.name.endswith("-0.png")


def test_a_run_that_lacks_its_total_goes_on(cli: Cli, place: Path) -> None:
    words = ["lstm_1997_tasks", "--smoke", "--set=train.steps=4"]
    cli("train", *words, "-o", "run")
    facts = json.loads((place / "run" / "run.json").read_text())
    del facts["total_steps"], facts["step"]
    (place / "run" / "run.json").write_text(json.dumps(facts))
    cli("train", "--resume", "run")
    assert json.loads((place / "run" / "run.json").read_text())["total_steps"] == 4


def test_a_run_finds_its_data_again(
    cli: Cli, place: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--data-root` need not be said again, and what is said or set wins."""
    (place / "pictures" / "photos").mkdir(parents=True)
    for number in range(3):
        shutil.copy(photo, place / "pictures" / "photos" / f"{number}.png")
    sizes = (
        "data.min_side=16",
        "data.max_side=16",
        "data.crop=16",
        "data.sizes=1",
        "train.batch=1",
        "data.val_percent=50",
    )
    steps = (
        "train.steps=2",
        "train.checkpoint_every=1",
        "train.evaluate_every=2",
        "task.operator=rof:max_iterations=2",
    )
    words = [f"--set={setting}" for setting in (*sizes, *steps)]
    monkeypatch.delenv("COMPRESSNET_DATA", raising=False)
    cli("train", "fip_photos", *words, "--data-root", "pictures", "--device", "cpu", "-o", "run")
    monkeypatch.delenv("COMPRESSNET_DATA")
    assert json.loads(Path("run/run.json").read_text())["data_root"] == str(place / "pictures")
    cli("train", "--resume", "run", "--set", "train.steps=3", "--device", "cpu")
    monkeypatch.delenv("COMPRESSNET_DATA")
    cli("eval", "run", "--split", "train", "--device", "cpu")
    monkeypatch.setenv("COMPRESSNET_DATA", str(place))
    assert "looked in" in cli("eval", "run", "--split", "train", "--device", "cpu", code=1).stderr
