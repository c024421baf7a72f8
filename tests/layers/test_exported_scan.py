"""What is exported and what is compiled are not the same."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from torch import nn

from compressnet.layers.exported_scan import is_exporting
from compressnet.layers.lstm import lstm
from compressnet.layers.lstm_1997 import LSTM1997
from compressnet.layers.sru import SRU

LAYERS = [SRU(3, 4), lstm(3, 4), LSTM1997(3, 2, 1, 2)]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What dynamo has seen decides which axes it takes for open afterwards."""
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_compiler_gets_no_scan(layer: nn.Module) -> None:
    graphs: list[str] = []

    def noted(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph.code)
        return graph.forward

    torch.compile(layer, backend=noted)(torch.rand(2, 1, 3))
    assert graphs
    assert "scan" not in "".join(graphs)


def test_torch_that_says_yes_to_a_compiler_is_not_believed() -> None:
    with patch.object(torch.compiler, "is_exporting", lambda: True):
        assert not is_exporting()
