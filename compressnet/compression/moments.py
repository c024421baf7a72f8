"""Means and second moments of what layers read and write, in float64, while a network runs on real data.

    rows (N, width) of a batch -> Second: count, sum, sum of products -> mean, covariance -> root

A row is a pixel of a map, a step of a sequence, a sample of a linear layer. Convolutions' taps are taken to
see the same channels: one covariance of channels stands for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressnet.errors import NotFinite

Side = Literal["inputs", "outputs"]
Calibration = Callable[[nn.Module], None]
"""Runs a network over all the calibration data, in evaluation, without gradients."""

_RIDGE = 1e-4  # of the mean variance: what was never seen is not taken to be impossible
_FEW = 10  # rows a dimension


class Second:
    """First and second moments of rows.

    Args:
        width: of a row.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    @property
    def width(self) -> int:
        return len(self._sum)

    @property
    def is_thin(self) -> bool:
        """Fewer than ten rows a dimension: what is made of it is as much chance as data."""
        return self.count < _FEW * self.width

    def add(self, rows: Tensor) -> None:
        """Take in rows (N, width)."""
        rows = rows.detach().double()
        self.count += len(rows)
        self._sum += rows.sum(0).cpu()
        self._products += (rows.T @ rows).cpu()

    def check(self, name: str) -> None:
        """See whether all rows were finite.

        Raises:
            NotFinite: they were not.
        """
        if not bool(torch.isfinite(self._products).all()):
            raise NotFinite(f"{name}: on the calibration data its values are not finite")

    @property
    def mean(self) -> Tensor:
        return self._sum / max(self.count, 1)

    @property
    def covariance(self) -> Tensor:
        """About the mean, (width, width)."""
        mean = self.mean
        return self._products / max(self.count, 1) - torch.outer(mean, mean)

    @property
    def uncentred(self) -> Tensor:
        """About zero, (width, width)."""
        return self._products / max(self.count, 1)


def root(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a covariance with a small ridge, and its inverse.

    Of one that is all zero (dead channels) the identity: then every direction is as good as another.
    """
    size = len(covariance)
    ridge = _RIDGE * float(covariance.diagonal().mean())
    identity = torch.eye(size, dtype=torch.float64)
    if not ridge > 0:
        return identity, identity
    values, vectors = torch.linalg.eigh(covariance + ridge * identity)
    roots = values.clamp(min=ridge).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def rows_of(x: Tensor, layer: nn.Module) -> Tensor:
    """What a layer reads or writes as rows (N, channels)."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        axes = layer.weight.ndim - 2
        x = x if x.ndim == axes + 2 else x[None]
        return x.movedim(1, -1).flatten(0, -2)
    return x.reshape(-1, x.shape[-1])


@torch.no_grad()
def collect(
    module: nn.Module, wanted: Mapping[str, Iterable[Side]], calibration: Calibration
) -> dict[tuple[str, Side], Second]:
    """Moments of layers while a network runs.

    Args:
        wanted: of layers by their paths, what to collect.

    Raises:
        NotFinite: a value on the way is not finite.
    """
    found: dict[tuple[str, Side], Second] = {}
    handles = []

    def hook(path: str, sides: frozenset[Side]) -> Callable[..., None]:
        def seen(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            for side in sides:
                rows = rows_of(inputs[0] if side == "inputs" else _first(output), layer)
                if (path, side) not in found:
                    found[path, side] = Second(rows.shape[1])
                found[path, side].add(rows)

        return seen

    try:
        for path, sides in wanted.items():
            handles.append(module.get_submodule(path).register_forward_hook(hook(path, frozenset(sides))))
        if handles:
            calibration(module)
    finally:
        for handle in handles:
            handle.remove()
    for (path, _), second in found.items():
        second.check(path)
    return found


def _first(output: Any) -> Tensor:
    """The output of layers that also return a state."""
    return output if isinstance(output, Tensor) else output[0]
