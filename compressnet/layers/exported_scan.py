"""A walk over time as one operation, for what is exported: a loop in Python freezes the number of steps.

`torch.export` and the ONNX exporter trace a loop as many steps as their example has, whatever the dynamic
shapes say. The `scan` of torch keeps the step as a graph of its own; in ONNX it becomes the operator Scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tensors = tuple[Tensor, ...]
Weights = TypeVar("Weights")


def is_exporting() -> bool:
    """Whether `torch.export` traces. torch's own answer, up to 2.12, is yes within `torch.compile` too."""
    return torch.compiler.is_exporting() and torch.compiler._is_exporting_flag


def exported_scan(
    step: Callable[[Tensors, Tensors, Weights], tuple[Tensors, Tensors]],
    state: Tensors,
    inputs: Tensors,
    weights: Weights,
    reverse: bool = False,
) -> tuple[Tensors, Tensors]:
    """`step` at each index of the first axis of `inputs`.

    Args:
        step: of the state, the inputs (B, ...) of one index and the weights: the next state, of the same
            shapes and types, and what to put out. It changes nothing that it is given.
        state: before the first step.
        inputs: (T, B, ...), T >= 1.
        weights: whatever else `step` needs: tensors, or tuples of them and of constants.
        reverse: walk from the last index to the first.

    Returns:
        The last state, and the outputs (T, B, ...) in the order of the inputs.
    """
    from torch._higher_order_ops.scan import scan

    # Views of one tensor among what goes in or comes out are refused; ONNX has no copies, so they are free.
    state, inputs, weights = pytree.tree_map_only(torch.Tensor, torch.clone, (state, inputs, weights))

    def one(before: Tensors, at: Tensors) -> tuple[Tensors, Tensors]:
        after, out = step(before, at, weights)
        return after, tuple(tensor.clone() for tensor in out)

    last, outputs = scan(one, state, inputs, reverse=reverse)
    return last, outputs
