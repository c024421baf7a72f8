"""Networks of several operators and with a dial, through all commands, with no flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import compressnet
from compressnet.models.can_released import OPERATORS
from tests.cli.conftest import Cli
from tests.models.test_can import _as_released, _noisy, can24, can32

SMALL = ("--smoke", "--device", "cpu", "--set", "data.min_side=32", "--set", "data.max_side=40", "--set",
         "data.crop=32", "--set", "train.steps=6", "--set", "train.batch=1")  # fmt: skip


@pytest.fixture
def picture(place: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(place / "picture.png")
    return "picture.png"


def made(cli: Cli, subject: str, picture: str, *words: str) -> np.ndarray:
    cli("apply", subject, picture, "-o", "made.png", "--force", "--device", "cpu", *words)
    with Pillow.open("made.png") as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize("condition", ["film", "planes"])
def test_several_operators(cli: Cli, picture: str, condition: str) -> None:
    words = (*SMALL, "--set", f"model.condition={condition}", "--set", "train.lr=0.01")
    cli("train", "fip_all_photos", *words, "-o", "run")
    figures = json.loads(cli("eval", "run", "--device", "cpu", "--json").stdout)
    assert list(figures["rows"]) == ["rof", "l0"]
    assert all(row["psnr_nothing"] > 0 for row in figures["rows"].values())
    assert len(figures["details"]["samples"]) == 4
    rof, l0 = (made(cli, "run", picture, "--set", f"operator={name}") for name in ("rof", "l0"))
    assert np.abs(rof - l0).max() >= 1
    made(cli, "run", picture, "--set", "blend=[rof:0.5,l0:0.5]")
    told = cli("apply", "run", picture, "-o", "x.png", "--set", "operator=rtv", code=2).stderr
    assert "'operator' should be 'rof' or 'l0' (got 'rtv')" in told
    assert (
        "name the operator, as in --set operator=rof"
        in cli("apply", "run", picture, "-o", "x.png", code=2).stderr
    )
    assert json.loads(cli("count-params", "run", "--json", "--strict").stdout)
    told = cli("bench", "run", "--input-size", "16", "--rounds", "2", "--processes", "1", "--device", "cpu",
               "--backend", "eager,strips", "--json").stdout  # fmt: skip
    assert json.loads(told)


def test_a_dial(cli: Cli, picture: str) -> None:
    cli("train", "fip_dial_photos", *SMALL, "--set", "train.lr=0.01", "-o", "run")
    rows = json.loads(cli("eval", "run", "--device", "cpu", "--json").stdout)["rows"]
    assert len(rows) == 9
    assert next(iter(rows)) == "lambda=0.002"
    assert list(rows)[-1] == "lambda=0.02"
    weak, strong = (made(cli, "run", picture, "--set", f"lambda={value}") for value in (0.002, 0.02))
    assert np.abs(weak - strong).max() >= 1
    told = cli("apply", "run", picture, "-o", "x.png", "--set", "lambda=0.5", code=2).stderr
    assert "the network was trained from 0.002 to 0.02; --set force=true takes it as it is" in told
    made(cli, "run", picture, "--set", "lambda=0.5", "--set", "force=true")
    options = json.loads(cli("apply", "run", "--options", "--json").stdout)
    assert (options["lambda"]["minimum"], options["lambda"]["maximum"]) == (0.002, 0.02)


def test_exported_with_a_second_input(cli: Cli, place: Path) -> None:
    onnx = pytest.importorskip("onnx")
    cli("train", "fip_all_photos", *SMALL, "-o", "run")
    cli("export", "run", "-o", "net.onnx")
    inputs = [node.name for node in onnx.load("net.onnx").graph.input]
    assert inputs == ["input", "condition"]


def test_the_authors_networks_of_ten_and_with_a_dial(cli: Cli, place: Path, picture: str) -> None:
    ten, dial = _noisy(can32(in_channels=13)), _noisy(can24(in_channels=4))
    for name, net in (("ten", ten), ("dial", dial)):
        arrays: dict[str, Any] = dict(_as_released(net))
        np.savez(f"{name}.npz", **arrays)
    assert (
        "--operator: this network does ten operators"
        in cli("import", "ten.npz", "-o", "x.safetensors", "--operator", "l0", code=2).stderr
    )
    for name in ("ten", "dial"):
        cli("import", f"{name}.npz", "-o", f"{name}.safetensors")
    assert compressnet.load("ten.safetensors").assets == {"operators": list(OPERATORS)}
    rof, rtv = (made(cli, "ten.safetensors", picture, "--set", f"operator={name}") for name in ("rof", "rtv"))
    assert np.abs(rof - rtv).max() >= 1
    weak, strong = (
        made(cli, "dial.safetensors", picture, "--set", f"lambda={value}") for value in (0.001, 0.01)
    )
    assert np.abs(weak - strong).max() >= 1
