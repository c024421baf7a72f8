"""The classifier of sentences: counts, padding, dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressnet.models.sequence_classifier import SequenceClassifier

CELLS = ["sru", "sru:version=1", "lstm", "lstm:peepholes=false", "lstmp:proj_size=5", "torch_lstm"]


def model(cell: str = "sru", **arguments: Any) -> SequenceClassifier:
    torch.manual_seed(0)
    return SequenceClassifier(20, 3, 8, cell, embedding_size=6, **arguments)


def test_the_papers_counts() -> None:
    def cells(cell: str, layers: int) -> int:
        with torch.device("meta"):
            net = SequenceClassifier(10, 2, cell=cell, num_layers=layers)
        return sum(p.numel() for p in net.cells.parameters())

    assert cells("sru", 2) == 203_776
    assert cells("sru", 4) == 303_104
    assert cells("sru", 8) == 501_760
    assert cells("torch_lstm", 2) == 352_256


@pytest.mark.parametrize("cell", CELLS)
def test_padding_has_no_influence(cell: str) -> None:
    net, lengths = model(cell), torch.tensor([4, 1, 7])
    words = torch.randint(20, (7, 3))
    padded = torch.cat([words, torch.randint(20, (5, 3))])
    behind = torch.arange(12)[:, None] >= lengths
    other = torch.where(behind, (padded + 7) % 20, padded)
    scores = net(words, lengths)
    assert torch.equal(net(padded, lengths), net(other, lengths))
    torch.testing.assert_close(net(padded, lengths), scores, atol=1e-6, rtol=1e-6)
    for column, length in enumerate(lengths.tolist()):
        alone = net(words[:length, column : column + 1])
        torch.testing.assert_close(scores[column : column + 1], alone, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(scores[0], net(words)[0], atol=1e-3)  # lengths do something


@pytest.mark.parametrize("cell", CELLS)
def test_padding_gets_no_gradient(cell: str) -> None:
    net = model(cell)
    words, lengths = torch.tensor([[1, 2], [3, 19], [4, 19], [19, 19]]), torch.tensor([3, 1])
    net(words, lengths).square().sum().backward()
    gradient = net.embedding.weight.grad
    assert gradient is not None
    assert gradient[19].abs().max() == 0  # the word is in padding alone
    assert all(gradient[word].abs().max() > 0 for word in (1, 2, 3, 4))


def test_a_sentence_without_words_has_the_scores_of_nothing() -> None:
    net = model()
    words = torch.randint(20, (3, 2))
    scores = net(words, torch.tensor([0, 3]))
    torch.testing.assert_close(scores[0], net.output.bias)


def test_embeddings_begin_with_length_1() -> None:
    torch.testing.assert_close(model().embedding.weight.norm(dim=1), torch.ones(20))


def test_dropout_is_for_training() -> None:
    net, words = model(dropout=0.5), torch.randint(20, (4, 2))
    assert not torch.equal(net(words), net(words))
    net.eval()
    assert torch.equal(net(words), net(words))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model("linear"), "unknown key"),
        (lambda: model("sru:bidirectional=true"), "cannot stream"),
        (
            lambda: model()(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([4, 1])),
            "lengths must be 0 to 3",
        ),
        (lambda: model()(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([1])), "2 integers"),
        (lambda: model().example(1, (2, 3)), "number of steps"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        call()
