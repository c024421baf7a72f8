"""`count-params` as people call it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet import registry
from tests.cli.conftest import Cli

LSTM = "W = [n_c·n_c·4] + n_i·n_c·4 + {n_c·n_o} + n_c·3"
LSTMP = "W = [n_c·n_r·4] + n_i·n_c·4 + {n_r·n_o} + {n_c·n_r} + n_c·3"


def counted(cli: Cli, *words: object) -> dict[str, Any]:
    value = json.loads(cli("count-params", *words, "--json").stdout)
    assert isinstance(value, dict)
    return value


def test_the_papers_formulas(cli: Cli) -> None:
    shown = cli("count-params", "lstm", "vs", "lstmp").stdout
    assert f"lstm   {LSTM}\n" in shown
    assert f"lstmp   {LSTMP}\n" in shown
    for cell in ("16,777,216", "36.2%", "2048·512·4", "46,288,896", "12,871,168", "46,313,383", "12,895,655"):
        assert cell in shown
    assert "lstmp has 3.60x fewer parameters than lstm" in shown


def test_marks_and_colours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = cli("count-params", "lstm", "vs", "lstmp").stdout
    blue, red = r"\x1b\[1;34m\[n_c·n_r·4\]", r"\x1b\[1;31m\{n_r·n_o\}"
    assert re.search(blue, coloured)
    assert re.search(red, coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = cli("count-params", "lstm", "vs", "lstmp").stdout
    assert not re.search(r"\x1b\[[0-9;]*3\dm", plain)
    assert "[n_c·n_r·4]" in plain
    assert "{n_r·n_o}" in plain


def test_json_has_both_sides_and_their_ratio(cli: Cli) -> None:
    report = counted(cli, "lstm", "vs", "lstmp")
    lstm, lstmp = report["sides"]
    assert lstm["name"] == "lstm"
    assert lstmp["args"]["proj_size"] == 512
    assert lstm["terms"][0] == {
        "name": "recurrent",
        "formula": "n_c·n_c·4",
        "substituted": "2048·2048·4",
        "value": 16777216,
    }
    assert lstm["params_without_biases"] == lstm["macs"] == 46288896
    assert lstm["params"] == 46288896 + 4 * 2048 + 14247 == sum(term["value"] for term in lstm["terms"])
    assert lstm["params_torch"] == 4 * 2048 * (40 + 2048) + 8 * 2048 + 2048 * 14247 + 14247
    assert lstmp["flops"] == 2 * lstmp["macs"]
    assert lstmp["bytes"] == 4 * lstmp["params"]
    assert report["ratios"]["params_without_biases"] == pytest.approx(46288896 / 12871168)


def test_each_side_has_its_own_sizes(cli: Cli) -> None:
    words = "lstm:hidden_size=750,num_layers=1", "vs", "lstmp:hidden_size=2048,proj_size=512"
    first, second = counted(cli, *words)["sides"]
    assert first["params_without_biases"] == 13057500
    assert second["params_without_biases"] == 12871168
    assert "lstmp has 1.01x fewer parameters" in cli("count-params", *words).stdout


def test_a_non_recurrent_projection_has_no_module_of_torch(cli: Cli) -> None:
    side = counted(cli, "lstmp", "--set", "nonrecurrent_proj_size=256", "--set", "proj_size=256")["sides"][0]
    assert side["params_torch"] is None
    assert {"n_c·n_p", "n_p·n_o"} <= {term["formula"] for term in side["terms"]}


def test_more_and_as_many(cli: Cli) -> None:
    flags = "--set", "output_size=0", "--set", "input_size=1"
    more = cli("count-params", "lstm:hidden_size=10", "lstm:hidden_size=20", *flags).stdout
    first, second = 4 * (100 + 10) + 30, 4 * (400 + 20) + 60
    assert (
        f"lstm (2) has {second / first:.2f}x more parameters than lstm (1): {second:,} against {first}"
        in more
    )
    assert "lstm (2) has about as many parameters as lstm (1)" in cli("count-params", "lstm", "lstm").stdout


def test_three_sides(cli: Cli) -> None:
    report = counted(cli, "lstm", "lstmp", "sru")
    first, second, third = report["sides"]
    assert "ratios" not in first
    assert second["ratios"] == report["ratios"]
    assert third["ratios"]["params"] == pytest.approx(first["params"] / third["params"])


def test_a_recipe_without_its_data_says_what_it_assumed(cli: Cli) -> None:
    done = cli("count-params", "fip_fivek")
    assert "note: fip_fivek: its data is not there; the model has the defaults in_channels=3" in done.stderr
    assert counted(cli, "fip_fivek")["sides"][0]["assumed"] == {"in_channels": 3, "out_channels": 3}
    assert counted(cli, "fip_sample")["sides"][0]["assumed"] == {}


def test_a_narrow_terminal_goes_without_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli("count-params", "can24").stdout
    assert "left out on a terminal of 80 columns: FLOPs, bytes" in shown
    assert "blocks.7.norm" in shown
    monkeypatch.setenv("COLUMNS", "160")
    assert "left out" not in cli("count-params", "can24").stdout


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_output_without_utf8(flags: list[str]) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "compressnet_cli", "count-params", "lstm", *flags]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    if flags:
        assert json.loads(done.stdout)["sides"][0]["terms"][0]["formula"] == "n_c·n_c·4"


def test_markdown(cli: Cli) -> None:
    lines = cli("count-params", "lstm", "vs", "lstmp", "--markdown").stdout.splitlines()
    assert "| recurrent | [n_c·n_c·4] | 2048·2048·4 | 16,777,216 | 36.2% |" in lines
    assert not any(line.startswith(("┏", "│")) for line in lines)


def test_formulas_import_no_torch() -> None:
    script = (
        "import sys; from compressnet_cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(code or int('torch' in sys.modules or 'numpy' in sys.modules))"
    )
    words = ["count-params", "lstm:hidden_size=750", "vs", "lstmp", "--set", "num_layers=2"]
    for flags in ([], ["--json"], ["--markdown"]):
        done = subprocess.run([sys.executable, "-c", script, *words, *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_network_by_formula_and_by_trace(cli: Cli) -> None:
    (side,) = counted(cli, "can24", "--input-size", "1920x1080")["sides"]
    assert side["params"] == 37219
    assert side["macs"] == 37008 * 10**6  # a megapixel
    assert side["rate"] == "a megapixel"
    assert side["macs_pass"] == 37008 * 1920 * 1080
    assert side["flops_pass"] == 2 * side["macs_pass"]
    assert side["inputs"] == [[1, 3, 1080, 1920]]
    assert side["bytes"] == 4 * 37219
    assert {
        "name": "last weights",
        "formula": "c_i·c_o·k_h·k_w",
        "substituted": "24·3·1·1",
        "value": 72,
    } in side["terms"]
    conv = next(layer for layer in side["layers"] if layer["path"] == "blocks.3.conv")
    assert conv["macs_formula"] == conv["macs_trace"] == 24 * 24 * 9 * 1920 * 1080
    assert side["problems"] == []


def test_the_table_of_layers(cli: Cli) -> None:
    shown = cli("count-params", "can24").stdout
    for cell in ("blocks.7.norm", "AdaptiveNorm", "37,219", "37.01 G", "a megapixel", "1 MAC = 2 FLOPs"):
        assert cell in shown
    folded = cli("count-params", "can24", "--depth", "1").stdout
    assert "blocks.0" not in folded
    assert "37,144" in folded
    assert "| total |  | 37,219 |" in cli("count-params", "can24", "--markdown").stdout


def test_recipes_runs_and_weights_are_counted_alike(cli: Cli, smoke_run: Path) -> None:
    weights = smoke_run / "checkpoints" / "step-8" / "model.safetensors"
    report = counted(cli, "fip_fivek", smoke_run, weights, "zoo:rof", "--set", "model.in_channels=13")
    recipe, *stored = report["sides"]
    assert recipe["params"] == 37219 + 10 * 24 * 9
    assert [side["params"] for side in stored] == [37219] * 3
    assert stored[2]["args"]["kernels"] == "mixed"


def test_sides_of_different_kinds_share_no_rate(cli: Cli) -> None:
    report = counted(cli, "lstm", "vs", "can24")
    assert "macs" not in report["ratios"]
    assert "params" in report["ratios"]


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model `odd` with a matrix product that has no formula."""
    monkeypatch.setitem(sys.modules, "odd_models", sys.modules[__name__])
    monkeypatch.setitem(registry.MODELS, "odd", "odd_models:Odd")


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4))

    def example(self, batch: int = 1, size: int = 1) -> tuple[Tensor]:
        return (torch.zeros(batch, 3),)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_what_has_no_formula_is_reported(cli: Cli, odd: None) -> None:
    done = cli("count-params", "odd")
    assert "warning: odd: Odd: 12 MACs in aten.mm have no formula" in done.stderr
    assert "no formula" in done.stdout
    strict = cli("count-params", "odd", "--strict", code=1)
    assert strict.error == "odd: Odd: 12 MACs in aten.mm have no formula"
    assert json.loads(cli("count-params", "odd", "--strict", "--json", code=1).stdout)["sides"][0]["problems"]
    cli("count-params", "can24", "--strict")


@pytest.mark.parametrize(
    "subject",
    [
        "segmenter:encoder=resnet18,decoder=dilation",
        "shuffleseg:width=0.05,groups=1",
        "kws_svdf:hop_ms=40",
        "bytenet:kernel_size=1",
        "resnet20:widths=[3]",
        "shuffle_unit:in_channels=7,out_channels=9",
    ],
)
def test_a_message_names_what_it_is_of_once(cli: Cli, subject: str) -> None:
    name = subject.partition(":")[0]
    error = cli("count-params", subject, code=2).error
    assert error.startswith(f"{name}: ")
    rest = error.removeprefix(f"{name}: ").lower()
    assert not rest.startswith(("segmenter:", "bytenet:", "resnet:", f"{name}:")), error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lstmm"], "there is no 'lstmm' - did you mean 'lstm'?"),
        (["lstm:hidden_size=0"], "lstm: 'hidden_size' should be greater than 0 (got 0)"),
        (["lstm:hidden_size=-4"], "lstm: 'hidden_size' should be greater than 0 (got -4)"),
        (["lstm:hidden_size=big"], "lstm: 'hidden_size' should be a valid integer (got 'big')"),
        (["lstmp:proj_size=2048"], "lstmp: 'proj_size' 2048 must be smaller than 'hidden_size' 2048"),
        (["lstm", "--set", "proj_size=3"], "--set proj_size: no side takes it (lstm)"),
        (["lstm", "vs"], "'vs' stands between two sides"),
        (["lstm", "--input-size", "35"], "--input-size: it is for networks"),
        (["lstm", "--json", "--markdown"], "--json and --markdown: choose one"),
        (["operator:rof"], "operator:rof is no network: it has nothing to count"),
        (["lstm", "--depth", "2"], "--depth: it is for networks"),
        (["lstm", "--formulas"], "--formulas: it is for networks"),
        (["can24", "--input-size", "0"], "--input-size 0: sizes are between 1 and 1,000,000"),
        (["can24", "--input-size", "9" * 20], "sizes are between 1 and 1,000,000"),
        (
            ["conv2d:in_channels=-3,out_channels=1,kernel_size=3"],
            "conv2d: 'in_channels' should be greater than 0",
        ),
        (["linear:in_features=0,out_features=1"], "linear: 'in_features' should be greater than 0 (got 0)"),
        (
            ["conv2d:in_channels=3,out_channels=4,kernel_size=3,groups=2"],
            "conv2d: in_channels must be divisible",
        ),
        (["torch_lstm:input_size=3,hidden_size=4", "--input-size", "8x8"], "TorchLSTM: takes sequences"),
        (
            ["operator:rof", "--set", "weigth=1"],
            "--set weigth: no side takes it (rof); did you mean 'weight'?",
        ),
        (["can24", "--input-size", "axb"], "--input-size axb: write it as 1920x1080 or 256"),
        (["can24:variant=new"], "can24: 'variant'"),
    ],
)
def test_bad_inputs(cli: Cli, words: list[str], message: str) -> None:
    assert message in cli("count-params", *words, code=2).error
