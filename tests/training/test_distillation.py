"""Learning from a teacher: the distance, the two carried states, and who cannot teach."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressnet import weights
from compressnet.data.class_image import ClassImageBatch
from compressnet.errors import Interrupted, UsageError
from compressnet.recipe import Distill
from compressnet.run import Run
from compressnet.tasks.distillation import Distillation, distance
from compressnet.tasks.image_classification import ImageClassification
from compressnet.tasks.protocol import Outputs
from tests.training import toy
from tests.training.test_loop import StopAt, _register, go, new

__all__ = ["_register"]  # the fixture that makes the toys known


@given(st.integers(1, 5), st.integers(2, 6), st.floats(0.5, 8), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_gradient_of_the_softened_distance(rows: int, classes: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mine = torch.randn(rows, classes, generator=generator, requires_grad=True)
    theirs = torch.randn(rows, classes, generator=generator)
    apart = distance(Outputs(mine, "logits", ()), theirs, temperature)
    apart.backward()
    assert mine.grad is not None
    assert apart.item() >= -1e-5
    wanted = ((mine / temperature).softmax(-1) - (theirs / temperature).softmax(-1)) * temperature / rows
    torch.testing.assert_close(mine.grad, wanted.detach(), atol=1e-5, rtol=1e-4)
    same = distance(Outputs(theirs + 3, "logits", ()), theirs, temperature)  # only differences count
    assert same.item() == pytest.approx(0, abs=1e-4)


def test_values_are_compared_by_their_mean_square() -> None:
    said = Outputs(torch.tensor([[1.0, 2.0]]), "values", ())
    assert distance(said, torch.tensor([[1.0, 4.0]]), 2.0).item() == 2


@pytest.fixture
def taught(tmp_path: Path) -> str:
    """The override that names a trained teacher."""
    return f"train.distill.teacher={go(new(tmp_path / 'teacher')).run}"


@pytest.mark.parametrize("stop", [5, 7])
def test_a_resumed_student_is_the_uninterrupted_one(tmp_path: Path, taught: str, stop: int) -> None:
    whole = go(new(tmp_path / "a", taught, "seed=3", "train.accumulate=2"))
    run = new(tmp_path / "b", taught, "seed=3", "train.accumulate=2")
    with pytest.raises(Interrupted):
        go(run, StopAt(stop))
    assert go(Run.open(run.folder)).digest == whole.digest
    assert weights.read_architecture(run.checkpoint("last") / "model.safetensors").task == "toy"


def test_both_states_are_carried(tmp_path: Path, taught: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, torch.Tensor | None]] = []
    original = toy.ToyTask.outputs

    def watch(self: toy.ToyTask, model: Any, batch: Any, state: Any) -> Outputs:
        seen.append((model.training, state[0] if state else None))
        return original(self, model, batch, state)

    monkeypatch.setattr(toy.ToyTask, "outputs", watch)
    run = new(tmp_path / "a", taught, "seed=3", "train.steps=3", "train.distill.weight=0.3")
    go(run)
    for row in run.metrics("train"):
        assert row["loss"] == pytest.approx(0.7 * row["task"] + 0.3 * row["distance"], rel=1e-5)
    assert [training for training, _ in seen] == [True, False] * 3  # the student, then the teacher
    students, teachers = [h for _, h in seen[::2]], [h for _, h in seen[1::2]]
    assert (students[0], teachers[0]) == (None, None)
    for student, teacher in zip(students[1:], teachers[1:], strict=True):
        assert student is not None
        assert teacher is not None
        assert not torch.equal(student, teacher)


def test_a_teacher_is_only_listened_to(tmp_path: Path, taught: str) -> None:
    teacher = Run.open(Path(taught.partition("=")[2]))
    before = weights.stored_digest(teacher.checkpoint() / "model.safetensors")
    run = new(tmp_path / "a", taught, "seed=3", "train.distill.weight=1", "train.steps=120", "train.lr=0.02")
    go(run)
    assert weights.stored_digest(teacher.checkpoint() / "model.safetensors") == before
    apart = [row["distance"] for row in run.metrics("train")]
    assert sum(apart[-20:]) < 0.5 * sum(apart[:20])


def test_who_cannot_teach(tmp_path: Path, taught: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match="zoo:rof was trained for the task 'image_operator', this one is 'toy'"
    ):
        go(new(tmp_path / "a", "train.distill.teacher=zoo:rof"))
    with pytest.raises(UsageError, match="is of kind operator: a teacher is a run"):
        go(new(tmp_path / "b", "train.distill.teacher=operator:rof"))
    monkeypatch.setattr(
        toy.ToyTask, "prepare", lambda self, data, parent=None, model=None: ({"offset": 0.25}, {})
    )
    with pytest.raises(UsageError, match="has another 'offset' than this training"):
        go(new(tmp_path / "c", taught))


def test_a_network_runs_once_a_step_and_so_do_its_batch_norms() -> None:
    """Twice, running statistics would move at twice their momentum."""
    task: Any = ImageClassification()
    preparation = {"resize": 8, "side": 8, "mean": [0.5] * 3, "std": [0.2] * 3}
    task.use({"classes": ["a", "b"], "preparation": preparation})
    calls = []
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    student.append(nn.Linear(4, 2))
    teacher: Any = SimpleNamespace(model=copy.deepcopy(student), task=task)
    student.register_forward_hook(lambda *_: calls.append(1))
    batch = ClassImageBatch(
        torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8), torch.tensor([0, 1]), ["x", "y"]
    )
    Distillation(task, teacher, Distill(teacher="run")).loss(student, batch, ()).mean.backward()
    assert len(calls) == 1
    assert student[1].num_batches_tracked == 1
