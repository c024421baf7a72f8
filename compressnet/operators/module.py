"""A classical operator in the place of a network, so that it is applied and measured in the same way."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from compressnet import finite
from compressnet.signature import Named, make


class OperatorModule(nn.Module):
    """Images (B, 3, H, W) in [0, 1] through an operator, one by one, on the CPU.

    Args:
        operator: the operator as a subject, e.g. `rof:weight=0.1`.
    """

    def __init__(self, operator: Annotated[str, Named("operator")]) -> None:
        super().__init__()
        self.operator = make("operator", operator)

    def example(self, batch: int = 1, size: int | tuple[int, int] = 64) -> tuple[Tensor]:
        """Images for timing, of `size` (height, width): a photograph, mirrored where it is smaller.

        Iterations depend on the picture, and of noise they tell nothing.
        """
        # Here, not above: it takes half a second.
        from skimage import data

        height, width = (size, size) if isinstance(size, int) else size
        photograph = data.coffee()
        more = (max(0, height - photograph.shape[0]), max(0, width - photograph.shape[1]))
        large = np.pad(photograph, ((0, more[0]), (0, more[1]), (0, 0)), mode="symmetric")[:height, :width]
        image = torch.from_numpy(large).permute(2, 0, 1) / 255  # (3, H, W)
        return (image.expand(batch, -1, -1, -1).contiguous(),)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same."""
        images = x.float().cpu().permute(0, 2, 3, 1).numpy()
        outputs = torch.from_numpy(np.stack([self.operator(image) for image in images]))
        return finite.checked(outputs, "the operator's output").permute(0, 3, 1, 2).to(x)
