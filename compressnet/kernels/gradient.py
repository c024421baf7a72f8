"""When an operation of ours may be called without its gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_wanted(*tensors: Tensor | None) -> bool:
    """Whether a gradient may be asked for of what comes of these.

    Also a forward one: an operation alone would silently return zeros, `torch.autograd.Function` refuses it.
    """
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
