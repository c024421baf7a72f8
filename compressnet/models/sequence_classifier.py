"""Classes of sentences by recurrent layers: the network of the classification experiments with SRU.

    words (T, B) -> embedding (T, B, d_e) -> [dropout -> cell] x L -> last word's output (B, d) -> dropout
                 -> output layer (B, K)

    T. Lei, Y. Zhang, S. Wang, H. Dai, Y. Artzi: Simple Recurrent Units for Highly Parallelizable Recurrence.
        EMNLP 2018, arXiv 1709.02755 (two layers of 128 cells on word vectors of 300)

What differs: their embeddings are word2vec's, normalised and fixed; here they begin at random, of length 1
too, and are learned. The cells alone have 203,776 parameters (`sru`) or 352,256 (`torch_lstm`); any layer of
the family that streams can be one.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Layers, Probability, Size
from compressnet.layers.readers import Readers, readers_in_row
from compressnet.layers.recurrent_stack import RecurrentStack
from compressnet.layers.sequences import checked_lengths
from compressnet.signature import DERIVED, Named


class SequenceClassifier(nn.Module):
    """Sentences, words (T, B) as whole numbers below V, to scores of K classes.

    Args:
        vocab_size: V, follows from the data.
        num_classes: K, follows from the data.
        cell: a layer by name, with arguments: `sru`, `lstm:peepholes=false`, `torch_lstm`.
        hidden_size: of each cell.
        num_layers: cells on top of each other.
        embedding_size: d_e.
        dropout: of what goes into each cell and into the output layer, in training.

    Raises:
        ValueError: an argument out of range, or a cell that is none.
    """

    def __init__(
        self,
        vocab_size: Annotated[Size, DERIVED] = 10_000,
        num_classes: Annotated[Size, DERIVED] = 2,
        hidden_size: Size = 128,
        cell: Annotated[str, Named("layer", ("input_size", "hidden_size"))] = "sru",
        num_layers: Layers = 2,
        embedding_size: Size = 300,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        with torch.no_grad():  # torch's start, of length sqrt(d_e), outweighs what is learned in some epochs
            self.embedding.weight.copy_(F.normalize(self.embedding.weight))
        self.cells = RecurrentStack(cell, embedding_size, hidden_size, num_layers)
        self.output = nn.Linear(self.cells.output_size, num_classes)

    def forward(self, words: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scores (B, K), whose softmax is the probability of each class.

        Args:
            words: (T, B).
            lengths: (B,), 0 to T: words that count; what is behind them has no influence. None: all count.

        Raises:
            ValueError: lengths that do not fit the words.
        """
        x = F.dropout(self.embedding(words), self.dropout, self.training)  # (T, B, d_e)
        state = self.cells.init_state(x.shape[1], x.device)
        for cell, part in self.cells.with_states(state):
            x, _ = cell.step(x, part)  # (T, B, d)
            x = F.dropout(x, self.dropout, self.training)
        scores: Tensor = self.output(self._last(x, lengths))
        return scores

    def readers(self) -> dict[str, Readers]:
        """Who reads the outputs of each cell (`layers/readers.py`): the next cell, or the output layer."""
        return readers_in_row(self, ["cells", "output"])

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor, Tensor]:
        """Inputs for counting and timing: `batch` sentences of `size` words.

        Raises:
            ValueError: a size of images.
        """
        if not isinstance(size, int):
            raise ValueError("takes words: their size is a number of steps")
        words = torch.randint(self.embedding.num_embeddings, (size, batch))
        return words, torch.full((batch,), size)

    def _last(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The outputs (B, d) at each sentence's end. Cells read forwards: what is behind it came too late."""
        if lengths is None:
            return x[-1]
        ends = checked_lengths("sequence_classifier", lengths, x)[:, None]  # (B, 1)
        place = (ends - 1).clamp(min=0).expand(x.shape[1:])[None]  # (1, B, d)
        return torch.where(ends > 0, x.gather(0, place)[0], 0)
