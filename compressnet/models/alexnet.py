"""AlexNet, without groups, in the two widths that look-up networks were compared with.

A. Krizhevsky, I. Sutskever, G. Hinton: ImageNet Classification with Deep Convolutional Neural Networks.
    NIPS 2012
A. Krizhevsky: One weird trick for parallelizing convolutional neural networks. 2014, arXiv 1404.5997 (the
    narrow widths)

    x (B, 3, 224, 224), normalised RGB
      |  11x11, stride 4 -> pool   (B, c1, 27, 27)
      |  5x5             -> pool   (B, c2, 13, 13)
      |  3x3, 3x3, 3x3   -> pool   (B, c5, 6, 6)      a ReLU behind every layer, batch norm before it if asked
      |  dropout, linear 4096, dropout, linear 4096, linear
    scores (B, K)

                  c1 ... c5                 parameters      MACs
    narrow        64 192 384 256 256        61,100,840       714 M
    wide          96 256 384 384 256        62,378,344     1,135 M

What differs from 2012: no groups, no local response normalisation. A speed-up "against AlexNet" is worth
1.6x more against the wide one: name it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Probability, Size
from compressnet.signature import DERIVED

_WIDTHS = {"narrow": (64, 192, 384, 256, 256), "wide": (96, 256, 384, 384, 256)}
_GEOMETRY = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))  # kernel, stride, padding
_POOLED = (0, 1, 4)  # convolutions with a maximum over 3x3, stride 2, behind them
_SIDE = 6  # of the maps that the linear layers read


class AlexNet(nn.Module):
    """The network of the module's docstring.

    Args:
        num_classes: K.
        width: of the convolutions.
        batch_norm: behind every convolution and hidden linear layer (eps 1e-3, as the look-up networks have).
        dropout: before the two hidden linear layers, in training.
        hidden: units of each of them.
    """

    values = "pictures: RGB, normalised with the mean and deviation that the assets name; scores of classes"

    def __init__(
        self,
        num_classes: Annotated[Size, DERIVED] = 1000,
        width: Literal["narrow", "wide"] = "narrow",
        batch_norm: bool = False,
        dropout: Probability = 0.5,
        hidden: Size = 4096,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        widths = _WIDTHS[width]
        inputs = (3, *widths[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(n, w, kernel, stride, padding, bias=not batch_norm)
            for n, w, (kernel, stride, padding) in zip(inputs, widths, _GEOMETRY, strict=True)
        )
        self.conv_norms = nn.ModuleList(
            nn.BatchNorm2d(w, eps=1e-3) if batch_norm else nn.Identity() for w in widths
        )
        sizes = (widths[-1] * _SIDE**2, hidden, hidden)
        self.hidden = nn.ModuleList(nn.Linear(n, m, bias=not batch_norm) for n, m in pairwise(sizes))
        self.hidden_norms = nn.ModuleList(
            nn.BatchNorm1d(hidden, eps=1e-3) if batch_norm else nn.Identity() for _ in self.hidden
        )
        self.output = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), normalised, best of 224x224, to scores (B, K).

        Maps of other pictures are averaged to 6x6, as torchvision does.
        """
        for number, (conv, norm) in enumerate(zip(self.convs, self.conv_norms, strict=True)):
            x = F.relu(norm(conv(x)), inplace=True)
            if number in _POOLED:
                x = F.max_pool2d(x, 3, 2)
        if x.shape[2:] != (_SIDE, _SIDE):
            x = F.adaptive_avg_pool2d(x, _SIDE)
        x = x.flatten(1)  # (B, c5 * 36)
        for linear, norm in zip(self.hidden, self.hidden_norms, strict=True):
            x = F.relu(norm(linear(F.dropout(x, self.dropout, self.training))), inplace=True)  # (B, hidden)
        scores: Tensor = self.output(x)
        return scores

    def example(self, batch: int = 1, size: int | tuple[int, int] = 224) -> tuple[Tensor]:
        """Inputs for counting, timing and export."""
        height, width = (size, size) if isinstance(size, int) else size
        return (torch.randn(batch, 3, height, width),)

    def foldable(self) -> list[list[str]]:
        """What follows what (`layers.data_flow`): each layer and its normalisation."""
        pairs = (("convs", "conv_norms"), ("hidden", "hidden_norms"))
        return [
            [f"{layers}.{number}", f"{norms}.{number}"]
            for layers, norms in pairs
            for number, norm in enumerate(self.get_submodule(norms).children())
            if not isinstance(norm, nn.Identity)
        ]
