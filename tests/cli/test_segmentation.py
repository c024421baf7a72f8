"""Segmentation as a user has it: label maps of one's own, figures, pictures, photographs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet import recipe, run
from compressnet.training.train import train
from tests.cli.conftest import Cli
from tests.cli.test_train import facts, wait_for
from tests.training.test_loop import CPU

CLASSES = """id,name,colour,ignore
0,void,#000000,1
3,sky,#4080c0,0
7,ground,#806040,0
9,car,#c00000,0
"""
RECIPE = """
version: 1
task: {name: segmentation, weights: enet}
model: {name: segmenter, encoder: resnet18, head: bilinear, width: 0.125}
data: {name: label_folder, root: set, classes: classes.csv, crop: [32, 48], scale: [0.8, 1.2]}
train: {steps: 80, batch: 4, lr: 0.01, optimizer: adam, schedule: cosine, evaluate_every: 200}
"""
SMALL = (
    "data.count=8",
    "data.val_count=2",
    "data.test_count=2",
    "data.size=[32,48]",
    "train.checkpoint_every=2",
)
SMOKE = ("seg_sample", "--smoke", "--device", "cpu", *(word for key in SMALL for word in ("--set", key)))
SMOKE += ("--set", "train.checkpoint_every=2")


def street(seed: int, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """A photograph uint8 (H, W, 3) and its ids (H, W): sky above ground, a red car on it, a void corner."""
    random = np.random.default_rng(seed)
    horizon, left = random.integers(height // 3, height // 2), random.integers(4, width // 2)
    ids = np.full((height, width), 3, np.uint8)
    ids[horizon:] = 7
    ids[horizon : horizon + height // 4, left : left + width // 3] = 9
    ids[:3, :3] = 0
    colours = {0: (0, 0, 0), 3: (90, 150, 230), 7: (110, 90, 70), 9: (210, 30, 30)}
    pixels = np.array([colours[value] for value in ids.reshape(-1).tolist()]).reshape(*ids.shape, 3)
    return np.clip(pixels + random.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8), ids


def save(root: Path, split: str, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        pixels, ids = street(number)
        for folder, array in (("images", pixels), ("labels", ids)):
            path = root / folder / split / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(array).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with `set`, photographs and label maps, and a run that learned them."""
    place = tmp_path_factory.mktemp("streets")
    (place / "set").mkdir()
    (place / "set" / "classes.csv").write_text(CLASSES)
    for split, count, first in (("train", 8, 0), ("val", 2, 50), ("test", 3, 60)):
        save(place / "set", split, count, first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSNET_DATA", str(place))
        patch.setenv("COMPRESSNET_CACHE", str(cache))
        train(run.Run.create(recipe.Recipe.parse(RECIPE, "c.yaml"), folder=place / "seg"), device=CPU)
    return place


@pytest.fixture
def seg(place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in, with copies of the run `seg` and of `set`."""
    monkeypatch.setenv("COMPRESSNET_DATA", str(place))
    for name in ("seg", "set"):
        shutil.copytree(trained / name, place / name)
    return place


def test_killed_and_resumed_is_the_same(
    cli: Cli, place: Path, environment: dict[str, str], forked: Path
) -> None:
    cli("train", *SMOKE, "-o", "whole")
    command = [str(forked), "train", *SMOKE, "-o", "killed"]
    process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(place / "killed" / "checkpoints" / "step-2", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cli("train", "--resume", "killed", "--device", "cpu")
    assert facts(place / "killed")["digest"] == facts(place / "whole")["digest"]
    assert "street_sample (synthetic), test (smoke run" in " ".join(cli("eval", "killed").stdout.split())


def test_eval_gives_the_figures_of_every_class(cli: Cli, seg: Path) -> None:
    report = json.loads(cli("eval", "seg", "--json", "--pictures", "seen").stdout)
    figures, rows = report["metrics"], report["rows"]
    assert figures["mIoU"] > 0.7
    assert set(rows) == {"sky", "ground", "car"}
    assert figures["mIoU"] == pytest.approx(np.mean([row["IoU"] for row in rows.values()]))
    pixels = sum(row["pixels"] for row in rows.values())
    assert pixels == 3 * (40 * 56 - 9)  # void is not counted
    counts = np.array(report["details"]["confusion"]["counts"])
    assert counts.sum() == pixels
    assert figures["pixel_accuracy"] == pytest.approx(counts.trace() / pixels)
    assert Pillow.open("seen/confusion.png").mode == "RGB"
    preview = Pillow.open("seen/060.png")
    assert preview.size[0] == 2 * 56 + 4
    assert preview.size[1] > 2 * 40 + 2 * 7  # captions above the panes
    nearest = json.loads(
        cli("eval", "seg", "--json", "--set", "upsample=nearest", "--set", "flip=true").stdout
    )
    assert nearest["measures"] == {"upsample": "nearest", "flip": True, "scales": None}
    assert nearest["metrics"]["mIoU"] > 0.6
    assert json.loads(Path("seg/eval.json").read_text()) == report  # measured as usual
    assert "flip=true" in cli("eval", "seg", "--set", "flip=true").stdout
    scaled = json.loads(cli("eval", "seg", "--json", "--set", "scales=[0.75,1,1.25]").stdout)
    assert scaled["metrics"]["mIoU"] > 0.6


def test_what_apply_writes_scores_as_eval_does(cli: Cli, seg: Path) -> None:
    cli("apply", "seg", "set/images/test", "-o", "ids", "--set", "output=label_ids")
    counts = np.zeros((3, 3), int)
    for number in range(60, 63):
        truth, found = street(number)[1], np.asarray(Pillow.open(f"ids/{number:03}.png"))
        for row, own in enumerate((3, 7, 9)):
            for column, other in enumerate((3, 7, 9)):
                counts[row, column] += ((truth == own) & (found == other)).sum()
    assert (
        counts.tolist() == json.loads(cli("eval", "seg", "--json").stdout)["details"]["confusion"]["counts"]
    )


def test_apply_draws_photographs_of_any_kind(cli: Cli, seg: Path) -> None:
    pixels, ids = street(70, 80, 112)  # twice the size of training
    Pillow.fromarray(pixels).save("photo.png")
    done = json.loads(cli("apply", "seg", "photo.png", "-o", "over.png", "--json").stdout)
    shares = done["files"][0]["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert shares["sky"] == pytest.approx((ids == 3).mean(), abs=0.1)
    drawn = Pillow.open("over.png")
    assert drawn.width == 112
    assert drawn.height > 80  # a legend below
    cli("apply", "seg", "photo.png", "-o", "plain.png", "--set", "legend=false", "--set", "opacity=1")
    plain = np.asarray(Pillow.open("plain.png"))
    assert plain.shape == (80, 112, 3)
    assert {tuple(colour) for colour in plain.reshape(-1, 3)} <= {(64, 128, 192), (128, 96, 64), (192, 0, 0)}
    cli("apply", "seg", "photo.png", "-o", "map.png", "--set", "output=labels")
    mapped = Pillow.open("map.png")
    assert (mapped.mode, mapped.size) == ("P", (112, 80))
    assert (np.asarray(mapped.convert("RGB")) == plain).all()
    cli("apply", "seg", "photo.png", "-o", "mask.png", "--set", "output=mask", "--set", "only=[car]")
    mask = np.asarray(Pillow.open("mask.png"))
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask == 255) == (np.asarray(mapped) == 2)).all()
    Pillow.fromarray(pixels[:1, :1]).save("one.png")
    Pillow.fromarray(pixels).convert("L").save("gray.png")
    cli("apply", "seg", "one.png", "gray.png", "-o", "out", "--set", "size=native", "--set", "output=labels")
    assert Pillow.open("out/one.png").size == (1, 1)
    assert Pillow.open("out/gray.png").size == (112, 80)


def test_a_legend_is_as_large_as_its_photograph(cli: Cli, seg: Path) -> None:
    lines = {}
    for width in (90, 180, 3600):
        Pillow.fromarray(street(70)[0]).resize((width, 90)).save("photo.png")
        cli("apply", "seg", "photo.png", "-o", "over.png", "--force")
        strip = np.asarray(Pillow.open("over.png"))[90:]
        assert (strip[:, -2:] == 255).all()  # nothing is cut off
        lines[width] = len(strip)
    assert lines[180] < 20
    assert lines[90] == 3 * lines[180]  # a line for each name
    assert lines[3600] == 120
    Pillow.fromarray(street(70)[0]).resize((30, 90)).save("photo.png")
    cli("apply", "seg", "photo.png", "-o", "over.png", "--force")
    assert Pillow.open("over.png").height == 90  # nobody could read it


def test_bad_settings_are_one_line(cli: Cli, seg: Path) -> None:
    pixels, _ = street(70)
    Pillow.fromarray(pixels).save("photo.png")
    where = ("photo.png", "-o", "x.png")
    unknown = cli("apply", "seg", *where, "--set", "only=[cart]", code=2).error
    assert unknown == "only: 'cart' is no class - did you mean 'car'?"
    assert "output" in cli("apply", "seg", *where, "--set", "output=colours", code=2).error
    for value, said in (("0", "greater than 0"), ("3.5", "a valid integer"), ("whole", "'training' or 'nat")):
        assert f"should be {said}" in cli("apply", "seg", *where, "--set", f"size={value}", code=2).error
    for more in ((), ("--set", "only=[]")):
        assert "name the classes" in cli("apply", "seg", *where, "--set", "output=mask", *more, code=2).error
    listed = " ".join(cli("apply", "seg", "--options").stdout.split())
    assert "string or integer" in listed
    assert "training, native or above 0" in listed
    assert "name the output" in cli("apply", "seg", "photo.png", code=2).error
    measures = " ".join(cli("eval", "seg", "--options").stdout.split())
    assert "logits, nearest" in measures
    assert "each from 0.1 to 4" in measures
    assert json.loads(cli("eval", "seg", "--options", "--json").stdout)["flip"]["default"] is False
    (seg / "set" / "classes.csv").write_text(CLASSES.replace("car", "bus"))
    assert "bus" in cli("eval", "seg", code=1).error


def test_folded_files_and_exports_give_the_same(cli: Cli, seg: Path) -> None:
    wanted = json.loads(cli("eval", "seg", "--json").stdout)["metrics"]
    cli("fold", "seg", "-o", "small.safetensors")
    data = ("--data", "label_folder:root=set,classes=classes.csv")
    found = json.loads(cli("eval", "small.safetensors", *data, "--json").stdout)["metrics"]
    assert found["mIoU"] == pytest.approx(wanted["mIoU"], abs=2e-3)
    cli("count-params", "small.safetensors", "--strict")
    shown = cli("export", "small.safetensors", "-o", "small.onnx").stdout
    assert "output  output  float32 (batch, 3, height, width)" in shown


def test_data_check_names_what_cannot_be_learnt(cli: Cli, seg: Path) -> None:
    subject = "label_folder:root=set,classes=classes.csv"
    shown = cli("data", "check", subject)
    assert "car" in shown.stderr
    assert "are ignored" not in shown.stderr
    bad = np.full((40, 56), 3, np.uint8)
    bad[0, :5] = 77  # the other labels have no such row
    Pillow.fromarray(bad).save("set/labels/train/001.png")
    (seg / "set/labels/train/002.png").unlink()
    Pillow.fromarray(bad[5:15]).save("set/labels/val/050.png")
    errors = cli("data", "check", subject, code=1).errors
    text = "\n".join(errors)
    assert len(errors) >= 3
    assert "77" in text
    assert "5 pixels" in text
    assert "no labels 002" in text
    assert "56x10 pixels, its photograph 56x40" in text


def test_a_folder_that_is_not_there_is_what_is_named(cli: Cli, seg: Path) -> None:
    for arguments in ("root=sett,classes=classes.csv", "root=sett,classes=camvid"):
        error = cli("data", "check", f"label_folder:{arguments}", code=1).error
        assert error.startswith(f"data.root 'sett': {seg / 'sett'} is not there")
    shutil.rmtree("set")
    assert "data.root 'set'" in cli("eval", "seg", code=1).error


def test_a_class_file_that_ignores_most_is_warned_of(cli: Cli, seg: Path) -> None:
    few = CLASSES.replace("#4080c0,0", "#4080c0,1").replace("#806040,0", "#806040,1")
    (seg / "set" / "few.csv").write_text(few)
    shown = cli("data", "check", "label_folder:root=set,classes=few.csv").stderr.splitlines()
    warned = [line for line in shown if "are ignored" in line]
    assert [line.split(" % of the pixels of ")[1].split()[0] for line in warned] == ["train", "val", "test"]
    assert warned[0].startswith("warning: 9")
    assert "is few.csv the class file of these labels?" in warned[0]


def test_a_report_tells_pixels_as_whole_numbers(cli: Cli, seg: Path) -> None:
    report = json.loads(cli("eval", "seg", "--json").stdout)
    report["rows"]["sky"]["pixels"] = 123_456_789
    Path("seg/eval.json").write_text(json.dumps(report))
    cli("report", "seg", "-o", "page.html")
    page = Path("page.html").read_text()
    assert "<td>123,456,789</td>" in page
    assert f"<td>{report['rows']['ground']['pixels']:,}</td>" in page


def test_line_ends_of_a_class_file_do_not_matter(cli: Cli, seg: Path) -> None:
    (seg / "set" / "old.csv").write_bytes(CLASSES.replace("\n", "\r").encode())
    assert "car (value 9)" in cli("data", "check", "label_folder:root=set,classes=old.csv").stderr


def test_several_inputs_need_a_folder_whatever_they_are(cli: Cli, seg: Path) -> None:
    Path("set/images/test/clip.mp4").touch()
    for output in ("one.mp4", "one.png"):
        error = cli("apply", "seg", "set/images/test", "-o", output, code=2).error
        assert error == f"{output}: several inputs need an output folder: -o one"
