"""The trained networks that ship: each with a card that tells the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compressnet
from compressnet import subject, weights
from compressnet.errors import CompressnetError
from tests.conftest import ROOT

NAMES = subject.names("zoo")


def test_the_first_networks_are_there() -> None:
    assert {"l0", "rof"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_of_these_weights_and_of_a_record(name: str) -> None:
    card = subject.zoo_card(name)
    loaded = compressnet.load(f"zoo:{name}")
    assert loaded.architecture is not None
    assert not loaded.architecture.smoke
    assert card["digest"] == weights.digest(weights.tensors_of(loaded.model), loaded.architecture)
    assert card["parameters"] == sum(parameter.numel() for parameter in loaded.model.parameters())
    record = json.loads((ROOT / "results" / f"{card['record']}.json").read_text())
    assert record["digest"] == card["digest"]
    metric, direction = loaded.task.best
    figure = record["metrics"][metric]
    assert f"{figure:.2f}" in card["result"]
    if (nothing := record["metrics"].get(f"{metric}_nothing")) is not None:
        assert f"doing nothing: {nothing:.2f}" in card["result"]
        assert (figure > nothing) == (direction == "max")
    for key in ("data", "training", "licence", "about"):
        assert card[key]
    assert "command" in card["training"]


@pytest.mark.parametrize(
    "text", ["null", "{", "\ufeff{}", '{"about": "x", "result": 5}', '{"about": "x", "result": "y"}']
)
def test_a_damaged_card_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "rof.json").write_text(text)
    monkeypatch.setattr(subject, "_folder", lambda _: tmp_path)
    with pytest.raises(CompressnetError, match=r"rof\.json: damaged"):
        subject.zoo_card("rof")
