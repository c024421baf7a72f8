"""The networks of the 1997 paper by problem."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from compressnet.data.synthetic import PROBLEMS, Name
from compressnet.models.lstm_1997 import NETWORKS, lstm_1997_network

WEIGHTS = {  # of the paper
    "reber": 264,
    "two_sequence": 102,
    "adding": 93,
    "multiplication": 93,
    "temporal_order_6a": 156,
    "temporal_order_6b": 308,
}


@pytest.mark.parametrize("problem", get_args(Name))
def test_sizes_and_starts(problem: str) -> None:
    known = PROBLEMS[problem]
    layer = lstm_1997_network(known.input_size, known.output_size, problem)
    assert sum(parameter.numel() for parameter in layer.parameters()) == WEIGHTS[problem]
    network, blocks = NETWORKS[problem], layer.sizes.blocks
    assert layer.bias is not None
    starts = layer.bias[-2 * blocks :].tolist()
    assert starts[:blocks] == (network.input_gate_biases or [0.0] * blocks)
    assert starts[blocks:] == (network.output_gate_biases or [0.0] * blocks)
    assert layer.weight_hh.abs().max() <= 0.1


def test_the_starts_that_the_specification_states() -> None:
    assert NETWORKS["adding"].input_gate_biases == [-3.0, -6.0]
    assert NETWORKS["reber"].output_gate_biases[:3] == [-1.0, -2.0, -3.0]  # type: ignore[index]


def test_other_sizes_than_the_papers() -> None:
    layer = lstm_1997_network(2, 1, "adding", blocks=3)
    assert layer.sizes.cells == 6
    assert layer.bias is not None
    assert not layer.bias.any()
    bare = lstm_1997_network(2, 1, "adding", biases="none", truncated=False)
    assert bare.bias is None
    assert not bare.truncated
    own = lstm_1997_network(2, 1, "adding", output_gate_biases=[-1.0, -1.0])
    assert own.bias is not None
    assert own.bias[4:].tolist() == [-3.0, -6.0, -1.0, -1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem": "sorting"}, "problem 'sorting': there are networks for reber, two_sequence"),
        ({"blocks": 3, "input_gate_biases": [1.0]}, r"input_gate_biases \[1.0\] must be 3"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lstm_1997_network(**arguments)
