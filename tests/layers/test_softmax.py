"""Output layers of language models: probabilities, losses, classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from compressnet.layers.factored_embedding import FactoredEmbedding
from compressnet.layers.softmax import (
    AdaptiveSoftmax,
    ClassSoftmax,
    FactoredSoftmax,
    FullSoftmax,
    frequency_classes,
)

LAYERS: dict[str, Callable[[], Any]] = {
    "full": lambda: FullSoftmax(6, 20),
    "factored": lambda: FactoredSoftmax(6, 20, 3),
    "classes": lambda: ClassSoftmax(6, [1, 4, 5, 10]),
    "adaptive": lambda: AdaptiveSoftmax(6, 20, [4, 10]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_probabilities_sum_to_one_and_the_loss_is_theirs(name: str) -> None:
    torch.manual_seed(0)
    layer, hidden, words = LAYERS[name](), torch.randn(30, 6), torch.randint(20, (30,))
    log_probabilities = layer(hidden)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(30))
    expected = -log_probabilities.gather(1, words[:, None])[:, 0]
    torch.testing.assert_close(layer(hidden, words), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_the_loss_are_those_of_the_probabilities(name: str) -> None:
    torch.manual_seed(0)
    layer, words = LAYERS[name]().double(), torch.randint(20, (9,))
    hidden = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    known = [hidden, *layer.parameters()]
    of_loss = torch.autograd.grad(layer(hidden, words).sum(), known)
    whole = -layer(hidden).gather(1, words[:, None]).sum()
    # All losses are computed in float32.
    torch.testing.assert_close(of_loss, torch.autograd.grad(whole, known), atol=1e-5, rtol=1e-5)


def test_adaptive_clusters_without_a_word_have_a_gradient_and_autocast_is_taken() -> None:
    """Processes that train together must agree on the parameters that have one."""
    torch.manual_seed(0)
    layer, hidden, words = AdaptiveSoftmax(6, 20, [4, 10]), torch.randn(5, 6), torch.tensor([0, 1, 2, 5, 4])
    expected = layer(hidden, words)
    with torch.autocast("cpu", torch.bfloat16):
        losses = layer(hidden.bfloat16(), words)
    torch.testing.assert_close(losses, expected, atol=0.02, rtol=0.02)
    losses.sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters()]
    assert [gradient is None for gradient in gradients] == [False] * len(gradients)
    unused = [parameter.grad for parameter in layer.tail[1].parameters()]
    assert [bool(gradient.any()) for gradient in unused if gradient is not None] == [False, False]


def test_the_class_factored_softmax_by_hand() -> None:
    torch.manual_seed(0)
    layer, hidden = ClassSoftmax(6, [2, 3]), torch.randn(1, 6)
    classes = F.linear(hidden, layer.classes.weight, layer.classes.bias).softmax(-1)[0]
    words = F.linear(hidden, layer.words.weight, layer.words.bias)[0]
    by_hand = classes[1] * words[2:].softmax(-1)[1]  # word 3 is the second of the second class
    torch.testing.assert_close(layer(hidden)[0, 3].exp(), by_hand)
    assert sum(p.numel() for p in layer.parameters()) == 6 * (5 + 2) + 5 + 2  # d·(V + C) + V + C


def test_a_full_softmax_can_share_its_matrix() -> None:
    shared = nn.Parameter(torch.randn(20, 6))
    assert FullSoftmax(6, 20, shared).weight is shared


def test_factors_compute_what_their_product_does_and_can_be_tied() -> None:
    torch.manual_seed(0)
    factored, full = FactoredSoftmax(6, 20, 3).double(), FullSoftmax(6, 20).double()
    embedding, hidden = FactoredEmbedding(20, 6, 3).double(), torch.randn(5, 6, dtype=torch.float64)
    embedding.table, embedding.projection = factored.table, factored.projection
    with torch.no_grad():
        factored.bias.normal_()
        full.weight.copy_(factored.weight)
        full.bias.copy_(factored.bias)
    torch.testing.assert_close(factored(hidden), full(hidden))
    words = torch.randint(20, (4, 2))
    torch.testing.assert_close(embedding(words), nn.functional.embedding(words, embedding.weight))
    assert (embedding.num_embeddings, embedding.embedding_dim) == (20, 6)


def test_classes_of_equal_mass() -> None:
    assert frequency_classes([6, 2, 2, 1, 1], 2) == [1, 4]
    assert frequency_classes([1] * 6, 3) == [2, 2, 2]
    assert frequency_classes([100, 1, 1, 1], 3) == [1, 1, 2]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60), st.data())
def test_every_word_is_in_one_class(counts: list[int], data: st.DataObject) -> None:
    classes = data.draw(st.integers(1, len(counts)))
    sizes = frequency_classes(sorted(counts, reverse=True), classes)
    assert len(sizes) == classes
    assert sum(sizes) == len(counts)
    assert min(sizes) >= 1


@pytest.mark.parametrize("classes", [0, 4])
def test_no_more_classes_than_words(classes: int) -> None:
    with pytest.raises(ValueError, match=r"classes: 1 to 3"):
        frequency_classes([3, 2, 1], classes)


def test_counting_needs_no_memory() -> None:
    with torch.device("meta"):
        layer = ClassSoftmax(6, [2, 3])
        assert layer(torch.empty(4, 6)).shape == (4, 5)
