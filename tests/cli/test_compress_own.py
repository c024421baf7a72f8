"""`compressnet compress` of modules that users write, good ones and all others."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import compressnet
from compressnet.compression import apply
from compressnet.errors import CompressnetError, UsageError
from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("hardly_timed")

SOURCE = """
import threading

import torch
from torch import nn


class Pictures(nn.Module):
    def __init__(self, bad: str = ""):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 24, 3, 2, 1)
        self.fc = nn.LazyLinear(10) if bad == "lazy" else nn.Linear(24, 10)
        self.bad = bad
        if bad == "lock":
            self.lock = threading.Lock()

    def forward(self, x):
        if self.bad == "raises":
            raise ValueError("never on a Sunday")
        x = self.second(self.first(x).relu()).relu().mean((2, 3))
        return self.fc(input=x) if self.bad == "named" else self.fc(x)
"""
WORDS = ("--method", "svd", "--method", "channel_out", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def source(place: Path) -> None:
    (place / "my.py").write_text(SOURCE)


def test_pictures_of_a_data_set_calibrate_it(cli: Cli, place: Path) -> None:
    words = ("compress", "py:my.py:Pictures", *WORDS, "--input", "1x3x32x32", "--calibration", "64")
    done = json.loads(cli(*words, "--data", "glyphs:count=64", "--json").stdout)
    assert done["output"] is None
    assert (done["calibration"]["samples"], done["calibration"]["data_free"]) == (64, False)
    assert done["calibration"]["data"]["name"] == "glyphs"
    assert done["validation"] == {}
    assert {row["path"] for row in done["layers"]} >= {"second", "fc"}
    assert all(0 < row["error"] < 1 for row in done["layers"])
    pictures = json.loads(cli(*words, "--data", "sample:crop=32", "--dry-run", "--json").stdout)
    assert pictures["calibration"]["data"]["name"] == "sample"
    error = cli(*words, "--data", "text_sample", code=2).error
    assert error.startswith(
        "data set 'text_sample' gives text samples: a network of your own is run on pictures"
    )
    assert "add --data NAME:root=DIR of pictures, or --data-free" in cli(*words, code=2).error
    assert os.listdir() == ["my.py"]


@pytest.mark.parametrize(
    ("bad", "code", "message"),
    [
        ("raises", 1, "never on a Sunday"),
        ("lazy", 1, "lazy modules: run it once first"),
        ("lock", 1, 'my.py:Pictures:bad="lock": cannot be run: TypeError: cannot pickle'),
    ],
)
def test_what_a_module_does_wrong_is_one_line_that_names_it(
    cli: Cli, bad: str, code: int, message: str
) -> None:
    words = ("compress", f"py:my.py:Pictures:bad={bad}", *WORDS, "--input", "1x3x32x32", "--data-free")
    assert message in cli(*words, code=code).error


def test_a_layer_that_is_given_its_input_by_name_stays(cli: Cli) -> None:
    words = ("compress", "py:my.py:Pictures:bad=named", *WORDS[2:], "--input", "1x3x32x32", "--data-free")
    done = json.loads(cli(*words, "--dry-run", "--json").stdout)
    assert [row["path"] for row in done["kept"] if "not called with its input alone" in row["reason"]] == [
        "fc"
    ]
    assert "fc" not in {row["path"] for row in done["layers"]}


def test_a_tensor_is_one_call_and_the_module_stays_as_it_was(place: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.Flatten(), nn.LazyLinear(5))
    x = torch.randn(8, 3, 8, 8)
    net(x)
    net.train()
    small, report = compressnet.compress(net, x, ["tucker"])
    assert report.inputs == ((8, 3, 8, 8),)
    assert net.training
    assert "0 | rank" in str(report)
    again = apply(copy.deepcopy(net), report.edits)
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again.eval()(x), small(x), rtol=0, atol=0)
    _, report = compressnet.compress(small, x, ["densify"], timed=False)
    assert {row.path for row in report.rows} == {"0", "2"}
    assert report.rows[0].before.parameters < report.rows[0].after.parameters


def test_an_encoder_of_torch_keeps_what_its_fused_form_reads() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 1)
    net = nn.Sequential(encoder, nn.Linear(32, 32))
    x = torch.randn(4, 6, 32)
    small, report = compressnet.compress(net, [x], ["svd"], timed=False)
    assert [row.path for row in report.rows] == ["1"]
    assert any("fused encoder layer" in one.reason for one in report.kept)
    small(x)
    for layer in encoder.layers:
        layer.activation_relu_or_gelu = 0
    small, report = compressnet.compress(net, [x], ["svd"], timed=False)
    assert len(report.rows) == 3
    small(x)


def test_a_folded_layer_has_an_error_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3))
    _, report = compressnet.compress(net, [torch.randn(8, 3, 12, 12)], ["fold", "channel_out"], timed=False)
    errors = {row.path: row.error or 0.0 for row in report.rows}
    assert 0 < errors["0"] < 1
    assert 0 < errors["3"] < 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no calibration data: give inputs, or None"),
        ([torch.randn(0, 32)], "no calibration data: give inputs, or None"),
        (5, "its inputs are a list, of each call a tensor or a tuple, not an int"),
        ({"x": 1}, "its inputs are a list, of each call a tensor or a tuple, not a dict"),
    ],
)
def test_calibration_that_is_none(inputs: object, message: str) -> None:
    net = nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 32))
    with pytest.raises(UsageError, match=message):
        compressnet.compress(net, inputs, ["svd"], timed=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-30])
def test_als_on_inputs_that_do_not_vary(scale: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 32))
    made, _ = compressnet.compress(net, [scale * torch.ones(50, 32)], ["als:rank=2"], timed=False)
    x = scale * torch.ones(1, 32)
    torch.testing.assert_close(made(x), net(x), rtol=1e-3, atol=1e-4)


def test_als_on_samples_one_by_one(place: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 32)
    net = nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 32))
    whole, _ = compressnet.compress(net, [x], ["als:rank=8"], timed=False)
    single, _ = compressnet.compress(net, (row for row in x), ["als:rank=8"], timed=False)
    torch.testing.assert_close(single(x), whole(x), rtol=1e-2, atol=1e-2)


def test_what_torch_does_not_copy_and_a_layer_alone() -> None:
    net = nn.Sequential(nn.utils.weight_norm(nn.Linear(32, 40)))
    with pytest.raises(CompressnetError, match=r"0\.weight: computed of other weights, which torch does not"):
        compressnet.compress(net, [torch.randn(50, 32)], ["svd"], timed=False)
    with pytest.raises(UsageError, match=r"put it into a torch\.nn\.Sequential"):
        compressnet.compress(nn.Linear(32, 40), [torch.randn(50, 32)], ["svd"], timed=False)
