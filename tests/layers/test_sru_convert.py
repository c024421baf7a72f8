"""Weights in the layout of the authors' package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compressnet.layers.sru import SRU
from compressnet.layers.sru_convert import from_asapp
from tests.layers.test_sru import FORMS, inputs, layer

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "sru.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    if not GOLDEN.is_file():
        pytest.skip(f"needs {GOLDEN}")
    return dict(np.load(GOLDEN))


def test_weights_of_the_authors_package_give_its_output(golden: dict[str, Any]) -> None:
    net = from_asapp(golden, "default.")
    assert (net.input_size, net.hidden_size, net.num_layers, net.alpha) == (20, 32, 2, 1)
    x = torch.from_numpy(golden["default.__x"])
    for state, end in ((None, ""), (torch.from_numpy(golden["default.__c0"]), "_c0")):
        y, c = net(x, state)
        assert np.abs(y.detach().numpy() - golden[f"default.__y{end}"]).max() < 1e-5
        assert np.abs(c.detach().numpy() - golden[f"default.__c{end}"]).max() < 1e-5


def as_asapp(net: SRU) -> dict[str, Tensor]:
    """The package's layout, written number by number."""
    found, D, H = {}, net.directions, net.hidden_size
    for index, part in enumerate(net.layers):
        k = 3 + (part.cells[0].highway is not None)
        weight = torch.zeros(part.cells[0].transform.in_features, D, H, k, dtype=torch.float64)
        pairs = {"bias": torch.zeros(2, D, H).double(), "weight_c": torch.zeros(2, D, H).double()}
        for number, cell in enumerate(part.cells):
            for unit in range(H):
                for matrix in range(3):
                    weight[:, number, unit, matrix] = cell.transform.weight[matrix * H + unit]
                if cell.highway is not None:
                    weight[:, number, unit, 3] = cell.highway.weight[unit]
            pairs["bias"][:, number] = cell.bias
            if cell.v is not None:
                pairs["weight_c"][:, number] = cell.v
        own = {"weight": weight.flatten(1), **{key: pair.flatten() for key, pair in pairs.items()}}
        if part.project is not None:
            own["weight_proj"] = part.project.weight.T
        own["scale_x"] = torch.tensor([net.alpha])
        found.update({f"rnn_lst.{index}.{key}": tensor.detach() for key, tensor in own.items()})
    return found


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_from_asapp(form: dict[str, Any]) -> None:
    net, told = layer(7, **form), ("version", "bidirectional", "activation")
    arrays = {**as_asapp(net), "encoder.weight": torch.zeros(3)}
    same = from_asapp(arrays, **{key: form[key] for key in told if key in form})
    assert same.alpha == pytest.approx(net.alpha, abs=1e-6)
    for one, other in zip(same(inputs(6, 2, 7)), net(inputs(6, 2, 7)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 if net.rescale else 1e-12)


@pytest.mark.parametrize(
    ("change", "form", "message"),
    [
        ({"rnn_lst.0.weight": None}, {}, "not weights of the package sru"),
        ({"rnn_lst.1.weight": torch.zeros(5, 20)}, {}, r"rnn_lst.1.weight: \(5, 20\), wanted \(5, 15\)"),
        ({"rnn_lst.0.layer_norm.weight": torch.zeros(6)}, {}, r"layer_norm.weight: \(6,\), wanted none"),
        ({"rnn_lst.0.scale_x": torch.zeros(1)}, {}, "scale_x must be at least 1, got 0.0"),
        ({"rnn_lst.1.weight_proj": torch.zeros(5, 5)}, {}, "proj_size must be smaller than hidden_size 5"),
        ({}, {"version": 1}, "weight_c: not zero: these are weights of version 2"),
    ],
)
def test_other_weights_are_refused(change: dict[str, Any], form: dict[str, Any], message: str) -> None:
    arrays = {**as_asapp(layer(num_layers=2)), **change}
    with pytest.raises(ValueError, match=message):
        from_asapp({name: array for name, array in arrays.items() if array is not None}, **form)
