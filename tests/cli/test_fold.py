"""`compressnet fold` as it is typed, and its files in every command."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

import compressnet
from compressnet import weights
from compressnet.analysis import fold as folding
from compressnet.weights import Architecture
from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("one_torchlib")

ARCHITECTURE = Architecture(
    "image_operator", {"operator": "rof"}, "can24", {"norm": "bn"}, assets={"operator": "rof"}
)
SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 4, bent: bool = False):
        super().__init__()
        self.layer, self.norm, self.bent = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), bent
        self.norm.running_mean.fill_(0.5)

    def foldable(self):
        return [["layer", "norm"]]

    def forward(self, x):
        return self.norm(self.layer(x).relu() if self.bent else self.layer(x))
"""


@pytest.fixture
def net(place: Path) -> Path:
    """net.safetensors: a CAN24 with batch normalisation whose statistics are not those of the start."""
    torch.manual_seed(0)
    network = compressnet.create("can24", norm="bn", kernels="mixed", last_layer="identity")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.1 * torch.rand(24)
            module.running_var = 0.5 + torch.rand(24)
    weights.save(place / "net.safetensors", network, ARCHITECTURE)
    return place / "net.safetensors"


def test_a_folded_file_and_every_command_that_opens_it(cli: Cli, net: Path, photo: Path) -> None:
    done = cli("fold", "net.safetensors", "-o", "folded.safetensors")
    assert "net.safetensors, 1x3x64x64" in done.stdout
    assert "modules folded away: 8 (blocks.0.norm into blocks.0.conv, ...)" in done.stdout
    assert done.stdout.splitlines()[-1] == "folded.safetensors: 37,203 parameters"
    architecture, network = weights.open_model(Path("folded.safetensors"))
    assert architecture == replace(ARCHITECTURE, edits=architecture.edits)
    assert len(architecture.edits) == 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    again = cli("fold", "folded.safetensors", "-o", "twice.safetensors", code=1)
    assert again.error.startswith("folded.safetensors: nothing to fold: no batch normalisation, ")
    assert not Path("twice.safetensors").exists()

    for name in ("net", "folded"):
        cli("apply", f"{name}.safetensors", "photo.png", "-o", f"{name}.png")
    pixels = [np.asarray(Pillow.open(f"{name}.png")).astype(int) for name in ("net", "folded")]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    Path("set").mkdir()
    photo.rename("set/photo.png")
    data = ("--data", "photo_folder:root=set,test_root=set", "--json")
    psnr = [
        json.loads(cli("eval", f"{name}.safetensors", *data).stdout)["metrics"]["psnr"]
        for name in ("net", "folded")
    ]
    assert psnr[0] == pytest.approx(psnr[1], abs=1e-3)
    (counted,) = json.loads(cli("count-params", "folded.safetensors", "--json").stdout)["sides"]
    assert counted["params"] == 37_203
    assert counted["problems"] == []
    cli("export", "folded.safetensors", "-o", "folded.onnx")
    quick = "--input-size 16 --rounds 2 --threads 1 --processes 1 --no-memory --json"
    sides = "net.safetensors vs folded.safetensors --backend eager,strips"
    rows = json.loads(cli("bench", *sides.split(), *quick.split()).stdout)["rows"]
    assert [(row["side"], row["backend"]) for row in rows] == [
        (f"{name}.safetensors", backend) for name in ("net", "folded") for backend in ("eager", "strips")
    ]


@pytest.mark.parametrize(
    ("words", "backends"),
    [
        ("net.safetensors --input-size 16", ["eager", "folded", "strips"]),
        ("linear:in_features=2,out_features=3", ["eager", "onnxruntime"]),
    ],
)
def test_bench(cli: Cli, net: Path, words: str, backends: list[str]) -> None:
    quick = ("--rounds", 2, "--threads", 1, "--processes", 1, "--no-memory", "--json")
    done = cli("bench", *words.split(), "--backend", ",".join(backends), *quick)
    assert [row["backend"] for row in json.loads(done.stdout)["rows"]] == backends


def test_without_an_output_it_is_a_report(cli: Cli, net: Path) -> None:
    done = cli("fold", "net.safetensors", "--json")
    report = json.loads(done.stdout)
    assert report["output"] is None
    assert report["folded"] == [[f"blocks.{i}.conv", f"blocks.{i}.norm"] for i in range(8)]
    assert report["before"]["parameters"] == 37_395
    assert report["after"]["parameters"] == 37_203
    assert report["before"]["macs"] == report["after"]["macs"] == 64 * 64 * 37_008
    assert report["before"]["elementwise"] > report["after"]["elementwise"]
    assert 0 < report["difference"] == max(checked["difference"] for checked in report["checks"]) <= 1e-5
    assert len({str(checked["inputs"]) for checked in report["checks"]}) == 5
    assert os.listdir() == ["net.safetensors"]


def test_a_smoke_run_stays_one(cli: Cli) -> None:
    cli("train", "fip_sample", "--smoke", "--set", "train.steps=1", "--set", "model.norm=bn", "-o", "RUN")
    cli("fold", "./RUN", "-o", "folded.safetensors")
    whole, architecture = (
        compressnet.load("./RUN").architecture,
        weights.read_architecture(Path("folded.safetensors")),
    )
    assert whole is not None
    assert whole.smoke
    assert architecture == replace(whole, edits=architecture.edits)
    error = cli("bench", "folded.safetensors", "--record", "x", code=1).error
    assert error == "folded.safetensors is a smoke run: nothing of it is recorded"


def test_a_network_of_ones_own(cli: Cli, place: Path) -> None:
    Path("my.py").write_text(SOURCE)
    words = ("fold", "py:my.py:Net", "--input", "2x3x8x8")
    report = json.loads(cli(*words, "--set", "width=5", "--json").stdout)
    assert report["name"] == "py:my.py:Net:width=5"
    assert report["folded"] == [["layer", "norm"]]
    assert report["before"]["parameters"] - report["after"]["parameters"] == 10
    error = cli(*words, "-o", "x.safetensors", code=2).error
    assert "a weights file describes networks of this project only: in Python, compressnet.fold" in error
    error = cli(*words, "--set", "bent=true", code=1).error
    assert error.startswith("py:my.py:Net:bent=true: folded, its outputs would differ by ")
    assert "its outputs differ by" in cli(
        "bench", "py:my.py:Net:bent=true", "--input", "2x3x8x8", "--backend", "folded", "--rounds", 2,
        "--processes", 1, "--no-memory", code=2,
    ).error  # fmt: skip
    assert os.listdir() == ["my.py"]


def test_what_would_change_the_outputs_is_not_written(
    cli: Cli, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "TOLERANCE", 1e-12)
    error = cli("fold", "net.safetensors", "-o", "folded.safetensors", code=1).error
    assert error.startswith("net.safetensors: folded, its outputs would differ by ")
    assert error.endswith(" of the largest value; at most 1e-12 is allowed")
    assert os.listdir() == ["net.safetensors"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("zoo:rof -o x.safetensors", 1, "zoo:rof: nothing to fold: no batch normalisation, frozen adaptive"),
        ("can24:norm=bn -o x.safetensors", 2, 'can24:norm="bn": its weights are random: a file is made of'),
        ("fip_sample -o x.safetensors", 2, "fip_sample: its weights are random"),
        ("operator:rof", 1, "operator:rof: a classical operator is not a network: nothing to fold"),
        ("net.safetensors -o x.onnx", 2, "x.onnx: name the weights file to write NAME.safetensors"),
        ("net.safetensors -o net.safetensors", 1, "net.safetensors exists: add --force to overwrite it"),
        ("net.safetensors -o /dev/stdout --json", 2, "both are written to stdout; choose one"),
        ("net.safetensors -o absent/x.safetensors", 1, "cannot write absent/x.safetensors: "),
        ("net.safetensors --set norm=an", 2, "--set norm: no side takes it (net.safetensors)"),
        ("absent.safetensors", 1, "absent.safetensors: no such file"),
        ("identity", 1, "identity: nothing to fold: "),
    ],
)
def test_bad_inputs(cli: Cli, net: Path, words: str, code: int, message: str) -> None:
    before = net.read_bytes()
    done = cli("fold", *words.split(), code=code)
    assert message in done.error
    assert done.stdout == ""
    assert net.read_bytes() == before
    assert os.listdir() == ["net.safetensors"]


def test_onto_itself_with_force(cli: Cli, net: Path) -> None:
    cli("fold", "net.safetensors", "-o", "net.safetensors", "--force")
    assert len(weights.read_architecture(net).edits) == 1
