"""One layer of an LSTM in one direction: its weights, its walk over time, and what a step computes.

    x (T, B, n_i) -- one product for all steps --> sums (T, B, G·n_c)
                                                      |
    h (B, n_r) ------ one product a step ----------> (+) --> step --> m (B, n_c) --> r (B, n_r) = the next h
    c (B, n_c) ------ diagonal peepholes ----------------> step --> the next c

Sources: H. Sak, A. Senior, F. Beaufays: Long Short-Term Memory Based Recurrent Neural Network Architectures
for Large Vocabulary Speech Recognition. 2014, arXiv 1402.1128 (peepholes, projections); layer normalisation,
coupled gates and clipping as the LSTM of Android's neural-network interface has them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from compressnet.kernels import lstm as kernel
from compressnet.kernels.product import linear
from compressnet.layers.exported_scan import Tensors, exported_scan, is_exporting

Exported = tuple[Tensor, Tensor | None, "StepWeights"]  # recurrent weight, projection, of the step
Biases = Literal[0, 1, 2]
_EPS = 1e-5  # of the layer normalisation, as in nn.LayerNorm


class StepWeights(NamedTuple):
    """What a step needs besides the sums: for the gates (K, n_c), the cell input and the output gate (n_c,).

    K is 2 (input and forget gate) or 1 (coupled: the forget gate). None: the cell has none. `bias` is for
    normalised sums; otherwise the biases are in the sums already.
    """

    peephole: tuple[Tensor, Tensor] | None = None  # gates, output gate
    gain: tuple[Tensor, Tensor, Tensor] | None = None  # gates, cell input, output gate
    bias: tuple[Tensor, Tensor, Tensor] | None = None
    cell_clip: float = 0.0


def lstm_step(sums: Tensor, c: Tensor, weights: StepWeights) -> tuple[Tensor, Tensor]:
    """i, f, g, o from their sums, then c = f·c' + i·g and m = o·tanh(c).

    Args:
        sums: (B, 4·n_c), W x + R h (+ bias) of i, f, g, o; (B, 3·n_c) of f, g, o where i = 1 - f.
        c: (B, n_c), the cells before.

    Returns:
        m and the new cells, each (B, n_c), of the type of `c`: under autocast it is wider than the sums.
    """
    hidden = c.shape[-1]
    count = sums.shape[-1] // hidden - 2
    gates, g, o = sums.to(c.dtype).split([count * hidden, hidden, hidden], dim=-1)
    gates = gates.unflatten(-1, (count, hidden))  # (B, K, n_c)
    if weights.peephole is not None:
        gates = torch.addcmul(gates, weights.peephole[0], c.unsqueeze(-2))
    gates = torch.sigmoid(_normalised(gates, weights, 0))
    g = torch.tanh(_normalised(g, weights, 1))
    if count == 2:
        i, f = gates.unbind(-2)
        c = torch.addcmul(f * c, i, g)
    else:
        c = torch.lerp(g, c, gates.squeeze(-2))
    if weights.cell_clip:
        c = c.clamp(-weights.cell_clip, weights.cell_clip)
    if weights.peephole is not None:
        o = torch.addcmul(o, weights.peephole[1], c)
    o = torch.sigmoid(_normalised(o, weights, 2))
    return o * torch.tanh(c), c


def _normalised(sums: Tensor, weights: StepWeights, which: int) -> Tensor:
    if weights.gain is None:
        return sums
    normal = F.layer_norm(sums, sums.shape[-1:], eps=_EPS) * weights.gain[which]
    return normal if weights.bias is None else normal + weights.bias[which]


class LSTMCell(nn.Module):
    """One layer in one direction; arguments as of `LSTM`, which checks them.

    Attributes:
        gates: G = 4, in the order of torch: i, f, g, o; 3 where the gates are coupled: f, g, o.
        weight_ih: (G·n_c, n_i).
        weight_hh: (G·n_c, n_r), n_c instead of n_r without projection.
        bias_ih, bias_hh: (G·n_c,), as many as `biases`.
        weight_peephole: (3, n_c): of i, f and o; coupled (2, n_c): of f and o.
        weight_norm: (G, n_c), the gains of the layer normalisation.
        weight_hr, weight_hp: (n_r, n_c) and (n_p, n_c), the projections.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int = 0,
        nonrecurrent_proj_size: int = 0,
        peepholes: bool = False,
        layer_norm: bool = False,
        coupled_gates: bool = False,
        cell_clip: float = 0.0,
        proj_clip: float = 0.0,
        biases: Biases = 1,
        forget_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.proj_size, self.nonrecurrent_proj_size = proj_size, nonrecurrent_proj_size
        self.gates = 3 if coupled_gates else 4
        self.cell_clip, self.proj_clip, self.forget_bias = cell_clip, proj_clip, forget_bias
        rows, self.state_size = self.gates * hidden_size, proj_size or hidden_size
        self.output_size = self.state_size + nonrecurrent_proj_size
        self.weight_ih = _parameter(rows, input_size)
        self.weight_hh = _parameter(rows, self.state_size)
        self.bias_ih = _parameter(rows) if biases else None
        self.bias_hh = _parameter(rows) if biases == 2 else None
        self.weight_peephole = _parameter(self.gates - 1, hidden_size) if peepholes else None
        self.weight_norm = _parameter(self.gates, hidden_size) if layer_norm else None
        self.weight_hr = _parameter(proj_size, hidden_size) if proj_size else None
        self.weight_hp = _parameter(nonrecurrent_proj_size, hidden_size) if nonrecurrent_proj_size else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights uniform within ±1/√n_c, as torch has them; biases 0, that of the forget gate as given."""
        bound = self.hidden_size**-0.5
        for name, parameter in self.named_parameters():
            if name.startswith("bias"):
                parameter.zero_()
            elif name == "weight_norm":
                parameter.fill_(1)
            else:
                parameter.uniform_(-bound, bound)
        if self.bias_ih is not None:
            forget = 1 if self.gates == 4 else 0
            self.bias_ih.unflatten(0, (self.gates, -1))[forget] = self.forget_bias

    def forward(
        self, x: Tensor, h: Tensor, c: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Walk over x (T, B, n_i) from h (B, n_r) and c (B, n_c).

        Args:
            lengths: (B,): the state that is returned is the one after as many steps.

        Returns:
            The outputs (T, B, n_r + n_p), those behind the lengths without meaning, and the last h and c.
        """
        bias = self.bias_ih if self.bias_hh is None or self.bias_ih is None else self.bias_ih + self.bias_hh
        sums = linear(x, self.weight_ih, bias if self.weight_norm is None else None)  # (T, B, G·n_c)
        if is_exporting():
            outputs, cells, shown = self._exported(sums, h, c, self.step_weights(bias))
        elif self._is_plain and kernel.serves(
            sums, h, c, self.weight_hh, self.weight_hr, self.weight_peephole
        ):
            outputs, cells, shown = kernel.walk(
                sums, h, c, self.weight_hh, self.weight_hr, self.weight_peephole
            )
        else:
            outputs, cells, shown = self._walk(sums, h, c, self.step_weights(bias))
        y = outputs  # (T, B, n_r)
        if lengths is None:
            h, c = outputs[-1], cells[-1]
        else:
            h, c = _after(h, outputs, lengths), _after(c, cells, lengths)
        if self.weight_hp is not None:
            p = self._clipped(linear(shown, self.weight_hp))  # (T, B, n_p)
            y = torch.cat([y, p], dim=-1)
        return y, h, c

    @property
    def _is_plain(self) -> bool:
        """Whether it is the cell of the C kernel: peepholes and coupled gates at most."""
        return self.weight_norm is None and not self.cell_clip and not self.proj_clip

    def _walk(
        self, sums: Tensor, h: Tensor, c: Tensor, weights: StepWeights
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The reference of `kernel.walk`: h, c and m after each step."""
        outputs, cells, shown = [], [], []
        recurrent = _Product(self.weight_hh, sums)
        projection = (
            None if self.weight_hr is None else _Product(self.weight_hr, _zeros(sums, self.proj_size))
        )
        for t in range(sums.shape[0]):
            m, c = lstm_step(recurrent(t, h), c, weights)
            h = m if projection is None else self._clipped(projection(t, m))
            outputs.append(h)
            cells.append(c)
            shown.append(m)
        return torch.stack(outputs), torch.stack(cells), torch.stack(shown)

    def _exported(
        self, sums: Tensor, h: Tensor, c: Tensor, weights: StepWeights
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`_walk` for any number of steps. Where nothing reads m, it is h."""

        def step(state: Tensors, at: Tensors, own: Exported) -> tuple[Tensors, Tensors]:
            (h, c), (weight, projection, weights) = state, own
            m, c = lstm_step(torch.addmm(at[0], h, weight), c, weights)
            h = m if projection is None else self._clipped(m @ projection)
            return (h, c), ((h, c) if self.weight_hp is None else (h, c, m))

        projection = None if self.weight_hr is None else self.weight_hr.t()
        _, walked = exported_scan(step, (h, c), (sums,), (self.weight_hh.t(), projection, weights))
        return walked[0], walked[1], walked[0 if self.weight_hp is None else 2]

    def step_weights(self, bias: Tensor | None) -> StepWeights:
        """What `lstm_step` needs, taken apart once for all steps.

        Args:
            bias: (G·n_c,), the sum of all biases.
        """
        last, rows = self.gates - 2, (self.gates, self.hidden_size)
        peephole, gain = self.weight_peephole, self.weight_norm
        after = None if bias is None or gain is None else bias.view(rows)
        return StepWeights(
            None if peephole is None else (peephole[:last], peephole[last]),
            None if gain is None else (gain[:last], gain[last], gain[last + 1]),
            None if after is None else (after[:last], after[last], after[last + 1]),
            self.cell_clip,
        )

    def _clipped(self, projected: Tensor) -> Tensor:
        return projected.clamp(-self.proj_clip, self.proj_clip) if self.proj_clip else projected


class _Product:
    """sums[t] + x_t weightᵀ, one step after the other; the gradient of the weight is one product at the end.

    Left to autograd, every step would add a gradient as large as the weight: forward and backward then take
    1.17 times as long (35 steps of 32 sequences, n_i 512, n_c 1024, n_r 256, one thread). A compiler cannot
    follow the list, and nobody needs it without gradients. The gradient has no gradient of its own.
    """

    def __init__(self, weight: Tensor, sums: Tensor) -> None:
        weight = weight.to(sums.dtype)  # under autocast once instead of at each step
        self.seen: list[Tensor] | None = None
        if torch.is_grad_enabled() and weight.requires_grad and not torch.compiler.is_compiling():
            self.seen = []
            sums = _WeightGradient.apply(sums, weight, self.seen)
            weight = weight.detach()
        self.weight, self.sums = weight.t(), sums.unbind(0)

    def __call__(self, t: int, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if self.seen is not None:
            self.seen.append(x.detach())
        return torch.addmm(self.sums[t], x, self.weight)


class _WeightGradient(torch.autograd.Function):
    """The sums (T, B, n_o) as they are. Their gradient, times what was `seen`, is that of the weight."""

    @staticmethod
    def forward(ctx, sums, weight, seen):  # type: ignore[no-untyped-def]
        ctx.seen = seen
        return sums.view_as(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        seen = torch.stack(ctx.seen).flatten(0, 1)  # (T·B, n_i)
        return grad, grad.flatten(0, 1).t() @ seen, None


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


def _zeros(sums: Tensor, width: int) -> Tensor:
    return sums.new_zeros(*sums.shape[:-1], width)


def _after(start: Tensor, states: Tensor, lengths: Tensor) -> Tensor:
    """The state (B, n) after `lengths` of the steps that led from `start` to `states` (T, B, n)."""
    every = torch.cat([start.to(states.dtype).unsqueeze(0), states])
    return every.gather(0, lengths.view(1, -1, 1).expand(1, -1, every.shape[-1])).squeeze(0)
