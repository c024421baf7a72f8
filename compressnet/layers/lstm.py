"""One LSTM with switches: peepholes, projections, layer normalisation, coupled gates, clipping, lengths.

    x (T, B, n_i) -> [ a cell for each direction ] x num_layers -> (T, B, n_r + n_p) -> output (T, B, n_o)

With ' for the step before, · elementwise, s the logistic function (Sak et al. 2014, section 2):

    i = s(W_ix x + W_ir r' + w_ic·c' + b_i)        f = s(W_fx x + W_fr r' + w_fc·c' + b_f)
    c = f·c' + i·tanh(W_cx x + W_cr r' + b_c)      o = s(W_ox x + W_or r' + w_oc·c + b_o)      (the NEW c)
    m = o·tanh(c)      r = W_rm m      p = W_pm m      y = W_yr r + W_yp p + b_y

H. Sak, A. Senior, F. Beaufays: Long Short-Term Memory Based Recurrent Neural Network Architectures for Large
Vocabulary Speech Recognition. 2014, arXiv 1402.1128; and Interspeech 2014 (eleven networks).

`lstm` and `lstmp` are the networks of that paper by name: peepholes, one bias a gate; `lstm_full` is the
class with every switch. The first LSTM is in `lstm_1997.py`, converters from and to `nn.LSTM` in
`lstm_convert.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compressnet.bounds import Factor, Layers, OneOrTwo, OptionalSize, Real, Size, UpToTwo
from compressnet.cost import Term
from compressnet.layers.chain import linear_terms
from compressnet.layers.lstm_cell import LSTMCell
from compressnet.layers.lstm_cost import cost_of
from compressnet.layers.sequences import check_shape, checked_lengths, random_sequences

State = tuple[Tensor, Tensor]


class LSTM(nn.Module):
    """Sequences (T, B, n_i) to outputs (T, B, n_o) and a state.

    Without switches the function of `nn.LSTM`, with one bias a gate.

    Args:
        input_size: n_i.
        hidden_size: n_c cells in each layer and direction.
        num_layers: the upper ones take what a lower one puts out: n_r + n_p, or n_c without projection;
            twice that if bidirectional.
        proj_size: n_r, smaller than n_c: width of the recurrent projection; 0: none.
        nonrecurrent_proj_size: n_p: width of a second one that is only put out; 0: none.
        output_size: n_o of a fully connected layer on top; 0: none.
        peepholes: the gates see the cells, by diagonal weights; the output gate sees the new ones.
        layer_norm: normalise the sum of each gate and of the cell input over the cells (with its peephole,
            before its bias), with a gain for each.
        coupled_gates: no input gate of its own: i = 1 - f.
        cell_clip: the cells stay within ±cell_clip; 0: no limit.
        proj_clip: the same of both projections.
        biases: of each gate. torch has 2, papers 1: their sum alone matters, and learns at twice the rate.
        forget_bias: of the forget gate at the start.
        bidirectional: a second cell in each layer reads the sequence backwards. Such a network has no `step`.

    Raises:
        ValueError: a size or a clip out of range, or a switch without what it is for.
    """

    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        num_layers: Layers = 1,
        proj_size: OptionalSize = 0,
        nonrecurrent_proj_size: OptionalSize = 0,
        output_size: OptionalSize = 0,
        peepholes: bool = False,
        layer_norm: bool = False,
        coupled_gates: bool = False,
        cell_clip: Factor = 0.0,
        proj_clip: Factor = 0.0,
        biases: UpToTwo = 1,
        forget_bias: Real = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        switches: dict[str, Any] = {
            "proj_size": proj_size,
            "nonrecurrent_proj_size": nonrecurrent_proj_size,
            "peepholes": peepholes,
            "layer_norm": layer_norm,
            "coupled_gates": coupled_gates,
            "cell_clip": cell_clip,
            "proj_clip": proj_clip,
            "biases": biases,
            "forget_bias": forget_bias,
        }
        _check_sizes(input_size, hidden_size, num_layers, output_size)
        _check_switches(hidden_size, **switches)
        self.directions = 2 if bidirectional else 1
        self.cells = nn.ModuleList()  # layer by layer; in each the forward cell first
        width = input_size
        for _ in range(num_layers):
            layer = [LSTMCell(width, hidden_size, **switches) for _ in range(self.directions)]
            self.cells.extend(layer)
            width = self.directions * layer[0].output_size
        self.output = nn.Linear(width, output_size) if output_size else None

    @property
    def first(self) -> LSTMCell:
        """The cell that reads the input forwards; its sizes but `input_size` are those of all."""
        cell = self.cells[0]
        assert isinstance(cell, LSTMCell)
        return cell

    @property
    def num_layers(self) -> int:
        return len(self.cells) // self.directions

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs (T, B, n_o or D·(n_r + n_p)) and the state after the last step.

        Args:
            x: (T, B, n_i), of the weights' type; under autocast of any.
            state: as `init_state` shows it, of the weights' type; None: zeros.
            lengths: (B,), integers from 0 to T: how many steps of each sequence count. What is behind them
                has no influence, not even on gradients; the outputs there are 0, and the state is that after
                the last step that counts.

        Raises:
            ValueError: one of them does not fit the weights or the others.
        """
        self._check_input(x)
        if lengths is not None:
            lengths = checked_lengths("LSTM", lengths, x)
        h_0, c_0 = self.init_state(x.shape[1], x.device) if state is None else _pair(state)
        self._check_state(x, h_0, c_0)
        valid = None if lengths is None else _steps(x) < lengths
        y = x if valid is None else _zero_unless(valid, x)
        h_n, c_n = [], []
        for layer in range(self.num_layers):
            sides = []
            for direction in range(self.directions):
                which = layer * self.directions + direction
                side, h, c = self._read(which, y, h_0[which], c_0[which], lengths)
                sides.append(side)
                h_n.append(h.to(h_0.dtype))
                c_n.append(c.to(c_0.dtype))
            y = sides[0] if self.directions == 1 else torch.cat(sides, dim=-1)
        y = y if self.output is None else self.output(y)
        y = y if valid is None else _zero_unless(valid, y)
        return y, (torch.stack(h_n), torch.stack(c_n))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next T >= 1 steps (T, B, n_i) of a stream: outputs of the same steps and the new state.

        Raises:
            ValueError: as `forward`; or the network is bidirectional.
        """
        if self.directions == 2:
            raise ValueError("LSTM: a bidirectional network needs the whole sequence, it has no step")
        return self(x, state)

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: h (L·D, batch, n_r) and c (L·D, batch, n_c), as those of `nn.LSTM`.

        Args:
            device, dtype: None: those of the weights.
        """
        cell, count = self.first, len(self.cells)
        weight = cell.weight_ih
        return (
            weight.new_zeros(count, batch, cell.state_size, device=device, dtype=dtype),
            weight.new_zeros(count, batch, cell.hidden_size, device=device, dtype=dtype),
        )

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` steps of `batch` sequences.

        Raises:
            ValueError: a size of images.
        """
        return random_sequences(batch, size, self.first.input_size)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of sequences (T, B, n_i)."""
        steps, batch, _ = input_shape
        output: nn.Module | None = self.output
        size = output.out_features if isinstance(output, nn.Linear) else 0
        terms = cost_of(self.first, self.num_layers, self.directions, size, steps, batch)
        return terms + (linear_terms(output, steps * batch) if output is not None and not size else [])

    def _read(
        self, which: int, x: Tensor, h: Tensor, c: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        cell = self.cells[which]
        if which % self.directions == 0:
            read: tuple[Tensor, Tensor, Tensor] = cell(x, h, c, lengths)
            return read
        y, h, c = cell(_backwards(x, lengths), h, c, lengths)
        return _backwards(y, lengths), h, c

    def _check_input(self, x: Tensor) -> None:
        cell = self.first
        check_shape("LSTM", x, cell.input_size)
        if x.dtype != cell.weight_ih.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"LSTM: the weights are {cell.weight_ih.dtype}, the input is {x.dtype}")

    def _check_state(self, x: Tensor, h: Tensor, c: Tensor) -> None:
        cell, count, batch = self.first, len(self.cells), x.shape[1]
        for name, tensor, width in (("h", h, cell.state_size), ("c", c, cell.hidden_size)):
            if tensor.shape != (count, batch, width):
                raise ValueError(
                    f"LSTM: the state {name} must be ({count}, {batch}, {width}) for this input, "
                    f"got {tuple(tensor.shape)}"
                )
            own = cell.weight_ih.dtype
            if tensor.dtype != own:
                raise ValueError(f"LSTM: the weights are {own}, the state {name} is {tensor.dtype}")


def lstm(
    input_size: Size,
    hidden_size: Size,
    output_size: OptionalSize = 0,
    num_layers: Layers = 1,
    peepholes: bool = True,
    biases: OneOrTwo = 1,
) -> LSTM:
    """The LSTM of Sak et al. (2014): peepholes, one bias a gate.

    Args:
        output_size: of the layer on top; 0: none.
        biases: of each gate. Of two only the sum matters, but it learns at twice the rate of one.
    """
    return LSTM(
        input_size, hidden_size, num_layers, output_size=output_size, peepholes=peepholes, biases=biases
    )


def lstmp(
    input_size: Size,
    hidden_size: Size,
    proj_size: Size,
    nonrecurrent_proj_size: OptionalSize = 0,
    output_size: OptionalSize = 0,
    num_layers: Layers = 1,
    peepholes: bool = True,
) -> LSTM:
    """The LSTMP of Sak et al. (2014): `lstm` with a recurrent projection and perhaps a non-recurrent one.

    Args:
        proj_size: n_r, smaller than `hidden_size`.
        nonrecurrent_proj_size: n_p, smaller too; 0: none.
        output_size: of the layer on top; 0: none.

    Raises:
        ValueError: a projection as wide as the cells or wider.
    """
    return LSTM(
        input_size,
        hidden_size,
        num_layers,
        proj_size,
        nonrecurrent_proj_size,
        output_size,
        peepholes=peepholes,
    )


def _check_sizes(input_size: int, hidden_size: int, num_layers: int, output_size: int) -> None:
    if min(input_size, hidden_size, num_layers) < 1 or output_size < 0:
        raise ValueError(
            f"LSTM: input_size {input_size}, hidden_size {hidden_size} and num_layers {num_layers} must be "
            f"at least 1, output_size {output_size} at least 0"
        )


def _check_switches(hidden_size: int, **switches: Any) -> None:
    proj, second = switches["proj_size"], switches["nonrecurrent_proj_size"]
    for key, size in (("proj_size", proj), ("nonrecurrent_proj_size", second)):
        if not 0 <= size < hidden_size:
            raise ValueError(f"LSTM: {key} {size} must be smaller than hidden_size {hidden_size} (0: none)")
    if min(switches["cell_clip"], switches["proj_clip"]) < 0:
        raise ValueError(
            f"LSTM: cell_clip {switches['cell_clip']} and proj_clip {switches['proj_clip']} must be 0 or more"
        )
    if not proj and second:
        raise ValueError(f"LSTM: nonrecurrent_proj_size {second} needs a proj_size beside it")
    if not proj and switches["proj_clip"]:
        raise ValueError(f"LSTM: proj_clip {switches['proj_clip']} needs a proj_size: nothing is projected")
    if switches["biases"] not in (0, 1, 2):
        raise ValueError(f"LSTM: biases must be 0, 1 or 2, got {switches['biases']}")
    if not switches["biases"] and switches["forget_bias"]:
        raise ValueError(f"LSTM: forget_bias {switches['forget_bias']} needs biases: there are none")


def _pair(state: State) -> State:
    if isinstance(state, Tensor) or len(state) != 2:
        raise ValueError("LSTM: the state is a pair (h, c), as init_state makes it")
    return state


def _steps(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0], device=x.device).unsqueeze(-1)  # (T, 1)


def _zero_unless(valid: Tensor, x: Tensor) -> Tensor:
    """A choice, not a product: 0 times the NaN of some padding would be NaN."""
    return torch.where(valid.unsqueeze(-1), x, 0)


def _backwards(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence (T, B, n) from its own last step to its first; what is behind it stays there."""
    if lengths is None:
        return x.flip(0)
    steps = _steps(x)
    order = torch.where(steps < lengths, lengths - 1 - steps, steps)  # (T, B)
    return x.gather(0, order.unsqueeze(-1).expand(x.shape))
