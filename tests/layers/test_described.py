"""What the registry says of a module builds one of its kind, sizes and function again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.cuda_checks import modules
from compressnet import registry, signature
from compressnet.errors import CompressnetError
from compressnet.layers.described import can_be_described, described, with_input
from compressnet.layers.lstm import LSTM
from compressnet.layers.recurrent_stack import RecurrentStack
from compressnet.layers.sru import SRU
from compressnet.models.language_model import LanguageModel

NAMES = [name for name in registry.LAYERS if name != "operator"]
MORE: list[nn.Module] = [
    nn.Conv2d(4, 6, (1, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2), groups=2, bias=False),
    nn.Conv2d(4, 6, 3, padding="same"),
    nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1),
    nn.LayerNorm((3, 4), bias=False),
    nn.LayerNorm(3, elementwise_affine=False),
    nn.BatchNorm2d(3, momentum=None, affine=False),
    LSTM(3, 5, 2, coupled_gates=True, biases=0, output_size=2, cell_clip=1),
    SRU(3, 5, 2, version=1, activation="tanh", rescale=True, bidirectional=True),
    RecurrentStack("lstmp:proj_size=4,peepholes=false", 3, 6, 3),
    RecurrentStack("torch_lstm:bias=false", 3, 6, 3, last_size=4),
]  # fmt: skip


def check(module: nn.Module) -> None:
    """A file's JSON of it builds what takes its weights and says the same of itself."""
    said = json.loads(json.dumps(described(module)))
    again = signature.build("layer", said["layer"], said["args"])
    assert type(again) is type(module)
    again.load_state_dict(module.state_dict())
    assert described(again) == said


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_of_the_registry(name: str) -> None:
    module = modules.build("layer", name)
    check(module)
    said = described(module)
    again = signature.build("layer", said["layer"], said["args"])
    again.load_state_dict(module.state_dict())
    inputs = modules.inputs_of(module, name)
    torch.testing.assert_close(again.eval()(*inputs), module.eval()(*inputs), atol=0, rtol=0)


@pytest.mark.parametrize("module", MORE, ids=lambda module: type(module).__name__)
def test_their_options(module: nn.Module) -> None:
    check(module)


class Other(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Other(2, 3), "a Other cannot be written .* no layer of this kind"),
        (nn.Conv2d(2, 3, 3, padding_mode="reflect"), "its padding_mode is reflect"),
        (nn.Conv2d(2, 3, 2, padding="same"), "not the same on both sides"),
        (nn.Conv2d(2, 3, 1001), "'kernel_size' should be less than or equal to 1000"),
        (nn.Embedding(3, 4, padding_idx=0), "its padding_idx is 0"),
        (nn.BatchNorm2d(3, track_running_stats=False), "its track_running_stats is False"),
        (RecurrentStack("recurrent_stack:cell=sru", 3, 6), "its cells differ, or are stacks"),
    ],
)
def test_what_it_cannot_write(module: nn.Module, reason: str) -> None:
    with pytest.raises(CompressnetError, match=reason):
        described(module)
    assert not can_be_described(module)


def test_a_layer_for_other_inputs() -> None:
    for name, arguments in {
        "linear": {"in_features": 6, "out_features": 2},
        "lstm_full": {"input_size": 6, "hidden_size": 4},
        "full_softmax": {"hidden_size": 6, "vocab_size": 9},
        "factored_softmax": {"hidden_size": 6, "vocab_size": 9, "rank": 2},
    }.items():
        layer: Any = {"layer": name, "args": arguments}
        for changed in (with_input(layer, 3), with_input({"layer": "chain", "args": {"layers": [layer]}}, 3)):
            made = signature.build("layer", changed["layer"], changed["args"])
            made(torch.rand(4, 2, 3))
    with pytest.raises(CompressnetError, match="layer batch_norm2d: no argument says"):
        with_input({"layer": "batch_norm2d", "args": {"num_features": 3}}, 2)


@pytest.mark.parametrize("cell", ["lstm", "lstmp:proj_size=5,nonrecurrent_proj_size=3", "sru", "torch_lstm"])
def test_every_cell_and_layer_that_a_language_model_holds(cell: str) -> None:
    model: Any = LanguageModel(30, 12, cell)
    for part in (model.embedding, *model.cells, model.output):
        check(part)
