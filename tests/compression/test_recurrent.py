"""`lstmp` and `softmax`: matrices of recurrent language models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressnet.analysis.count import count
from compressnet.errors import UsageError
from compressnet.layers.fold import difference
from compressnet.layers.readers import readers_of
from compressnet.models.bytenet import ByteNet
from compressnet.models.language_model import LanguageModel
from compressnet.models.sequence_classifier import SequenceClassifier
from tests.compression.networks import compress, first, language_model, off, words

CELLS = [
    "lstm:peepholes=false",
    "lstm",
    "lstm_full:coupled_gates=true,layer_norm=true,biases=2,cell_clip=0.5",
    "lstm_full:biases=0",
    "torch_lstm",
]


@torch.no_grad()
def lower(model: Any, rank: int) -> Any:
    """Make what reads each cell, W_hh included, of a rank."""
    for path, said in readers_of(model).items():
        cell = model.get_submodule(path)
        name = "weight_hh_l0" if isinstance(cell, nn.LSTM) else "cells.0.weight_hh"
        matrices = [cell.get_parameter(name)]
        matrices += [model.get_submodule(r.path).get_parameter(n) for r in said.readers for n in r.matrices]
        basis = torch.linalg.qr(torch.randn(matrices[0].shape[1], rank, dtype=matrices[0].dtype))[0]
        for matrix in matrices:
            matrix.copy_(2 * matrix @ basis @ basis.T)
    return model


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("is_free", [False, True])
@torch.no_grad()
def test_a_projection_of_the_rank_that_there_is_is_exact(cell: str, is_free: bool) -> None:
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        torch.manual_seed(0)
        model = SequenceClassifier(60, 5, 24, cell, 2, 16).eval().to(dtype)
        lower(model, 8)
        inputs = [(x, torch.full((8,), 12)) for x in words(3)]
        made: Any = compress(model, None if is_free else inputs, "lstmp:rank=8").module
        assert [cell.first.proj_size for cell in made.cells] == [8, 8]
        assert difference(made(*inputs[0]), model(*inputs[0])) < limit


def test_data_aware_projections_are_nearer() -> None:
    model = language_model(hidden=48)
    with torch.no_grad():
        model.embedding.weight.mul_(3)
        for name, parameter in model.named_parameters():
            if "weight" in name and "cells" in name:
                parameter.mul_(2)
    inputs = words()
    aware = compress(model, inputs, "lstmp:rank=24").module
    free = compress(model, None, "lstmp:rank=24").module
    assert off(aware, model, inputs) < 0.7 * off(free, model, inputs)


@pytest.mark.parametrize("ratio", [0.6, 0.8])
def test_the_ratio_of_a_cell_and_what_reads_it(ratio: float) -> None:
    model, inputs = language_model(layers=1, hidden=40), words(1)
    made: Any = compress(model, inputs, f"lstmp:ratio={ratio}").module
    rank = made.cells[0].first.proj_size

    def macs(module: nn.Module) -> int:
        return sum(row.macs for row in count(module, (inputs[0],)).layers if row.path[:3] in ("cel", "out"))

    assert macs(made) <= ratio * macs(model)
    following = compress(model, inputs, f"lstmp:rank={rank + (1 if rank < 16 else 8)}").module
    assert macs(following) > ratio * macs(model)


@pytest.mark.parametrize(
    ("cell", "arguments", "reason"),
    [
        ("lstmp:proj_size=8", {}, "its outputs are projected already"),
        ("lstm:num_layers=2", {}, "it has 2 layers, which read each other"),
        ("lstm", {"tied": True}, "is tied to 'embedding.weight'"),
        ("sru", {}, "fits no layer.*cells.1.layers.0.cells.0"),
        ("lstm", {"softmax": "classes", "class_sizes": [20, 40]}, "cells.1: .*ClassSoftmax"),
    ],
)
def test_cells_that_stay(cell: str, arguments: dict[str, Any], reason: str) -> None:
    model = language_model(cell, layers=2, **arguments)
    with pytest.raises(UsageError, match=reason):
        compress(model, words(1), "lstmp:rank=8", skip=["cells.0"])


def test_a_reader_that_is_skipped_keeps_its_cell() -> None:
    result = compress(language_model(), words(1), "lstmp:rank=8", skip=["output"])
    assert [done.paths for _, done in result.replaced] == [("cells.0", "cells.1")]
    with pytest.raises(UsageError, match="cells.0: 'output' reads it, which --skip leaves as it is"):
        compress(language_model(layers=1), words(1), "lstmp:rank=8", skip=["output"])


def test_a_network_that_does_not_say_who_reads() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(8, 24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.cell(x)[0]
            return y

    with pytest.raises(UsageError, match=r"cell: the model does not say who reads its outputs"):
        compress(Own(), [torch.randn(5, 2, 8)], "lstmp:rank=8")


def test_a_rank_above_break_even() -> None:
    with pytest.raises(
        UsageError, match=r"cells.0: rank 24 makes it larger: it breaks even above rank 21; cells.1"
    ):
        compress(language_model(), words(1), "lstmp:rank=24")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("is_free", [False, True])
@torch.no_grad()
def test_softmax_and_embedding_of_the_rank_that_there_is(tied: bool, is_free: bool) -> None:
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model: Any = language_model(tied=tied).to(dtype)
        for matrix in {model.embedding.weight, model.output.weight}:
            matrix.copy_(torch.randn(60, 8, dtype=dtype) @ torch.randn(8, 24, dtype=dtype) / 8)
        made: Any = compress(model, None if is_free else words(), "softmax:rank=8").module
        for path in ("embedding", "output"):
            new, old = made.get_submodule(path), model.get_submodule(path)
            assert difference(new.weight, old.weight) < limit
        assert difference(made.output.bias, model.output.bias) < 1e-6
        assert (made.embedding.table is made.output.table) == tied
        assert difference(first(made(words(1)[0])), first(model(words(1)[0]))) < 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_data_makes_better_softmaxes(tied: bool) -> None:
    model: Any = language_model(tied=tied)
    inputs = words()
    with torch.no_grad():
        model.embedding.weight.mul_(3)
    aware = compress(model, inputs, "softmax:rank=8").module
    free = compress(model, None, "softmax:rank=8").module
    assert off(aware, model, inputs) < off(free, model, inputs)


def test_embeddings_may_stay() -> None:
    made = compress(language_model(), words(1), "softmax:rank=6,embedding=false")
    assert [done.paths for _, done in made.replaced] == [("output",)]
    with pytest.raises(UsageError, match="it is tied to an embedding: leave embedding=false out"):
        compress(language_model(tied=True), words(1), "softmax:rank=6,embedding=false")
    with pytest.raises(UsageError, match="output: it is tied to 'embedding', which stays"):
        compress(language_model(tied=True), words(1), "softmax:rank=6", skip=["embedding"])


def test_the_ratio_of_an_output_layer() -> None:
    model: Any = language_model()
    made: Any = compress(model, words(1), "softmax:ratio=0.5").module
    sizes = [made.output.table.numel() + made.output.projection.numel(), model.output.weight.numel()]
    assert sizes[0] <= 0.5 * sizes[1] < sizes[0] + 60 + 24


def test_a_tied_table_stays_tied_when_a_cell_is_projected() -> None:
    model: Any = language_model(tied=True, layers=1)
    split = compress(model, words(2), "softmax:rank=8").module
    made: Any = compress(split, words(2), "lstmp:rank=8").module
    assert made.embedding.table is made.output.table
    assert made.output.projection.shape == (8, 8)


PARTS = ("reduce", "pointwise", "dilated.product", "expand")  # of a block of ByteNet


@pytest.mark.parametrize(
    ("make", "paths"),
    [
        (lambda: LanguageModel(60, 32, "sru", num_layers=1), ["cells.0.layers.0.cells.0.transform"]),
        (
            lambda: ByteNet(60, 24, 1),
            [f"blocks.{n}.{part}" for n in range(5) for part in PARTS],
        ),
    ],
    ids=["SRU", "ByteNet"],
)
@torch.no_grad()
def test_matrices_beside_a_recurrence_or_of_steps_are_split(make: Any, paths: list[str]) -> None:
    """Weights of the rank that is left: nothing changes, and the network still streams and is counted."""
    torch.manual_seed(0)
    model: Any = make().eval()
    for path in paths:
        weight = model.get_submodule(path).weight
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        weight.copy_((left[:, :6] * values[:6]) @ right[:6])
    made: Any = compress(model, words(2), "svd:rank=6").module
    for path in paths:
        row: Any = made.get_submodule(path)
        assert [type(part) for part in row] == 2 * [type(model.get_submodule(path))]
    (tokens,) = words(1)
    streamed, _ = made.step(tokens, made.init_state(tokens.shape[1]))
    assert difference(first(made(tokens)), first(model(tokens))) < 1e-5
    assert difference(streamed, first(model(tokens))) < 1e-5
    assert count(made, tokens).macs < count(model, tokens).macs
