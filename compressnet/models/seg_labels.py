"""Segmenters down to labels, for timing: the best output of every pixel is part of what a user waits for.

labels               the network as it is, then the best output
labels_folded        as `apply` and `eval` run it: folded, channels-last, scores enlarged in the last step
labels_onnxruntime   the network in ONNX Runtime, then the best output
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressnet import registry
from compressnet.kernels.best_output import best_output
from compressnet.layers.folded import in_channels_last
from compressnet.models.segmentation import Segmenter, finite_scores
from compressnet.models.segnet import SegNet


class Labels(nn.Module):
    """Pictures (B, 3, H, W) to the best output of every pixel, uint8 (B, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).argmax(1).to(torch.uint8)


class FoldedLabels(nn.Module):
    """The same of a copy that is made in the first call."""

    inference_only = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._copy: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._copy is None:
            self._copy = in_channels_last(self.network)
        return best(self._copy, x.contiguous(memory_format=torch.channels_last))


class OnnxLabels(Labels):
    """The same of a network that ONNX Runtime runs."""

    inference_only = True


def best(network: nn.Module, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Pictures (B, 3, H, W) to the best output of every pixel, uint8 (B, H, W).

    Args:
        network: of scores (B, K, H, W).
        size: the height and width of the result, to which scores are enlarged.

    Raises:
        NotFinite: the scores are not.
    """
    if isinstance(network, Segmenter):
        return network.best(x, size)
    return best_output(finite_scores(network(x)), size)


def labels(module: nn.Module) -> Labels | None:
    """The back end `labels`; None of what is no segmenter."""
    return Labels(module) if isinstance(module, Segmenter | SegNet) else None


def labels_folded(module: nn.Module) -> FoldedLabels | None:
    """The back end `labels_folded`; None of what is no segmenter."""
    return FoldedLabels(module) if isinstance(module, Segmenter | SegNet) else None


def labels_onnxruntime(module: nn.Module) -> OnnxLabels | None:
    """The back end `labels_onnxruntime`; None of what is no segmenter."""
    if not isinstance(module, Segmenter | SegNet):
        return None
    inner = registry.find("backend", "onnxruntime")(module)
    return None if inner is None else OnnxLabels(inner)
