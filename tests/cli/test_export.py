"""`compressnet export` as it is typed, and its files in ONNX Runtime."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import compressnet
from compressnet import weights
from compressnet.export import DEFAULT_OPSET, OPSETS
from compressnet.subject import read_weights
from tests.cli.conftest import Cli
from tests.cli.test_listings import COMMANDS

pytestmark = pytest.mark.usefixtures("one_torchlib")

LINEAR = ("linear", "--set", "in_features=2", "--set", "out_features=3")


def run(path: str, *inputs: np.ndarray[Any, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def facts(path: str) -> dict[str, Any]:
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    described: dict[str, Any] = json.loads(entries["compressnet"])
    return described


def test_a_network_of_the_zoo(cli: Cli) -> None:
    done = cli("export", "zoo:rof", "-o", "rof.onnx")
    assert done.stdout.startswith("rof.onnx: zoo:rof, 37,219 parameters, opset 18, ")
    assert "input  float32 (batch, 3, height, width)" in done.stdout
    assert "RGB in [0, 1]" in done.stdout
    assert "differs from torch by " in done.stdout
    assert done.stderr == "exporting zoo:rof; ONNX Runtime checks the file, some seconds\n"
    network = compressnet.load("zoo:rof").model
    for shape in ((1, 3, 1, 1), (2, 3, 37, 53), (1, 3, 128, 31), (1, 3, 256, 256)):
        x = torch.rand(shape)
        with torch.no_grad():
            wanted = network(x).numpy()
        (ours,) = run("rof.onnx", x.numpy())
        assert np.abs(ours - wanted).max() <= 1e-5 * np.abs(wanted).max()
    architecture, tensors, _ = read_weights("zoo:rof")
    assert facts("rof.onnx")["weights"] == weights.digest(tensors, architecture)
    assert facts("rof.onnx")["model"] == "can24"


def test_a_run_and_its_json(cli: Cli, smoke_run: Path) -> None:
    shutil.copytree(smoke_run, "RUN")
    done = json.loads(cli("export", "./RUN", "-o", "run.onnx", "--opset", "20", "--json").stdout)
    assert done["opset"] == 20
    assert done["output"] == "run.onnx"
    assert done["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["batch", 3, "height", "width"]}]
    assert done["bytes"] == os.path.getsize("run.onnx")
    assert done["difference"] == max(check["difference"] for check in done["checks"]) <= done["tolerance"]
    assert len({str(check["inputs"]) for check in done["checks"]}) > 3
    assert facts("run.onnx")["weights"] == done["weights"] != "random"
    assert "RUN" not in json.dumps(facts("run.onnx"))


def test_a_stream_with_random_weights(cli: Cli) -> None:
    done = cli("export", "sru:input_size=3", "--set", "hidden_size=4", "--state", "-o", "sru.onnx")
    assert "state_0  float32 (1, batch, 4)" in done.stdout
    assert "note: sru:hidden_size=4,input_size=3: its weights are random" in done.stderr
    x, state = np.random.default_rng(0).random((9, 2, 3), np.float32), np.zeros((1, 2, 4), np.float32)
    whole, last = run("sru.onnx", x, state)
    pieces = []
    for piece in (x[:1], x[1:]):
        y, state = run("sru.onnx", piece, state)
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)
    np.testing.assert_allclose(state, last, atol=1e-6)


def test_nothing_is_overwritten_without_force(cli: Cli) -> None:
    Path("net.onnx").write_text("mine")
    assert "net.onnx exists: add --force" in cli("export", *LINEAR, "-o", "net.onnx", code=1).error
    assert Path("net.onnx").read_text() == "mine"
    cli("export", *LINEAR, "-o", "net.onnx", "--force")
    assert facts("net.onnx")["arguments"] == {"in_features": 2, "out_features": 3, "bias": True}
    assert sorted(os.listdir()) == ["net.onnx"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("zoo:rof", 2, "name the file to write: -o NAME.onnx"),
        ("zoo:rof -o rof.pb", 2, "rof.pb: name the file to write NAME.onnx"),
        ("zoo:rof -o absent/rof.onnx", 1, "absent/rof.onnx: absent is no folder"),
        ("zoo:rof -o file/rof.onnx", 1, "file/rof.onnx: file is no folder"),
        ("zoo:rof -o folder.onnx", 2, "folder.onnx: a folder"),
        ("can25 -o x.onnx", 2, "there is no 'can25' - did you mean 'can32'?"),
        ("absent.safetensors -o x.onnx", 1, "absent.safetensors: no such file"),
        ("zoo:rof -o x.onnx --opset 17", 2, "opset 17: torch writes 18 to 23"),
        ("zoo:rof -o x.onnx --opset 99", 2, "opset 99: torch writes 18 to 23"),
        ("zoo:rof -o x.onnx --set width=3", 2, "--set width: no side takes it"),
        ("can24 -o x.onnx --set norm=ln", 2, "can24: 'norm' should be"),
        ("operator:rof -o x.onnx", 2, "operator:rof: a classical operator is not a network"),
        ("layer:operator:operator=rof -o x.onnx", 2, "a classical operator is not a network"),
        ("identity -o x.onnx", 2, "Identity: nothing says what it takes"),
        ("can24 -o x.onnx --state", 2, "--state: CAN carries no state from step to step"),
        (
            "sru:input_size=3,hidden_size=4,bidirectional=true --state -o x.onnx",
            2,
            "SRU: bidirectional layers cannot stream",
        ),
    ],
)
def test_bad_inputs(cli: Cli, words: str, code: int, message: str) -> None:
    Path("file").write_text("")
    Path("folder.onnx").mkdir()
    done = cli("export", *words.split(), code=code)
    assert message in done.error
    assert done.stdout == ""
    assert sorted(os.listdir()) == ["file", "folder.onnx"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(cli: Cli) -> None:
    Path("locked").mkdir(mode=0o500)
    assert (
        "the folder locked cannot be written to"
        in cli("export", *LINEAR, "-o", "locked/x.onnx", code=1).error
    )


def test_without_the_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = cli("export", "zoo:rof", "-o", "x.onnx", code=1).error
    assert error == "export needs onnxruntime: pip install 'compressnet[export]' (the extra `export`)"


def test_help_states_the_opsets() -> None:
    option = next(parameter for parameter in COMMANDS["export"].params if "--opset" in parameter.opts)
    assert f"{OPSETS[0]} to {OPSETS[-1]}" in option.help
    assert option.default == DEFAULT_OPSET
