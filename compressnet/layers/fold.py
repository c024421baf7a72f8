"""What follows a convolution or a linear layer in evaluation, folded into it: one edit and its weights.

    convolution, transposed convolution, linear  -> batch norm, frozen AdaptiveNorm   scaled, with a bias
    SVDF without activation                      -> batch norm        its time filters scaled, with a bias
    linear -> linear -> linear                                                        one matrix
    convolution -> 1x1 convolution                                                    one convolution

The layer in front takes everything up, what was behind it becomes `identity`. Two layers become one only
where that is not larger: a matrix that was factored stays so. What shares its weights stays as it is too.
Which modules follow each other: `data_flow`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compressnet.architecture import Edit, Layer, apply_edit
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.layers.described import described
from compressnet.layers.fold_plan import NORMS, Group, groups, resized, scaled_weight
from compressnet.layers.svdf import SVDF

_ROUNDINGS = 8  # units of the last place


@dataclass(frozen=True)
class Folding:
    """What folding changes.

    Attributes:
        groups: paths: each layer, and behind it those that it takes up.
        edit: the layers anew, and `identity` in the place of the others.
        tensors: parameters of each new layer by its path and their names, in the types and places of the old
            ones.
    """

    groups: tuple[tuple[str, ...], ...]
    edit: Edit
    tensors: Mapping[str, Mapping[str, Tensor]]

    def apply(self, module: nn.Module) -> None:
        """Change the module that this was made of, or a copy of it."""
        with torch.device("meta"):
            apply_edit(module, self.edit)
        for path, tensors in self.tensors.items():
            for name, tensor in tensors.items():
                setattr(module.get_submodule(path), name, nn.Parameter(tensor))
        for path in self.edit["modules"]:
            module.get_submodule(path).train(module.training)


def folding(module: nn.Module) -> Folding | None:
    """What can be folded in `module`, as it is in evaluation; None: nothing. It is left as it is.

    Weights are computed in float64. What would not be finite in the type of the weights is left out.

    Raises:
        UsageError: its `foldable()` names what it has not.
    """
    modules: dict[str, Layer] = {}
    tensors: dict[str, dict[str, Tensor]] = {}
    done = []
    for group in groups(module):
        weight, bias = _folded(group)
        old = group.parts[0]
        name = scaled_weight(old)
        like = getattr(old, name)
        values = {name: _as(weight, like)} | ({} if bias is None else {"bias": _as(bias, like)})
        if not all(torch.isfinite(value).all() for value in values.values()):
            continue
        if isinstance(old, SVDF):
            values["weight_feature"] = old.weight_feature.detach().clone()
        first, *others = group.paths
        modules[first] = resized(described(old), group.sizes, bias is not None)
        modules |= {path: {"layer": "identity", "args": {}} for path in others}
        tensors[first] = values
        done.append(group.paths)
    return Folding(tuple(done), {"modules": modules}, tensors) if done else None


def difference(ours: Any, theirs: Any) -> float:
    """The largest |ours - theirs| of any tensor in two results, over the largest |theirs| of that tensor.

    Infinite where shapes differ or something is not finite.
    """
    mine, others = (
        [x.detach().double() for x in tree_leaves(result) if isinstance(x, Tensor)]
        for result in (ours, theirs)
    )
    if [x.shape for x in mine] != [x.shape for x in others]:
        return float("inf")
    return max(map(_off, mine, others), default=0.0)


def rounding(module: nn.Module) -> float:
    """What `difference` may be because a module's numbers have few digits; 0: they are float32 or wider."""
    kinds = [p.dtype for p in module.parameters() if p.is_floating_point()]
    half = [kind for kind in kinds if torch.finfo(kind).bits < 32]
    return max((_ROUNDINGS * torch.finfo(kind).eps for kind in half), default=0.0)


def _off(one: Tensor, other: Tensor) -> float:
    if not one.numel():
        return 0.0
    off, scale = float((one - other).abs().max()), float(other.abs().max())
    if not off < float("inf"):
        return float("inf")
    return off / scale if scale else off


def _folded(group: Group) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer with all that it takes up, float64.

    On the way a weight is (outputs, inputs / groups, ...), that of a transposed convolution too.
    """
    first: Any = group.parts[0]
    weight, bias = _weights(first)
    sets = getattr(first, "groups", 1)
    for part in group.parts[1:]:
        if type(part) in NORMS:
            scale, shift = _affine(part)
            each = scale.repeat_interleave(len(weight) // len(scale))  # of an SVDF: the filters of a node
            weight = weight * each.view(-1, *[1] * (weight.ndim - 1))
            bias = shift if bias is None else bias * scale + shift
            continue
        matrix, more = _weights(part)
        matrix = matrix.flatten(1)
        weight, sets = _in_one_group(weight, sets), 1
        weight = (matrix @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        if bias is not None:
            more = matrix @ bias if more is None else matrix @ bias + more
        bias = more
    return (_swapped(weight, sets) if getattr(first, "transposed", False) else weight), bias


def _weights(part: Any) -> tuple[Tensor, Tensor | None]:
    weight = _wide(getattr(part, scaled_weight(part)))
    if getattr(part, "transposed", False):  # (inputs, outputs / groups, ...)
        weight = _swapped(weight, part.groups)
    return weight, None if part.bias is None else _wide(part.bias)


def _swapped(weight: Tensor, sets: int) -> Tensor:
    """Inputs and outputs change places; either may be the one that is whole."""
    return weight.unflatten(0, (sets, -1)).transpose(1, 2).flatten(0, 1)


def _in_one_group(weight: Tensor, sets: int) -> Tensor:
    """(outputs, inputs / groups, ...) to (outputs, inputs, ...): zeros between the groups."""
    if sets == 1:
        return weight
    outputs, inputs = weight.shape[0] // sets, weight.shape[1]
    whole = weight.new_zeros(weight.shape[0], inputs * sets, *weight.shape[2:])
    for number in range(sets):
        rows = slice(number * outputs, (number + 1) * outputs)
        whole[rows, number * inputs : (number + 1) * inputs] = weight[rows]
    return whole


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """norm(x) = scale * x + shift, of each channel."""
    if isinstance(norm, AdaptiveNorm):
        mean, variance = (
            _wide(norm.get_buffer(f"moving_{name}")).view(1, -1, 1, 1) for name in ("mean", "variance")
        )
        scale, shift = (x.detach() for x in copy.deepcopy(norm).cpu().scale_and_shift(mean, variance))
        return scale.flatten(), (shift - scale * mean).flatten()
    scale = torch.rsqrt(_wide(norm.running_var) + norm.eps)
    scale = scale * _wide(norm.weight) if norm.affine else scale
    shift = -_wide(norm.running_mean) * scale
    return scale, shift + _wide(norm.bias) if norm.affine else shift


def _wide(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def _as(value: Tensor, like: Tensor) -> Tensor:
    """In the type, place and layout of another."""
    value = value.to(like.device, like.dtype)
    last = like.is_contiguous() is False and value.ndim == like.ndim == 4
    return value.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
