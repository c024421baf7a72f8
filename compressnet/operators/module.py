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
        """Images for timing, of `size` (height, width)."""
        height, width = (size, size) if isinstance(size, int) else size
        return (torch.rand(batch, 3, height, width),)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same."""
        images = x.float().cpu().permute(0, 2, 3, 1).numpy()
        outputs = torch.from_numpy(np.stack([self.operator(image) for image in images]))
        return finite.checked(outputs, "the operator's output").permute(0, 3, 1, 2).to(x)
