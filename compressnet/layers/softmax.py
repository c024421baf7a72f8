"""Output layers of language models: the probability of each word after a hidden vector.

    layer(hidden (N, d)) -> log-probabilities (N, V)
    layer(hidden (N, d), words (N,)) -> negative log-probabilities of these words (N,)

    FullSoftmax       V·d products a word
    FactoredSoftmax   r·d + V·r: a matrix of rank r in two factors
    ClassSoftmax      C·d + |V_c|·d: the class first, then the word in its class (Goodman 2001); as in
                      M. Sundermeyer, R. Schlüter, H. Ney: LSTM Neural Networks for Language Modeling.
                      Interspeech 2012
    AdaptiveSoftmax   rare words in clusters behind narrow projections: E. Grave, A. Joulin, M. Cissé,
                      D. Grangier, H. Jégou: Efficient Softmax Approximation for GPUs. 2016, arXiv 1609.04309

Words are numbers 0 to V - 1 by falling frequency in the training text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import cost
from compressnet.bounds import Size
from compressnet.cost import Term
from compressnet.kernels.cross_entropy import cross_entropy
from compressnet.kernels.product import linear
from compressnet.layers.sequences import random_sequences


class FullSoftmax(nn.Module):
    """A matrix and a bias over all words.

    Args:
        weight: (V, d) to share with an embedding; None: one of its own.
    """

    def __init__(self, hidden_size: int, vocab_size: int, weight: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size)) if weight is None else weight
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        if weight is None:
            nn.init.normal_(self.weight, std=hidden_size**-0.5)

    def forward(self, hidden: Tensor, words: Tensor | None = None) -> Tensor:
        return _answers(linear(hidden, self.weight, self.bias), words)

    def example(self, batch: int = 1, size: int | None = None) -> tuple[Tensor]:
        """Inputs for counting and timing: `batch` hidden vectors, at `size` steps.

        Raises:
            ValueError: a size of images.
        """
        return _hidden(batch, size, self.weight.shape[1])

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of hidden vectors (N, d): all words."""
        return cost.linear(input_shape[-1], len(self.bias), rows=math.prod(input_shape[:-1]))


def full_softmax(hidden_size: Size, vocab_size: Size) -> FullSoftmax:
    """`FullSoftmax` with a matrix of its own; what shares an embedding's is tied to it afterwards."""
    return FullSoftmax(hidden_size, vocab_size)


class FactoredSoftmax(nn.Module):
    """A matrix of rank r over all words, in two factors, and a bias.

        hidden (N, d) -> projection -> (N, r) -> table, bias -> scores (N, V)

    Args:
        hidden_size: d.
        vocab_size: V.
        rank: r; the factors are smaller than their product below V·d / (V + d).

    Attributes:
        projection: (r, d).
        table: (V, r); both are of the shapes that `FactoredEmbedding` has, and can be tied to its.
        bias: (V,).
    """

    def __init__(self, hidden_size: Size, vocab_size: Size, rank: Size) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.empty(rank, hidden_size))
        self.table = nn.Parameter(torch.empty(vocab_size, rank))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.normal_(self.projection, std=hidden_size**-0.5)
        nn.init.normal_(self.table, std=rank**-0.5)

    @property
    def weight(self) -> Tensor:
        """The product of the factors, (V, d): that of the `FullSoftmax` which computes the same."""
        return self.table @ self.projection

    def forward(self, hidden: Tensor, words: Tensor | None = None) -> Tensor:
        return _answers(linear(linear(hidden, self.projection), self.table, self.bias), words)

    def example(self, batch: int = 1, size: int | None = None) -> tuple[Tensor]:
        """Inputs for counting and timing: `batch` hidden vectors, at `size` steps.

        Raises:
            ValueError: a size of images.
        """
        return _hidden(batch, size, self.projection.shape[1])

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of hidden vectors (N, d): all words."""
        vocab_size, rank = self.table.shape
        symbols = {"d": input_shape[-1], "r": rank, "V": vocab_size}
        weights = [
            Term("parameters", "projection", "d·r", symbols),
            Term("parameters", "table", "r·V", symbols),
        ]
        rows = {"N": math.prod(input_shape[:-1])}
        macs = [term.times(rows, "macs") for term in weights]
        return [*weights, Term("parameters", "bias", "V", symbols), *macs]


class ClassSoftmax(nn.Module):
    """p(w|h) = p(class of w|h) · p(w|its class, h).

    Every word is in one class. Parameters: d·(V + C) + V + C.

    Args:
        class_sizes: words of each class: the first so many, the next so many, and so on.
    """

    def __init__(self, hidden_size: int, class_sizes: Sequence[int]) -> None:
        super().__init__()
        if not class_sizes or min(class_sizes) < 1:
            raise ValueError("ClassSoftmax: every class has at least one word")
        self.class_sizes = list(class_sizes)
        self.classes = nn.Linear(hidden_size, len(class_sizes))
        self.words = nn.Linear(hidden_size, sum(class_sizes))
        self.class_of: Tensor
        self.make_buffers()
        for layer in (self.classes, self.words):
            nn.init.normal_(layer.weight, std=hidden_size**-0.5)
            nn.init.zeros_(layer.bias)

    def make_buffers(self) -> None:
        """The class of each word (V,), which follows from the sizes and is not stored."""
        sizes = torch.tensor(self.class_sizes)
        classes = torch.repeat_interleave(torch.arange(len(sizes)), sizes, output_size=sum(self.class_sizes))
        self.register_buffer("class_of", classes, persistent=False)

    def forward(self, hidden: Tensor, words: Tensor | None = None) -> Tensor:
        return self._all(hidden) if words is None else self._losses(hidden, words)

    def _losses(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Only the words of the classes that occur are computed, each class for its own rows."""
        classes = self.class_of[words]
        loss = cross_entropy(self.classes(hidden).float(), classes)
        order = torch.argsort(classes, stable=True)
        there, counts = torch.unique_consecutive(classes[order], return_counts=True)
        # Split once: the gradient of a slice is as large as the matrix, and there would be one of each class.
        weights, biases = (t.split(self.class_sizes) for t in (self.words.weight, self.words.bias))
        starts, chunks = self._starts(), hidden[order].split(counts.tolist())
        inside = []
        for which, rows, targets in zip(
            there.tolist(), chunks, words[order].split(counts.tolist()), strict=True
        ):
            scores = F.linear(rows, weights[which], biases[which]).float()
            inside.append(cross_entropy(scores, targets - starts[which]))
        return loss.index_add(0, order, torch.cat(inside)) if inside else loss

    def _all(self, hidden: Tensor) -> Tensor:
        of_classes = F.log_softmax(self.classes(hidden).float(), dim=-1)
        scores = self.words(hidden).float().split(self.class_sizes, dim=-1)
        of_words = torch.cat([F.log_softmax(part, dim=-1) for part in scores], dim=-1)
        return of_words + of_classes[:, self.class_of]

    def _starts(self) -> list[int]:
        starts = [0]
        for size in self.class_sizes:
            starts.append(starts[-1] + size)
        return starts


class AdaptiveSoftmax(nn.AdaptiveLogSoftmaxWithLoss):
    """torch's, called as the others; in the weights' type, for under autocast it mixes types and fails."""

    def forward(self, hidden: Tensor, words: Tensor | None = None) -> Tensor:  # type: ignore[override]
        kind = hidden.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            hidden = hidden.to(self.head.weight.dtype)
            if words is None:
                return self.log_prob(hidden).float()
            losses = -super().forward(hidden, words).output.float()
            if not torch.is_grad_enabled():
                return losses
            # A cluster without a word has a gradient too, of zeros: ranks must agree on which have one.
            return losses + 0 * sum(weight.sum() for weight in self.tail.parameters())


def _answers(scores: Tensor, words: Tensor | None) -> Tensor:
    """What an output layer returns, from its scores (N, V) of all words."""
    scores = scores.float()
    return F.log_softmax(scores, dim=-1) if words is None else cross_entropy(scores, words)


def _hidden(batch: int, size: int | None, width: int) -> tuple[Tensor]:
    if size is None:
        return (torch.rand(batch, width),)
    return random_sequences(batch, size, width)


def over_time(layer: nn.Module, hidden: Tensor, targets: Tensor | None) -> Tensor:
    """What an output layer says of hidden vectors (T, B, d).

    Args:
        targets: (T, B).

    Returns:
        Negative log-probabilities of the targets, (T, B); without targets log-probabilities (T, B, V).
    """
    rows = hidden.flatten(0, 1)  # (T·B, d)
    if targets is None:
        every: Tensor = layer(rows).unflatten(0, hidden.shape[:2])
        return every
    losses: Tensor = layer(rows, targets.flatten()).view(targets.shape)
    return losses


def frequency_classes(counts: Sequence[int], classes: int) -> list[int]:
    """Sizes of classes of about equal mass: words by falling frequency, cut where the next share is full.

    T. Mikolov, S. Kombrink, L. Burget, J. Černocký, S. Khudanpur: Extensions of Recurrent Neural Network
    Language Model. ICASSP 2011.

    Args:
        counts: how often each word occurs in the training text, falling.
        classes: how many classes; no more than words.

    Raises:
        ValueError: there are fewer words than classes.
    """
    if not 1 <= classes <= len(counts):
        raise ValueError(f"classes: 1 to {len(counts)}, the number of words; got {classes}")
    total, mass, sizes = sum(counts), 0, [0]
    for word, count in enumerate(counts):
        left, open_ = len(counts) - word, classes - len(sizes)
        full = mass * classes >= total * len(sizes)
        if sizes[-1] and open_ and (full or left <= open_):
            sizes.append(0)
        sizes[-1] += 1
        mass += count
    return sizes
