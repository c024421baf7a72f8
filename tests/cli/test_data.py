"""`data check` and `data samples`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, save


def test_check_counts_every_split(cli: Cli, photo: Path) -> None:
    done = cli("data", "check", "sample", "--json")
    assert json.loads(done.stdout)["splits"] | {"val": ""} == {"train": 4, "val": "", "test": 2}
    save(photo.parent / "set" / "a.png")
    shown = cli("data", "check", "photo_folder:root=set,test_root=set").stdout
    assert [line.split()[3] for line in shown.splitlines() if "train" in line or "test" in line] == ["1", "1"]


@pytest.mark.parametrize("how", ["recipe", "name", "run"])
def test_check_takes_what_names_data(cli: Cli, place: Path, smoke_run: Path, how: str) -> None:
    (place / "mine.yaml").write_text(
        "version: 1\ntask: {name: image_operator, operator: rof}\nmodel: {name: can24}\n"
        "data: {name: sample}\ntrain: {steps: 1}\n"
    )
    source = {"recipe": "mine.yaml", "name": "fip_sample", "run": str(smoke_run)}[how]
    assert json.loads(cli("data", "check", source, "--json").stdout)["data"]["name"] == "sample"


def test_check_takes_settings_of_recipes(cli: Cli) -> None:
    done = cli("data", "check", "lm_sample", "--set", "data.unroll=100", "--json")
    assert json.loads(done.stdout)["data"]["unroll"] == 100
    for source in ("text_sample", "none"):
        assert source in cli("data", "check", source, "--set", "data.unroll=100", code=2).error


def test_check_lists_every_defect(cli: Cli, place: Path) -> None:
    for name in ("a", "b", "c"):
        save(place / "set" / f"{name}.png", (200, 200))
    for name in ("a", "c"):
        path = place / "set" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:300])
    done = cli("data", "check", "photo_folder:root=set", code=1)
    assert [Path(line.split(": ")[0]).name for line in done.errors] == ["a.png", "c.png"]
    listed = cli("data", "check", "photo_folder:root=set", "--json", code=1)
    assert len(json.loads(listed.stdout)["problems"]) == 2
    assert listed.stderr == ""


def test_the_data_root(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(place / "far" / "photos" / "a.png")
    source = "photo_folder:root=photos"
    assert "far" not in cli("data", "check", source, code=1).error
    cli("data", "check", source, "--data-root", "far")
    monkeypatch.setenv("COMPRESSNET_DATA", str(place / "far"))
    assert os.environ["COMPRESSNET_DATA"] == str(place / "far")
    cli("data", "check", source)


def test_samples(cli: Cli, place: Path) -> None:
    listed = cli("data", "samples").stdout
    assert "Chelsea the cat" in listed
    assert "CC0" in listed
    done = cli("data", "samples", "-o", "photos", "--json")
    report = json.loads(done.stdout)
    assert len(report["credits"]) == len(report["files"]) == 6
    assert {str(path) for path in Path("photos").iterdir()} == set(report["files"])
    shutil.rmtree("photos")
    (place / "photos").mkdir()
    save(place / "photos" / "chelsea.png")
    assert "chelsea.png exists: add --force" in cli("data", "samples", "-o", "photos", code=1).error
    assert len(list(Path("photos").iterdir())) == 1  # nothing was copied beside it
    cli("data", "samples", "-o", "photos", "--force")
    assert "cannot write" in cli("data", "samples", "-o", "photos/chelsea.png", code=1).error
