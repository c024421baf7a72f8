"""Decoders for segmentation: maps of an encoder to scores of classes, or to features for them.

    E. Shelhamer, J. Long, T. Darrell: Fully Convolutional Networks for Semantic Segmentation. 2016,
    arXiv 1605.06211 (skip)
    O. Ronneberger, P. Fischer, T. Brox: U-Net. 2015, arXiv 1505.04597 (unet)
    A. Chaurasia, E. Culurciello: LinkNet. 2017, arXiv 1707.03718 (unet of ResNet-18)
    F. Yu, V. Koltun: Multi-Scale Context Aggregation by Dilated Convolutions. ICLR 2016, arXiv 1511.07122

             skip, in K classes              unet                                     dilation
    / 32     1x1 -> x2                       1x1 -> x2
    / 16     + 1x1 of the map -> x2          + the map -> 1x1 -> 1x1 -> x2
    / 8      + 1x1 of the map                + the map -> 1x1 -> 1x1 -> x2            1x1
    / 4                                      + the map -> 1x1 -> 1x1 -> x2
    / 2                                      + the map -> 1x1
    result   (B, K, H/8, W/8)                (B, c, H/2, W/2)                         (B, K, H/8, W/8)
    head     16x16 transposed, or bilinear   x2 -> 1x1 -> dropout -> 1x1              as of skip
             (B, K, H, W)                    (B, K, H, W)                             (B, K, H, W)

x2 is a transposed 4x4 convolution, which begins as bilinear enlarging. Maps are added, by U-Net too, and
there is no ReLU: all as released. A norm is behind every convolution but the one that gives the deepest
scores and the last. LinkNet is its paper's, with ReLUs.

Where an enlarged map has a row or column more than the one it is added to, it is cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from compressnet.models.seg_encoders import TORCH, Norms

_HEAD_WIDTH = 32  # at most, of the last features of U-Net; of those of LinkNet


class SkipDecoder(nn.Module):
    """FCN-8s in the space of classes.

    Args:
        widths: channels of the maps, 1/8, 1/16 and 1/32.
        num_classes: K.
        norms: what norms are made with.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, norms: Norms) -> None:
        super().__init__()
        eighth, sixteenth, last = widths
        self.score = nn.Conv2d(last, num_classes, 1)
        self.up1 = doubling(num_classes)
        self.up1_norm = norms(num_classes)
        self.feed1 = nn.Conv2d(sixteenth, num_classes, 1)
        self.feed1_norm = norms(num_classes)
        self.up2 = doubling(num_classes)
        self.up2_norm = norms(num_classes)
        self.feed2 = nn.Conv2d(eighth, num_classes, 1)
        self.feed2_norm = norms(num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        eighth, sixteenth, last = maps
        y = self.up1_norm(self.up1(self.score(last)))  # (B, K, H/16, W/16)
        y = cropped(y, sixteenth) + self.feed1_norm(self.feed1(sixteenth))
        y = self.up2_norm(self.up2(y))  # (B, K, H/8, W/8)
        scores: Tensor = cropped(y, eighth) + self.feed2_norm(self.feed2(eighth))
        return scores

    def foldable(self) -> list[list[str]]:
        return [["score", "up1", "up1_norm"], *([name, f"{name}_norm"] for name in ("feed1", "up2", "feed2"))]


class DilationDecoder(nn.Module):
    """Scores of the one map of an encoder with holes. Arguments as of `SkipDecoder`."""

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        (last,) = widths
        self.score = nn.Conv2d(last, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        scores: Tensor = self.score(maps[-1])  # (B, K, H/8, W/8)
        return scores

    def foldable(self) -> list[list[str]]:
        return [["score"]]


class UNetLevel(nn.Module):
    """Features to those of the next larger map, which is added."""

    def __init__(self, inputs: int, outputs: int, norms: Norms) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, outputs, 1)
        self.expand_norm = norms(outputs)
        self.up = doubling(outputs)
        self.up_norm = norms(outputs)
        self.mix = nn.Conv2d(outputs, outputs, 1)
        self.mix_norm = norms(outputs)

    def forward(self, x: Tensor, larger: Tensor) -> Tensor:
        x = self.expand_norm(self.expand(x))
        x = self.up_norm(self.up(x))
        features: Tensor = self.mix_norm(self.mix(cropped(x, larger) + larger))
        return features


class UNetDecoder(nn.Module):
    """U-Net that adds.

    Args:
        widths: channels of the maps, 1/2 to 1/32.
        norms: what norms are made with.
    """

    def __init__(self, widths: Sequence[int], norms: Norms) -> None:
        super().__init__()
        self.levels = nn.ModuleList(UNetLevel(*pair, norms) for pair in pairwise(reversed(widths)))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *larger, x = maps
        for level, beside in zip(self.levels, reversed(larger), strict=True):
            x = level(x, beside)
        return x  # (B, c, H/2, W/2)

    def foldable(self) -> list[list[str]]:
        up = ("expand", "expand_norm", "up", "up_norm")
        chains: list[list[str]] = [[]]
        for number in range(len(self.levels)):
            chains[-1] += [f"levels.{number}.{name}" for name in up]
            chains.append([f"levels.{number}.mix", f"levels.{number}.mix_norm"])
        return chains


class LinkNetDecoder(nn.Module):
    """LinkNet: a narrow transposed convolution at each size, the maps added.

    Args:
        widths: channels of the maps, 1/4 to 1/32.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_narrow(*pair, stride=2) for pair in pairwise(reversed(widths)))
        self.last = _narrow(widths[0], widths[0], stride=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *larger, x = maps
        for level, beside in zip(self.levels, reversed(larger), strict=True):
            x = cropped(level(x), beside) + beside
        features: Tensor = self.last(x)  # (B, c, H/4, W/4)
        return features

    def foldable(self) -> list[list[str]]:
        return [*([f"levels.{number}"] for number in range(len(self.levels))), ["last"]]


def _narrow(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    inner = max(1, inputs // 4)
    return nn.Sequential(
        nn.Conv2d(inputs, inner, 1, bias=False),
        TORCH(inner),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(inner, inner, 3, stride, padding=1, output_padding=stride - 1, bias=False),
        TORCH(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, outputs, 1, bias=False),
        TORCH(outputs),
        nn.ReLU(inplace=True),
    )


def unet_head(width: int, num_classes: int, norms: Norms) -> nn.Sequential:
    """Features (B, width, H/2, W/2) of `UNetDecoder` to scores (B, K, H, W)."""
    inner = min(width, _HEAD_WIDTH)
    return nn.Sequential(
        doubling(width),
        norms(width),
        nn.Conv2d(width, inner, 1),
        norms(inner),
        nn.Dropout(0.5),
        nn.Conv2d(inner, num_classes, 1),
    )


def linknet_head(width: int, num_classes: int) -> nn.Sequential:
    """Features (B, width, H/4, W/4) of `LinkNetDecoder` to scores (B, K, H, W)."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, _HEAD_WIDTH, 3, 2, padding=1, output_padding=1, bias=False),
        TORCH(_HEAD_WIDTH),
        nn.ReLU(inplace=True),
        nn.Conv2d(_HEAD_WIDTH, _HEAD_WIDTH, 3, padding=1, bias=False),
        TORCH(_HEAD_WIDTH),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(_HEAD_WIDTH, num_classes, 2, 2),
    )


def enlarging(channels: int, scale: int) -> nn.ConvTranspose2d:
    """A dense transposed convolution to `scale` times the size."""
    return nn.ConvTranspose2d(channels, channels, 2 * scale, scale, padding=scale // 2)


def doubling(channels: int) -> nn.ConvTranspose2d:
    return enlarging(channels, 2)


def cropped(x: Tensor, like: Tensor) -> Tensor:
    return x[:, :, : like.shape[2], : like.shape[3]]


def start(module: nn.Module) -> None:
    """As released: weights by Xavier, enlarging convolutions bilinear, each channel for itself, biases 0."""
    for part in module.modules():
        if not isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            continue
        if isinstance(part, nn.ConvTranspose2d) and part.kernel_size[0] == 2 * part.stride[0]:
            _start_bilinear(part)
        else:
            nn.init.xavier_uniform_(part.weight)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


@torch.no_grad()
def _start_bilinear(part: nn.ConvTranspose2d) -> None:
    scale = part.stride[0]
    taps = torch.arange(2 * scale, device=part.weight.device)
    row = 1 - (taps - (scale - 0.5)).abs() / scale  # a tent over two steps of the smaller map
    part.weight.zero_()
    part.weight.diagonal().copy_((row[:, None] * row)[..., None])  # (taps, taps, channels)
