"""`compressnet compress` as it is typed, and what it makes in every command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet import weights
from compressnet.kernels import can_layer
from compressnet.weights import Architecture
from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("one_torchlib", "hardly_timed")

RECIPE = """
version: 1
task: {name: sequence_classification}
model: {name: sequence_classifier, hidden_size: 40, embedding_size: 12}
data: {name: sentence_sample}
train: {epochs: 1, batch: 16, lr: 2e-3}
"""
SVD = ("--method", "svd:rank=1", "--only", "output", "--calibration", "32", "--device", "cpu")


@pytest.fixture
def run(cli: Cli, place: Path) -> Path:
    (place / "r.yaml").write_text(RECIPE)
    cli("train", "r.yaml", "-o", "run", "--device", "cpu")
    return place / "run"


@pytest.fixture
def net(place: Path) -> Path:
    """net.safetensors: a CAN24 with random weights."""
    torch.manual_seed(0)
    described = Architecture(
        "image_operator", {"operator": "rof"}, "can24", {"norm": "bn"}, assets={"operator": "rof"}
    )
    weights.save(place / "net.safetensors", compressnet.create("can24", norm="bn"), described)
    return place / "net.safetensors"


def test_a_run_becomes_a_run_that_every_command_opens(cli: Cli, run: Path) -> None:

    parent = json.loads((run / "run.json").read_text())["digest"]
    done = json.loads(cli("compress", "run", *SVD, "--json").stdout)
    made = done["output"]
    assert made == "runs/r-svd-1"
    (row,) = done["layers"]
    assert row["path"] == "output"
    assert row["after"]["macs"] < row["before"]["macs"]
    assert 0 <= row["error"] <= 1
    assert set(done["validation"]) == {"parent", "converted"}
    assert done["parent"] == parent == json.loads((run / "run.json").read_text())["digest"]
    assert done["calibration"]["samples"] == len(done["calibration"]["ids"]) == 32
    facts = json.loads((Path(made) / "run.json").read_text())
    assert facts["parent"] == {"run": "run", "digest": parent}
    assert facts["digest"] == done["digest"]
    assert (Path(made) / "compress.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads(cli("eval", made, "--split", "val", "--device", "cpu", "--json").stdout)
    assert figures["metrics"]["accuracy"] == pytest.approx(done["validation"]["converted"])
    stored = sum(p.numel() for p in compressnet.load(made).model.parameters())
    assert stored == done["after"]["parameters"] < done["before"]["parameters"]
    assert "r-svd-1" in cli("runs", "ls").stdout


def test_a_file_becomes_a_file(cli: Cli, net: Path) -> None:
    words = ("--method", "tucker:ratio=0.5", "--data-free", "--batch", "1", "--input-size", "16")
    shown = cli("compress", "net.safetensors", *words, "-o", "less.safetensors").stdout
    assert "blocks.3.conv" in shown
    # chains run as the convolutions that they are, where the kernel serves; in strips they cannot
    in_c = can_layer.available() and can_layer.level() >= 3
    ways = "before winograd, after winograd" if in_c else "before strips, after eager"
    assert f"the network as apply runs it ({ways})" in shown.replace("\n", " ")
    loaded = compressnet.load("less.safetensors")
    assert sum(p.numel() for p in loaded.model.parameters()) < 0.6 * 37_219
    assert json.loads(Path("less.compress.json").read_text())["methods"] == ["tucker:ratio=0.5"]
    assert "exists" in cli("compress", "net.safetensors", *words, "-o", "less.safetensors", code=1).stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["net.safetensors"], 2, "name a method"),
        (["net.safetensors", "--method", "tuker"], 2, "did you mean 'tucker'"),
        (["net.safetensors", "--method", "tucker:ratio=1.5"], 2, "less than 1"),
        (["net.safetensors", "--method", "tucker:rank=0"], 2, "greater than 0"),
        (["net.safetensors", "--method", "tucker:ratio=0.5,rank=4"], 2, "keep one"),
        (["net.safetensors", "--method", "tucker"], 2, "--data-free"),
        (["net.safetensors", "--method", "tucker", "--data-free"], 2, "-o NAME.safetensors"),
        (["net.safetensors", "--method", "tucker", "--data-free", "--only", "x*"], 2, "no layer has such"),
        (["operator:rof", "--method", "svd", "--data-free"], 1, "classical operator"),
        (["can24", "--method", "svd", "--data-free"], 2, "weights are random"),
        (["net.safetensors", "--method", "tucker:rank=400", "--data-free", "--dry-run"], 2, "above its full"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, net: Path, words: list[str], code: int, message: str) -> None:
    done = cli("compress", *words, code=code)
    assert message in done.stderr
    assert done.stdout == ""


LANGUAGE = """
version: 1
task: {name: language_modelling}
model: {name: language_model, cell: "CELL", hidden_size: 24, num_layers: 2}
data: {name: text_sample, unroll: 8}
train: {steps: 3, batch: 4, lr: 4e-3}
"""


@pytest.mark.parametrize("cell", ["lstm:peepholes=false", "torch_lstm"])
def test_a_language_model_is_projected_and_its_words_factored(cli: Cli, place: Path, cell: str) -> None:
    (place / "lm.yaml").write_text(LANGUAGE.replace("CELL", cell))
    cli("train", "lm.yaml", "-o", "lm", "--device", "cpu", "--set", "train.previews=0")
    words = ("--method", "lstmp", "--method", "softmax:rank=8", "--calibration", "64", "--seq-len", "4")
    done = json.loads(cli("compress", "lm", *words, "-o", "less", "--device", "cpu", "--json").stdout)
    rows = {row["path"]: row for row in done["layers"]}
    cells = [path for path, row in rows.items() if row["kind"] in ("LSTM", "TorchLSTM")]
    assert len(cells) == 2
    for path in cells:
        assert 0 < rows[path]["after"]["macs"] <= rows[path]["before"]["macs"]
        assert rows[path]["timing"] is not None  # the second is given less than before
    errors = [row["error"] for row in done["layers"] if row["methods"][0]["method"] == "lstmp"]
    assert 0 < max(error for error in errors if error is not None) < 1
    assert done["after"]["parameters"] < done["before"]["parameters"]
    assert done["validation"]["converted"] > 0
    assert "perplexity" in cli("eval", "less", "--device", "cpu").stdout
    again = cli("compress", "less", "--method", "densify", "-o", "dense", "--device", "cpu").stdout
    assert "dense: " in again


def test_a_record_has_the_test_data_once(cli: Cli, run: Path) -> None:
    cli("compress", "run", *SVD, "--record", "less", "--results", "records")
    record = json.loads(Path("records/less.json").read_text())
    assert set(record["test"]) == {"parent", "compressed"}
    shown = cli("results", "records").stdout
    assert "Compression" in shown
    assert f"{record['test']['parent']:.4f} > {record['test']['compressed']:.4f}" in shown


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (
            "timing",
            {"timings": [{"name": "before", "median": 1.0, "ratio": {"value": 1, "low": 1, "high": 1}}]},
        ),
        ("timing", {"timings": 3}),
        ("test", {"parent": 1.0}),
        ("calibration", {}),
        ("calibration", {"data_free": False}),
        ("before", None),
        ("validation", {"parent": "high"}),
    ],
)
def test_a_damaged_record_is_one_line(cli: Cli, place: Path, key: str, value: object) -> None:
    figures = {"parameters": 1, "bytes": 4, "macs": 1}
    record = {
        "name": "less", "kind": "compression", "subject": "run", "methods": ["svd"], "metric": "accuracy",
        "validation": {"parent": 0.5}, "test": None, "before": figures, "after": figures, "layers": [],
        "timing": None, "calibration": {"data_free": True}, "command": "compressnet", "device": "cpu",
        "threads": 1, "date": "2026-01-01", "versions": {"torch": "2", "compressnet": "0"}, "commit": None,
    }  # fmt: skip
    (place / "records").mkdir()
    data = {"data_free": False, "samples": 8, "data": {"name": "cifar10", "copy": "JPEG copy"}}
    (place / "records" / "less.json").write_text(json.dumps(record | {"calibration": data}))
    assert "accuracy: parent 0.5000 (JPEG copy)" in cli("results", "records").stdout
    (place / "records" / "less.json").write_text(json.dumps(record | {key: value}))
    error = cli("results", "records", code=1).error
    assert error.startswith("records/less.json: ")
    assert key in error


@pytest.mark.parametrize(
    "modules",
    [
        {"nope": {"layer": "linear", "args": {"in_features": 1, "out_features": 1}}},
        {"blocks.0.conv": {"layer": "linear", "args": {"in_features": 0, "out_features": 1}}},
    ],
)
@pytest.mark.parametrize(
    "words", [("count-params",), ("eval",), ("compress", "--method", "fold", "--data-free")]
)
def test_a_description_that_cannot_be_built_names_its_file(
    cli: Cli, net: Path, words: tuple[str, ...], modules: dict[str, Any]
) -> None:
    described = weights.read_architecture(net)
    weights.save(
        Path("bad.safetensors"),
        compressnet.create("can24", norm="bn"),
        replace(described, edits=[{"modules": modules}]),
    )
    command, *others = words
    assert cli(command, "./bad.safetensors", *others, code=1).error.startswith("bad.safetensors: ")


def test_layers_that_do_not_fit_together_are_one_line(cli: Cli, place: Path, run: Path) -> None:
    """A description may be true of its tensors and be no network."""
    done = json.loads(cli("compress", "run", *SVD, "-o", "less", "--json").stdout)
    described = weights.read_architecture(Path("less/checkpoints/step-0/model.safetensors"))
    size = {"in_features": 3, "out_features": 2, "bias": True}
    strange = replace(described, edits=[{"modules": {"output": {"layer": "linear", "args": size}}}])
    weights.save(Path("odd.safetensors"), weights.build(strange), strange)
    assert done["edits"] == described.edits
    words = ("odd.safetensors", "--data", "sentence_sample", "--device", "cpu")
    assert cli("eval", *words, code=1).error.startswith("odd.safetensors: cannot be run: ")
    (place / "in.txt").write_text("so it goes\n")
    assert "odd.safetensors: cannot be run: " in cli("apply", "odd.safetensors", "in.txt", code=1).stderr
