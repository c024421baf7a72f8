from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from compressnet import registry
from compressnet.errors import CompressnetError, Interrupted, UsageError
from compressnet.recipe import Recipe
from compressnet.reporter import Silent
from compressnet.run import Run
from compressnet.training.distributed import Group
from compressnet.training.loop import Loop
from compressnet.training.train import Outcome, train
from tests.training import toy

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TASKS, "toy", "tests.training.toy:ToyTask")
    monkeypatch.setitem(registry.MODELS, "toy", "tests.training.toy:make_model")
    monkeypatch.setitem(registry.DATASETS, "toy", "tests.training.toy:ToyData")


class StopAt(Silent):
    """Sends Ctrl-C to this process while step `step` is being reported."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, n: int = 1, **scalars: float) -> None:
        if "loss" in scalars:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


def new(folder: Path, *overrides: str) -> Run:
    return Run.create(Recipe.parse(toy.RECIPE, "toy.yaml", overrides), folder)


def go(run: Run, reporter: Silent | None = None) -> Outcome:
    return train(run, device=CPU, reporter=reporter)


@pytest.mark.parametrize("stop", [1, 5, 7, 11])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("train.accumulate=2", "train.ema=0.9", "train.clip_norm=0.1"),
        ("train.optimizer=sgd", "train.momentum=0.9", "train.schedule=cosine", "train.warmup_steps=3"),
        ("train.optimizer=soap", "train.weight_decay=0.1"),
        ("train.optimizer=adamw", "train.weight_decay=0.1", "train.dtype=bfloat16"),
        ("train.schedule=rise", "train.lr=2.0", "train.average_after=1", "train.evaluate_every=1"),
        ("train.schedule=decay", "train.decay_from=2", "train.decay=0.3"),
        ("train.schedule=pieces", "train.pieces=[[4, 0.1], [8, 0.01]]"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, stop: int, overrides: tuple[str, ...]
) -> None:
    whole = go(new(tmp_path / "a", *overrides))
    run = new(tmp_path / "b", *overrides)
    with pytest.raises(Interrupted, match=f"SIGINT: saved at step {stop}"):
        go(run, StopAt(stop))
    resumed = go(Run.open(run.folder))
    assert resumed.digest == whole.digest
    assert resumed.best == whole.best
    losses = [[row["loss"] for row in r.metrics("train")] for r in (Run.open(whole.run), run)]
    assert losses[0] == losses[1]


def test_a_signal_in_the_last_step_still_finishes(tmp_path: Path) -> None:
    assert go(new(tmp_path), StopAt(12)).step == 12


def test_the_carried_state_starts_anew_with_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    original = toy.ToyTask.loss

    def watch(self: toy.ToyTask, model: Any, batch: Any, state: Any) -> Any:
        starts.append(not state)
        return original(self, model, batch, state)

    monkeypatch.setattr(toy.ToyTask, "loss", watch)
    go(new(tmp_path, "train.batch=1", "train.steps=15"))
    assert [step for step, fresh in enumerate(starts) if fresh] == [0, 7, 14]  # seven samples an epoch


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        toy.Recurrent, "forward", lambda self, x, h: (self.last(torch.tanh(self.cell(x, h * 0))), h)
    )
    whole = go(new(tmp_path / "a", "train.batch=6", "train.steps=3"))
    pieces = go(new(tmp_path / "b", "train.batch=6", "train.steps=3", "train.accumulate=3"))
    losses = [[row["loss"] for row in Run.open(o.run).metrics("train")] for o in (whole, pieces)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_work_after_each_step_and_what_is_published(tmp_path: Path) -> None:
    outcome = go(new(tmp_path, "train.ema=0.5"))
    run = Run.open(outcome.run)
    from compressnet import weights

    _, saved = weights.load(run.checkpoint("last") / "model.safetensors")
    assert (saved["last.weight"] >= 0).all()  # an average of what was clamped after every step
    from compressnet.training import checkpoint

    state, values = checkpoint.read(run, run.checkpoint("last"))
    assert not torch.equal(state["model.last.weight"], saved["last.weight"])
    assert values["step"] == 12


def test_what_is_validated_is_what_is_saved(tmp_path: Path) -> None:
    from compressnet import weights
    from compressnet.training.evaluate import measured

    run = Run.open(go(new(tmp_path)).run)
    architecture, model = weights.open_model(run.checkpoint("last") / "model.safetensors")
    split = run.recipe.data.build().open("val", architecture.assets, run.recipe.seed)
    figures = measured(run.recipe.task.build(), model.eval(), split, CPU, Silent()).compute()
    assert run.metrics("evaluation")[-1]["mse"] == pytest.approx(figures["mse"], rel=1e-6)


def test_best_and_the_kept_checkpoints(tmp_path: Path) -> None:
    run = Run.open(go(new(tmp_path, "train.keep=2", "train.checkpoint_every=1")).run)
    figures = {row["step"]: row["mse"] for row in run.metrics("evaluation")}
    assert list(figures) == [5, 10, 12]
    best = min(figures, key=lambda step: figures[step])
    assert run.checkpoint("best").name == f"step-{best}"
    assert run.steps() == sorted({best, 11, 12})
    assert all(row["count"] == 5 for row in run.metrics("evaluation"))


def test_time_based_checkpoints(tmp_path: Path) -> None:
    run = Run.open(go(new(tmp_path, "train.checkpoint_minutes=1e-9", "train.checkpoint_every=1000")).run)
    assert run.steps()[-3:] == [10, 11, 12]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), None])
def test_out_of_memory_names_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def fail(self: Any, model: Any, batch: Any, state: Any) -> Any:
        if error is not None:
            raise error
        torch.empty(2**55)  # what the CPU's allocator says when it cannot
        raise AssertionError

    monkeypatch.setattr(toy.ToyTask, "loss", fail)
    run = new(tmp_path)
    with pytest.raises(CompressnetError, match="out of memory on cpu at step 0.*--set train.accumulate=2"):
        go(run)
    assert run.facts["status"] == "failed"


def test_other_errors_are_not_taken_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, model: Any, batch: Any, state: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(toy.ToyTask, "loss", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        go(new(tmp_path))


def test_a_full_disk_while_saving_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressnet import files

    run = new(tmp_path)
    original = files.write_bytes

    def refuse(path: Path, data: bytes, **how: bool) -> None:
        if path.name == "state.safetensors" and "step-8" in str(path):
            raise files.write_error(path, OSError(28, os.strerror(28)))
        original(path, data, **how)

    monkeypatch.setattr(files, "write_bytes", refuse)
    with pytest.raises(CompressnetError, match="No space left"):
        go(run)
    assert run.checkpoint("last").name == "step-5"
    assert not list((run.folder / "checkpoints").glob(".*"))
    monkeypatch.undo()


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    from compressnet.training.job import set_up

    with pytest.raises(UsageError, match="--set train.batch=4"):
        set_up(new(tmp_path, "train.accumulate=2"), Group(0, 2), Silent(), None)


def test_weights_are_the_same_for_the_same_seed_and_differ_for_another(tmp_path: Path) -> None:
    digests = [go(new(tmp_path, f"seed={seed}")).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_targets_are_derived_for_what_will_be_drawn(tmp_path: Path) -> None:
    from compressnet.training.job import derive_ahead, set_up

    run = new(tmp_path)
    job = set_up(run, Group(), Silent(), None)
    derive_ahead(job, run, Group(), 10, Silent())
    assert [key.draw for key in job.train.prepared] == [20, 21, 22, 23]  # type: ignore[attr-defined]


def test_the_loop_takes_its_rate_from_the_step(tmp_path: Path) -> None:
    run = Run.open(go(new(tmp_path, "train.schedule=linear")).run)
    assert [row["lr"] for row in run.metrics("train")] == pytest.approx(
        [1e-2 * (1 - s / 12) for s in range(12)]
    )
    assert Loop.__doc__
