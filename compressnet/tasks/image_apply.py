"""Use of a network on one photograph of any size and mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from compressnet.data.images import Image
from compressnet.reporter import Reporter
from compressnet.tasks.image_processing import Options


class Applier:
    """Holds the model ready for many photographs."""

    def __init__(self, model: nn.Module, options: Options, reporter: Reporter) -> None:
        self.model, self.options, self.reporter = model, options, reporter

    def __call__(self, image: Image) -> Image:
        """The processed photograph in the mode, depth and profile of `image`."""
        gray = image.pixels.shape[2] == 1
        pixels = np.repeat(image.pixels, 3, axis=2) if gray else image.pixels
        x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            y = self.model(x)[0].float().clamp(0, 1).permute(1, 2, 0).numpy()
        return replace(image, pixels=y.mean(axis=2, keepdims=True) if gray else y)
