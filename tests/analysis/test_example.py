from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.analysis.example import example
from compressnet.errors import UsageError
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.layers.torch_lstm import TorchLSTM

MODULES: list[tuple[nn.Module, Any, list[tuple[int, ...]]]] = [  # module, size, shapes of two of them
    (nn.Conv1d(3, 4, 3), 50, [(2, 3, 50)]),
    (nn.Conv2d(3, 4, 3), (20, 30), [(2, 3, 20, 30)]),
    (nn.Conv2d(3, 4, 3), None, [(2, 3, 64, 64)]),
    (nn.ConvTranspose3d(3, 4, 3), 8, [(2, 3, 8, 8, 8)]),
    (nn.BatchNorm2d(3), (4, 5), [(2, 3, 4, 5)]),
    (nn.InstanceNorm1d(3, affine=True), 9, [(2, 3, 9)]),
    (nn.GroupNorm(1, 3), 9, [(2, 3, 9, 9)]),
    (nn.Linear(3, 4), None, [(2, 3)]),
    (nn.Linear(3, 4), 9, [(9, 2, 3)]),
    (nn.LayerNorm((3, 4)), None, [(2, 3, 4)]),
    (nn.RMSNorm(3), None, [(2, 3)]),
    (nn.Bilinear(3, 4, 5), None, [(2, 3), (2, 4)]),
    (nn.LSTM(3, 4), 9, [(9, 2, 3)]),
    (nn.GRU(3, 4, batch_first=True), None, [(2, 35, 3)]),
    (nn.GRUCell(3, 4), None, [(2, 3)]),
    (nn.MultiheadAttention(4, 2, kdim=3, batch_first=True), 9, [(2, 9, 4), (2, 9, 3), (2, 9, 4)]),
    (nn.Embedding(3, 4), 9, [(9, 2)]),
    (nn.EmbeddingBag(3, 4), 9, [(2, 9)]),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 9, [(2, 3, 9, 9)]),
    (AdaptiveNorm(3), (4, 5), [(2, 3, 4, 5)]),
    (TorchLSTM(3, 4), None, [(35, 2, 3)]),
]  # fmt: skip


@pytest.mark.parametrize(("module", "size", "shapes"), MODULES, ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_module_takes_its_example(module: nn.Module, size: Any, shapes: list[Any], device: str) -> None:
    module = module.to(device)
    inputs = example(module, 2, size)
    assert [tuple(x.shape) for x in inputs] == shapes
    assert all(x.device.type == device for x in inputs)
    module(*inputs)


def test_models_on_meta_and_in_other_types() -> None:
    with torch.device("meta"):
        net = compressnet.create("can24")
    (x,) = example(net, 1, 10**6)  # 12 TB if it were there
    assert x.is_meta
    (x,) = example(nn.Conv2d(3, 4, 3).bfloat16(), 1, 8)
    assert x.dtype == torch.bfloat16
    (tokens,) = example(nn.Embedding(10, 4).bfloat16())
    assert tokens.dtype == torch.int64


def test_what_nobody_knows_is_said() -> None:
    class Stranger(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    for module in (Stranger(), nn.Identity(), nn.Sequential()):
        with pytest.raises(
            UsageError, match=r"nothing says what it takes; give it a method example\(batch, size\)"
        ):
            example(module)


@pytest.mark.parametrize(
    ("module", "batch", "size", "message"),
    [
        (nn.Linear(3, 4), 0, None, "batch 0 and size None must be at least 1"),
        (nn.Conv2d(3, 4, 3), 1, (0, 5), r"size \(0, 5\) must be at least 1"),
        (nn.Conv1d(3, 4, 3), 1, (5, 5), "Conv1d: takes 1 size, not 2"),
        (nn.LSTM(3, 4), 1, (5, 5), "LSTM: takes 1 size, not 2"),
        (nn.LSTMCell(3, 4), 1, 5, "LSTMCell: takes one step and no length"),
        (TorchLSTM(3, 4), 1, (5, 5), "TorchLSTM: "),
    ],
)
def test_sizes_that_cannot_be(module: nn.Module, batch: int, size: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        example(module, batch, size)
