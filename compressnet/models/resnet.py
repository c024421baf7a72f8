"""ResNet: residual networks for pictures, at ImageNet's and at CIFAR's size.

K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition. CVPR 2016, arXiv 1512.03385.

    x (B, 3, H, W), normalised RGB
      |  stem: 7x7 convolution, stride 2, max pooling by 2  (ImageNet)   or 3x3 convolution, stride 1  (CIFAR)
      |  layer1    blocks of width w1                       (B, w1, h, w)
      |  layer2... the first block of each with stride 2    (B, w2, h/2, w/2), ...
      |  mean over the picture -> linear
    scores (B, K)

    block: x -> 3x3, norm, ReLU -> 3x3, norm -> + shortcut(x) -> ReLU
           shortcut: x itself; where sizes change a 1x1 convolution and norm ("projection", option B of the
           paper), or every second pixel and planes of zeros ("padding", option A, without parameters)

                  blocks     widths               stem      shortcut    parameters   MACs
    resnet10      1 1 1 1    64 128 256 512       CIFAR     projection   4,903,242     253 M at 32x32
    resnet18      2 2 2 2    64 128 256 512       ImageNet  projection  11,689,512   1,814 M at 224x224
    resnet20      3 3 3      16 32 64             CIFAR     padding        269,722      41 M at 32x32

resnet18 and resnet20 are the paper's; resnet10 is 18 with one block in the place of two, at CIFAR's size.
Names of modules are torchvision's, so that the weights of its resnet18 fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Layers, Size
from compressnet.signature import DERIVED

Stem = Literal["imagenet", "cifar"]
Shortcut = Literal["projection", "padding"]
Widths = Annotated[list[Size], Field(min_length=1, max_length=8)]
Blocks = Annotated[list[Layers], Field(min_length=1, max_length=8)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != width:
            self.downsample = _shortcut(inputs, width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, w, h, w)
        y = self.bn2(self.conv2(y))  # (B, w, h, w)
        y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y, inplace=True)


class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, and planes of zeros around those there are (option A)."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.more // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.more - before))


class ResNet(nn.Module):
    """The network of the module's docstring.

    Args:
        blocks: of each stage.
        widths: feature maps of each stage.
        num_classes: K.
        stem: "imagenet" halves the picture twice, "cifar" not at all.
        shortcut: where sizes change.

    Raises:
        ValueError: not as many blocks as widths, or "padding" that would have to take planes away.
    """

    values = "pictures: RGB, normalised with the mean and deviation that the assets name; scores of classes"

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        num_classes: int = 1000,
        stem: Stem = "imagenet",
        shortcut: Shortcut = "projection",
    ) -> None:
        super().__init__()
        if len(blocks) != len(widths):
            raise ValueError(f"{len(widths)} widths for {len(blocks)} stages: give one a stage")
        if shortcut == "padding" and list(widths) != sorted(widths):
            raise ValueError("shortcut 'padding' needs widths that do not shrink; use 'projection'")
        self.stem = stem
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(3, widths[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = len(widths)
        inputs = widths[0]
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
            first = 1 if number == 1 else 2
            strides = [first] + [1] * (count - 1)
            sizes = [inputs] + [width] * (count - 1)
            stage = (BasicBlock(n, width, s, shortcut) for n, s in zip(sizes, strides, strict=True))
            setattr(self, f"layer{number}", nn.Sequential(*stage))
            inputs = width
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), normalised, to scores (B, K)."""
        x = self.features(x)[-1]  # (B, w, h, w)
        x = x.mean((2, 3))  # (B, w)
        scores: Tensor = self.fc(x)
        return scores

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every stage, the largest first: what a decoder for segmentation reads."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.stem == "imagenet":
            x = F.max_pool2d(x, 3, 2, padding=1)
        maps = []
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps

    def example(self, batch: int = 1, size: int | tuple[int, int] | None = None) -> tuple[Tensor]:
        """Inputs for counting, timing and export; 224x224, or 32x32 with the stem "cifar"."""
        size = size if size is not None else 224 if self.stem == "imagenet" else 32
        height, width = (size, size) if isinstance(size, int) else size
        return (torch.randn(batch, 3, height, width),)

    def foldable(self) -> list[list[str]]:
        """What follows what (`layers.data_flow`): each convolution and its normalisation."""
        chains = [["conv1", "bn1"]]
        for path, module in self.named_modules():
            if isinstance(module, BasicBlock):
                chains += [[f"{path}.conv1", f"{path}.bn1"], [f"{path}.conv2", f"{path}.bn2"]]
                if isinstance(module.downsample, nn.Sequential):
                    chains.append([f"{path}.downsample"])
        return chains


def resnet10(
    num_classes: Annotated[Size, DERIVED] = 10, widths: Widths | None = None, stem: Stem = "cifar"
) -> ResNet:
    """ResNet-18 with one block a stage, at CIFAR's size: 4,903,242 parameters. Arguments as in `ResNet`."""
    return ResNet([1, 1, 1, 1], widths or [64, 128, 256, 512], num_classes, stem)


def resnet18(
    num_classes: Annotated[Size, DERIVED] = 1000, widths: Widths | None = None, stem: Stem = "imagenet"
) -> ResNet:
    """ResNet-18 of the paper: 11,689,512 parameters, 1,814,073,344 MACs. Arguments as in `ResNet`."""
    return ResNet([2, 2, 2, 2], widths or [64, 128, 256, 512], num_classes, stem)


def resnet20(
    num_classes: Annotated[Size, DERIVED] = 10,
    widths: Widths | None = None,
    shortcut: Shortcut = "padding",
) -> ResNet:
    """ResNet-20 of the paper, for CIFAR: 269,722 parameters. Arguments as in `ResNet`."""
    return ResNet([3, 3, 3], widths or [16, 32, 64], num_classes, "cifar", shortcut)


def _shortcut(inputs: int, width: int, stride: int, kind: Shortcut) -> nn.Module:
    if kind == "padding":
        return PaddedShortcut(width - inputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
