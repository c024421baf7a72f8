"""The task of classifying sentences: figures, vocabulary, labels of files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressnet.data.protocol import Key
from compressnet.data.sentences import Line, Sentence, SentenceBatch, SentenceSplit
from compressnet.data.vocabulary import Tokenizer
from compressnet.errors import CompressnetError
from compressnet.reporter import Silent
from compressnet.source import Source
from compressnet.tasks.artefacts import Label, Labels
from compressnet.tasks.sequence_classification import ClassMetrics, SequenceClassification

LOW = Tokenizer(lower=True)


class First(nn.Module):
    """Scores 2 for the class whose number is that of the last word, else 0; there are three."""

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        last = words.gather(0, (lengths - 1)[None])[0].clamp(max=2)
        return 2 * nn.functional.one_hot(last, 3).float()


def split(*texts: str, min_count: int = 1) -> SentenceSplit:
    lines = [Line(number % 2, text, number, f"t:{number}") for number, text in enumerate(texts)]
    return SentenceSplit(lines, ["a", "b", "c"], LOW, min_count, {}, {})


def prepared(*texts: str, min_count: int = 1) -> SequenceClassification:
    task = SequenceClassification()
    assets, _ = task.prepare(split(*texts, min_count=min_count))
    task.use(assets)
    return task


def test_words_that_are_rare_are_unknown_and_there_is_always_an_unknown_word() -> None:
    assets, arguments = SequenceClassification().prepare(split("The cat the", "cat sat", min_count=2))
    assert assets["vocabulary"] == ["cat", "the", "<unk>"]  # twice, twice, once
    assert assets["classes"] == ["a", "b", "c"]
    assert assets["tokenizer"] == LOW.to_dict()
    assert arguments == {"vocab_size": 3, "num_classes": 3}
    assets, arguments = SequenceClassification().prepare(split("x x y"))
    assert assets["vocabulary"] == ["x", "y", "<unk>"]
    assert arguments["vocab_size"] == 3


def test_a_class_twice() -> None:
    assets = {"tokenizer": LOW.to_dict(), "vocabulary": ["x"], "classes": ["a", "b", "a"]}
    with pytest.raises(CompressnetError, match="the list of classes has 'a' twice"):
        SequenceClassification().use(assets)


def test_figures_are_means_over_sentences_and_over_those_of_a_class() -> None:
    metrics = ClassMetrics(["a", "b", "c"])
    output = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]).log()
    batch = SentenceBatch(torch.zeros(1, 3), torch.ones(3), torch.tensor([0, 1, 1]))
    metrics.update(output, batch)
    two = ClassMetrics(["a", "b", "c"])
    two.merge([metrics.state(), metrics.state()])
    for collected, times in ((metrics, 1), (two, 2)):
        figures = collected.compute()
        assert figures["accuracy"] == pytest.approx(2 / 3)
        assert figures["loss"] == pytest.approx((2 * math.log(2) + math.log(4)) / 3)
        assert (figures["accuracy/a"], figures["accuracy/b"]) == (1.0, 0.5)
        assert figures["count/b"] == 2 * times
        assert "accuracy/c" not in figures  # no sentence is of that class


def test_the_loss_is_the_mean_over_the_sentences() -> None:
    words, lengths = torch.tensor([[0, 1], [2, 0]]), torch.tensor([2, 1])
    loss = SequenceClassification().loss(First(), SentenceBatch(words, lengths, torch.tensor([2, 0])), ())
    sure = math.log(math.exp(2) + 2)
    assert float(loss.mean) == pytest.approx((sure - 2 + sure) / 2)
    assert (loss.count, loss.state) == (2, ())


def test_files_are_labelled_line_by_line_whatever_the_batch(tmp_path: Path) -> None:
    task = prepared("zero zero zero one one two")  # numbers 0, 1, 2 and 3 for <unk>
    (tmp_path / "f").write_text("One zero\n\n two TWO one \nother\n")
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").write_text(" \n")
    sources = {name: Source.of(tmp_path / name) for name in ("bad", "f", "empty", "none")}
    for batch in (1, 2, 64):
        results = dict(task.apply(First(), sources.values(), {"batch": batch}, Silent()))
        labels = results[sources["f"]]
        assert isinstance(labels, Labels)
        sure = pytest.approx(math.exp(2) / (math.exp(2) + 2))
        assert labels.lines == [
            Label(1, "a", sure, "One zero"),  # type: ignore[arg-type]
            Label(3, "b", sure, "two TWO one"),  # type: ignore[arg-type]
            Label(4, "c", sure, "other"),  # type: ignore[arg-type]
        ]
        for name, message in (("bad", "not UTF-8"), ("empty", "no text in it"), ("none", "cannot be read")):
            error = results[sources[name]]
            assert isinstance(error, CompressnetError)
            assert message in str(error)
            assert name in str(error)


def test_previews_name_the_sentence() -> None:
    task = prepared("zero zero one")
    samples = [Sentence(torch.tensor([1, 0]), 1, "t:1"), Sentence(torch.tensor([1]), 1, "t:2")]
    assert list(task.preview(First(), samples)) == [
        ("t-1", "b >>> a (0.787): one zero"),
        ("t-2", "b >>> b (0.787): one"),
    ]


def test_prediction_takes_a_batch_of_the_split() -> None:
    task = SequenceClassification()
    assets, _ = task.prepare(split("zero zero zero one one two"))  # numbers 0, 1, 2
    task.use(assets)
    opened = SentenceSplit(split("zero one", "two zero").lines, ["a", "b", "c"], Tokenizer(), 1, assets, {})
    batch = opened.collate([opened[Key(0, index, index)] for index in (0, 1)])
    output, state = task.predict(First(), batch, ())
    assert output.argmax(-1).tolist() == [1, 0]
    torch.testing.assert_close(output.exp().sum(-1), torch.ones(2))
    assert state == ()
