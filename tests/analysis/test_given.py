"""What the functions of the Python API take, and what they say of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet.errors import CompressnetError, UsageError

NET, X = nn.Linear(3, 4), torch.rand(2, 3)


@pytest.mark.parametrize("inputs", [X, (X,), [X]], ids=["tensor", "tuple", "list"])
def test_a_tensor_is_the_only_input(inputs: Any) -> None:
    assert compressnet.count(NET, inputs).macs == 24
    chain = nn.Sequential(NET, nn.Linear(4, 5))
    assert len(list(compressnet.fold(chain, inputs).parameters())) == 2


def test_a_packed_sequence_is_one_input() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.rand(5, 3), torch.rand(2, 3)])
    assert compressnet.count(nn.LSTM(3, 4), packed).amount == 7


def test_what_was_loaded_stands_for_its_module() -> None:
    loaded = compressnet.load("zoo:rof")
    x = torch.rand(1, 3, 32, 24)
    assert compressnet.count(loaded, x).macs == compressnet.count(loaded.model, x).macs > 0
    with pytest.raises(CompressnetError, match="^CAN: nothing to fold: "):
        compressnet.fold(loaded)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: compressnet.count("zoo:rof", X),  # type: ignore[arg-type]
            """count: 'zoo:rof' is a text: give a torch.nn.Module, or compressnet.load("zoo:rof")""",
        ),
        (
            lambda: compressnet.count(NET, {"x": X}),  # type: ignore[arg-type]
            "count: its inputs are a tensor or a tuple of them, not a dict",
        ),
        (lambda: compressnet.fold(3), "fold: give a torch.nn.Module, not an int"),  # type: ignore[arg-type]
        (
            lambda: compressnet.compare([NET]),  # type: ignore[arg-type]
            'compare: give {"name": lambda: module(x), ...}, not a list',
        ),
        (
            lambda: compressnet.compare({"net": NET}),
            "compare: 'net' needs its inputs: write lambda: module(x)",
        ),
        (
            lambda: compressnet.compare({"out": NET(X)}),
            "compare: 'out' is a Tensor: give a callable, as lambda: module(x)",
        ),
    ],
)
def test_all_else_is_told_in_a_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value) == message


def test_an_export_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^export: give a torch.nn.Module, not a dict$"):
        compressnet.export({}, tmp_path / "net.onnx")  # type: ignore[arg-type]
