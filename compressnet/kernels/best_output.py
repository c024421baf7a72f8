"""The best output of every pixel, of scores that are enlarged on the way.

    scores (B, K, h, w) -> enlarged (B, K, H, W), which are never whole in memory -> best (B, H, W)

No operation of torch: labels have no gradients, and nothing is counted of comparing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.kernels import library

_kernel = library.Kernel("best_output")
available, reference = _kernel.available, _kernel.reference
_COLUMNS = 256  # of the rows that the kernel works on
_MOST = 256  # outputs that a byte has a number for

Size = tuple[int, int]


def best_output(scores: Tensor, size: Size | None = None, kept: Size | None = None) -> Tensor:
    """The best output of every pixel; the first among equals.

    Args:
        scores: (B, K, h, w), K at most 256, finite.
        size: H and W to which they are enlarged, bilinearly without aligned corners; None: they are not.
        kept: height and width of the upper left part that is asked for; None: all.

    Returns:
        uint8, (B, H, W), or of the size of what is kept.

    Raises:
        ValueError: more outputs than a byte has numbers for, none, or more kept than there is.
    """
    here = scores.shape[2], scores.shape[3]
    size = size or here
    kept = kept or size
    if not 1 <= scores.shape[1] <= _MOST or kept[0] > size[0] or kept[1] > size[1]:
        raise ValueError(f"best_output: {kept} of {size} of scores {tuple(scores.shape)}")
    if _serves(scores):
        return _run(scores, size, kept)
    if size != here:
        scores = F.interpolate(scores, size, mode="bilinear", align_corners=False)
    return scores[:, :, : kept[0], : kept[1]].argmax(1).to(torch.uint8)


def _serves(scores: Tensor) -> bool:
    if torch.compiler.is_compiling() or not available():
        return False
    # On a stack nobody knows whether there are numbers; what is_neg has others in memory.
    plain = not torch._C._len_torch_dispatch_stack() and not scores.is_neg()
    return plain and scores.is_cpu and scores.dtype == torch.float32 and scores.numel() > 0


def _run(scores: Tensor, size: Size, kept: Size) -> Tensor:
    threads = torch.get_num_threads()
    out = torch.empty(scores.shape[0], *kept, dtype=torch.uint8)
    space = torch.zeros(threads, 2, scores.shape[1], _COLUMNS)
    _kernel.function("best_output", 3, 12, 1)(
        scores.data_ptr(),
        out.data_ptr(),
        space.data_ptr(),
        *scores.shape,
        *size,
        *kept,
        *scores.stride(),
        threads,
    )
    return out
