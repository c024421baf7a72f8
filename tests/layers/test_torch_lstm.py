from __future__ import annotations

import copy
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from compressnet import signature
from compressnet.analysis.count import count
from compressnet.analysis.example import example
from compressnet.cost import total
from compressnet.errors import UsageError
from compressnet.layers.torch_lstm import TorchLSTM

FORMS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "proj_size": 3},
    {"bias": False},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_is_torchs_lstm(form: dict[str, Any]) -> None:
    layer, plain = TorchLSTM(6, 5, **form), nn.LSTM(6, 5, **form)
    plain.load_state_dict(layer.state_dict())
    (x,) = layer.example(2, 7)
    assert x.shape == (7, 2, 6)
    output = layer(x)
    assert torch.equal(output, plain(x)[0])
    output.square().mean().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_cost(form: dict[str, Any]) -> None:
    layer = TorchLSTM(6, 5, **form)
    counted = count(layer, example(layer, 2, 7))
    assert counted.problems == []
    assert counted.parameters == sum(parameter.numel() for parameter in layer.parameters())
    assert counted.macs == counted.total("macs_trace")
    assert (counted.unit, counted.amount) == ("step", 14)
    assert total(layer.cost((7, 2, 6)), "macs") == counted.macs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0, "hidden_size": 5}, "'input_size' should be greater than 0"),
        ({"input_size": 6, "hidden_size": -5}, "'hidden_size' should be greater than 0"),
        ({"input_size": 6, "hidden_size": 5, "proj_size": -1}, "'proj_size' should be greater than or equal"),
        ({"input_size": 6, "hidden_size": 5, "proj_size": 5}, "proj_size has to be smaller than hidden_size"),
        ({"input_size": 6}, "'hidden_size' is missing"),
    ],
)
def test_sizes_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        signature.build("layer", "torch_lstm", arguments)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_a_stream_is_the_whole(proj_size: int) -> None:
    layer, x = TorchLSTM(3, 4, num_layers=2, proj_size=proj_size), torch.randn(7, 2, 3)
    state, pieces = layer.init_state(2), []
    for piece in x.split([1, 4, 2]):
        y, state = layer.step(piece, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces), layer(x))
    with pytest.raises(ValueError, match="has no step"):
        TorchLSTM(3, 4, bidirectional=True).step(x, state)


def test_weights_of_a_copy_are_put_together_for_cudnn() -> None:
    layer = TorchLSTM(3, 4)
    with patch.object(TorchLSTM, "flatten_parameters", autospec=True) as flatten:
        copied = copy.deepcopy(layer)
    flatten.assert_called_once_with(copied)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(copied(x), layer(x), rtol=0, atol=0)


def test_autocast_on_a_cpu_reaches_it() -> None:
    torch.manual_seed(0)
    layer, x = TorchLSTM(6, 8), torch.randn(5, 2, 6)
    expected, (h, c) = layer.step(x, layer.init_state(2))
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer.step(x, layer.init_state(2))
        torch.testing.assert_close(layer(x), y)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(state, (h, c), atol=0.02, rtol=0.02)  # in the weights' type
