from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from compressnet.analysis.count import count
from compressnet.analysis.formulas import terms_of
from compressnet.cost import Term, total

IMAGE, SEQUENCE, VECTORS = torch.rand(2, 4, 9, 7), torch.rand(5, 3, 4), torch.rand(3, 4)
TOKENS = torch.randint(10, (5, 3))
LAYERS: list[tuple[nn.Module, tuple[Any, ...], int]] = [  # module, inputs, MACs
    (nn.Conv1d(3, 6, 5, stride=2, padding=1), (torch.rand(2, 3, 20),), 2 * 9 * 6 * 3 * 5),
    (nn.Conv1d(4, 6, 3), (torch.rand(4, 9),), 7 * 6 * 4 * 3),  # without a batch
    (nn.Conv2d(4, 6, (3, 1), padding="same", padding_mode="circular"), (IMAGE,), 2 * 63 * 6 * 4 * 3),
    (nn.Conv2d(4, 8, 3, dilation=2, groups=2), (IMAGE,), 2 * 5 * 3 * 8 * 2 * 9),
    (nn.Conv2d(4, 6, 1), (IMAGE[0],), 63 * 6 * 4),
    (nn.ConvTranspose1d(3, 6, 4, stride=2), (torch.rand(2, 3, 20),), 2 * 20 * 6 * 3 * 4),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (IMAGE,), 2 * 63 * 4 * 3 * 9),
    (nn.ConvTranspose2d(4, 6, 3, bias=False), (IMAGE[0],), 63 * 6 * 4 * 9),
    (nn.ConvTranspose3d(2, 3, 2), (torch.rand(1, 2, 3, 4, 5),), 60 * 2 * 3 * 8),
    (nn.Linear(4, 6), (SEQUENCE,), 15 * 4 * 6),
    (nn.Linear(4, 6, bias=False), (VECTORS[0],), 4 * 6),
    (nn.Linear(4, 0), (VECTORS,), 0),
    (nn.Bilinear(4, 5, 6), (VECTORS, torch.rand(3, 5)), 3 * 4 * 5 * 6),
    (nn.Embedding(10, 4, padding_idx=0, max_norm=1.0), (TOKENS,), 0),
    (nn.EmbeddingBag(10, 4, mode="sum"), (TOKENS,), 0),
    (nn.LSTM(4, 6, num_layers=2, bidirectional=True), (SEQUENCE,), 15 * (2 * 24 * 10 + 2 * 24 * 18)),
    (nn.LSTM(4, 6, batch_first=True, bias=False), (SEQUENCE,), 15 * 24 * 10),
    (nn.LSTM(4, 6, proj_size=2, num_layers=2), (SEQUENCE,), 15 * (24 * 6 + 12 + 24 * 4 + 12)),
    (nn.LSTM(4, 6), (SEQUENCE[:, 0],), 5 * 24 * 10),
    (nn.LSTM(4, 6), (pack_padded_sequence(SEQUENCE, torch.tensor([5, 4, 1])),), 10 * 24 * 10),
    (nn.GRU(4, 6, num_layers=2), (SEQUENCE,), 15 * (18 * 10 + 18 * 12)),
    (nn.RNN(4, 6, nonlinearity="relu"), (SEQUENCE,), 15 * 6 * 10),
    (nn.LSTMCell(4, 6), (VECTORS,), 3 * 24 * 10),
    (nn.LSTMCell(4, 6, bias=False), (VECTORS[0],), 24 * 10),
    (nn.GRUCell(4, 6), (VECTORS,), 3 * 18 * 10),
    (nn.RNNCell(4, 6), (VECTORS,), 3 * 6 * 10),
    (nn.MultiheadAttention(4, 2), (SEQUENCE,) * 3, 3 * (4 * 5 * 16 + 2 * 25 * 4)),
    (
        nn.MultiheadAttention(4, 2, batch_first=True, bias=False),
        (SEQUENCE,) * 3,
        5 * (4 * 3 * 16 + 2 * 9 * 4),
    ),
    (nn.MultiheadAttention(4, 2), (SEQUENCE[:, 0],) * 3, 4 * 5 * 16 + 2 * 25 * 4),
    (
        nn.MultiheadAttention(4, 2, kdim=6, vdim=7),
        (SEQUENCE, torch.rand(8, 3, 6), torch.rand(8, 3, 7)),
        3 * (2 * 5 * 16 + 8 * (6 + 7) * 4 + 2 * 5 * 8 * 4),
    ),
    (
        nn.MultiheadAttention(4, 2, add_bias_kv=True, add_zero_attn=True),
        (SEQUENCE,) * 3,
        3 * (4 * 5 * 16 + 2 * 5 * 7 * 4),
    ),
    (nn.BatchNorm1d(4), (VECTORS,), 0),
    (nn.BatchNorm2d(4, affine=False), (IMAGE,), 0),
    (nn.InstanceNorm2d(4, affine=True), (IMAGE,), 0),
    (nn.GroupNorm(2, 4), (IMAGE,), 0),
    (nn.LayerNorm((3, 4), bias=False), (SEQUENCE,), 0),
    (nn.RMSNorm(4), (SEQUENCE,), 0),
    (nn.PReLU(4), (IMAGE,), 0),
    (nn.GELU(), (IMAGE,), 0),
    (nn.Softmax(1), (IMAGE,), 0),
    (nn.MaxPool2d(2), (IMAGE,), 0),
    (nn.AdaptiveAvgPool2d(3), (IMAGE,), 0),
    (nn.Upsample(scale_factor=2, mode="bilinear"), (IMAGE,), 0),
    (nn.Dropout(), (IMAGE,), 0),
    (nn.Identity(), (IMAGE,), 0),
    (nn.Flatten(), (IMAGE,), 0),
    (nn.ReflectionPad2d(1), (IMAGE,), 0),
    (nn.PixelShuffle(2), (IMAGE,), 0),
]  # fmt: skip


@pytest.mark.parametrize(("module", "inputs", "macs"), LAYERS, ids=lambda item: type(item).__name__)
def test_torchs_layers(module: nn.Module, inputs: tuple[Any, ...], macs: int) -> None:
    terms = terms_of(module, inputs, module(*inputs))
    assert terms is not None
    assert total(terms, "macs") == macs
    assert total(terms, "parameters") == sum(parameter.numel() for parameter in module.parameters())
    counted = count(module, inputs)
    assert counted.problems == []
    assert counted.total("macs_trace") == macs


def test_attention_called_by_name() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(value=x, key=x, query=x[:2], need_weights=False)[0]

    counted = count(Attends(), (SEQUENCE,))
    assert counted.problems == []
    assert counted.macs == 3 * (2 * 2 * 16 + 2 * 5 * 16 + 2 * 2 * 5 * 4)


def test_lookups_by_formula() -> None:
    module = nn.Embedding(10, 4)
    terms = terms_of(module, (TOKENS,), module(TOKENS))
    assert terms is not None
    assert total(terms, "lookups") == 15


def test_containers_and_strangers_have_no_formula() -> None:
    class Stranger(nn.Module):
        cost = 3  # no method

        def forward(self, x: Tensor) -> Tensor:
            return x

    for module in (nn.Sequential(nn.Linear(4, 4)), Stranger()):
        assert terms_of(module, (VECTORS,), VECTORS) is None


def test_a_layers_own_cost_comes_first() -> None:
    class Own(nn.Linear):
        def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
            return [Term("macs", "all of it", "N·7", {"N": input_shape[0]})]

    terms = terms_of(Own(4, 4), (VECTORS,), VECTORS)
    assert terms == [Term("macs", "all of it", "N·7", {"N": 3})]
