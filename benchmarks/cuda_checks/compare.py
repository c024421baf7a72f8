"""The same on two devices: how far results are from each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.cuda_checks.cases import Failed, Finding

_FLOOR = 1e-3  # of the largest tensor of a group: smaller ones are measured against that


def choose(device: str) -> torch.device:
    """The device, set up as the program sets it up: float32 means float32."""
    from compressnet.training.device import choose

    return choose(device)


def floats(output: Any) -> list[Tensor]:
    """All floating-point tensors of an output, those of a state included."""
    return [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()]


def to(values: Any, device: torch.device) -> Any:
    """Tensors, in whatever they are, on another device."""
    return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, values)


def difference(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """The largest difference of pairs of tensors, each as a share of the largest magnitude of `other`'s.

    Raises:
        Failed: shapes differ, or a value is not finite.
    """
    named = {str(number): tensor for number, tensor in enumerate(one)}
    return differences(named, {str(number): tensor for number, tensor in enumerate(other)})[0]


def differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, str]:
    """As `difference`, of named tensors; also the name of the pair that differs most."""
    return _worst(one, other, lambda x: float(x.abs().max()))


def gradient_differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, str]:
    """The same by root mean squares.

    At the kink of a ReLU rounding decides about a whole gradient: single values may differ by much.
    """
    return _worst(one, other, lambda x: float(x.square().mean().sqrt()))


def _worst(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], size: Callable[[Tensor], float]
) -> tuple[float, str]:
    if one.keys() != other.keys():
        raise Failed(f"not the same tensors: {sorted(one.keys() ^ other.keys())[:3]}")
    wide = {name: tensor.detach().double().cpu() for name, tensor in other.items()}
    greatest = max((size(x) for x in wide.values() if x.numel()), default=0.0)
    worst = (0.0, "")
    for name, tensor in one.items():
        if tensor.shape != wide[name].shape:
            raise Failed(f"{name}: {tuple(tensor.shape)} against {tuple(wide[name].shape)}")
        if not tensor.numel():
            continue
        off = size(tensor.detach().double().cpu() - wide[name])
        if not math.isfinite(off):
            raise Failed(f"{name}: values are not finite")
        worst = max(worst, (off / (max(size(wide[name]), _FLOOR * greatest) or 1.0), name))
    return worst


def near(off: float, limit: float, what: str = "") -> Finding:
    """The finding that a difference is small enough.

    Raises:
        Failed: it is not.
    """
    if not off <= limit:
        raise Failed(f"{what or 'the difference'} is {off:.1e} of the scale, {limit:g} is allowed")
    return Finding(f"{off:.1e}", what)


def gradients(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """Of all parameters and floating-point inputs, of a fixed random mean of all outputs."""
    leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    module.zero_grad(set_to_none=True)
    loss = random_mean(floats(module(*leaves)))
    loss.backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    found |= {f"input {n}": x.grad for n, x in enumerate(leaves) if x.grad is not None}
    return {name: gradient.clone() for name, gradient in found.items()}


def random_mean(outputs: list[Tensor]) -> Tensor:
    """The sum over outputs of their means with random weights, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for y in outputs:
        weights = torch.randn(y.shape, generator=generator)
        if y.requires_grad:
            parts.append((y.float() * weights.to(y.device)).mean())
    return torch.stack(parts).sum()


def without_chance(module: nn.Module) -> nn.Module:
    """The module without dropout, in training mode: cuDNN's recurrent layers have gradients in no other."""
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
            elif "drop" in name and isinstance(value, list):
                setattr(part, name, [0.0] * len(value))
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return module.train()
