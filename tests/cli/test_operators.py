"""Every image operator through the program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet import registry, signature

from .conftest import Cli


@pytest.fixture
def pictures(place: Path) -> list[Path]:
    """Small, flat, gray and transparent ones."""
    random = np.random.default_rng(0).integers(0, 256, (12, 17, 4)).astype(np.uint8)
    arrays = {
        "one": random[:1, :1, :3],
        "row": random[:1, :9, :3],
        "column": random[:9, :1, :3],
        "black": np.zeros((6, 7, 3), np.uint8),
        "white": np.full((6, 7, 3), 255, np.uint8),
        "gray": random[..., 0],
        "alpha": random,
    }
    for name, pixels in arrays.items():
        Pillow.fromarray(np.ascontiguousarray(pixels)).save(place / f"{name}.png")
    return [place / f"{name}.png" for name in arrays]


@pytest.mark.parametrize("name", sorted(registry.OPERATORS))
def test_pictures_of_all_kinds_come_back_as_they_were(cli: Cli, pictures: list[Path], name: str) -> None:
    done = cli("apply", f"operator:{name}", *pictures, "-o", "out")
    assert done.errors == []
    for path in pictures:
        before, after = Pillow.open(path), Pillow.open(Path("out") / path.name)
        assert (after.size, after.mode) == (before.size, before.mode)
        if before.mode == "RGBA":
            np.testing.assert_array_equal(np.asarray(after)[..., 3], np.asarray(before)[..., 3])


def test_a_style_is_that_of_a_file(cli: Cli, pictures: list[Path], place: Path) -> None:
    words = "operator:style:levels=3,iterations=1,reference"
    cli("apply", f"{words}={place}/alpha.png", "gray.png", "-o", "first.png")
    cli("apply", f"{words}=white.png", "gray.png", "-o", "other.png")
    one, other = (np.asarray(Pillow.open(name)) for name in ("first.png", "other.png"))
    assert other.min() == 255
    assert one.min() < 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("style:reference=gone.png", "operator style: reference: gone.png: no such file"),
        ("dark_channel:air_light=[1,1]", "operator dark_channel: 'air_light' should be three numbers"),
        ("dark_channel:window=4", "operator dark_channel: 'window' should be odd"),
        ("tv_l1:lambda=0", "operator tv_l1: 'lambda' should be greater than or equal to 0.01"),
        ("pencil:tone=[0,0,0]", "operator pencil: 'tone' should be three weights"),
        ("local_laplacian:sigma=0.3,sigma=0.2", "'sigma' is given twice"),
    ],
)
def test_wrong_arguments_are_one_line(cli: Cli, photo: Path, text: str, message: str) -> None:
    assert message in cli("apply", f"operator:{text}", photo, "-o", "out.png", code=2).error
    assert not Path("out.png").exists()


@pytest.mark.parametrize("name", sorted(registry.OPERATORS))
def test_options_are_the_operators_own_keys(cli: Cli, name: str) -> None:
    listed = json.loads(cli("apply", f"operator:{name}", "--options", "--json").stdout)
    schema, _ = signature.json_schema(registry.find("operator", name))
    assert listed["keys"] == json.loads(json.dumps(schema))
    assert listed["options"] == {}
    shown = cli("apply", f"operator:{name}", "--options").stdout
    assert f"keys (operator:{name}:KEY=VALUE,...)" in " ".join(shown.split())
    for key, entry in schema.items():
        (row,) = [line for line in shown.splitlines() if line.split()[:2] == ["│", key]]
        if isinstance(entry.get("default"), int | float):
            assert row.split()[-2] == str(entry["default"])


def test_an_operators_key_is_no_option(cli: Cli, photo: Path) -> None:
    words = ("apply", "operator:rof:eps=0.001", photo, "-o", "out.png", "--set", "weight=0.1")
    told = "--set weight: it is a key of the operator: write operator:rof:eps=0.001,weight=0.1"
    assert cli(*words, code=2).error == told
    lacks = "operator:rof has no options beside its own keys: weight, eps, max_iterations"
    for option in ("dtype=bfloat16", "arithmetic=precise"):
        told = f"--set {option.partition('=')[0]}: {lacks}"
        assert cli("apply", "operator:rof", photo, "-o", "out.png", "--set", option, code=2).error == told
    limited = ("apply", "operator:rof", photo, "-o", "out.png", "--max-memory", "100")
    assert cli(*limited, code=2).error == "--max-memory: operator:rof has no memory limit to set"


def test_an_operator_is_measured_on_pairs(cli: Cli, photo: Path) -> None:
    for folder in ("inputs", "targets"):
        (photo.parent / "test" / folder).mkdir(parents=True)
    shutil.copy(photo, "test/inputs/a.png")
    cli("apply", "operator:rof", photo, "-o", "test/targets/a.png")
    on_pairs = ("--data", "paired_folder:root=.,test_root=test", "--device", "cpu")
    figures = json.loads(cli("eval", "operator:rof", *on_pairs, "--json").stdout)["metrics"]
    assert figures["mse"] == 0
    assert figures["mse_nothing"] > 1
    assert json.loads(cli("eval", "operator:tv_l1", *on_pairs, "--json").stdout)["metrics"]["mse"] > 1
    told = cli("eval", "operator:rof", *on_pairs, "--set", "arithmetic=precise", code=2).error
    assert told == "--set arithmetic: operator:rof has one way to be measured"
    of_photographs = cli("eval", "operator:rof", "--data", "sample", "--device", "cpu", code=2).error
    assert of_photographs == "data set 'sample' gives photograph samples, 'rof' takes image_pair"
