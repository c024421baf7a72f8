"""Which layers take up which modules behind them: decided by types and sizes alone, no arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from compressnet.architecture import Layer
from compressnet.kernels import product
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.layers.data_flow import chains
from compressnet.layers.described import can_be_described, paddings
from compressnet.layers.dilated_conv import DilatedConv2d
from compressnet.layers.svdf import SVDF

# Exact types: a subclass may compute something else.
LAYERS = (nn.Linear, product.Linear, nn.Conv1d, nn.Conv2d, DilatedConv2d, nn.ConvTranspose2d, SVDF)
NORMS: dict[type[nn.Module], tuple[int, ...]] = {  # after layers of so many axes besides batch and channels
    nn.BatchNorm1d: (0, 1),
    nn.BatchNorm2d: (2,),
    AdaptiveNorm: (2,),
}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # in evaluation


class Sizes(NamedTuple):
    """Of a layer.

    Attributes:
        axes: besides batch and channels; 0: linear, and SVDF.
        taps: of its kernel.
    """

    axes: int
    inputs: int
    outputs: int
    taps: int
    groups: int

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.taps // self.groups


@dataclass(frozen=True)
class Group:
    """A layer and what it takes up, in order.

    Attributes:
        sizes: of what they are together.
        pointwise: whether it mixes channels alone, so that a layer before it can take it up.
    """

    paths: tuple[str, ...]
    parts: tuple[nn.Module, ...]
    sizes: Sizes
    pointwise: bool

    def with_norm(self, path: str, norm: nn.Module) -> Group | None:
        if self.sizes.axes not in NORMS[type(norm)] or _channels(norm) != self.sizes.outputs:
            return None
        return replace(self, paths=(*self.paths, path), parts=(*self.parts, norm))

    def with_layer(self, other: Group) -> Group | None:
        mine, theirs = self.sizes, other.sizes
        if isinstance(
            self.parts[0], SVDF
        ):  # a matrix behind it would mix its nodes: no filters of few factors
            return None
        if not other.pointwise or (mine.axes, mine.outputs) != (theirs.axes, theirs.inputs):
            return None
        sizes = Sizes(mine.axes, mine.inputs, theirs.outputs, mine.taps, 1)
        if sizes.weights > mine.weights + theirs.weights:
            return None
        together = self.paths + other.paths, self.parts + other.parts
        return Group(*together, sizes, self.pointwise)


def groups(module: nn.Module) -> Iterator[Group]:
    """Every layer that takes up something, with what it takes.

    Raises:
        UsageError: as of `data_flow.chains`.
    """
    alone = Alone(module)
    seen: set[str] = set()
    for chain in chains(module, is_wanted):
        stack: list[Group] = []
        for path in chain:
            part = module.get_submodule(path)
            if type(part) in _NOTHING and not _is_heard(part):
                continue
            free = path not in seen and alone(path)
            seen.add(path)
            grown = _grown(stack, path, part) if free else None
            if grown is None:
                yield from (group for group in stack if len(group.paths) > 1)
                stack = []
            else:
                stack = grown
        yield from (group for group in stack if len(group.paths) > 1)


def is_wanted(part: nn.Module) -> bool:
    """Whether it may take up others, or be taken up."""
    return type(part) in LAYERS or type(part) in NORMS


def _grown(stack: Sequence[Group], path: str, part: nn.Module) -> list[Group] | None:
    """Layers in a row with one more module; None: it ends the row."""
    if type(part) in NORMS:
        taken = stack[-1].with_norm(path, part) if stack and _is_fixed(part) else None
        return None if taken is None else [*stack[:-1], taken]
    group = _layer(path, part)
    if group is None:
        return None
    grown = [*stack, group]
    while len(grown) > 1 and (both := grown[-2].with_layer(grown[-1])) is not None:
        grown[-2:] = [both]
    return grown


def _layer(path: str, part: Any) -> Group | None:
    """A layer that can take up others; None for what the registry cannot write."""
    if type(part) not in LAYERS or not can_be_described(part):
        return None
    weight = getattr(part, scaled_weight(part))
    if weight.layout != torch.strided or not weight.is_floating_point():
        return None
    if isinstance(part, SVDF):
        sizes = Sizes(0, part.memory * part.features, part.units, 1, 1)
        return Group((path,), (part,), sizes, False) if part.activation == "none" else None
    if isinstance(part, nn.Linear):
        return Group((path,), (part,), Sizes(0, part.in_features, part.out_features, 1, 1), True)
    axes, taps = len(part.kernel_size), math.prod(part.kernel_size)
    sizes = Sizes(axes, part.in_channels, part.out_channels, taps, part.groups)
    alike = {*part.kernel_size, *part.stride, part.groups} == {1}
    pointwise = alike and not part.transposed and not any(paddings(part) or ())
    return Group((path,), (part,), sizes, pointwise)


def scaled_weight(part: nn.Module) -> str:
    """The name of the weight that takes up what scales outputs."""
    return "weight_time" if isinstance(part, SVDF) else "weight"


def _is_fixed(norm: Any) -> bool:
    """Whether evaluation reads its statistics from buffers."""
    return norm.stats == "frozen" if isinstance(norm, AdaptiveNorm) else norm.running_mean is not None


def _channels(norm: Any) -> int:
    return int(norm.channels if isinstance(norm, AdaptiveNorm) else norm.num_features)


class Alone:
    """Whether a module can be replaced: it has one place, weights of its own, and nobody listens to it."""

    def __init__(self, whole: nn.Module) -> None:
        self._whole = whole
        everywhere = list(whole.named_modules(remove_duplicate=False))
        self._places = Counter(id(module) for _, module in everywhere)
        self._owners = Counter(place for module in whole.modules() for place in _storages(module))

    def __call__(self, path: str) -> bool:
        module = self._whole.get_submodule(path)
        if _is_heard(module) or self._places[id(module)] > 1:
            return False
        return type(module) in NORMS or all(self._owners[place] == 1 for place in _storages(module))


def _is_heard(module: nn.Module) -> bool:
    """Whether somebody sees or changes what it is given or returns."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _storages(module: nn.Module) -> set[object]:
    """Where its own parameters are; where nothing is (on `meta`), which they are."""
    held = [parameter for parameter in module._parameters.values() if parameter is not None]
    return {(p.layout == torch.strided and p.untyped_storage().data_ptr()) or p for p in held}


def resized(layer: Layer, sizes: Sizes, bias: bool) -> Layer:
    """A layer with so many outputs and groups, and with or without a bias; an SVDF stays as large."""
    arguments = {**layer["args"], "bias": bias}
    if layer["layer"] == "svdf":
        return {"layer": "svdf", "args": arguments}
    arguments["out_features" if sizes.axes == 0 else "out_channels"] = sizes.outputs
    if "groups" in arguments:
        arguments["groups"] = sizes.groups
    return {"layer": layer["layer"], "args": arguments}
