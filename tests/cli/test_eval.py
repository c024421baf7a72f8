"""`eval`: the figures of a run, of its checkpoints, of bare weights, on its data and on others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet import weights
from compressnet.subject import load
from tests.cli.conftest import Cli, save


@pytest.fixture
def run(place: Path, smoke_run: Path) -> Path:
    """A copy of the smoke run, `run`."""
    shutil.copytree(smoke_run, place / "run")
    return Path("run")


@pytest.fixture
def photos(place: Path) -> Path:
    """A folder with two small photographs."""
    save(place / "photos" / "a.png", (48, 40))
    save(place / "photos" / "b.png", (40, 48))
    return Path("photos")


@pytest.fixture
def honest(run: Path) -> Path:
    """Weights without the mark of a smoke run, `honest.safetensors`; trained on a set that is not here."""
    import dataclasses

    loaded = load(f"./{run}")
    assert loaded.architecture
    data = {"name": "photo_folder", "count": 1000}
    architecture = dataclasses.replace(loaded.architecture, smoke=False, data=data)
    weights.save(Path("honest.safetensors"), loaded.model, architecture)
    return Path("honest.safetensors")


def test_a_run_on_its_own_data(cli: Cli, run: Path) -> None:
    done = cli("eval", f"./{run}", "--json", "--pictures", "pictures")
    report = json.loads(done.stdout)
    assert report == json.loads((run / "eval.json").read_text())
    assert report["split"] == "test"
    assert report["smoke"] is True
    assert set(report["rows"]) == {"astronaut", "chelsea"}
    for key in ("psnr", "ssim", "psnr_nothing", "ssim_nothing"):
        mean = sum(row[key] for row in report["rows"].values()) / 2
        assert report["metrics"][key] == pytest.approx(mean)
    assert {path.name for path in Path("pictures").iterdir()} == {"astronaut.png", "chelsea.png"}
    with Pillow.open("pictures/chelsea.png") as picture:
        assert picture.width > 4 * 100  # input, operator, network, error


def test_checkpoints_of_a_run(cli: Cli, run: Path, photos: Path) -> None:
    data = f"photo_folder:root={photos},test_root={photos}"
    words = ["--data", data, "--json"]
    found = {}
    for which in ("@last", "@step-8", "@step-4", "@best", ""):
        report = json.loads(cli("eval", f"./{run}{which}", *words).stdout)
        found[which] = report["checkpoint"], report["metrics"]["psnr"]
    assert found["@last"] == found["@step-8"]
    assert found["@step-8"][0] == "step-8"
    assert found["@step-4"][0] == "step-4"
    assert found["@step-4"][1] != found["@step-8"][1]
    assert found[""] == found["@best"]
    error = cli("eval", f"./{run}@step-5", code=1).error
    assert "step-4, step-8" in error


def test_splits(cli: Cli, run: Path, photos: Path) -> None:
    report = json.loads(cli("eval", f"./{run}", "--split", "train", "--json").stdout)
    assert set(report["rows"]) >= {"coffee", "rocket"}
    assert "only train and test" in cli("eval", f"./{run}", "--split", "val", code=2).error
    data = f"photo_folder:root={photos}"
    assert "test_root" in cli("eval", f"./{run}", "--data", data, code=2).error


def test_bare_weights_whose_data_is_absent(cli: Cli, honest: Path, photos: Path) -> None:
    error = cli("eval", honest, code=2).error
    assert "--data" in error
    data = f"photo_folder:root={photos},test_root={photos}"
    done = cli("eval", honest, "--data", data)
    assert "PSNR dB of doing nothing" in done.stdout
    assert "mean" in done.stdout
    assert (
        "did you mean 'test_root'" in cli("eval", honest, "--data", "photo_folder:tst_root=x", code=2).stderr
    )
    assert "did you mean 'sample'" in cli("eval", honest, "--data", "sampel", code=2).error


def test_data_of_another_kind_is_refused(cli: Cli, run: Path) -> None:
    error = cli("eval", f"./{run}", "--data", "paired_folder:root=x", code=2).error
    assert "image_pair" in error
    assert "photograph" in error


def test_an_operator_has_no_figures_of_its_own(cli: Cli, place: Path) -> None:
    assert "--data" in cli("eval", "operator:rof", code=2).error


def test_identical_pictures_have_an_infinite_psnr(cli: Cli, run: Path, place: Path) -> None:
    # An operator does nothing to a flat picture: doing nothing is perfect there.
    (place / "flat").mkdir()
    Pillow.fromarray(np.full((20, 20, 3), 128, np.uint8)).save("flat/flat.png")
    done = cli("eval", f"./{run}", "--data", "photo_folder:root=flat,test_root=flat", "--json")
    report = json.loads(done.stdout)
    assert report["rows"]["flat.png"]["psnr_nothing"] == "inf"
    assert json.loads((run / "eval.json").read_text()) == report
    shown = cli("eval", f"./{run}", "--data", "photo_folder:root=flat,test_root=flat")
    assert " inf " in shown.stdout


def test_record(cli: Cli, honest: Path, run: Path, photos: Path) -> None:
    assert "results: no such folder" in cli("results", code=1).error
    words = ["--data", f"photo_folder:root={photos.absolute()},test_root={photos.absolute()}"]
    done = cli("eval", honest, *words, "--record", "mine", "--json")
    assert json.loads(done.stdout)["split"] == "test"
    record = json.loads(Path("results/mine.json").read_text())
    for key in ("metrics", "split", "seed", "command", "versions", "device", "commit", "digest", "operator"):
        assert key in record
    assert str(Path.cwd()) not in Path("results/mine.json").read_text()
    assert "exists: add --force" in cli("eval", honest, *words, "--record", "mine", code=1).error
    cli("eval", honest, *words, "--record", "mine", "--force")
    assert "lower-case" in cli("eval", honest, *words, "--record", "../x", code=2).error
    assert "smoke run" in cli("eval", f"./{run}", *words, "--record", "other", code=1).error
    assert [path.name for path in Path("results").iterdir()] == ["mine.json"]
    assert "mine" in cli("results").stdout
    listed = json.loads(cli("results", "--json").stdout)
    assert [entry["name"] for entry in listed["records"]] == ["mine"]


def test_options_where_there_is_no_choice(cli: Cli, place: Path) -> None:
    cli("train", "lm_sample", "--smoke", "-o", "run", "--device", "cpu", "--set", "train.steps=1")
    assert cli("eval", "run", "--options").stdout == "run has one way to be measured\n"
    assert json.loads(cli("eval", "run", "--options", "--json").stdout) == {}
