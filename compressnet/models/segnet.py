"""SegNet: VGG-16 and its mirror image, which puts values back where the maxima were.

V. Badrinarayanan, A. Kendall, R. Cipolla: SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation. 2015, arXiv 1511.00561.

    x (B, 3, H, W), RGB in [0, 1], normalised
      |  encoder: 2, 2, 3, 3, 3 convolutions 3x3, each with norm and ReLU;   64, 128, 256, 512, 512 channels
      |           a maximum over 2x2 behind each row                         (B, 512, H/32, W/32)
      |  decoder: the same rows backwards, before each the values put where its maxima were, zeros beside
      |  head: 3x3                                                           (B, K, H, W)
    scores (B, K, H, W)

29,454,548 parameters, 142.9 billion MACs (285.8 GFLOP) with 20 classes at 360x640 pixels. It is here to be
counted and timed: it is what ShuffleSeg was compared with. Odd sides are halved and rounded down, and what
is smaller than 32 pixels is filled up by repeating its edge.

Which of two nearly equal values is the maximum depends on the last digit, and it is put back in another
place then: where that happens (in one of 200x300 pixels, say) float32 is 4 % of the largest score off float64
in torch itself, and an export is refused, because ONNX Runtime is off by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Size
from compressnet.layers.data_flow import chains_of_parts
from compressnet.models.seg_encoders import imagenet
from compressnet.models.segmentation import filled, sides
from compressnet.signature import DERIVED

_ROWS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
_SMALLEST = 2 ** len(_ROWS)


class Row(nn.Sequential):
    """3x3 convolutions, each with norm and ReLU: (B, inputs, H, W) to (B, the last of widths, H, W)."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        for width in widths:
            self.extend(
                (nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            )
            inputs = width

    def foldable(self) -> list[list[str]]:
        return [[name for name, _ in self.named_children()]]


class Maxima(nn.Module):
    """VGG-16 without its linear layers: what is left, and of each row where its maxima were and its size."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = imagenet()
        self.rows = nn.ModuleList()
        inputs = 3
        for widths in _ROWS:
            self.rows.append(Row(inputs, widths))
            inputs = widths[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], list[tuple[int, int]]]:
        x = self.normalise(x)
        places, sizes = [], []
        for row in self.rows:
            x = row(x)
            sizes.append((x.shape[2], x.shape[3]))
            x, place = F.max_pool2d(x, 2, return_indices=True)
            places.append(place)
        return x, places, sizes


class Unpooling(nn.Module):
    """The rows of `Maxima` backwards, the very first layer left out."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.ModuleList()
        inputs = _ROWS[-1][-1]
        narrower = [widths[0] for widths in _ROWS]
        for number in reversed(range(len(_ROWS))):
            same = _ROWS[number][1:]
            widths = (*same, narrower[number - 1]) if number else same
            self.rows.append(Row(inputs, widths))
            inputs = widths[-1]

    def forward(self, found: tuple[Tensor, list[Tensor], list[tuple[int, int]]]) -> Tensor:
        x, places, sizes = found
        for row, place, size in zip(self.rows, reversed(places), reversed(sizes), strict=True):
            x = row(F.max_unpool2d(x, place, (2, 2), output_size=size))
        return x  # (B, 64, H, W)


class SegNet(nn.Module):
    """The network of the module's docstring.

    Args:
        num_classes: K.
    """

    values = "pictures: RGB in [0, 1]; scores of the classes of every pixel"

    def __init__(self, num_classes: Annotated[Size, DERIVED] = 20) -> None:
        super().__init__()
        self.encoder = Maxima()
        self.decoder = Unpooling()
        self.head = nn.Conv2d(_ROWS[0][0], num_classes, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), RGB in [0, 1], of any size, to scores (B, K, H, W)."""
        height, width = x.shape[2:]
        x = filled(x, torch.sym_max(_SMALLEST - height, 0), torch.sym_max(_SMALLEST - width, 0))
        x = self.head(self.decoder(self.encoder(x)))
        return x[:, :, :height, :width]

    def example(self, batch: int = 1, size: int | tuple[int, int] | None = None) -> tuple[Tensor]:
        """Pictures for counting, timing and export; 360 pixels high, 640 wide."""
        return (torch.rand(batch, 3, *sides(size)),)

    def foldable(self) -> list[list[str]]:
        return chains_of_parts(self)
