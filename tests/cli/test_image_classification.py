"""Classifiers of pictures as a user has them: train, resume, evaluate, apply, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

from compressnet import recipe, run, subject
from compressnet.data.class_image import ClassImage, ClassImageBatch
from compressnet.errors import CompressnetError, Interrupted
from compressnet.tasks.image_classification import ImageClassification
from compressnet.training.train import train
from tests.cli.conftest import Cli
from tests.cli.test_report import Page
from tests.training.test_loop import CPU, StopAt

RECIPE = """
version: 1
task: {name: image_classification, label_smoothing: 0.1}
model: {name: resnet10, widths: [4, 4, 8, 8]}
data: {name: class_folder, root: set, side: 16, resize: 18, val_percent: 20, crop: padded}
train: {steps: 40, batch: 8, lr: 0.02, evaluate_every: 20, checkpoint_every: 20, previews: 1}
"""
COLOURS = {"blue": (40, 40, 230), "gold": (220, 190, 40), "green": (40, 200, 60)}
PREPARATION = {"resize": 4, "side": 4, "mean": [0.5] * 3, "std": [0.25] * 3}


def paint(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (24, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(-30, 30, (size[1], size[0], 3))
    Pillow.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `set`, pictures of three colours, and `run`, trained to tell them apart."""
    place = tmp_path_factory.mktemp("colours")
    for name, colour in COLOURS.items():
        for number in range(16):
            paint(place / "set" / ("test" if number < 3 else "train") / name / f"{number}.png", colour)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSNET_DATA", str(place))
        train(run.Run.create(recipe.Recipe.parse(RECIPE, "c.yaml"), folder=place / "run"), device=CPU)
    return place


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke run of cls_sample."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    loaded = recipe.Recipe.load(subject.recipe_path("cls_sample"), smoke=True)
    train(run.Run.create(loaded, folder=folder), device=CPU)
    return folder


@pytest.fixture
def learned(place: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The run of `colours`, to be written into."""
    monkeypatch.setenv("COMPRESSNET_DATA", str(colours))
    shutil.copytree(colours / "run", place / "run")
    return "run"


def test_stopped_and_resumed_is_the_same(smoke: Path, tmp_path: Path) -> None:
    loaded = recipe.Recipe.load(subject.recipe_path("cls_sample"), smoke=True)
    stopped = run.Run.create(loaded, folder=tmp_path / "stopped")
    with pytest.raises(Interrupted):
        train(stopped, device=CPU, reporter=StopAt(7))
    whole = run.Run.open(smoke).facts
    assert train(run.Run.open(stopped.folder), device=CPU).digest == whole["digest"]


def test_what_crashes_torch_is_refused(cli: Cli, learned: str, place: Path) -> None:
    (place / "r.yaml").write_text(RECIPE)
    done = cli("train", "r.yaml", "--device", "cpu", "--set", "train.channels_last=true", "-o", "new", code=2)
    assert "layer2.0.downsample.0, a 1x1 convolution with strides that reads fewer than 8" in done.error
    assert "set train.channels_last=false" in done.error


CRASH = """
import torch

for inputs in (1, 2, 3, 4, 5, 6, 7):
    conv = torch.nn.Conv2d(inputs, 8, 1, 2, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(8, inputs, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
    for _ in range(5):
        conv(x).square().sum().backward()
"""


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="the fault is known of torch 2.13")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the fault is known of x86")
def test_torch_still_crashes_where_it_is_refused() -> None:
    """If this fails, `job._refuse_crash` can go. With AVX-512 torch takes other code, which holds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    try:
        done = subprocess.run([sys.executable, "-c", CRASH], env=environment, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return
    assert done.returncode < 0


def test_a_run_learns_and_is_evaluated(cli: Cli, learned: str) -> None:
    report = json.loads(cli("eval", learned, "--json").stdout)
    assert report["metrics"]["accuracy"] == 1
    assert "accuracy_top5" not in report["metrics"]  # of three classes
    assert report["rows"]["gold"]["count"] == 3
    assert report["details"]["confusion"]["counts"] == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    cli("eval", learned, "--pictures", "seen")
    assert Pillow.open("seen/confusion.png").width > 200
    assert Pillow.open("seen/blue_0.png.png").height > 256  # enlarged, above lines of text
    assert "the network knows blue, gold, green" in cli("eval", learned, "--data", "glyphs", code=1).error


def test_apply_takes_pictures_of_any_kind(cli: Cli, learned: str, place: Path) -> None:
    paint(place / "in" / "a.png", COLOURS["blue"])
    paint(place / "in" / "panorama.png", COLOURS["gold"], (3000, 3))
    paint(place / "in" / "tiny.png", COLOURS["green"], (1, 1))
    Pillow.new("L", (30, 20), 90).save(place / "in" / "gray.png")
    Pillow.new("RGBA", (30, 20), (*COLOURS["gold"], 9)).save(place / "in" / "alpha.png")
    Pillow.fromarray(np.full((20, 30), 40_000, np.uint16)).save(place / "in" / "deep.png")
    report = json.loads(cli("apply", learned, "in", "--json").stdout)
    found = {Path(file["input"]).stem: file["classes"] for file in report["files"]}
    best = {name: classes[0]["label"] for name, classes in found.items()}
    assert len(best) == 6
    wanted = {"a": "blue", "panorama": "gold", "tiny": "green", "alpha": "gold"}
    assert {name: best[name] for name in wanted} == wanted
    for classes in found.values():
        assert [guess["rank"] for guess in classes] == [1, 2, 3]
        assert sum(guess["probability"] for guess in classes) == pytest.approx(1)
        assert classes == sorted(classes, key=lambda guess: -guess["probability"])
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        cli("apply", learned, "in", "--set", "top=1", "-o", f"out.{suffix}")
        rows = list(csv.reader((place / f"out.{suffix}").read_text().splitlines(), delimiter=delimiter))
        assert rows[0] == ["input", "rank", "label", "probability"]
        assert {Path(row[0]).stem: row[2] for row in rows[1:]} == best
    assert "blue" in cli("apply", learned, "in/a.png").stdout
    assert "top" in cli("apply", learned, "in/a.png", "--set", "top=0", code=2).error
    (place / "in" / "bad.png").write_bytes(b"no picture")
    assert "bad.png" in cli("apply", learned, "in/bad.png", code=1).error


def test_a_smoke_run_in_every_command(cli: Cli, smoke: Path, place: Path, one_torchlib: None) -> None:
    shutil.copytree(smoke, place / "run")
    shown = cli("eval", "run").stdout
    title = " ".join(shown.partition("┏")[0].split())
    assert title == "run on glyphs (synthetic), test (smoke run: figures mean nothing)"
    assert "accuracy top5" in shown
    assert "recorded" in cli("eval", "run", "--record", "x", code=1).error
    cli("fold", "run", "-o", "folded.safetensors")
    cli("export", "run", "-o", "net.onnx")
    paint(place / "a.png", COLOURS["blue"], (32, 32))
    one, other = (
        json.loads(cli("apply", name, "a.png", "--json").stdout)["files"][0]["classes"]
        for name in ("run", "folded.safetensors")
    )
    assert [guess["label"] for guess in one] == [guess["label"] for guess in other]
    assert len(one) == 5
    for mine, theirs in zip(one, other, strict=True):
        assert theirs["probability"] == pytest.approx(mine["probability"], abs=1e-5)
    assert "ResNet" in cli("count-params", "run").stdout
    cli(
        "bench",
        "run",
        "--rounds",
        "2",
        "--processes",
        "1",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--no-memory",
    )
    cli("report", "run", "-o", "page.html")
    page = Page(place / "page.html")
    assert "On glyphs (synthetic), test: 20 targets" in page.sections["results"]
    assert "glyphs (synthetic)" in page.sections[""]
    pictures = [attributes for name, attributes in page.elements if name == "img"]
    assert len(pictures) == 2
    assert "true \\ predicted" in page.sections["confusion"]
    assert "synthetic" in page.sections["environment"]


class Fixed(nn.Module):
    """The same scores for every picture."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(x), -1)


def task(classes: int, **arguments: Any) -> ImageClassification:
    made = ImageClassification(**arguments)
    made.use({"classes": [f"c{number}" for number in range(classes)], "preparation": PREPARATION})
    return made


def batch(*labels: int) -> ClassImageBatch:
    pixels = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    return ClassImageBatch(pixels, torch.tensor(labels), [str(label) for label in labels])


def test_smoothed_labels_are_spread_over_all_classes() -> None:
    model, data = Fixed(2.0, 0.0, -1.0, 0.5), batch(0, 3)
    logs = torch.tensor([2.0, 0.0, -1.0, 0.5]).log_softmax(0)
    target = torch.full((2, 4), 0.2 / 4)
    target[0, 0] += 0.8
    target[1, 3] += 0.8
    found = task(4, label_smoothing=0.2).loss(model, data, ()).mean
    torch.testing.assert_close(found, -(target * logs).sum(1).mean())
    assert task(4).loss(model, data, ()).mean.item() == pytest.approx(-(logs[0] + logs[3]).item() / 2)


def test_top_5_counts_what_is_among_the_best_five() -> None:
    made = task(7)
    metrics, data = made.metrics(), batch(0, 4, 5, 6)
    model = Fixed(7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)
    with torch.no_grad():
        metrics.update(made.predict(model, data, ())[0], data)
    figures = metrics.compute()
    assert (figures["accuracy"], figures["accuracy_top5"]) == (0.25, 0.5)
    assert figures["accuracy/c0"] == 1
    assert "accuracy/c1" not in figures  # there are none
    twice = made.metrics()
    twice.merge([metrics.state(), metrics.state()])
    assert twice.compute() == {
        key: 2 * value if key.startswith("count") else value for key, value in figures.items()
    }
    assert "accuracy_top5" not in _measured(task(5), batch(0))


def _measured(made: ImageClassification, data: ClassImageBatch) -> dict[str, float]:
    metrics = made.metrics()
    metrics.update(torch.zeros(len(data.labels), 5), data)
    return metrics.compute()


def test_pictures_are_normalised_by_the_task() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert torch.equal(task(2)._normalised(pixels)[0, 0, 0], torch.tensor([-2.0, 2.0]))


@pytest.mark.parametrize(
    ("assets", "message"),
    [
        ({"classes": [], "preparation": PREPARATION}, "classes"),
        ({"classes": ["a", "a"], "preparation": PREPARATION}, "the list of classes has 'a' twice"),
        ({"classes": ["a"]}, "preparation"),
        ({"classes": ["a"], "preparation": {**PREPARATION, "side": 0}}, "side"),
        ({"classes": ["a"], "preparation": {**PREPARATION, "std": [0.5, 0.0, 0.5]}}, "std"),
        ({"classes": ["a"], "preparation": {**PREPARATION, "mean": [0.5]}}, "mean"),
        ({"classes": "ab", "preparation": PREPARATION}, "classes"),
    ],
)
def test_assets_of_another_form_are_refused(assets: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressnetError, match=message):
        ImageClassification().use(assets)


def test_a_preview_has_the_picture_and_three_guesses() -> None:
    pixels = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    made = task(4)
    [(name, picture)] = made.preview(Fixed(3.0, 0.0, 1.0, 2.0), [ClassImage(pixels, 2, "x")])
    assert name == "x"
    assert picture.size[1] == 256 + 4 * 20 + 4
    shown = np.asarray(picture)
    assert (shown[:256, picture.width // 2] == 200).all()
    assert (shown[256:] < 90).any()  # letters


def test_data_says_what_it_is_not(cli: Cli, place: Path, learned: str) -> None:
    """'JPEG copy' stands over figures, in records and pages too."""
    cli("eval", learned, "--record", "copied")
    path = place / "results" / "copied.json"
    record = json.loads(path.read_text())
    record["data"] |= {"name": "cifar10", "copy": "JPEG copy"}
    path.write_text(json.dumps(record))
    cli("results", "--write")
    page = (place / "RESULTS.md").read_text()
    assert page.count("Image classification on cifar10 (JPEG copy), test") == 2
    saved = place / "run" / "eval.json"
    report = json.loads(saved.read_text())
    report["data"] |= {"name": "cifar10", "copy": "JPEG copy"}
    saved.write_text(json.dumps(report))
    cli("report", "run", "-o", "page.html")
    assert "On cifar10 (JPEG copy), test" in Page(place / "page.html").sections["results"]
