"""Layers in a row in the place of one: what goes to the last, how they are counted, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet import signature, weights
from compressnet.analysis.example import example
from compressnet.architecture import Layer
from compressnet.errors import UsageError
from compressnet.layers.chain import Chain
from compressnet.layers.softmax import over_time

NARROW: Layer = {"layer": "linear", "args": {"in_features": 12, "out_features": 4, "bias": False}}
OUTPUT: Layer = {"layer": "full_softmax", "args": {"hidden_size": 4, "vocab_size": 30}}
IDENTITY: Layer = {"layer": "identity", "args": {}}


def nested(deep: int) -> Layer:
    found = IDENTITY
    for _ in range(deep):
        found = {"layer": "chain", "args": {"layers": [found]}}
    return found


def test_what_a_layer_is_given_besides_its_input_goes_to_the_last() -> None:
    torch.manual_seed(0)
    chain, hidden, words = Chain([NARROW, OUTPUT]), torch.randn(5, 2, 12), torch.randint(30, (5, 2))
    known = over_time(chain, hidden, None)
    torch.testing.assert_close(over_time(chain, hidden, words), -known.gather(2, words[..., None])[..., 0])


def test_every_layer_in_it_has_a_row() -> None:
    convs: list[Any] = [
        {"layer": "conv2d", "args": {"in_channels": 3, "out_channels": 5, "kernel_size": 1, "bias": False}},
        {"layer": "dilated_conv2d", "args": {"in_channels": 5, "out_channels": 6, "dilation": 4}},
        {"layer": "chain", "args": {"layers": [{"layer": "batch_norm2d", "args": {"num_features": 6}}]}},
    ]
    chain = Chain(convs)
    counted = compressnet.count(chain, example(chain, 1, 10))
    assert [layer.path for layer in counted.layers] == ["", "0", "1", "2", "2.0"]
    assert counted.problems == []
    assert counted.macs == 100 * (3 * 5 + 9 * 5 * 6)
    folded = compressnet.fold(chain)
    assert type(folded.get_submodule("2.0")) is nn.Identity


def test_an_edit_puts_one_into_a_weights_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = {"vocab_size": 30, "hidden_size": 12, "num_layers": 1}
    edit: Any = {"modules": {"output": {"layer": "chain", "args": {"layers": [NARROW, OUTPUT]}}}}
    architecture = weights.Architecture("language_modelling", {}, "language_model", arguments, [edit])
    model = weights.build(architecture).eval()
    weights.save(tmp_path / "net.safetensors", model, architecture)
    _, again = weights.open_model(tmp_path / "net.safetensors")
    words = torch.randint(30, (7, 2))
    torch.testing.assert_close(again.eval()(words)[0], model(words)[0], atol=0, rtol=0)
    assert {"output.0.weight", "output.1.weight"} <= weights.tensors_of(again).keys()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "'layers' list should have at least 1 item"),
        ("linear", "'layers' should be a valid list"),
        ([IDENTITY] * 101, "at most 100 items"),
        ([IDENTITY, 3], r"its layer 1 must be {layer: NAME, args: {...}}, got 3"),
        ([{"layer": "identity"}], "its layer 0 must be"),
        ([{**IDENTITY, "more": 1}], "its layer 0 must be"),
        ([IDENTITY, {**NARROW, "args": {"in_features": 0}}], "its layer 1: layer linear: .in_features"),
        ([{"layer": "linaer", "args": {}}], "layer 0: there is no layer 'linaer' - did you mean 'linear'"),
        ([{"layer": "chain", "args": {"layers": [3]}}], "layer 0: layer chain: its layer 0 must be"),
        ([nested(4)], "more than 4 deep"),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused_in_one_line(layers: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        signature.build("layer", "chain", {"layers": layers})
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_four_deep_is_not_too_deep() -> None:
    assert isinstance(Chain(nested(4)["args"]["layers"])(torch.rand(3)), torch.Tensor)
