"""Sides of a comparison: what words and settings mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pytest
import torch

from compressnet import registry
from compressnet.errors import UsageError
from compressnet.side import read_sides
from compressnet.signature import DERIVED

RECIPE = """version: 1
task: {name: image_translation}
model: {name: can24}
data: {name: paired_folder, root: nowhere}
train: {steps: 1}
"""


TEXTS = """version: 1
task: {name: language_modelling}
model: {name: language_model}
data: {name: ptb, root: nowhere}
train: {steps: 1}
"""


@pytest.mark.parametrize("words", [["lstm", "vs", "lstmp"], ["lstm", "lstmp"]])
def test_vs_is_optional(words: list[str]) -> None:
    assert [side.subject.name for side in read_sides(words, {})] == ["lstm", "lstmp"]


@pytest.mark.parametrize("words", [["vs"], ["lstm", "vs"], ["vs", "lstm"], ["lstm", "vs", "vs", "lstmp"]])
def test_vs_stands_between_two_sides(words: list[str]) -> None:
    with pytest.raises(UsageError, match="'vs' stands between two sides"):
        read_sides(words, {})


def test_a_setting_goes_to_every_side_that_takes_it() -> None:
    lstm, lstmp = read_sides(["lstm", "lstmp:num_layers=2"], {"hidden_size": 20, "proj_size": 3})
    assert lstm.settings == {"hidden_size": 20}
    assert lstmp.settings == {"hidden_size": 20, "proj_size": 3}
    assert lstmp.arguments() == {
        "input_size": 40,
        "hidden_size": 20,
        "proj_size": 3,
        "nonrecurrent_proj_size": 0,
        "output_size": 14247,
        "num_layers": 2,
        "peepholes": True,
    }
    assert lstmp.text == "lstmp:hidden_size=20,num_layers=2,proj_size=3"


def test_a_setting_wins_over_an_argument() -> None:
    (side,) = read_sides(["lstm:hidden_size=3"], {"hidden_size": 4})
    assert side.arguments()["hidden_size"] == 4
    assert side.terms()[0].value == 4 * 4 * 4


@pytest.mark.parametrize(
    ("words", "key", "hint"),
    [
        (["lstm"], "proj_size", "they take: biases, hidden_size, input_size"),
        (["lstm"], "hiden_size", "did you mean 'hidden_size'?"),
        (["fip_fivek"], "variant", "did you mean 'model.variant'?"),
        (["zoo:rof"], "model.variant", "runs and weights are as they were built"),
    ],
)
def test_a_setting_that_no_side_takes(words: list[str], key: str, hint: str) -> None:
    with pytest.raises(UsageError, match="no side takes it") as caught:
        read_sides(words, {key: 1})
    assert hint in str(caught.value)


def test_sizes_of_a_recipe_by_hand_and_by_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RECIPE)
    (given,) = read_sides(["mine.yaml"], {"model.in_channels": 13})
    assert given.arguments()["in_channels"] == 13
    (by_data,) = read_sides(["fip_sample"], {})
    assert by_data.arguments()["in_channels"] == 3


def test_a_recipe_whose_sizes_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "toy_models", sys.modules[__name__])
    monkeypatch.setitem(registry.MODELS, "toy", "toy_models:needs_a_vocabulary")
    Path("mine.yaml").write_text(TEXTS.replace("language_model}", "toy}"))
    (side,) = read_sides(["mine.yaml"], {})
    with pytest.raises(UsageError, match=r"follow from the data .*--set model.vocab_size=N"):
        side.module("meta")
    (side,) = read_sides(["mine.yaml"], {"model.vocab_size": 7})
    assert side.module("meta").get_parameter("weight").shape == (7, 4)


def test_a_recipe_that_is_no_model_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPRESSNET_DATA", raising=False)
    (side,) = read_sides(["lm_sundermeyer"], {})
    with pytest.raises(UsageError, match="class_sizes of its model follow from data that is not there"):
        side.module("meta")


def test_modules_on_meta_take_no_memory() -> None:
    (side,) = read_sides(["can24"], {})
    assert {p.device.type for p in side.module("meta").parameters()} == {"meta"}


def test_weights_are_read_when_asked_for() -> None:
    (side,) = read_sides(["zoo:rof"], {})
    fresh, trained = side.module("cpu"), side.module("cpu", with_weights=True)
    assert side.module("meta").get_parameter("last.bias").device.type == "meta"
    assert not torch.equal(fresh.get_parameter("last.weight"), trained.get_parameter("last.weight"))


def test_a_layer_without_a_module_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry.LAYERS, "lstm_1997")
    (side,) = read_sides(["lstm_1997"], {})
    with pytest.raises(UsageError, match="has formulas"):
        side.module("meta")


def needs_a_vocabulary(vocab_size: Annotated[int, DERIVED]) -> torch.nn.Module:
    return torch.nn.Embedding(vocab_size, 4)
