"""Numbers that are not finite never become a figure, a picture or a file: one place that looks for them."""

from __future__ import annotations

import torch
from torch import Tensor

from compressnet.errors import NotFinite


def count_not_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite; of whole numbers none."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
        return 0
    wide = tensor if tensor.element_size() >= 4 else tensor.float()
    # A sum takes no memory and is finite only of finite values. That of large ones may overflow: count then.
    if bool(torch.isfinite(wide.sum())):
        return 0
    return wide.numel() - int(torch.isfinite(wide).sum())


def checked(tensor: Tensor, what: str) -> Tensor:
    """`tensor`, all of whose values are finite.

    Args:
        what: what to call it in the message.

    Raises:
        NotFinite: some are not.
    """
    if count := count_not_finite(tensor):
        raise NotFinite(f"{what}: {count} of {tensor.numel()} values are not finite (NaN or infinite)")
    return tensor
