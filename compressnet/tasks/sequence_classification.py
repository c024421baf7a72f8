"""Sequence classification: which of a few classes a sentence belongs to.

loss                  -ln p(class), nats, mean over sentences
accuracy              share of sentences whose most probable class is theirs
accuracy/<class>      the same of the sentences of one class: its recall; count/<class>: how many there are
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import finite, json_file
from compressnet.bounds import Batch
from compressnet.data.limits import read_text_file
from compressnet.data.sentences import Sentence, SentenceBatch, side_by_side, words_of
from compressnet.data.vocabulary import UNKNOWN, StoredWords, Vocabulary, stored_words
from compressnet.errors import CompressnetError, NotFinite
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Label, Labels
from compressnet.tasks.class_metrics import ClassMetrics
from compressnet.tasks.protocol import Answers, Loss, NoMeasures, Outputs, State, answers
from compressnet.weights import Architecture


@dataclass(frozen=True)
class Options:
    """What `apply` takes.

    Attributes:
        batch: lines at a time.
    """

    batch: Batch = 64


class Assets(StoredWords):
    """What is stored with weights: words, and the names of the classes."""

    classes: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1)]


class SequenceClassification:
    """Tell the class of a sentence."""

    sample_types: ClassVar[tuple[str, ...]] = ("sentence",)
    size_names: ClassVar[tuple[str, ...]] = ("vocab_size", "num_classes")
    reads: ClassVar[tuple[str, ...]] = ("text",)
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    options: ClassVar[type] = Options
    measures: ClassVar[type] = NoMeasures
    needs_targets: ClassVar[bool] = True
    unit: ClassVar[str] = "token"

    def prepare(
        self, train_data: Any, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The words of the training data, how they were cut, and the classes. There is always an `<unk>`.

        Weights that training starts from keep their words: the vocabulary is then theirs.
        """
        classes = list(train_data.classes)
        assets = stored_words(parent.assets) if parent else {}
        if not assets:
            vocabulary = Vocabulary.of(train_data.counts(), train_data.min_count)
            if vocabulary.unknown is None:
                vocabulary = Vocabulary([*vocabulary.symbols, UNKNOWN])
            assets = {"tokenizer": train_data.tokenizer.to_dict(), "vocabulary": vocabulary.symbols}
        assets["classes"] = classes
        self.use(assets)
        return assets, self.sizes()

    def use(self, assets: Mapping[str, Any]) -> None:
        stored = json_file.check(Assets, assets, "the stored assets")
        self.tokenizer, self.vocabulary = stored.read()
        self.classes = stored.classes
        twice = [name for name, times in Counter(self.classes).items() if times > 1]
        if twice:
            raise CompressnetError(f"the list of classes has {twice[0]!r} twice")

    def sizes(self) -> dict[str, Any]:
        return {"vocab_size": len(self.vocabulary), "num_classes": len(self.classes)}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return inputs[0].numel()  # words (T, B)

    def loss(self, model: nn.Module, batch: SentenceBatch, state: State) -> Loss:
        return self.loss_of(self.outputs(model, batch, state), batch)

    def loss_of(self, outputs: Outputs, batch: SentenceBatch) -> Loss:
        return Loss(F.cross_entropy(outputs.values, batch.labels), len(batch.labels), {}, ())

    def outputs(self, model: nn.Module, batch: SentenceBatch, state: State) -> Outputs:
        """Scores of the classes, (B, K)."""
        return Outputs(model(batch.words, batch.lengths), "logits", ())

    def predict(self, model: nn.Module, batch: SentenceBatch, state: State) -> tuple[Tensor, State]:
        """ln p of the classes, (B, K)."""
        return model(batch.words, batch.lengths).log_softmax(-1), ()

    def measure(self, settings: Mapping[str, Any]) -> None:
        pass

    def metrics(self) -> ClassMetrics:
        return ClassMetrics(self.classes)

    def preview(self, model: nn.Module, samples: list[Sentence]) -> Iterator[tuple[str, str]]:
        """A sentence as the model reads it, its class, and what the model takes it for."""
        for sample in samples:
            label, probability = self._classify(model, [sample.words])[0]
            text = self.tokenizer.join(self.vocabulary.decode(sample.words.tolist()))
            line = f"{self.classes[sample.label]} >>> {label} ({probability:.3f}): {text}"
            yield sample.name.replace(":", "-"), line

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """Classify each line of text files; empty ones are left out.

        Lines are cut into words as the training data was: for the benchmark sets at white space, so that
        punctuation needs spaces around it there.
        """
        settings = Options(**options)
        return answers(
            inputs, lambda source: self._label(model, source, settings, reporter), "split the file"
        )

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Labels]:
        return Labels

    def _label(self, model: nn.Module, source: Source, settings: Options, reporter: Reporter) -> Labels:
        with source.file() as path:
            text = read_text_file(path)
        rows = replace(self.tokenizer, lower=False).decode(text, source.name).split("\n")
        lines = [(number, row.strip()) for number, row in enumerate(rows, 1) if row.strip()]
        if not lines:
            raise CompressnetError(f"{source}: there is no text in it")
        reporter.stage(os.path.basename(source.name), len(lines), "lines")
        labels: list[Label] = []
        for begin in range(0, len(lines), settings.batch):
            piece = lines[begin : begin + settings.batch]
            words = [self.vocabulary.encode(words_of(self.tokenizer, text), source.name) for _, text in piece]
            try:
                answers = self._classify(model, words)
            except NotFinite as error:
                raise NotFinite(f"{source}: lines {piece[0][0]} to {piece[-1][0]}: {error}") from error
            labels += [Label(n, *answer, text) for (n, text), answer in zip(piece, answers, strict=True)]
            reporter.advance(len(piece))
        return Labels(labels)

    @torch.inference_mode()
    def _classify(self, model: nn.Module, sentences: Sequence[Tensor]) -> list[tuple[str, float]]:
        """The most probable class of each sentence (T_i,), with its probability."""
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        words, lengths = side_by_side(sentences)
        scores = finite.checked(model(words.to(device), lengths.to(device)), "the network's output")
        probabilities, best = scores.softmax(-1).max(-1)
        return [
            (self.classes[number], probability)
            for number, probability in zip(best.tolist(), probabilities.tolist(), strict=True)
        ]
