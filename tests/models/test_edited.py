"""Networks of which edits replaced parts: they stream, are counted, trained and exported as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet import signature
from compressnet.analysis.example import example
from compressnet.architecture import Edit, Layer, apply_edit
from compressnet.errors import CompressnetError
from compressnet.export import export
from compressnet.layers.described import described
from compressnet.layers.recurrent_stack import RecurrentStack
from compressnet.models.bytenet import ByteNet
from compressnet.models.language_model import LanguageModel
from compressnet.models.sequence_classifier import SequenceClassifier


def linear(inputs: int, outputs: int, bias: bool = True) -> Layer:
    arguments = {"in_features": inputs, "out_features": outputs, "bias": bias}
    return {"layer": "product_linear", "args": arguments}


def split(inputs: int, outputs: int, rank: int = 2) -> Layer:
    row = [linear(inputs, rank, bias=False), linear(rank, outputs)]
    return {"layer": "chain", "args": {"layers": row}}


def output(inputs: int) -> Layer:
    return {"layer": "factored_softmax", "args": {"hidden_size": inputs, "vocab_size": 30, "rank": 3}}


WORDS = {"num_embeddings": 30, "embedding_dim": 12, "rank": 3}
EMBEDDING: Layer = {"layer": "factored_embedding", "args": WORDS}
PROJECTED: Layer = {"layer": "lstm_full", "args": {"input_size": 12, "hidden_size": 12, "proj_size": 5}}
SRU: Layer = {"layer": "sru", "args": {"input_size": 5, "hidden_size": 5}}
TWO_LAYERS: Layer = {"layer": "lstm_full", "args": {"input_size": 12, "hidden_size": 5, "num_layers": 2}}
NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any], Edit]] = {
    "a projected cell, an SRU and factors": (
        LanguageModel,
        {"cell": "torch_lstm"},
        {"modules": {"embedding": EMBEDDING, "cells.0": PROJECTED, "cells.1": SRU, "output": output(5)}},
    ),
    "tied in both factors": (
        LanguageModel,
        {"cell": "sru", "tied": True},
        {
            "modules": {"embedding": EMBEDDING, "output": output(12)},
            "ties": [["embedding.table", "output.table"], ["embedding.projection", "output.projection"]],
        },
    ),
    "split matrices of an SRU": (
        LanguageModel,
        {"cell": "sru"},
        {
            "modules": {
                "cells.0.layers.0.cells.0.transform": split(12, 36),
                "cells.1": TWO_LAYERS,
                "output": output(5),
            }
        },
    ),
    "cells in cells": (
        LanguageModel,
        {"cell": "recurrent_stack:cell=lstm"},
        {"modules": {"cells.1.0": PROJECTED, "cells.1.1": SRU, "output": output(5)}},
    ),
    "bytenet": (
        ByteNet,
        {"sets": 1, "hidden_size": 6},
        {
            "modules": {
                "embedding": EMBEDDING,
                "blocks.0.dilated.product": split(18, 24),
                "blocks.4.reduce": split(12, 6),
                "output": output(12),
            }
        },
    ),
}  # fmt: skip


def edited(name: str) -> Any:
    kind, arguments, edit = NETWORKS[name]
    torch.manual_seed(0)
    model = kind(30, **{"hidden_size": 12, **arguments})
    apply_edit(model, edit)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_in_pieces_is_the_text(name: str) -> None:
    net = edited(name).double().eval()
    (words,) = net.example(3, 9)
    whole, last = net(words)
    assert whole.shape == (9, 3, 30)
    first, state = net(words[:4], net.init_state(3))
    second, state = net.step(words[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(state, last)
    losses, _ = net(words, (), words)
    torch.testing.assert_close(losses, -whole.gather(2, words[..., None])[..., 0].to(losses.dtype))


@pytest.mark.parametrize("name", NETWORKS)
def test_formulas_and_trace_agree(name: str) -> None:
    net = edited(name)
    counted = compressnet.count(net, example(net, 2, 7))
    assert counted.problems == []
    assert counted.parameters == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("lower", [False, True])
def test_gradients_reach_all_also_under_autocast(name: str, lower: bool) -> None:
    net = edited(name).train()
    if isinstance(net, LanguageModel):
        net.embedding_dropout = 0.1
    words = torch.randint(30, (6, 8))
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        losses, _ = net(words, (), words)
    losses.mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.slow
@pytest.mark.usefixtures("one_torchlib")
def test_an_edited_network_is_exported(tmp_path: Path) -> None:
    net = LanguageModel(30, 12, "torch_lstm", num_layers=1).eval()
    apply_edit(net, {"modules": {"embedding": EMBEDDING, "cells.0": PROJECTED, "output": output(5)}})
    assert export(net, tmp_path / "net.onnx", state=True).difference <= 1e-5


def test_an_edited_classifier() -> None:
    torch.manual_seed(0)
    net = SequenceClassifier(30, 3, 12, "torch_lstm", 2, 12)
    apply_edit(net, {"modules": {"cells.0": PROJECTED, "cells.1": SRU, "output": split(5, 3)}})
    net.double().eval()
    words, lengths = net.example(4, 6)
    assert net(words, lengths).shape == (4, 3)
    torch.testing.assert_close(net(words[:3]), net(words, torch.full((4,), 3)))
    assert compressnet.count(net, (words, lengths)).problems == []


def test_a_stack_knows_the_sizes_of_the_cells_it_has_now() -> None:
    stack = RecurrentStack("lstm", 12, 12)
    apply_edit(stack, {"modules": {"0": TWO_LAYERS, "1": SRU}})
    assert (stack.input_size, stack.output_size) == (12, 5)
    assert [tuple(x.shape) for x in stack.init_state(3)] == [(2, 3, 5), (2, 3, 5), (1, 3, 5)]
    assert stack(torch.rand(7, 3, 12))[0].shape == (7, 3, 5)
    stack[1] = signature.build("layer", PROJECTED["layer"], {**PROJECTED["args"], "input_size": 5})
    assert len(stack(torch.rand(7, 3, 12))[1]) == 4


@pytest.mark.parametrize(
    ("name", "arguments", "path", "inputs"),
    [
        ("lstm_full", {"input_size": 5, "hidden_size": 8, "output_size": 6}, "output", 8),
        ("lstm_1997", {"input_size": 5, "blocks": 4, "block_size": 2, "output_size": 6}, "output", 8),
        ("sru", {"input_size": 9, "hidden_size": 8, "proj_size": 4}, "layers.0.project", 9),
    ],
)  # fmt: skip
def test_a_layer_of_which_a_matrix_was_split_is_counted(
    name: str, arguments: dict[str, Any], path: str, inputs: int
) -> None:
    layer = signature.build("layer", name, arguments)
    outputs = layer.get_submodule(path).out_features
    apply_edit(layer, {"modules": {path: split(inputs, outputs)}})
    assert compressnet.count(layer, layer.example(2, 7)).problems == []
    with pytest.raises(CompressnetError, match="was replaced"):
        described(layer)
