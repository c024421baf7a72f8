"""Photographs without an operator: tasks that take them train and evaluate, others refuse at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from safetensors.numpy import load_file

from compressnet import registry, weights
from compressnet.tasks.image_processing import ImageTranslation
from compressnet.training import job
from tests.cli.conftest import Cli, save

RECIPE = """
version: 1
task: {name: TASK}
model: {name: can24}
data: {name: photo_folder, root: photos, val_root: others, test_root: others, min_side: 12, max_side: 16,
       sizes: 2, crop: 8, flip: true}
train: {steps: 3, batch: 2, evaluate_every: 3, previews: 1, cpu_matmul: exact}
"""


class Reproduce(ImageTranslation):
    """Give the photograph back."""

    sample_types: ClassVar[tuple[str, ...]] = ("photograph",)
    needs_targets: ClassVar[bool] = False


class Forgetful(ImageTranslation):
    """Learn what an operator does, and name none."""

    sample_types: ClassVar[tuple[str, ...]] = ("photograph",)


@pytest.fixture
def photos(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of photographs, and recipes of both tasks."""
    monkeypatch.setattr(job, "processors", lambda: 1)  # others would start for a handful of pictures
    for task in (Reproduce, Forgetful):
        name = task.__name__.lower()
        monkeypatch.setitem(registry.TASKS, name, f"{__name__}:{task.__name__}")
        (place / f"{name}.yaml").write_text(RECIPE.replace("TASK", name))
    for index in range(3):
        save(place / "photos" / f"{index}.png", (24 + index, 20))
    save(place / "others" / "a.png", (20, 14))
    return place


def entries(cache: Path) -> set[Path]:
    return set((cache / "derived").rglob("*.safetensors"))


def test_a_task_without_targets_trains_and_evaluates(cli: Cli, photos: Path, cache: Path) -> None:
    before = entries(cache)
    cli("train", "reproduce.yaml", "-o", "run", "--device", "cpu")
    added = entries(cache) - before
    assert 1 < len(added) <= 7  # two sizes of three photographs, and one to validate on
    assert [list(load_file(entry)) for entry in added] == [["input"]] * len(added)
    report = json.loads(cli("eval", "run", "--json").stdout)
    assert report["rows"]["a.png"]["psnr_nothing"] == "inf"
    assert report["data"]["count"] == 1


def test_a_task_with_targets_refuses_before_it_begins(cli: Cli, photos: Path, cache: Path) -> None:
    before = entries(cache)
    error = cli("train", "forgetful.yaml", "-o", "run", "--device", "cpu", code=1).error
    assert error == "photographs have no targets of their own: name an operator (task.operator)"
    assert entries(cache) == before
    assert not list(photos.glob("run/checkpoints/*"))


@pytest.mark.parametrize(
    ("task", "arguments", "code", "said"),
    [
        ("image_operator", {"operator": "rof"}, 1, "photographs have no targets of their own"),
        ("image_translation", {}, 2, "gives photograph samples"),
    ],
)
def test_weights_that_name_no_operator_have_no_figures(
    cli: Cli, photos: Path, cache: Path, task: str, arguments: dict[str, Any], code: int, said: str
) -> None:
    model_args = {"in_channels": 3, "out_channels": 3}
    architecture = weights.Architecture(task, arguments, "can24", model_args)
    weights.save(photos / "new.safetensors", weights.build(architecture), architecture)
    words = ["new.safetensors", "--data", "photo_folder:root=photos,test_root=others", "--device", "cpu"]
    before = entries(cache)
    assert said in cli("eval", *words, code=code).error
    assert entries(cache) == before


def test_data_check_needs_no_operator(cli: Cli, photos: Path) -> None:
    done = cli("data", "check", "reproduce.yaml", "--json")
    assert json.loads(done.stdout)["splits"] == {"train": 3, "val": 1, "test": 1}
    source = "photo_folder:root=photos,val_root=others,flip=true"
    assert json.loads(cli("data", "check", source, "--json").stdout)["splits"]["val"] == 1
    (photos / "others" / "b.png").write_text("no picture")
    assert "b.png" in cli("data", "check", "reproduce.yaml", code=1).error  # once, of both roots
    assert "b.png" in cli("train", "reproduce.yaml", "-o", "run", "--device", "cpu", code=1).error
