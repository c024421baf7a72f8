"""Simple recurrent units: a recurrent layer whose matrix products do not wait for each other.

T. Lei, Y. Zhang, S. Wang, H. Dai, Y. Artzi: Simple Recurrent Units for Highly Parallelizable Recurrence.
EMNLP 2018, arXiv 1709.02755 (`version=2`); `version=1` is that of its first edition, T. Lei, Y. Zhang,
Y. Artzi: Training RNNs as Fast as CNNs, 2017. Initialisation, projection and highway scaling as in the
authors' package `sru` 2.6.0, which lays its matrices out otherwise (`SRU.from_asapp`).

    x (T, B, d) -[project (p)]-> transform (3·H) -> z | f | r -> recurrence -> h (T, B, H), last cell (B, H)
      \\-> highway: alpha·x, or where d != H a fourth matrix ------/
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import cost_cells
from compressnet.cost import OptionalSize, Size, Term
from compressnet.layers.sequences import check_shape, checked_lengths, random_sequences
from compressnet.layers.sru_recurrence import Activation, recurrence

Version = Literal[1, 2]
Probability = Annotated[float, Field(ge=0, lt=1)]
# Before the forget gate: it is then exactly 1 in float64 too, and the number fits float16.
_OPEN = 1e4


class SRU(nn.Module):
    """SRU on sequences (T, B, C), called and stacked like `nn.GRU`.

    Args:
        input_size: C.
        hidden_size: H, cells a layer and direction.
        proj_size: inner width p of the matrices, d x p and p x 3·H, in those layers whose input d and H are
            wider than p; 0: none.
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
        num_layers: Size = 1,
        proj_size: OptionalSize = 0,
        version: Version = 2,
        bidirectional: bool = False,
        activation: Activation = "identity",
        rescale: bool = False,
        highway_bias: float = 0.0,
        dropout: Probability = 0.0,
        rnn_dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        sizes, rates = (input_size, hidden_size, num_layers), (dropout, rnn_dropout)
        _check_range(min(sizes) < 1, "sizes and number of layers must be at least 1", *sizes)
        _check_range(proj_size < 0, "proj_size must be at least 0", proj_size)
        _check_range(version not in (1, 2), "version must be 1 or 2", version)
        _check_range(activation not in ("identity", "tanh"), "activation: identity or tanh", activation)
        _check_range(not all(0 <= rate < 1 for rate in rates), "dropout must be from 0 to below 1", *rates)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.proj_size, self.version, self.bidirectional = proj_size, version, bidirectional
        self.activation, self.rescale, self.highway_bias = activation, rescale, highway_bias
        self.dropout, self.rnn_dropout = dropout, rnn_dropout
        self.alpha = math.sqrt(1 + 2 * math.exp(highway_bias)) if rescale else 1.0
        widths = [input_size] + [self.directions * hidden_size] * (num_layers - 1)
        self.layers: Sequence[_Layer] = nn.ModuleList(  # type: ignore[assignment]
            _Layer(width, hidden_size, proj_size, self.directions, version) for width in widths
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
        self, layer: _Layer, x: Tensor, start: Sequence[Tensor], padding: Tensor | None
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
            part = slice(number * self.hidden_size, (number + 1) * self.hidden_size)
            own = highways[..., part] if cell.highway is None else cell.highway(inputs)
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
        own = next(self.parameters())
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
        return [term.times(rows.get(term.kind, every), term.kind, traced=term.traced) for term in terms]

    @classmethod
    def from_asapp(cls, arrays: Mapping[str, Any], prefix: str = "", **form: Any) -> SRU:
        """From the weights of the package `sru` (asappresearch/sru 2.x): sizes and alpha are read off them.

        There the matrices of a layer are one (d, D·H·k), k innermost: z, forget, reset and, where k is 4, the
        highway; `weight_c` and `bias` are (2, D, H); `scale_x` is alpha.

        Args:
            arrays: its state dict, of tensors or arrays; names outside `<prefix>rnn_lst.` are left alone.
            form: what the arrays do not tell: `version`, `bidirectional`, `activation`, `dropout`,
                `rnn_dropout`.

        Raises:
            ValueError: not such weights, or a form that this layer does not have (layer normalisation, no
                skip term).
        """
        parts = _asapp_layers(arrays, prefix)
        first, directions = parts[0], 2 if form.get("bidirectional") else 1
        hidden = first["bias"].numel() // 2 // directions
        proj = next((part["weight_proj"].shape[1] for part in parts if "weight_proj" in part), 0)
        alpha = float(first["scale_x"]) if "scale_x" in first else 1.0
        _check_range(alpha < 1, "scale_x must be at least 1", alpha)
        if alpha > 1:
            form = {**form, "rescale": True, "highway_bias": math.log((alpha**2 - 1) / 2)}
        width = first.get("weight_proj", first["weight"]).shape[0]
        net = cls(width, hidden, len(parts), proj, **form).to(first["weight"].dtype)
        with torch.no_grad():
            for number, (layer, part) in enumerate(zip(net.layers, parts, strict=True)):
                layer.load_asapp(part, f"{prefix}rnn_lst.{number}")
        return net

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, version={self.version}, "
            f"proj_size={self.proj_size}, bidirectional={self.bidirectional}, alpha={self.alpha:.4g}"
        )

    def _check(self, x: Tensor, state: Tensor | None) -> None:
        check_shape("SRU", x, self.input_size)
        shape = (self.num_layers * self.directions, x.shape[1], self.hidden_size)
        if state is not None and state.shape != shape:
            raise ValueError(f"SRU: the state for {tuple(x.shape)} is {shape}, got {tuple(state.shape)}")
        own = next(self.parameters()).dtype
        for name, given in (("input", x), ("state", state)):
            if given is None or given.dtype == own or torch.is_autocast_enabled(given.device.type):
                continue
            raise ValueError(
                f"SRU: the {name} is {given.dtype}, the parameters are {own}: convert one of them"
            )


class _Layer(nn.Module):
    """The weights of one layer: a projection, where it is used, and a cell a direction."""

    def __init__(self, width: int, hidden: int, proj: int, directions: int, version: Version) -> None:
        super().__init__()
        projected = 0 < proj < min(width, hidden)
        self.project = nn.Linear(width, proj, bias=False) if projected else None
        inner, own_highway = proj if projected else width, width != directions * hidden
        self.cells: Sequence[_Cell] = nn.ModuleList(  # type: ignore[assignment]
            _Cell(inner, hidden, own_highway, version) for _ in range(directions)
        )

    def load_asapp(self, part: Mapping[str, Tensor], name: str) -> None:
        """Copy one layer of the authors' package."""
        cells = self.cells
        count, hidden = 3 + (cells[0].highway is not None), cells[0].bias.shape[1]
        wanted = {
            "weight": (cells[0].transform.in_features, len(cells) * hidden * count),
            "bias": (2 * len(cells) * hidden,),
            "weight_c": (2 * len(cells) * hidden,),
        }
        if self.project is not None:
            wanted["weight_proj"] = (self.project.in_features, self.project.out_features)
        for key in sorted({*wanted, *part} - {"scale_x"}):
            got = tuple(part[key].shape) if key in part else "none"
            if wanted.get(key, "none") != got:
                raise ValueError(f"{name}.{key}: {got}, wanted {wanted.get(key, 'none')}")
        if self.project is not None:
            self.project.weight.copy_(part["weight_proj"].T)
        planes = part["weight"].unflatten(1, (len(cells), hidden, count)).permute(1, 3, 2, 0)  # (D, k, H, d)
        pairs = {key: part[key].view(2, len(cells), hidden).unbind(1) for key in ("bias", "weight_c")}
        for number, cell in enumerate(cells):
            cell.transform.weight.copy_(planes[number, :3].flatten(0, 1))
            if cell.highway is not None:
                cell.highway.weight.copy_(planes[number, 3])
            cell.bias.copy_(pairs["bias"][number])
            if cell.v is not None:
                cell.v.copy_(pairs["weight_c"][number])
            elif pairs["weight_c"][number].any():
                raise ValueError(f"{name}.weight_c: not zero: these are weights of version 2")


class _Cell(nn.Module):
    """The weights of one direction; the rows of `transform` are z, forget and reset, H each."""

    def __init__(self, inner: int, hidden: int, own_highway: bool, version: Version) -> None:
        super().__init__()
        self.transform = nn.Linear(inner, 3 * hidden, bias=False)
        self.highway = nn.Linear(inner, hidden, bias=False) if own_highway else None
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


def _asapp_layers(arrays: Mapping[str, Any], prefix: str) -> list[dict[str, Tensor]]:
    """The tensors of each layer by their name in it."""
    parts: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        number, _, key = name.removeprefix(f"{prefix}rnn_lst.").partition(".")
        if name.startswith(f"{prefix}rnn_lst.") and number.isdigit():
            tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
            parts.setdefault(int(number), {})[key] = tensor.detach()
    whole = all({"weight", "bias", "weight_c"} <= set(part) for part in parts.values())
    if not parts or sorted(parts) != list(range(len(parts))) or not whole:
        name = f"{prefix}rnn_lst.0"
        raise ValueError(f"not weights of the package sru: it has '{name}.weight', '.weight_c', '.bias', ...")
    return [parts[number] for number in sorted(parts)]
