"""Recurrent language models: words in, the probability of the next word out.

    words (T, B) -> embedding (T, B, d_e) -> [dropout -> cell] x L -> dropout -> output layer -> (T, B, V)
                        \\_______________________ tied ________________________/

    W. Zaremba, I. Sutskever, O. Vinyals: Recurrent Neural Network Regularization. 2014, arXiv 1409.2329
        (dropout on what goes up, never on what goes on in time; the small, medium and large networks)
    M. Sundermeyer, R. Schlüter, H. Ney: LSTM Neural Networks for Language Modeling. Interspeech 2012
        (peepholes, class-factored output)
    S. Merity, N. Keskar, R. Socher: Regularizing and Optimizing LSTM Language Models. 2017,
        arXiv 1708.02182 (AWD-LSTM: `locked_dropout`, `weight_drop`, `embedding_dropout`, both penalties, a
        tied output)

By default the small network of Zaremba et al. for the Penn Treebank: 4,651,600 parameters. The cell is any
layer of the family that streams, with its arguments: `lstm`, `lstmp`, `sru`, `torch_lstm`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Factor, Layers, OptionalSize, Positive, Probability, Size
from compressnet.layers.readers import Readers, readers_in_row
from compressnet.layers.recurrent_stack import RecurrentStack, flat
from compressnet.layers.softmax import AdaptiveSoftmax, ClassSoftmax, FullSoftmax, over_time
from compressnet.signature import DERIVED, Named

Softmax = Literal["full", "adaptive", "classes"]
State = tuple[Tensor, ...]


class LanguageModel(nn.Module):
    """Words (T, B), whole numbers below V, to the probabilities of the next.

    Args:
        vocab_size: V, follows from the data.
        cell: a layer by name, with arguments: `lstm:peepholes=false`, `lstmp:proj_size=128`, `sru`.
        hidden_size: of each cell.
        num_layers: cells on top of each other.
        embedding_size: d_e; 0: as wide as the cells.
        tied: the output layer shares the embedding's matrix; the last cell is then as wide as the embedding.
        softmax: "full", "adaptive" (see `cutoffs`) or "classes" (the task says how many).
        cutoffs: of "adaptive": words up to the first are one by one, those up to the next in a cluster, ...
        class_sizes: of "classes": words of each class, follows from the data.
        dropout: of what goes into each cell and into the output layer, in training.
        input_dropout, output_dropout: of what goes into the first cell, and into the output layer; None: as
            `dropout`.
        locked_dropout: one mask for all steps of a window.
        weight_drop: dropout of the recurrent matrices `weight_hh`, the same for all steps of a window.
        embedding_dropout: share of words whose embedding is zero for a whole window.
        activation_penalty: AWD's alpha: so many times the mean square of what goes into the output layer is
            added to each loss, in training.
        change_penalty: AWD's beta: so many times the mean square of how the last cell's outputs change from
            step to step is.
        init_range: all weights start uniform within ±init_range; None: as each layer does by itself.

    Raises:
        ValueError: an argument out of range, or one that does not fit another.
    """

    def __init__(
        self,
        vocab_size: Annotated[Size, DERIVED] = 10_000,
        hidden_size: Size = 200,
        cell: Annotated[str, Named("layer", ("input_size", "hidden_size"))] = "lstm:peepholes=false",
        num_layers: Layers = 2,
        embedding_size: OptionalSize = 0,
        tied: bool = False,
        softmax: Softmax = "full",
        cutoffs: list[Size] | None = None,
        class_sizes: Annotated[list[Size] | None, DERIVED] = None,
        dropout: Probability = 0.0,
        input_dropout: Probability | None = None,
        output_dropout: Probability | None = None,
        locked_dropout: bool = False,
        weight_drop: Probability = 0.0,
        embedding_dropout: Probability = 0.0,
        activation_penalty: Factor = 0.0,
        change_penalty: Factor = 0.0,
        init_range: Positive | None = None,
    ) -> None:
        super().__init__()
        first = dropout if input_dropout is None else input_dropout
        last = dropout if output_dropout is None else output_dropout
        self.dropouts = [first, *[dropout] * (num_layers - 1), last]  # before each cell and the output layer
        self.locked_dropout = locked_dropout
        self.weight_drop, self.embedding_dropout = weight_drop, embedding_dropout
        self.activation_penalty, self.change_penalty = activation_penalty, change_penalty
        width = embedding_size or hidden_size
        self.embedding = nn.Embedding(vocab_size, width)
        if tied:  # torch's start, a variance of 1, is far too wide for an output layer; so AWD has it
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.cells = RecurrentStack(cell, width, hidden_size, num_layers, last_size=width if tied else 0)
        self.output = self._output(self.cells.output_size, tied, softmax, cutoffs, class_sizes)
        if weight_drop and not all(_recurrent(own) for own in self.cells):
            raise ValueError(f"weight_drop: the cell '{cell}' has no recurrent matrix that it can take away")
        if init_range is not None:
            self._initialise(init_range)

    def forward(
        self, words: Tensor, state: State = (), targets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Log-probabilities (T, B, V) of the word after each, and the state after the last.

        Args:
            words: (T, B).
            state: as returned, or `init_state`; (): zeros.
            targets: (T, B): only their negative log-probabilities, (T, B), are computed and returned; in
                training with the penalties, if there are any.
        """
        x = self._embedded(words)  # (T, B, d_e)
        after: list[Tensor] = []
        state = state or self.init_state(words.shape[1], x.device)
        for (cell, part), dropout in zip(self.cells.with_states(state), self.dropouts, strict=False):
            x, part = self._read(cell, self._drop(x, dropout), part)
            after += flat(part)
        hidden = self._drop(x, self.dropouts[-1])  # (T, B, d)
        y = over_time(self.output, hidden, targets)
        if targets is not None and self.training:
            y = y + self._penalty(hidden, x)
        return y, tuple(after)

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """The next T >= 1 words (T, B) of a stream: `forward` from `state`."""
        return self(words, state)

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: the states of all cells, one after the other.

        Args:
            device, dtype: None: those of the weights.
        """
        return self.cells.init_state(batch, device, dtype)

    def readers(self) -> dict[str, Readers]:
        """Who reads the outputs of each cell (`layers/readers.py`): the next cell, or the output layer."""
        return readers_in_row(self, ["cells", "output"])

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` steps of `batch` texts.

        Raises:
            ValueError: a size of images.
        """
        if not isinstance(size, int):
            raise ValueError("takes words: their size is a number of steps")
        return (torch.randint(self.embedding.num_embeddings, (size, batch)),)

    def _read(self, cell: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if not (self.weight_drop and self.training):
            read: tuple[Tensor, Any] = cell.step(x, state)
            return read
        dropped = {name: F.dropout(p, self.weight_drop) for name, p in _recurrent(cell)}
        return torch.func.functional_call(cell, dropped, (x, state))

    def _embedded(self, words: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(words)
        if not (self.embedding_dropout and self.training):
            return embedded
        kept = F.dropout(embedded.new_ones(self.embedding.num_embeddings, 1), self.embedding_dropout)
        return embedded * F.embedding(words, kept)

    def _drop(self, x: Tensor, dropout: float) -> Tensor:
        if self.locked_dropout and dropout and self.training:
            return x * F.dropout(x.new_ones(x.shape[1:]), dropout)
        return F.dropout(x, dropout, self.training)

    def _penalty(self, hidden: Tensor, outputs: Tensor) -> Tensor | float:
        """Of what goes into the output layer, and of the last cell's outputs before dropout; (T, B, d)."""
        penalty: Tensor | float = 0.0
        if self.activation_penalty:
            penalty = self.activation_penalty * hidden.square().mean()
        if self.change_penalty and len(outputs) > 1:
            penalty = penalty + self.change_penalty * outputs.diff(dim=0).square().mean()
        return penalty

    def _output(
        self, width: int, tied: bool, softmax: Softmax, cutoffs: list[Size] | None, sizes: list[Size] | None
    ) -> FullSoftmax | AdaptiveSoftmax | ClassSoftmax:
        vocab_size, embedding_size = self.embedding.num_embeddings, self.embedding.embedding_dim
        shared: Any = self.embedding.weight
        if tied and (softmax != "full" or width != embedding_size):
            raise ValueError(
                f"tied: needs softmax full (is {softmax}) and an embedding as wide as the last cell's output "
                f"(they are {embedding_size} and {width})"
            )
        if (cutoffs is not None) != (softmax == "adaptive"):
            raise ValueError(f"cutoffs {cutoffs}: needed by softmax adaptive, and by no other (is {softmax})")
        if (sizes is not None) != (softmax == "classes"):
            raise ValueError("softmax classes needs the task's `classes`, and no other softmax can use them")
        if cutoffs is not None:
            if sorted(set(cutoffs)) != cutoffs or not 0 < cutoffs[0] <= cutoffs[-1] < vocab_size:
                raise ValueError(
                    f"cutoffs {cutoffs} must rise between 0 and {vocab_size}, the words there are"
                )
            return AdaptiveSoftmax(width, vocab_size, cutoffs)
        if sizes is not None:
            if sum(sizes) != vocab_size:
                raise ValueError(f"class_sizes: their sum is {sum(sizes)}, there are {vocab_size} words")
            return ClassSoftmax(width, sizes)
        return FullSoftmax(width, vocab_size, shared if tied else None)

    @torch.no_grad()
    def _initialise(self, bound: float) -> None:
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound)


def _recurrent(cell: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The recurrent matrices of a cell by name; torch's own LSTM takes no others than its own."""
    if isinstance(cell, nn.LSTM):
        return []
    return [(n, p) for n, p in cell.named_parameters() if n.rpartition(".")[2].startswith("weight_hh")]
