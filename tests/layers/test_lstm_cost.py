from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from compressnet import cost_cells, signature
from compressnet.analysis.count import count
from compressnet.analysis.example import example
from compressnet.cost import total
from compressnet.layers import lstm as module
from compressnet.layers.lstm import LSTM
from tests.test_cost import SAK

FORMS: list[dict[str, Any]] = [
    {},
    {"biases": 0},
    {"biases": 2, "peepholes": True, "layer_norm": True},
    {"coupled_gates": True},
    {"coupled_gates": True, "peepholes": True, "layer_norm": True, "num_layers": 2, "output_size": 5},
    {"proj_size": 3, "nonrecurrent_proj_size": 1, "proj_clip": 0.02},
    {"proj_size": 2, "nonrecurrent_proj_size": 3, "peepholes": True, "output_size": 2, "num_layers": 2},
    {"bidirectional": True, "num_layers": 2, "peepholes": True},
    {"bidirectional": True, "proj_size": 2, "nonrecurrent_proj_size": 1, "output_size": 3, "num_layers": 3},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_cost_is_what_is_stored_and_traced(form: dict[str, Any]) -> None:
    layer = LSTM(3, 4, **form)
    counted = count(layer, example(layer, 2, 7))
    assert counted.problems == []
    assert counted.parameters == sum(parameter.numel() for parameter in layer.parameters())
    assert (counted.unit, counted.amount, counted.device) == ("step", 14, "meta")
    state = sum(tensor.numel() for tensor in layer.init_state(2))
    assert total(layer.cost((7, 2, 3)), "state") == state


@pytest.mark.parametrize(("cells", "projection", "layers", "without", "with_biases"), SAK)
def test_every_network_of_sak_2014(
    cells: int, projection: int, layers: int, without: int, with_biases: int
) -> None:
    keys = {"input_size": 40, "hidden_size": cells, "output_size": 14247, "num_layers": layers}
    name, keys = ("lstmp", {**keys, "proj_size": projection}) if projection else ("lstm", keys)
    with torch.device("meta"):
        layer = getattr(module, name)(**keys)
    assert sum(parameter.numel() for parameter in layer.parameters()) == with_biases
    papers = getattr(cost_cells, name)(**keys)
    ours = layer.cost((1, 1, 40))
    assert total(ours, "parameters", biases=False) == total(papers, "parameters", biases=False) == without
    for kind in ("parameters", "macs", "elementwise", "state"):
        assert total(ours, kind) == total(papers, kind)
    counted = count(layer, example(layer, 2, 3))
    assert counted.problems == []
    assert counted.macs == 2 * 3 * without


@pytest.mark.parametrize("name", ["lstm", "lstmp"])
def test_keys_are_those_of_the_formulas(name: str) -> None:
    """One subject serves `count-params` and `bench`; sizes without a natural default are asked for."""
    ours = inspect.signature(getattr(module, name)).parameters
    papers = inspect.signature(getattr(cost_cells, name)).parameters
    assert list(ours) == list(papers)
    for key, parameter in ours.items():
        if parameter.default is not inspect.Parameter.empty and key != "output_size":
            assert parameter.default == papers[key].default
    known = signature.parameters(getattr(module, name))
    assert {key for key, value in known.items() if value.required} == set(ours) - {
        "nonrecurrent_proj_size",
        "output_size",
        "num_layers",
        "peepholes",
        "biases",
    }
