"""Small networks and correlated data that the tests of transforms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.architecture import Architecture
from compressnet.compression.methods import Compressed, compressed
from compressnet.compression.network import Calibration, Network, Selection
from compressnet.layers.dilated_conv import DilatedConv2d
from compressnet.models.language_model import LanguageModel
from compressnet.models.resnet import resnet20

GEOMETRIES = {
    "linear": (lambda: nn.Linear(24, 18), (7, 24)),
    "linear, no bias, steps": (lambda: nn.Linear(12, 20, bias=False), (3, 5, 12)),
    "1x1 of every second pixel": (lambda: nn.Conv2d(10, 14, 1, stride=2), (2, 10, 7, 6)),
    "conv1d": (lambda: nn.Conv1d(9, 12, 5, stride=2, padding=3, dilation=2), (2, 9, 23)),
    "conv1d, 1x1": (lambda: nn.Conv1d(9, 12, 1, bias=False), (2, 9, 11)),
    "3x3": (lambda: nn.Conv2d(8, 12, 3, padding=1), (2, 8, 9, 8)),
    "3x5": (
        lambda: nn.Conv2d(9, 8, (3, 5), stride=(2, 1), padding=(1, 4), dilation=(1, 2), bias=False),
        (2, 9, 11, 12),
    ),
    "dilated": (lambda: DilatedConv2d(8, 10, dilation=3), (2, 8, 10, 9)),
    "padding=same": (lambda: nn.Conv2d(8, 9, 3, padding="same", dilation=2), (2, 8, 9, 8)),
}


class Classifier(nn.Module):
    """All kinds of layers in a row; spectra of the weights that fall, as those of trained ones do."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(16, 32, (3, 5), stride=(2, 1), padding=(1, 2))
        self.mix = nn.Conv2d(32, 24, 1)
        self.fc1 = nn.Linear(96, 40)
        self.fc2 = nn.Linear(40, 24)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                fall(layer)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv1(x)))
        x = F.relu(self.mix(F.relu(self.conv2(x))))
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)
        y: Tensor = self.fc2(F.relu(self.fc1(x)))
        return y

    def example(self, batch: int = 1, size: int | None = None) -> tuple[Tensor]:
        return (torch.zeros(batch, 3, 16, 16, dtype=self.fc1.weight.dtype),)


@torch.no_grad()
def fall(layer: Any) -> None:
    """Singular values of a layer's matrix fall as 1, 1/2, 1/3 ..."""
    left, values, right = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
    values = 3 * values[0] / torch.arange(1, len(values) + 1)
    layer.weight.copy_(((left * values) @ right).view_as(layer.weight))


def pictures(batches: int = 8, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Smooth ones, of mixed colours, whose mean is not zero."""
    torch.manual_seed(1)
    rough = [torch.randn(8, 3, 4, 4, dtype=dtype) for _ in range(batches)]
    return [F.interpolate(x, size=16, mode="bilinear") + 0.3 for x in rough]


def settled(norm: bool = True, dtype: torch.dtype = torch.float64) -> Classifier:
    """A classifier whose batch norm has seen the pictures."""
    net = Classifier(norm).to(dtype)
    with torch.no_grad():
        for x in pictures(dtype=dtype) * 3:
            net(x)
    return net.eval()


@torch.no_grad()
def compress(module: nn.Module, inputs: Sequence[Any] | None, *methods: str, **selection: Any) -> Compressed:
    chosen = Selection(**{key: tuple(value) for key, value in selection.items()})
    return compressed(module, Calibration.of(inputs, module), methods, chosen)


def network(module: nn.Module, inputs: Sequence[Any] | None) -> Network:
    return Network(module, Calibration.of(inputs, module), Selection())


@torch.no_grad()
def off(module: nn.Module, dense: nn.Module, inputs: Sequence[Any]) -> float:
    """The error of outputs over their spread."""
    found, wanted = (torch.cat([first(net(x)).flatten(1) for x in inputs]) for net in (module, dense))
    return float((found - wanted).norm() / (wanted - wanted.mean(0)).norm())


def first(output: Any) -> Tensor:
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found.double()


def language_model(
    cell: str = "lstm:peepholes=false", layers: int = 2, hidden: int = 24, **arguments: Any
) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(60, hidden, cell, layers, **arguments).eval()


def words(batches: int = 6) -> list[Tensor]:
    """Texts in which few words are frequent."""
    torch.manual_seed(2)
    shares = 1 / torch.arange(1, 61).float()
    return [torch.multinomial(shares, 12 * 8, replacement=True).view(12, 8) for _ in range(batches)]


def described(name: str) -> tuple[nn.Module, Architecture, list[Tensor]]:
    """A model of the registry, what a weights file says of it, and inputs."""
    torch.manual_seed(0)
    if name == "resnet20":
        arguments: dict[str, Any] = {"num_classes": 10, "widths": [8, 16, 24]}
        module: nn.Module = resnet20(**arguments)
        inputs = [torch.randn(4, 3, 16, 16) for _ in range(3)]
        return module.eval(), Architecture("image_classification", {}, "resnet20", arguments), inputs
    sizes: dict[str, Any] = {"vocab_size": 60, "hidden_size": 24, "tied": name == "tied"}
    module = LanguageModel(**sizes).eval()
    return module, Architecture("language_modelling", {}, "language_model", sizes), words()
