"""Embeddings of low rank: short vectors of words, which one matrix makes as long as the network wants them.

    words (...) -> table (V, r) -> (..., r) -> projection (r, d) -> (..., d)

Z. Lan, M. Chen, S. Goodman, K. Gimpel, P. Sharma, R. Soricut: ALBERT. ICLR 2020, arXiv 1909.11942 (factorized
embedding parameterization).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Size
from compressnet.cost import Term


class FactoredEmbedding(nn.Module):
    """Words, whole numbers below V, to vectors of d numbers; what models read of `nn.Embedding` it has too.

    Args:
        num_embeddings: V.
        embedding_dim: d.
        rank: r; the factors are smaller than their product below V·d / (V + d).

    Attributes:
        table: (V, r).
        projection: (r, d).
    """

    def __init__(self, num_embeddings: Size, embedding_dim: Size, rank: Size) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_embeddings, rank))
        self.projection = nn.Parameter(torch.empty(rank, embedding_dim))
        nn.init.normal_(self.table)
        nn.init.normal_(self.projection, std=rank**-0.5)

    @property
    def num_embeddings(self) -> int:
        return self.table.shape[0]

    @property
    def embedding_dim(self) -> int:
        return self.projection.shape[1]

    @property
    def weight(self) -> Tensor:
        """The product of the factors, (V, d): that of the `nn.Embedding` which computes the same."""
        return self.table @ self.projection

    def forward(self, words: Tensor) -> Tensor:
        """Words of any shape to their vectors (..., d)."""
        return F.embedding(words, self.table) @ self.projection

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` words of `batch` texts.

        Raises:
            ValueError: a size of images.
        """
        if not isinstance(size, int):
            raise ValueError("takes words: their size is a number of steps")
        return (torch.randint(self.num_embeddings, (size, batch)),)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of words of this shape."""
        symbols = {"V": self.num_embeddings, "r": self.projection.shape[0], "n_e": self.embedding_dim}
        projection = Term("parameters", "projection", "r·n_e", symbols)
        rows = {"N": math.prod(input_shape)}
        return [
            Term("parameters", "table", "V·r", symbols),
            projection,
            Term("lookups", "rows", "N", {**symbols, **rows}),
            projection.times(rows, "macs"),
        ]
