"""ByteNet's decoder: a language model of dilated causal convolutions.

N. Kalchbrenner, L. Espeholt, K. Simonyan, A. van den Oord, A. Graves, K. Kavukcuoglu: Neural Machine
Translation in Linear Time. 2016, arXiv 1610.10099; its language model of the Hutter prize's text.

    symbols (T, B) -> embedding (T, B, 2d) -> sets x [ block with dilation 1, 2, 4, 8, 16 ] -> (T, B, V)

    ReLU block             x -> LN, ReLU, 1x1 2d->d -> LN, ReLU, 1xk d->d -> LN, ReLU, 1x1 d->2d -> + x
    multiplicative block   x -> LN, ReLU, 1x1 2d->d -> LN, MU 1x1 -> LN, MU 1xk -> LN, ReLU, 1x1 d->2d -> + x

    MU(h) = s(W_1 * h)·tanh(s(W_2 * h)·h + s(W_3 * h)·tanh(W_4 * h))         s the logistic function

The 1xk are dilated. A step sees itself and what was before it, never what comes; layer normalisation is over
channels, never over time. The receptive field is 1 + sets·31·(k - 1) symbols: 373 for six sets.

Differences: every window of training goes on from the last frames of the one before (its state), where the
paper gives each sequence of 500 symbols 100 more as context. The end (LN, ReLU, the output layer) and the
place of the normalisations in the multiplicative block are from memory, not from a source.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Kernel, Probability, Size
from compressnet.kernels.product import Linear
from compressnet.layers.softmax import FullSoftmax, over_time
from compressnet.signature import DERIVED

Sets = Annotated[int, Field(gt=0, le=64)]
BlockKind = Literal["relu", "multiplicative"]
DILATIONS = (1, 2, 4, 8, 16)  # of a set
State = tuple[Tensor, ...]


class ByteNet(nn.Module):
    """Symbols (T, B), whole numbers below V, to the probabilities of the next.

    Args:
        vocab_size: V, follows from the data.
        hidden_size: d; between the blocks are 2d channels.
        sets: each of five blocks.
        block: "multiplicative", as the paper's language model, or "relu", as its translator.
        kernel_size: k, of the dilated convolutions.
        dropout: before the output layer.

    Raises:
        ValueError: a kernel of one symbol sees nothing of the past.
    """

    def __init__(
        self,
        vocab_size: Annotated[Size, DERIVED] = 205,
        hidden_size: Size = 512,
        sets: Sets = 6,
        block: BlockKind = "multiplicative",
        kernel_size: Kernel = 3,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        if kernel_size < 2:
            raise ValueError(f"kernel_size {kernel_size}: two symbols at least, or it sees no past")
        self.dropout = dropout
        self.embedding = nn.Embedding(vocab_size, 2 * hidden_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        kind = MultiplicativeBlock if block == "multiplicative" else ReLUBlock
        self.blocks = nn.ModuleList(
            kind(hidden_size, kernel_size, dilation) for _ in range(sets) for dilation in DILATIONS
        )
        self.norm = nn.LayerNorm(2 * hidden_size)
        self.output = FullSoftmax(2 * hidden_size, vocab_size)

    @property
    def receptive_field(self) -> int:
        """How many symbols a prediction depends on."""
        return 1 + sum(dilated.memory for dilated in self._dilated())

    def forward(
        self, words: Tensor, state: State = (), targets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Log-probabilities (T, B, V) of the symbol after each, and the state after the last.

        Args:
            words: (T, B).
            state: as returned, or `init_state`; (): zeros.
            targets: (T, B): only their negative log-probabilities, (T, B), are computed and returned.
        """
        x = self.embedding(words)  # (T, B, 2d)
        after = []
        for block, before in zip(self.blocks, state or self.init_state(words.shape[1]), strict=True):
            x, last = block(x, before)
            after.append(last)
        x = F.dropout(F.relu(self.norm(x)), self.dropout, self.training)
        return over_time(self.output, x, targets), tuple(after)

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """The next T >= 1 symbols (T, B) of a stream: `forward` from `state`."""
        return self(words, state)

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: what each dilated convolution last saw, ((k - 1)·dilation, batch, d)."""
        like = next(self.parameters())
        return tuple(
            like.new_zeros(dilated.memory, batch, dilated.channels, device=device, dtype=dtype)
            for dilated in self._dilated()
        )

    def example(self, batch: int = 1, size: int = 100) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` symbols of `batch` texts.

        Raises:
            ValueError: a size of images.
        """
        if not isinstance(size, int):
            raise ValueError("takes symbols: their size is a number of steps")
        return (torch.randint(self.embedding.num_embeddings, (size, batch)),)

    def _dilated(self) -> list[CausalConv]:
        return [module for module in self.modules() if isinstance(module, CausalConv)]


class ReLUBlock(nn.Module):
    """A residual block with three convolutions; x (T, B, 2d) to the same."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.norm_in, self.reduce = nn.LayerNorm(2 * channels), Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.dilated = CausalConv(channels, channels, kernel_size, dilation)
        self.norm_out, self.expand = nn.LayerNorm(channels), Linear(channels, 2 * channels)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = self.reduce(F.relu(self.norm_in(x)))  # (T, B, d)
        y, state = self.dilated(F.relu(self.norm(y)), state)
        return x + self.expand(F.relu(self.norm_out(y))), state


class MultiplicativeBlock(nn.Module):
    """A residual block with two multiplicative units; x (T, B, 2d) to the same."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.norm_in, self.reduce = nn.LayerNorm(2 * channels), Linear(2 * channels, channels)
        self.norm_pointwise, self.pointwise = nn.LayerNorm(channels), Linear(channels, 4 * channels)
        self.norm = nn.LayerNorm(channels)
        self.dilated = CausalConv(channels, 4 * channels, kernel_size, dilation)
        self.norm_out, self.expand = nn.LayerNorm(channels), Linear(channels, 2 * channels)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm_pointwise(self.reduce(F.relu(self.norm_in(x))))  # (T, B, d)
        y = self.norm(multiplicative_unit(y, self.pointwise(y)))
        convolved, state = self.dilated(y, state)
        y = multiplicative_unit(y, convolved)
        return x + self.expand(F.relu(self.norm_out(y))), state


class CausalConv(nn.Module):
    """A dilated convolution over time, of a step and those before it.

    Attributes:
        weight: (n_o, k·n_i), the taps one after the other, the latest last.
        memory: (k - 1)·dilation, how many steps back it sees.
    """

    def __init__(self, channels: int, out_channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.dilation = channels, kernel_size, dilation
        self.product = Linear(kernel_size * channels, out_channels)

    @property
    def memory(self) -> int:
        return (self.kernel_size - 1) * self.dilation

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, B, n_i) to (T, B, n_o); the state is the `memory` steps before it."""
        whole, steps = torch.cat([state.to(x.dtype), x]), len(x)
        taps = [whole[tap * self.dilation :][:steps] for tap in range(self.kernel_size)]
        return self.product(torch.cat(taps, -1)), whole[steps:]


def multiplicative_unit(h: Tensor, convolved: Tensor) -> Tensor:
    """g_1·tanh(g_2·h + g_3·tanh(u)), from h (T, B, d) and its convolutions (T, B, 4·d): g_1, g_2, g_3, u."""
    gates, u = convolved.split([3 * h.shape[-1], h.shape[-1]], dim=-1)
    first, second, third = gates.sigmoid().chunk(3, dim=-1)
    return first * torch.tanh(second * h + third * u.tanh())
