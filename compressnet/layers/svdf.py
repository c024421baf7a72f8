"""SVDF: a linear layer over the last frames of a sequence whose nodes are sums of R rank-1 filters each.

    P. Nakkiran, R. Alvarez, R. Prabhavalkar, C. Parada: Compressing Deep Neural Networks using a
    Rank-Constrained Topology. Interspeech 2015, pp. 1473-1477

With T frames x[t] of F numbers, oldest first, alpha over time and beta over features:

    y[u] = f( b[u] + sum_r sum_t alpha[u,r,t] · (beta[u,r] · x[t]) )

    window (B, T·F) -> the composed weight (n, T·F), one product               -> (B, n)    many windows
                    -> features (B, T, n·R) -> time (B, n·R) -> sum of ranks   -> (B, n)    few
    frame (1, B, F) -> features of this frame alone, those of T - 1 before it from the state -> (1, B, n)

Filters of a node are neighbours, u·R + r, as in TensorFlow Lite's operator SVDF: its weights fit as they are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Kernel, Size
from compressnet.cost import Term
from compressnet.kernels.product import linear

Activation = Literal["none", "relu"]
# Windows times ranks. Measured with AVX-512, one thread, at 1280 nodes over 98 x 40, rank 2: factors take
# 0.5 of the time of the composed weight for one window, 6 times as long for 100.
_ENOUGH_TO_COMPOSE = 16


class SVDF(nn.Module):
    """Windows (..., T·F), frame after frame, to nodes (..., n); or frame by frame, by `step`.

    Args:
        features: F, of a frame.
        units: n nodes.
        memory: T frames that a node sees.
        rank: R, filters of a node; T and F are the most that make sense.
        bias: one of each node.
        activation: f: none or relu.

    Attributes:
        weight_feature: (n·R, F).
        weight_time: (n·R, T), oldest first.
        bias: (n,), or None.

    Raises:
        ValueError: a rank above T or F.
    """

    def __init__(
        self,
        features: Size,
        units: Size,
        memory: Kernel,
        rank: Kernel = 1,
        bias: bool = True,
        activation: Activation = "none",
    ) -> None:
        super().__init__()
        most = min(features, memory)
        if rank > most:
            raise ValueError(
                f"SVDF: rank {rank}: filters of {memory} frames of {features} features have at most {most}"
            )
        self.rank, self.activation = rank, activation
        self.weight_feature = nn.Parameter(torch.empty(units * rank, features))
        self.weight_time = nn.Parameter(torch.empty(units * rank, memory))
        self.bias = nn.Parameter(torch.zeros(units)) if bias else None
        self.reset_parameters()

    @property
    def features(self) -> int:
        return self.weight_feature.shape[1]

    @property
    def units(self) -> int:
        return self.weight_feature.shape[0] // self.rank

    @property
    def memory(self) -> int:
        return self.weight_time.shape[1]

    @property
    def weight(self) -> Tensor:
        """The composed weight (n, T·F): that of the `nn.Linear` which computes the same of windows."""
        time, feature = (w.unflatten(0, (-1, self.rank)) for w in (self.weight_time, self.weight_feature))
        return (time.transpose(1, 2) @ feature).flatten(1)  # (n, T, R) @ (n, R, F)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """So that outputs vary as much as inputs; biases 0."""
        nn.init.normal_(self.weight_feature, std=self.features**-0.5)
        nn.init.normal_(self.weight_time, std=(self.memory * self.rank) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @classmethod
    def from_linear(cls, layer: nn.Linear, frames: int, rank: int, activation: Activation = "none") -> SVDF:
        """The best SVDF of a rank in the place of a linear layer over windows (..., frames·F).

        Each node's filter (T, F) is cut to its largest singular values: exact where it has no more than
        `rank`. They are split evenly over both sides.

        Raises:
            ValueError: no such number of frames, or a rank above that of a filter.
        """
        units, width = layer.weight.shape
        if frames < 1 or width % frames:
            raise ValueError(f"SVDF: {width} inputs are not {frames} frames of as many features each")
        with torch.device("meta"):
            made = cls(width // frames, units, frames, rank, layer.bias is not None, activation)
        filters = layer.weight.detach().double().unflatten(1, (frames, -1))  # (n, T, F)
        left, values, right = torch.linalg.svd(filters, full_matrices=False)
        root = values[:, :rank].sqrt()  # (n, R)
        time = left[:, :, :rank].transpose(1, 2) * root[..., None]  # (n, R, T)
        feature = right[:, :rank] * root[..., None]  # (n, R, F)
        made.weight_time = nn.Parameter(time.flatten(0, 1).to(layer.weight))
        made.weight_feature = nn.Parameter(feature.flatten(0, 1).to(layer.weight))
        made.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        return made.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Windows (..., T·F), oldest frame first, to nodes (..., n).

        Raises:
            ValueError: they are not that long.
        """
        if x.shape[-1] != self.memory * self.features:
            raise ValueError(
                f"SVDF: takes windows of {self.memory} x {self.features} numbers, got {tuple(x.shape)}"
            )
        rows = x.numel() // x.shape[-1]
        if not torch.compiler.is_compiling() and self._composes(rows):  # compiled, rows may be any number
            return self._activated(linear(x, self.weight, self.bias))
        projected = linear(x.unflatten(-1, (self.memory, self.features)), self.weight_feature)
        return self._summed((projected * self.weight_time.t()).sum(-2))  # over (..., T, n·R)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next L >= 1 frames (L, B, F) of a stream to nodes (L, B, n), and the state.

        Raises:
            ValueError: frames of another width.
        """
        if x.ndim != 3 or x.shape[-1] != self.features:
            raise ValueError(f"SVDF: takes frames (L, B, {self.features}), got {tuple(x.shape)}")
        whole = torch.cat([state, linear(x, self.weight_feature)])  # (T - 1 + L, B, n·R)
        if len(x) == 1:
            filtered = (whole * self.weight_time.t().unsqueeze(1)).sum(0, keepdim=True)
        else:
            filters = self.weight_time.unsqueeze(1)
            filtered = F.conv1d(whole.permute(1, 2, 0), filters, groups=len(filters)).permute(2, 0, 1)
        return self._summed(filtered), whole[len(x) :]

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Zeros: the features of the T - 1 frames before, (T - 1, batch, n·R).

        Args:
            device, dtype: None: those of the weights.
        """
        shape = (self.memory - 1, batch, len(self.weight_time))
        return self.weight_time.new_zeros(shape, device=device, dtype=dtype)

    def example(self, batch: int = 1) -> tuple[Tensor]:
        """Inputs for counting and timing: `batch` windows."""
        return (torch.rand(batch, self.memory * self.features),)

    def example_step(self, batch: int = 1) -> tuple[Tensor]:
        """A frame of `batch` streams."""
        return (torch.rand(1, batch, self.features),)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of windows (..., T·F)."""
        rows = {"N": math.prod(input_shape[:-1])}
        symbols = {"F": self.features, "T": self.memory, "n": self.units, "R": self.rank}
        parameters = [
            Term("parameters", "features", "n·R·F", symbols),
            Term("parameters", "time", "n·R·T", symbols),
        ]
        if self.bias is not None:
            parameters.append(Term("parameters", "bias", "n", symbols))
        if self._composes(rows["N"]):
            return [
                *parameters,
                Term("macs", "composition", "n·R·T·F", symbols),
                Term("macs", "window", "N·n·T·F", {**symbols, **rows}),
            ]
        return [
            *parameters,
            Term("macs", "features", "N·T·n·R·F", {**symbols, **rows}),
            Term("macs", "time", "N·T·n·R", {**symbols, **rows}, traced=False),
        ]

    def extra_repr(self) -> str:
        return (
            f"{self.features}, {self.units}, memory={self.memory}, rank={self.rank}, "
            f"bias={self.bias is not None}, activation={self.activation!r}"
        )

    def _composes(self, rows: int) -> bool:
        return rows * self.rank > _ENOUGH_TO_COMPOSE

    def _summed(self, filtered: Tensor) -> Tensor:
        """Filters (..., n·R) to nodes (..., n)."""
        y = filtered if self.rank == 1 else filtered.unflatten(-1, (-1, self.rank)).sum(-1)
        return self._activated(y if self.bias is None else y + self.bias)

    def _activated(self, y: Tensor) -> Tensor:
        return F.relu(y) if self.activation == "relu" else y
