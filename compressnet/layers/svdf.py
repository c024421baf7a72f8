"""SVDF: a linear layer over the last frames of a sequence whose nodes are sums of R rank-1 filters each.

    P. Nakkiran, R. Alvarez, R. Prabhavalkar, C. Parada: Compressing Deep Neural Networks using a
    Rank-Constrained Topology. Interspeech 2015, pp. 1473-1477

With T frames x[t] of F numbers, oldest first, alpha over time and beta over features:

    y[u] = f( b[u] + sum_r sum_t alpha[u,r,t] · (beta[u,r] · x[t]) )

    composed   windows (..., T·F) -> one weight (n, T·F), one product                   -> (..., n)
    factored   windows -> features (..., T, n·R) -> time (..., n·R) -> sum of ranks     -> (..., n)
    sequence   (L, B, F) -> features (L, B, n·R) -> convolution over time               -> (L - T + 1, B, n)
    stream     frame (1, B, F) -> features of it alone, those of T - 1 others remembered -> (1, B, n)

Filters of a node are neighbours, u·R + r, as in TensorFlow Lite's operator SVDF: its weights fit as they are.

The memory of a stream is a ring of frames (T, B, n·R). A frame takes the place of the oldest one and none is
ever moved. Where gradients are wanted, in graphs, and for many frames at once a new ring is made instead.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Kernel, Size
from compressnet.cost import Term
from compressnet.kernels import gradient
from compressnet.kernels import svdf as kernel
from compressnet.kernels.product import linear

Activation = Literal["none", "relu"]
Form = Literal["composed", "factored", "auto"]
State = tuple[Tensor, Tensor]
# Windows times ranks. Measured with AVX-512, one thread, at 1280 nodes over 98 x 40, rank 2: factors take
# 0.5 of the time of the composed weight for one window, 6 times as long for 100.
_ENOUGH_TO_COMPOSE = 16


class SVDF(nn.Module):
    """Windows (..., T·F), frame after frame, to nodes (..., n); sequences; or frame by frame, by `step`.

    Args:
        features: F, of a frame.
        units: n nodes.
        memory: T frames that a node sees.
        rank: R, filters of a node; T and F are the most that make sense.
        bias: one of each node.
        activation: f: none or relu.
        form: how windows and sequences are computed: with the composed weight, by factors, or ("auto")
            whichever is quicker: windows by their number, sequences by factors. `step` has one form.

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
        form: Form = "auto",
    ) -> None:
        super().__init__()
        self.bias: nn.Parameter | None
        most = min(features, memory)
        if rank > most:
            raise ValueError(
                f"SVDF: rank {rank}: filters of {memory} frames of {features} features have at most {most}"
            )
        self.rank, self.activation, self.form = rank, activation, form
        self.weight_feature = nn.Parameter(torch.empty(units * rank, features))
        self.weight_time = nn.Parameter(torch.empty(units * rank, memory))
        self.register_parameter("bias", nn.Parameter(torch.zeros(units)) if bias else None)
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
        """Windows (..., T·F), oldest frame first, to nodes (..., n); a sequence to those of all its windows.

        Args:
            x: windows; or frames (L, B, F), L >= T, to nodes (L - T + 1, B, n).

        Raises:
            ValueError: neither.
        """
        if x.shape[-1] == self.memory * self.features:
            return self._of_windows(x)
        if x.ndim != 3 or x.shape[-1] != self.features or len(x) < self.memory:
            raise ValueError(
                f"SVDF: takes windows of {self.memory} x {self.features} numbers, or at least {self.memory} "
                f"frames (L, B, {self.features}), got {tuple(x.shape)}"
            )
        if self.form == "composed":
            return self._of_windows(x.unfold(0, self.memory, 1).transpose(-1, -2).flatten(-2))
        return self._summed(self._filtered(linear(x, self.weight_feature)))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next L >= 1 frames (L, B, F) of a stream to nodes (L, B, n), and the state.

        On a CPU, without gradients, a single frame is written into the ring that is given: of the states of a
        stream the last one alone is good. (That one may be stepped more than once.)

        Raises:
            ValueError: frames of another width; a state of another size or type.
        """
        weights, rank = self._weights(), self.rank
        if isinstance(state, tuple) and len(state) == 2 and kernel.serves(rank, x, *weights, *state):
            ring = state[0] if x.shape[0] == 1 else state[0].clone()
            y, after = kernel.step(x, *weights, ring, state[1], rank, self.activation == "relu")
            return y, (ring, after)
        ring, position = _checked(x, state, *weights[:2])
        count = x.shape[0]
        if count == 1 and _may_write(x, ring, *weights):
            return self._one(x, ring, position), (ring, position + 1)
        slots = torch.arange(len(ring), device=ring.device)
        older = ring.index_select(0, (slots[1:] + position) % len(ring))
        whole = torch.cat([older, linear(x, weights[0])])  # (T - 1 + L, B, n·R)
        after = position + count
        age = (after - 1 + len(ring) - slots) % len(ring)  # of what each slot holds then
        return self._summed(self._filtered(whole)), (whole.index_select(0, len(whole) - 1 - age), after)

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: a ring of the features of T frames (T, batch, n·R), and the number of the next, 0-d int64.

        Frame t is in slot t modulo T.

        Args:
            device, dtype: None: those of the weights.
        """
        ring = self.weight_time.new_zeros(
            (self.memory, batch, len(self.weight_time)), device=device, dtype=dtype
        )
        return ring, torch.zeros((), dtype=torch.int64, device=ring.device)

    def example(self, batch: int = 1) -> tuple[Tensor]:
        """Inputs for counting and timing: `batch` windows."""
        return (torch.rand(batch, self.memory * self.features),)

    def example_step(self, batch: int = 1) -> tuple[Tensor]:
        """A frame of `batch` streams."""
        return (torch.rand(1, batch, self.features),)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of windows (..., T·F) or sequences (L, B, F), in the form that computes them."""
        if input_shape[-1] != self.memory * self.features:
            return self._cost_of_sequence(*input_shape[:2])
        symbols = {**self._symbols(), "N": math.prod(input_shape[:-1])}
        return [*self._stored(), *self._cost_of_windows(symbols), Term("state", "memory", "N·n·R·T", symbols)]

    def step_cost(self, batch: int) -> list[Term]:
        """Of a frame (1, B, F) of a stream."""
        symbols = {**self._symbols(), "B": batch}
        return [
            *self._stored(),
            Term("macs", "features", "B·n·R·F", symbols),
            Term("macs", "time", "B·n·R·T", symbols, traced=False),
            Term("state", "memory", "B·n·R·T", symbols),
        ]

    def extra_repr(self) -> str:
        return (
            f"{self.features}, {self.units}, memory={self.memory}, rank={self.rank}, "
            f"bias={self.bias is not None}, activation={self.activation!r}, form={self.form!r}"
        )

    def _of_windows(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        is_open = torch.compiler.is_compiling()  # rows may be any number then
        if self.form == "composed" if is_open else self._composes(rows):
            return self._activated(linear(x, self.weight, self.bias))
        projected = linear(x.unflatten(-1, (self.memory, self.features)), self.weight_feature)
        return self._summed((projected * self.weight_time.t()).sum(-2))  # over (..., T, n·R)

    def _composes(self, rows: int) -> bool:
        return self.form == "composed" or (self.form == "auto" and rows * self.rank > _ENOUGH_TO_COMPOSE)

    def _filtered(self, whole: Tensor) -> Tensor:
        """Features (L, B, n·R) to sums over each T frames in a row, (L - T + 1, B, n·R)."""
        if len(whole) == self.memory:
            return (whole * self.weight_time.t().unsqueeze(1)).sum(0, keepdim=True)
        # As images of one column and with channels last oneDNN takes half the time of F.conv1d, a third of it
        # with gradients (49 frames, 100 sequences, 256 filters of 10 frames).
        columns = whole.permute(1, 2, 0).unsqueeze(-1).contiguous(memory_format=torch.channels_last)
        filters = self.weight_time[:, None, :, None]
        return F.conv2d(columns, filters, groups=len(filters)).squeeze(-1).permute(2, 0, 1)

    def _summed(self, filtered: Tensor) -> Tensor:
        """Filters (..., n·R) to nodes (..., n)."""
        y = filtered if self.rank == 1 else filtered.unflatten(-1, (-1, self.rank)).sum(-1)
        return self._activated(y if self.bias is None else y + self.bias)

    def _activated(self, y: Tensor) -> Tensor:
        return F.relu(y) if self.activation == "relu" else y

    def _weights(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Those of features and time, and the bias; as attributes they take a tenth of a small step."""
        own: Any = self._parameters
        try:
            return own["weight_feature"], own["weight_time"], own["bias"]
        except KeyError:  # one is parametrized
            return self.weight_feature, self.weight_time, self.bias

    def _one(self, x: Tensor, ring: Tensor, position: Tensor) -> Tensor:
        """A frame (1, B, F), written into the ring, to nodes (1, B, n)."""
        newest = int(position) % len(ring)
        older = len(ring) - 1 - newest  # of the others, those behind it
        ring[newest] = linear(x[0], self.weight_feature)
        filters = self.weight_time.t().unsqueeze(1)  # (T, 1, n·R)
        sums = (ring[: newest + 1] * filters[older:]).sum(0, keepdim=True)
        if older:
            sums += (ring[newest + 1 :] * filters[:older]).sum(0)
        return self._summed(sums)

    def _symbols(self) -> dict[str, int]:
        return {"F": self.features, "T": self.memory, "n": self.units, "R": self.rank}

    def _stored(self) -> list[Term]:
        symbols = self._symbols()
        parameters = [
            Term("parameters", "features", "n·R·F", symbols),
            Term("parameters", "time", "n·R·T", symbols),
        ]
        return parameters if self.bias is None else [*parameters, Term("parameters", "bias", "n", symbols)]

    def _cost_of_windows(self, symbols: dict[str, int]) -> list[Term]:
        if self._composes(symbols["N"]):
            return [
                Term("macs", "composition", "n·R·T·F", symbols),
                Term("macs", "window", "N·n·T·F", symbols),
            ]
        return [
            Term("macs", "features", "N·T·n·R·F", symbols),
            Term("macs", "time", "N·T·n·R", symbols, traced=False),
        ]

    def _cost_of_sequence(self, steps: int, batch: int) -> list[Term]:
        """Of `steps` frames (a convolution over time, but where there is one window alone)."""
        count = steps - self.memory + 1
        symbols = {**self._symbols(), "L": steps, "B": batch}
        memory = Term("state", "memory", "B·n·R·T", symbols)
        if self.form == "composed":
            return [*self._stored(), *self._cost_of_windows({**self._symbols(), "N": count * batch}), memory]
        return [
            *self._stored(),
            Term("macs", "features", "L·B·n·R·F", symbols),
            Term("macs", "time", "(L-T+1)·B·n·R·T", symbols, traced=count > 1),
            memory,
        ]


def _checked(x: Tensor, state: State, feature: Tensor, time: Tensor) -> State:
    width, (filters, memory) = feature.shape[1], time.shape
    if x.ndim != 3 or x.shape[2] != width or not x.shape[0]:
        raise ValueError(f"SVDF: takes frames (L, B, {width}), got {tuple(x.shape)}")
    if not isinstance(state, tuple) or len(state) != 2:
        raise ValueError("SVDF: the state is a ring and a position, as init_state makes them")
    ring, position = state
    wanted = memory, x.shape[1], filters
    if ring.shape != wanted or position.ndim:
        given = f"{tuple(ring.shape)} and {tuple(position.shape)}"
        raise ValueError(f"SVDF: the state for frames {tuple(x.shape)} is {wanted} and (), got {given}")
    if position.dtype != torch.int64:
        raise ValueError(f"SVDF: the position in the state is {position.dtype}, not torch.int64")
    if ring.dtype != time.dtype and not torch.is_autocast_enabled(ring.device.type):
        raise ValueError(
            f"SVDF: the state is {ring.dtype}, the parameters are {time.dtype}: convert one of them"
        )
    return ring, position


def _may_write(x: Tensor, ring: Tensor, feature: Tensor, time: Tensor, bias: Tensor | None) -> bool:
    """Whether a frame may go right into the ring, at a place that is read as a number."""
    return (
        ring.is_cpu
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and not gradient.is_wanted(x, ring, feature, time, bias)
        and ring.is_contiguous()
        and (torch.is_inference_mode_enabled() or not ring.is_inference())
    )
