"""Simple recurrent units: a recurrent layer whose matrix products do not wait for each other.

T. Lei, Y. Zhang, S. Wang, H. Dai, Y. Artzi: Simple Recurrent Units for Highly Parallelizable Recurrence.
EMNLP 2018, arXiv 1709.02755 (`version=2`); `version=1` is that of its first edition, T. Lei, Y. Zhang,
Y. Artzi: Training RNNs as Fast as CNNs, 2017. Initialisation, projection and highway scaling as in the
authors' package `sru` 2.6.0, which lays its matrices out otherwise (`sru_convert.from_asapp`).

    x (T, B, d) -[project (p)]-> transform (3·H) -> z | f | r -> recurrence -> h (T, B, H), last cell (B, H)
      \\-> highway: alpha·x, or where d != H a fourth matrix ------/
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import cost_cells
from compressnet.bounds import Layers, OneOrTwo, OptionalSize, Probability, Real, Size
from compressnet.cost import Term
from compressnet.kernels.product import Linear
from compressnet.layers.chain import linear_terms
from compressnet.layers.sequences import check_shape, checked_lengths, random_sequences
from compressnet.layers.sru_recurrence import Activation, recurrence

# Before the forget gate: it is then exactly 1 in float64 too, and the number fits float16.
_OPEN = 1e4


class SRU(nn.Module):
    """SRU on sequences (T, B, C), called and stacked like `nn.GRU`.

    float32 runs through a kernel where there is one (`kernels/sru.py`); bfloat16 and float16 on the CPU run
    through the torch reference, with the recurrence in float32.

    Args:
        input_size: C.
        hidden_size: H, cells a layer and direction.
        proj_size: inner width p of the matrices, d x p and p x 3·H, smaller than `hidden_size`; 0: none. As
            in the authors' package a layer whose input is not wider than p has none, like the first one of
            the paper's character models (d = 205, p = 512). With both directions the package allows p below
            2·H, here it is below H.
        version: 2: the gates see the cell before by diagonal weights v. 1: they see the input alone.
        bidirectional: a second cell reads the sequence backwards; both share the projection.
        activation: g of h = r·g(c) + (1-r)·x. "identity" is the default of both versions, as in the
            authors' package (then version 1 is version 2 with v = 0); the first edition of the paper also
            has "tanh".
        rescale: multiply the highway input by alpha = sqrt(1 + 2·exp(highway_bias)), which keeps the variance
            of h at the start; a fourth matrix gets it in its initial values. Off, as in that package.
        highway_bias: of the reset gate at the start; 0 to -3. `alpha` does not follow what is learned.
        dropout: of the outputs of all layers but the last, as in `nn.LSTM`.
        rnn_dropout: of what a layer multiplies with its matrices, not of the highway; one mask for all steps.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        num_layers: Layers = 1,
        proj_size: OptionalSize = 0,
        version: OneOrTwo = 2,
        bidirectional: bool = False,
        activation: Activation = "identity",
        rescale: bool = False,
        highway_bias: Real = 0.0,
        dropout: Probability = 0.0,
        rnn_dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        sizes, rates = (input_size, hidden_size, num_layers), (dropout, rnn_dropout)
        _check_range(min(sizes) < 1, "sizes and number of layers must be at least 1", *sizes)
        _check_range(proj_size < 0, "proj_size must be at least 0", proj_size)
        rule = f"proj_size must be smaller than hidden_size {hidden_size} (0: none)"
        _check_range(proj_size >= hidden_size, rule, proj_size)
        _check_range(version not in (1, 2), "version must be 1 or 2", version)
        _check_range(activation not in ("identity", "tanh"), "activation: identity or tanh", activation)
        _check_range(not all(0 <= rate < 1 for rate in rates), "dropout must be from 0 to below 1", *rates)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.proj_size, self.version, self.bidirectional = proj_size, version, bidirectional
        self.activation, self.rescale, self.highway_bias = activation, rescale, highway_bias
        self.dropout, self.rnn_dropout = dropout, rnn_dropout
        self.alpha = math.sqrt(1 + 2 * math.exp(highway_bias)) if rescale else 1.0
        widths = [input_size] + [self.directions * hidden_size] * (num_layers - 1)
        self.layers: Sequence[SRULayer] = nn.ModuleList(  # type: ignore[assignment]
            SRULayer(width, hidden_size, proj_size, self.directions, version) for width in widths
        )
        self.reset_parameters()

    @property
    def directions(self) -> int:
        """D: 2 if bidirectional."""
        return 2 if self.bidirectional else 1

    def reset_parameters(self) -> None:
        """Initial values as in the authors' package."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = math.sqrt(3 / module.in_features)
                nn.init.uniform_(module.weight, -bound, bound)
        for number, layer in enumerate(self.layers):
            dropped = self.dropout if number + 1 < self.num_layers else 0.0
            for cell in layer.cells:
                cell.scale_initial(self.alpha, self.highway_bias, dropped)

    def forward(
        self, x: Tensor, state: Tensor | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sequences (T, B, input_size) to outputs (T, B, D·H) and the last cells (num_layers·D, B, H).

        Under autocast products and outputs have its type, recurrence and cells that of the parameters.

        Args:
            state: cells to start from, as returned; None: zeros. Layers one after the other, in each the
                forward direction first.
            lengths: (B,) steps of each sequence, 0 to T; what lies behind is padding. Outputs there are 0,
                and nothing else depends on it: the last cells are those at the sequence's own end. Their
                range is not checked while compiling.

        Raises:
            ValueError: the width, the shape of the state, the lengths or the types do not fit.
        """
        self._check(x, state)
        start = (self.init_state(x.shape[1], x.device) if state is None else state).unbind(0)
        padding = None if lengths is None else _padding(x, lengths)
        ends: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            own = start[number * self.directions : (number + 1) * self.directions]
            x, last = self._layer(layer, x, own, padding)  # (T, B, D·H)
            ends += last
            if number + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, torch.stack(ends)

    def _layer(
        self, layer: SRULayer, x: Tensor, start: Sequence[Tensor], padding: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        if padding is not None:
            x = x.masked_fill(padding, 0)
        inputs = x
        if self.rnn_dropout and self.training:
            inputs = x * F.dropout(x.new_ones(x.shape[1:]), self.rnn_dropout)
        if layer.project is not None:
            inputs = layer.project(inputs)  # (T, B, p)
        highways = x if self.alpha == 1 else x * self.alpha
        outputs, ends = [], []
        for number, cell in enumerate(layer.cells):
            u = cell.transform(inputs)  # (T, B, 3·H)
            if padding is not None:
                # Hold the cell over padding: z is 0 there, and the gate lets no gradient through.
                u.unflatten(-1, (3, -1))[:, :, 1].masked_fill_(padding, _OPEN)
            if cell.highway is not None:
                own = cell.highway(inputs)
            elif self.bidirectional:
                own = highways.narrow(-1, number * self.hidden_size, self.hidden_size)
            else:
                own = highways
            h, last = recurrence(
                u, own, cell.v, cell.bias, start[number], activation=self.activation, reverse=number == 1
            )
            outputs.append(h)
            ends.append(last)
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)  # (T, B, D·H)
        return y if padding is None else y.masked_fill(padding, 0), ends

    def init_state(
        self, batch: int = 1, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Cells of zeros, (num_layers·D, B, H); by default where and of the type that the parameters are."""
        own = self._parameter()
        shape = (self.num_layers * self.directions, batch, self.hidden_size)
        return torch.zeros(shape, device=device or own.device, dtype=dtype or own.dtype)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next T >= 1 frames (T, B, input_size) of a stream to as many outputs (T, B, H), and the state.

        Raises:
            ValueError: bidirectional; otherwise as `forward`.
        """
        if self.bidirectional:
            raise ValueError("SRU: bidirectional layers cannot stream: outputs depend on what is to come")
        y, state = self(x, state)
        return y, state

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` steps of `batch` sequences.

        Raises:
            ValueError: a size of images.
        """
        return random_sequences(batch, size, self.input_size)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of sequences (T, B, input_size): `cost_cells.sru` without an output layer, T·B times."""
        steps, batch, _ = input_shape
        sizes = self.input_size, self.hidden_size, self.proj_size, 0, self.num_layers
        terms = cost_cells.sru(*sizes, self.version, self.bidirectional)
        if self.activation == "tanh":
            symbols = {"n_c": self.hidden_size, "L": self.num_layers, "D": self.directions}
            terms.append(Term("elementwise", "tanh", "L·D·n_c", symbols))
        rows = {"parameters": {}, "state": {"B": batch}}
        every = {"T": steps, "B": batch}
        matrices = [part for layer in self.layers for part in layer.matrices()]
        split = [] if all(isinstance(part, nn.Linear) for part in matrices) else matrices  # by an edit
        if split:
            terms = [term for term in terms if not term.name.startswith(("matrices", "projection"))]
        scaled = [term.times(rows.get(term.kind, every), term.kind, traced=term.traced) for term in terms]
        return scaled + [term for part in split for term in linear_terms(part, steps * batch)]

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, version={self.version}, "
            f"proj_size={self.proj_size}, bidirectional={self.bidirectional}, alpha={self.alpha:.4g}"
        )

    def _parameter(self) -> Tensor:
        """One that is always there; `parameters()` would walk all modules to find it, at every step."""
        return self.layers[0].cells[0].bias

    def _check(self, x: Tensor, state: Tensor | None) -> None:
        check_shape("SRU", x, self.input_size)
        shape = (self.num_layers * self.directions, x.shape[1], self.hidden_size)
        if not isinstance(state, Tensor | None):
            raise ValueError("SRU: the state is one tensor, as init_state makes it")
        if state is not None and state.shape != shape:
            raise ValueError(f"SRU: the state for {tuple(x.shape)} is {shape}, got {tuple(state.shape)}")
        own = self._parameter().dtype
        for name, given in (("input", x), ("state", state)):
            if given is None or given.dtype == own or torch.is_autocast_enabled(given.device.type):
                continue
            raise ValueError(
                f"SRU: the {name} is {given.dtype}, the parameters are {own}: convert one of them"
            )


class SRULayer(nn.Module):
    """The weights of one layer: a projection, where it is used, and a cell a direction."""

    def __init__(self, width: int, hidden: int, proj: int, directions: int, version: OneOrTwo) -> None:
        super().__init__()
        projected = 0 < proj < width
        self.project = Linear(width, proj, bias=False) if projected else None
        inner, own_highway = proj if projected else width, width != directions * hidden
        self.cells: Sequence[SRUCell] = nn.ModuleList(  # type: ignore[assignment]
            SRUCell(inner, hidden, own_highway, version) for _ in range(directions)
        )

    def matrices(self) -> list[nn.Module]:
        """All that it multiplies sequences with."""
        of_cells = [part for cell in self.cells for part in (cell.transform, cell.highway)]
        return [part for part in (self.project, *of_cells) if part is not None]


class SRUCell(nn.Module):
    """The weights of one direction; the rows of `transform` are z, forget and reset, H each."""

    def __init__(self, inner: int, hidden: int, own_highway: bool, version: OneOrTwo) -> None:
        super().__init__()
        self.transform = Linear(inner, 3 * hidden, bias=False)
        self.highway = Linear(inner, hidden, bias=False) if own_highway else None
        self.v = nn.Parameter(torch.empty(2, hidden)) if version == 2 else None
        self.bias = nn.Parameter(torch.empty(2, hidden))

    @torch.no_grad()
    def scale_initial(self, alpha: float, highway_bias: float, dropped: float) -> None:
        """What differs between the matrices at the start; v and the biases."""
        z, gates = self.transform.weight.tensor_split([self.bias.shape[1]])
        z.mul_(math.sqrt(1 - dropped))
        gates.mul_(math.sqrt(0.5))
        if self.highway is not None:
            self.highway.weight.mul_(alpha)
        if self.v is not None:
            nn.init.uniform_(self.v, -math.sqrt(1.5), math.sqrt(1.5))
        self.bias[0].zero_()
        self.bias[1].fill_(highway_bias)


def _check_range(wrong: bool, rule: str, *got: object) -> None:
    if wrong:
        raise ValueError(f"SRU: {rule}: got {', '.join(map(repr, got))}")


def _padding(x: Tensor, lengths: Tensor | Sequence[int]) -> Tensor:
    """Where steps are padding, (T, B, 1)."""
    ends = checked_lengths("SRU", lengths, x)
    return (torch.arange(x.shape[0], device=x.device)[:, None] >= ends)[..., None]
