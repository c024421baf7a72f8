"""The first LSTM: memory blocks with an input and an output gate, no forget gate, gate outputs fed back.

S. Hochreiter, J. Schmidhuber: Long Short-Term Memory. Neural Computation 9(8):1735-1780, 1997.

With s the logistic function and u = (x, cells', input gates', output gates'), ' for the step before:

    y_in = s(W_in u + b_in)      y_out = s(W_out u + b_out)          one of each a block
    s_c  = s_c' + y_in·g(W_c u + b_c)                                g(x) = 4 s(x) - 2
    y_c  = y_out·h(s_c)                                              h(x) = 2 s(x) - 1 = tanh(x / 2)

For the paper's truncated gradient what is fed back is a given number. So a first walk over time, without
gradient, finds it; then all steps are one: the cells are a running sum of what enters them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import cost_cells
from compressnet.bounds import Real, Size
from compressnet.cost import Term
from compressnet.kernels import gradient
from compressnet.kernels import lstm_1997 as kernel
from compressnet.layers.chain import linear_terms
from compressnet.layers.exported_scan import Tensors, exported_scan, is_exporting
from compressnet.layers.sequences import check_shape, random_sequences

Biases = Literal["none", "gates", "hidden", "all"]
State = tuple[Tensor, Tensor]
_INIT = 0.1  # weights start uniform within ± this


class _Sizes(NamedTuple):
    input_size: int
    blocks: int
    block_size: int
    output_size: int

    @property
    def cells(self) -> int:
        return self.blocks * self.block_size

    @property
    def hidden(self) -> int:
        """n_h: all that is fed back."""
        return self.cells + 2 * self.blocks


class LSTM1997(nn.Module):
    """Sequences (T, B, n_i) to the sums of output units (T, B, n_o) and a state.

    The logistic function of the paper's output units is left to the loss.

    Args:
        input_size: n_i.
        blocks: b, with one input gate and one output gate each.
        block_size: S cells in each block; cell k is in block k // S.
        output_size: n_o units that see the cells only.
        biases: which units have one; the paper's experiments differ.
        truncated: the paper's gradient: errors that leave a block through a gate or a cell's input go no
            step back; only the cells carry them. False: the whole gradient.
        input_gate_biases, output_gate_biases: at the start, one a block; None: zeros. Negative ones keep a
            cell from drifting (input) and the network from abusing it (output), as the paper has them.

    Attributes:
        weight_ih: (n_h, n_i); rows are cells, input gates, output gates.
        weight_hh: (n_h, n_h), n_h = b·S + 2·b.
        bias: (n_h,), (2·b,) if the gates alone have one, or None.

    Raises:
        ValueError: a size below 1, an unknown `biases`, or starts that do not fit them.
    """

    def __init__(
        self,
        input_size: Size,
        blocks: Size,
        block_size: Size,
        output_size: Size,
        biases: Biases = "all",
        truncated: bool = True,
        input_gate_biases: list[Real] | None = None,
        output_gate_biases: list[Real] | None = None,
    ) -> None:
        super().__init__()
        self.sizes = sizes = _Sizes(input_size, blocks, block_size, output_size)
        if min(sizes) < 1:
            raise ValueError(f"LSTM1997: all of {sizes._asdict()} must be at least 1")
        if biases not in ("none", "gates", "hidden", "all"):
            raise ValueError(f"LSTM1997: biases must be none, gates, hidden or all, got {biases!r}")
        for key, starts in (
            ("input_gate_biases", input_gate_biases),
            ("output_gate_biases", output_gate_biases),
        ):
            if starts is not None and (biases == "none" or len(starts) != blocks):
                raise ValueError(
                    f"LSTM1997: {key} {starts} must be {blocks}, one a block, and biases must not be 'none'"
                )
        self.biases, self.truncated = biases, truncated
        self.weight_ih = nn.Parameter(torch.empty(sizes.hidden, input_size))
        self.weight_hh = nn.Parameter(torch.empty(sizes.hidden, sizes.hidden))
        count = {"none": 0, "gates": 2 * blocks}.get(biases, sizes.hidden)
        self.bias = nn.Parameter(torch.empty(count)) if count else None
        self.output = nn.Linear(sizes.cells, output_size, bias=biases == "all")
        self.reset_parameters(input_gate_biases, output_gate_biases)

    @torch.no_grad()
    def reset_parameters(
        self, input_gate_biases: list[Real] | None = None, output_gate_biases: list[Real] | None = None
    ) -> None:
        """Weights uniform within ±0.1, biases 0 or as given."""
        for parameter in self.parameters():
            parameter.uniform_(-_INIT, _INIT) if parameter.ndim == 2 else parameter.zero_()
        if self.bias is None:
            return
        blocks = self.sizes.blocks
        of_gates = self.bias[-2 * blocks :]
        for part, starts in ((of_gates[:blocks], input_gate_biases), (of_gates[blocks:], output_gate_biases)):
            if starts is not None:
                part.copy_(part.new_tensor(starts))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The sums of the output units (T, B, n_o) and the state after the last step.

        Args:
            x: (T, B, n_i), of the weights' type.
            state: as `init_state` shows it; None: zeros.

        Raises:
            ValueError: one of them does not fit the weights.
        """
        self._check_input(x)
        fed_back, cells = self.init_state(x.shape[1], x.device, x.dtype) if state is None else state
        self._check_state(x, fed_back, cells)
        bias: Tensor | None = self.bias
        if bias is not None and self.biases == "gates":
            bias = F.pad(bias, (self.sizes.cells, 0))
        sums = F.linear(x, self.weight_ih, bias)  # (T, B, n_h)
        if is_exporting():
            return self._exported(sums, fed_back, cells)
        if self.truncated and gradient.is_wanted(sums, self.weight_hh, fed_back, cells):
            units, cells = self._all_at_once(sums, fed_back, cells)
        else:
            units, cells = self._walk(sums, fed_back, cells)
        y = self.output(units[..., : self.sizes.cells])
        return y, (units[-1].to(x.dtype), cells.to(x.dtype))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next T >= 1 steps of a stream: `forward` from `state`."""
        return self(x, state)

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: what is fed back (batch, n_h) and the insides of the cells (batch, b·S).

        Args:
            device, dtype: None: those of the weights.
        """
        weight = self.weight_ih
        return (
            weight.new_zeros(batch, self.sizes.hidden, device=device, dtype=dtype),
            weight.new_zeros(batch, self.sizes.cells, device=device, dtype=dtype),
        )

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` steps of `batch` sequences.

        Raises:
            ValueError: a size of images.
        """
        return random_sequences(batch, size, self.sizes.input_size)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of sequences (T, B, n_i)."""
        steps, batch, _ = input_shape
        split = not isinstance(self.output, nn.Linear)  # by an edit
        costs = linear_terms(self.output, steps * batch) if split else []
        for term in cost_cells.lstm_1997(
            *self.sizes, biases="hidden" if split and self.biases == "all" else self.biases
        ):
            if split and term.name == "output":
                continue
            rows = {"macs": {"T": steps, "B": batch}, "state": {"B": batch}}.get(term.kind, {})
            costs.append(term.times(rows, term.kind, traced=term.traced))
        return costs

    def _walk(self, sums: Tensor, fed_back: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """From sums of the input (T, B, n_h), step by step: all that is fed back, alike, and last cells."""
        tensors = sums, self.weight_hh, fed_back, cells
        if kernel.serves(*tensors) and not gradient.is_wanted(*tensors):
            return kernel.walk(*tensors, self.sizes.blocks)
        weight, units = self.weight_hh.t(), []
        for at in sums.unbind(0):
            fed_back, cells = self._step(torch.addmm(at, fed_back, weight), cells)
            units.append(fed_back)
        return torch.stack(units), cells

    def _all_at_once(self, sums: Tensor, fed_back: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """What `_walk` returns, with the truncated gradient."""
        fed_back = fed_back.detach()
        with torch.no_grad():
            units, _ = self._walk(sums.detach(), fed_back, cells.detach())
        seen = torch.cat([fed_back.unsqueeze(0), units[:-1]])  # (T, B, n_h)
        entering, y_out, gates = self._gated((sums + F.linear(seen, self.weight_hh)).to(cells.dtype))
        inside = cells + entering.cumsum(0)  # (T, B, b·S)
        return _fed_back(inside, y_out, gates), inside[-1]

    def _step(self, sums: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """From sums (B, n_h) and cells (B, b·S) to what is fed back and the new cells, of the same shapes."""
        entering, y_out, gates = self._gated(sums.to(cells.dtype))
        cells = cells + entering
        return _fed_back(cells, y_out, gates), cells

    def _gated(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of sums (..., n_h): what enters the cells and y_out, each (..., b·S); the gates (..., 2·b)."""
        blocks, size = self.sizes.blocks, self.sizes.block_size
        of_cells, of_gates = sums.split([self.sizes.cells, 2 * blocks], dim=-1)
        gates = torch.sigmoid(of_gates)
        y_in, y_out = gates.repeat_interleave(size, dim=-1).chunk(2, dim=-1)
        return y_in * (4 * torch.sigmoid(of_cells) - 2), y_out, gates

    def _exported(self, sums: Tensor, fed_back: Tensor, cells: Tensor) -> tuple[Tensor, State]:
        """What `forward` returns, from the sums (T, B, n_h) of the input, for any number of steps."""

        def step(state: Tensors, at: Tensors, weight: Tensor) -> tuple[Tensors, Tensors]:
            seen = state[0].detach() if self.truncated else state[0]
            fed_back, cells = self._step(torch.addmm(at[0], seen, weight), state[1])
            return (fed_back, cells), (fed_back[:, : self.sizes.cells],)

        last, outputs = exported_scan(step, (fed_back, cells), (sums,), self.weight_hh.t())
        return self.output(outputs[0]), (last[0], last[1])

    def _check_input(self, x: Tensor) -> None:
        check_shape("LSTM1997", x, self.sizes.input_size)
        if x.dtype != self.weight_ih.dtype:
            raise ValueError(f"LSTM1997: the weights are {self.weight_ih.dtype}, the input is {x.dtype}")

    def _check_state(self, x: Tensor, fed_back: Tensor, cells: Tensor) -> None:
        for name, tensor, width in (
            ("fed back", fed_back, self.sizes.hidden),
            ("of the cells", cells, self.sizes.cells),
        ):
            if tensor.shape != (x.shape[1], width):
                raise ValueError(
                    f"LSTM1997: the state {name} must be ({x.shape[1]}, {width}) for this input, "
                    f"got {tuple(tensor.shape)}"
                )
            if tensor.dtype != x.dtype:
                raise ValueError(f"LSTM1997: the input is {x.dtype}, the state {name} is {tensor.dtype}")


def _fed_back(cells: Tensor, y_out: Tensor, gates: Tensor) -> Tensor:
    """The outputs of all hidden units (..., n_h)."""
    return torch.cat([y_out * torch.tanh(cells / 2), gates], dim=-1)
