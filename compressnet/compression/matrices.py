"""What all factorisations share: the directions of most energy, and factors of equal scale."""

from __future__ import annotations

import torch
from torch import Tensor


def directions(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Energies of a symmetric matrix (n, n), falling and not negative, and its eigenvectors as columns."""
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def balanced(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors, second @ first, with rows and columns of equal length.

    A weight decay or a format of few bits then treats both alike.

    Args:
        first: (r, ...).
        second: (n, r, ...).
    """
    rows = first.flatten(1).norm(dim=1)
    columns = second.transpose(0, 1).flatten(1).norm(dim=1)
    scale = torch.where((rows > 0) & (columns > 0), (columns / rows.clamp(min=1e-300)).sqrt(), 1.0)
    ones = [1] * (first.ndim - 1)
    second = second / scale.view(1, -1, *[1] * (second.ndim - 2))
    return first * scale.view(-1, *ones), second


def lost(energies: Tensor, rank: int) -> float:
    """The relative error of keeping the first directions: the root of the share of energy in all others."""
    total = float(energies.sum())
    return (float(energies[rank:].sum()) / total) ** 0.5 if total > 0 else 0.0
