"""Who is said to read the outputs of a cell does, by these matrices, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.architecture import Layer, apply_edit
from compressnet.errors import CompressnetError
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.layers.chain import Chain
from compressnet.layers.described import described, with_input
from compressnet.layers.lstm import LSTM
from compressnet.layers.readers import Readers, input_matrices, readers_of
from compressnet.layers.recurrent_stack import RecurrentStack
from compressnet.layers.softmax import ClassSoftmax
from compressnet.layers.sru import SRU
from compressnet.models.language_model import LanguageModel
from compressnet.models.sequence_classifier import SequenceClassifier

CELLS = [
    "lstm",
    "lstmp:proj_size=5,nonrecurrent_proj_size=3",
    "lstm_full:layer_norm=true,biases=2",
    "lstm_full:num_layers=2,coupled_gates=true,cell_clip=0.1",
    "lstm:output_size=4",
    "torch_lstm",
    "sru",
    "sru:proj_size=4",
    "recurrent_stack:cell=lstm",
]
CHAIN: Layer = {
    "layer": "chain",
    "args": {
        "layers": [
            {"layer": "linear", "args": {"in_features": 12, "out_features": 4}},
            {"layer": "full_softmax", "args": {"hidden_size": 4, "vocab_size": 30}},
        ]
    },
}
FACTORED: Layer = {"layer": "factored_softmax", "args": {"hidden_size": 12, "vocab_size": 30, "rank": 4}}


class Turned(nn.Module):
    """A cell that puts out Q h instead of h."""

    def __init__(self, cell: Any, turn: Tensor) -> None:
        super().__init__()
        self.cell, self.turn, self.init_state = cell, turn, cell.init_state

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.cell.step(x, state)
        return y @ self.turn.t(), state


def output(model: Any) -> Tensor:
    torch.manual_seed(1)
    words = torch.randint(30, (6, 3))
    with torch.no_grad():
        result = model(words)
    result = result[0] if isinstance(result, tuple) else result
    assert isinstance(result, Tensor)
    return result


@torch.no_grad()
def turn(model: nn.Module, path: str, said: Readers) -> None:
    """Change the basis of a cell's outputs, and its readers' matrices to undo it."""
    outer, _, name = path.rpartition(".")
    cell: Any = model.get_submodule(path)
    stack: Any = model.get_submodule(outer)
    width = cell.step(cell.example(1, 1)[0].double(), cell.init_state(1))[0].shape[-1]
    q = torch.randn(width, width, dtype=torch.float64) + 2 * torch.eye(width, dtype=torch.float64)
    for reader in said.readers:
        for matrix in reader.matrices:
            weight = model.get_parameter(f"{reader.path}.{matrix}")
            assert weight.shape[-1] == width
            weight.copy_(weight @ torch.linalg.inv(q))
    setattr(stack, name, Turned(cell, q))


def check(model: nn.Module) -> None:
    """What `readers` says is true of every cell, one at a time."""
    before, state = output(model), {name: value.clone() for name, value in model.state_dict().items()}
    for path, said in readers_of(model).items():
        outer, _, name = path.rpartition(".")
        cell = model.get_submodule(path)
        turn(model, path, said)
        if said.reason:
            assert not said.readers
            assert not torch.allclose(output(model), before)
        else:
            torch.testing.assert_close(output(model), before, atol=1e-8, rtol=1e-8)
        setattr(model.get_submodule(outer), name, cell)
        model.load_state_dict(state)


@pytest.mark.parametrize("cell", CELLS)
def test_it_is_true_of_every_cell_of_a_language_model(cell: str) -> None:
    torch.manual_seed(0)
    model = LanguageModel(30, 12, cell, num_layers=2, embedding_size=7, dropout=0.5).double().eval()
    found = readers_of(model)
    assert len(found) == (4 if cell.startswith("recurrent_stack") else 2)
    reasons = [said.reason for said in found.values()]
    blocked = cell.startswith("sru")  # the second takes what is as wide as it is
    assert [bool(reason) for reason in reasons] == [blocked, *[False] * (len(found) - 1)]
    assert not blocked or "'cells.1' reads them: the highway of an SRU" in reasons[0]
    check(model)


@pytest.mark.parametrize("cell", ["lstm", "torch_lstm", "lstmp:proj_size=5"])
def test_it_is_true_of_classifiers(cell: str) -> None:
    torch.manual_seed(0)
    model = SequenceClassifier(30, 3, 8, cell, 3, 5).double().eval()
    found = model.readers()
    assert [said.readers[0].path for said in found.values()] == ["cells.1", "cells.2", "output"]
    check(model)


def test_it_is_true_after_edits() -> None:
    torch.manual_seed(0)
    model = LanguageModel(30, 12, "sru", 2).double().eval()
    narrow: Layer = {"layer": "lstm_full", "args": {"input_size": 12, "hidden_size": 12, "proj_size": 5}}
    sru = with_input(described(model.cells[1]), 5)
    for last in (CHAIN, FACTORED):
        apply_edit(model, {"modules": {"cells.0": narrow, "cells.1": sru, "output": last}})
        model.double().eval()
        found = model.readers()
        assert found["cells.0"].readers[0].matrices == (
            "layers.0.cells.0.transform.weight",
            "layers.0.cells.0.highway.weight",
        )
        assert found["cells.1"].readers[0].matrices in (("0.weight",), ("projection",))
        check(model)


def test_who_cannot_take_anything_else_is_not_listed() -> None:
    tied = LanguageModel(30, 12, "lstm", 2, tied=True).readers()
    assert tied["cells.0"].reason == ""
    assert tied["cells.1"] == Readers((), "'output.weight' reads them and is tied to 'embedding.weight'")
    factored = LanguageModel(30, 12, "lstm", 1, softmax="classes", class_sizes=[10, 20]).readers()
    assert "'output' reads them: a ClassSoftmax cannot be written" in factored["cells.0"].reason
    alone = readers_of(RecurrentStack("lstm", 3, 4))
    assert [said.reason for said in alone.values()] == ["", "they are the outputs of the whole"]
    assert readers_of(nn.Linear(3, 4)) == {}


@pytest.mark.parametrize(
    "module",
    [
        LSTM(6, 4, 2, bidirectional=True),
        SRU(6, 4, bidirectional=True),
        SRU(6, 4, proj_size=3),
        Chain([{"layer": "linear", "args": {"in_features": 6, "out_features": 2}}]),
    ],
    ids=["lstm", "sru", "sru projected", "chain"],
)
def test_matrices_are_all_by_which_a_module_reads(module: nn.Module) -> None:
    torch.manual_seed(0)
    module, q = module.double(), torch.randn(6, 6, dtype=torch.float64)
    x = torch.randn(5, 2, 6, dtype=torch.float64)
    with torch.no_grad():
        wanted = module(x)
        for name in input_matrices(module):
            weight = module.get_parameter(name)
            weight.copy_(weight @ torch.linalg.inv(q))
        torch.testing.assert_close(module(x @ q.t()), wanted, atol=1e-8, rtol=1e-8)


def test_what_does_not_begin_with_a_matrix() -> None:
    for module in (AdaptiveNorm(3), nn.LayerNorm(3), nn.Identity()):
        with pytest.raises(CompressnetError, match="does not begin with a matrix"):
            input_matrices(module)
    with pytest.raises(CompressnetError, match="highway"):
        input_matrices(SRU(4, 4))
    with pytest.raises(CompressnetError, match="no layer of this kind"):
        input_matrices(ClassSoftmax(4, [2, 3]))
