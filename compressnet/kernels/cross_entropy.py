"""Cross-entropy of many classes in C, as operations of torch: `compressnet::cross_entropy_forward` and
`cross_entropy_backward`.

    scores (N, V) --> normalizers n = ln Σ e^score (N,) --> losses n - score of the word (N,)
    dscores = dloss · (e^(score - n) - [is the word])

`F.cross_entropy`, the reference, writes all log-probabilities, then zeros of their size, then the gradients
of both: of a language model each is as large as the scores, and the way to main memory and back takes most of
the time. Here nothing is written but the losses and one gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from compressnet.kernels import gradient, library

_kernel = library.Kernel("cross_entropy")
available, reference = _kernel.available, _kernel.reference
_ENOUGH = 1 << 16  # scores; a call takes some ten microseconds more than torch's
_operations = torch.library.Library("compressnet", "FRAGMENT")
_operations.define("cross_entropy_forward(Tensor scores, Tensor words) -> (Tensor, Tensor)")
_operations.define(
    "cross_entropy_backward(Tensor scores, Tensor words, Tensor normalizers, Tensor dlosses) -> Tensor"
)


def serves(scores: Tensor) -> bool:
    """Whether the kernel can work on these and pays: many, float32, on the CPU, not within torch.compile."""
    if torch.compiler.is_compiling() or not available():
        return False
    return scores.is_cpu and scores.dtype == torch.float32 and scores.numel() >= _ENOUGH


def cross_entropy(scores: Tensor, words: Tensor) -> Tensor:
    """-ln p of the words, (N,). Differentiable once where the kernel `serves`.

    Args:
        scores: (N, V); p is their softmax.
        words: (N,), int64, 0 to V - 1.

    Raises:
        IndexError: a word that is none.
    """
    if not serves(scores):
        return F.cross_entropy(scores, words, reduction="none")
    if gradient.is_wanted(scores):
        losses: Tensor = _CrossEntropy.apply(scores, words)
        return losses
    losses, _ = torch.ops.compressnet.cross_entropy_forward(scores, words)
    return losses


class _CrossEntropy(torch.autograd.Function):
    """Keeps the scores; probabilities are computed again for the gradient."""

    @staticmethod
    def forward(ctx, scores, words):  # type: ignore[no-untyped-def]
        losses, normalizers = torch.ops.compressnet.cross_entropy_forward(scores, words)
        ctx.save_for_backward(scores, words, normalizers)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, dlosses):  # type: ignore[no-untyped-def]
        return torch.ops.compressnet.cross_entropy_backward(*ctx.saved_tensors, dlosses), None


def _forward(scores: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    count = scores.shape[1]
    if len(words) and not 0 <= int(words.min()) <= int(words.max()) < count:  # C would write anywhere
        raise IndexError(f"cross_entropy: words must be from 0 to {count - 1}")
    greatest, sums = _fake_forward(scores, words)
    _call("forward", [scores.contiguous(), greatest, sums], scores)
    normalizers = greatest + sums.log()  # here, so that C needs no library
    return normalizers - scores.gather(1, words.unsqueeze(1)).squeeze(1), normalizers


def _backward(scores: Tensor, words: Tensor, normalizers: Tensor, dlosses: Tensor) -> Tensor:
    dscores = _fake_backward(scores, words, normalizers, dlosses)
    inputs = [scores.contiguous(), words.contiguous(), normalizers.contiguous(), dlosses.contiguous()]
    _call("backward", [*inputs, dscores], scores)
    return dscores


def _call(way: str, tensors: list[Tensor], scores: Tensor) -> None:
    function = _kernel.function(f"cross_entropy_{way}", len(tensors), 2, 1)
    function(*(tensor.data_ptr() for tensor in tensors), *scores.shape, torch.get_num_threads())


def _fake_forward(scores: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    return scores.new_empty(len(scores)), scores.new_empty(len(scores))


def _fake_backward(scores: Tensor, words: Tensor, normalizers: Tensor, dlosses: Tensor) -> Tensor:
    return scores.new_empty(scores.shape)


_operations.impl("cross_entropy_forward", _forward, "CPU")
_operations.impl("cross_entropy_backward", _backward, "CPU")
torch.library.register_fake("compressnet::cross_entropy_forward", _fake_forward, lib=_operations)
torch.library.register_fake("compressnet::cross_entropy_backward", _fake_backward, lib=_operations)


@register_flop_formula(
    [torch.ops.compressnet.cross_entropy_forward, torch.ops.compressnet.cross_entropy_backward]
)
def _flops(*shapes: object, **keywords: object) -> int:
    """All of it is elementwise: no matrix product."""
    return 0
