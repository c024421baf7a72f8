"""Language modelling: the probability of each symbol of a text, given those before it.

Figures are means over all symbols of a text, `<eos>` included, in one row with the state carried on:

    loss                  -ln p(symbol), nats
    perplexity            e^loss
    bits_per_character    loss / ln 2, of models of characters or bytes

In training the log's loss is that of windows before they are learned from, with the penalties of a model that
has some (AWD-LSTM).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from compressnet import finite, json_file
from compressnet.bounds import OptionalSize, Seed, Size, Temperature
from compressnet.data.protocol import Key
from compressnet.data.text import Part, TextBatch, TextSplit
from compressnet.data.vocabulary import StoredWords, Vocabulary, count, stored_words
from compressnet.errors import NotFinite, UsageError
from compressnet.layers.softmax import frequency_classes
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Figures, Text
from compressnet.tasks.protocol import Answers, Loss, NoMeasures, Outputs, State, answers
from compressnet.weights import Architecture

_PREVIEW = 200  # symbols
_LARGEST_EXPONENT = 709.0  # e to it is about the largest float


@dataclass(frozen=True)
class Options:
    """What `apply` takes.

    Attributes:
        prompt: the beginning of a text that the model is to go on with.
        length: symbols to write.
        temperature: log-probabilities are divided by it; 0: always the most probable symbol.
        top_k: choose among so many most probable symbols; 0: among all.
        seed: of the choices.
    """

    prompt: str = ""
    length: Size = 100
    temperature: Temperature = 1.0
    top_k: OptionalSize = 0
    seed: Seed = 0


class LanguageModelling:
    """Predict the next symbol of a text.

    Args:
        classes: words are put into so many classes of about equal frequency, for a class-factored softmax;
            0: none.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("text",)
    size_names: ClassVar[tuple[str, ...]] = ("vocab_size",)
    reads: ClassVar[tuple[str, ...]] = ("text",)
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("perplexity", "min")
    options: ClassVar[type] = Options
    measures: ClassVar[type] = NoMeasures
    needs_targets: ClassVar[bool] = True
    loss_of = None
    unit: ClassVar[str] = "token"

    def __init__(self, classes: OptionalSize = 0) -> None:
        self.classes = classes

    def prepare(
        self, train_data: Any, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The vocabulary of the training text, and how it was cut.

        Weights that training starts from keep their symbols, and the classes of these.
        """
        if parent is not None and (assets := stored_words(parent.assets)):
            return assets, self._as_in(parent)
        counts = count(train_data.symbols)
        vocabulary = Vocabulary.of(counts, train_data.min_count)
        assets = {"tokenizer": train_data.tokenizer.to_dict(), "vocabulary": vocabulary.symbols}
        model_args: dict[str, Any] = {"vocab_size": len(vocabulary)}
        if self.classes:
            rare = sum(counts.values()) - sum(counts[symbol] for symbol in vocabulary.symbols)
            if vocabulary.unknown is not None:
                counts[vocabulary.symbols[vocabulary.unknown]] += rare
            frequencies = [counts[symbol] for symbol in vocabulary.symbols]
            try:
                model_args["class_sizes"] = frequency_classes(frequencies, self.classes)
            except ValueError as error:
                raise UsageError(f"task.{error}") from error
        return assets, model_args

    def _as_in(self, parent: Architecture) -> dict[str, Any]:
        """Sizes that follow from the symbols of weights that training starts from."""
        sizes: list[int] = parent.model_args.get("class_sizes") or []
        if len(sizes) != self.classes:
            raise UsageError(f"task.classes is {self.classes}, that of the weights in init is {len(sizes)}")
        known: dict[str, Any] = {"vocab_size": len(parent.assets["vocabulary"])}
        return known | ({"class_sizes": sizes} if sizes else {})

    def use(self, assets: Mapping[str, Any]) -> None:
        self.assets = assets
        self.tokenizer, self.vocabulary = json_file.check(StoredWords, assets, "the stored assets").read()

    def sizes(self) -> dict[str, Any]:
        return {"vocab_size": len(self.vocabulary)}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return inputs[0].numel()

    def loss(self, model: nn.Module, batch: TextBatch, state: State) -> Loss:
        losses, state = model(batch.inputs, state, batch.targets)  # (T, B)
        return Loss(losses.mean(), losses.numel(), {}, state)

    def outputs(self, model: nn.Module, batch: TextBatch, state: State) -> Outputs:
        """Log-probabilities of all symbols after each of the batch, (T·B, V), without penalties."""
        scores, state = model(batch.inputs, state)  # (T, B, V)
        return Outputs(scores.flatten(0, 1), "logits", state)

    def predict(self, model: nn.Module, batch: TextBatch, state: State) -> tuple[Tensor, State]:
        """-ln p of the targets, (T, B)."""
        losses, state = model(batch.inputs, state, batch.targets)
        return losses, state

    def measure(self, settings: Mapping[str, Any]) -> None:
        pass

    def metrics(self) -> TextMetrics:
        return TextMetrics(self.tokenizer.level != "word")

    def preview(self, model: nn.Module, samples: list[TextBatch]) -> Iterator[tuple[str, str]]:
        """How the model goes on after the first half of a window."""
        for sample in samples:
            prompt = sample.inputs[: max(1, len(sample.inputs) // 2)]
            written = list(generate(model, prompt, Options(length=_PREVIEW)))
            yield "text", f"{self._text(prompt.tolist())} >>> {self._text(written)}"

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Text | Figures]:
        return Text if options.get("prompt") else Figures

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """Go on with a prompt, and measure how well text files are predicted."""
        settings = Options(**options)
        if settings.prompt:
            yield Source("prompt"), Text(self._write(model, settings, reporter))
        yield from answers(inputs, lambda source: self._measure(model, source, reporter), "split the file")

    def _write(self, model: nn.Module, settings: Options, reporter: Reporter) -> str:
        text = self.tokenizer.decode(settings.prompt.encode(errors="surrogateescape"), "--prompt")
        symbols = self.tokenizer.split(f"{text}\n")[:-1]
        start = torch.tensor([self.vocabulary.start])
        prompt = torch.cat([start, self.vocabulary.encode(symbols, "--prompt")])
        reporter.stage("writing", settings.length, "symbols")
        written = []
        for number in generate(model, prompt, settings):
            written.append(number)
            reporter.advance(1)
        return self._text([*prompt[1:].tolist(), *written])

    def _measure(self, model: nn.Module, source: Source, reporter: Reporter) -> Figures:
        with source.file() as path:  # read when it is first needed
            return self._figures(model, path, source.name, reporter)

    def _figures(self, model: nn.Module, path: Path, name: str, reporter: Reporter) -> Figures:
        split = TextSplit(Part(path), self.tokenizer, 1, 1, self.assets, training=False)
        device, metrics = _device(model), self.metrics()
        state: State = ()
        figures: dict[str, float] = {"symbols": split.target_count}
        if self.vocabulary.unknown is not None:
            figures["unknown"] = int((split.numbers[1:] == self.vocabulary.unknown).sum())
        reporter.stage(os.path.basename(name), len(split), "windows")
        with torch.inference_mode():
            for index in range(len(split)):
                batch = split.collate([split[Key(0, index, index)]])
                losses, state = self.predict(model, TextBatch(*(t.to(device) for t in batch)), state)
                finite.checked(losses, f"{name}: the network's output")
                metrics.update(losses.cpu(), batch)
                reporter.advance(1)
        return Figures({**figures, **metrics.compute()})

    def _text(self, numbers: Iterable[int]) -> str:
        return self.tokenizer.join(self.vocabulary.decode(numbers))


class TextMetrics:
    """Sums of -ln p.

    Args:
        characters: symbols are characters or bytes.
    """

    def __init__(self, characters: bool) -> None:
        self.characters = characters
        self.total, self.count = 0.0, 0

    def update(self, output: Tensor, batch: TextBatch) -> None:
        self.total += float(output.double().sum())
        self.count += output.numel()

    def state(self) -> tuple[float, int]:
        return self.total, self.count

    def merge(self, states: list[tuple[float, int]]) -> None:
        self.total, self.count = sum(total for total, _ in states), sum(count for _, count in states)

    def compute(self) -> dict[str, float]:
        loss = self.total / self.count
        figures = {"loss": loss, "perplexity": math.exp(loss) if loss < _LARGEST_EXPONENT else math.inf}
        return figures | ({"bits_per_character": loss / math.log(2)} if self.characters else {})

    def details(self) -> dict[str, Any]:
        return {}

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        yield from ()


@torch.inference_mode()
def generate(model: Any, prompt: Tensor, options: Options) -> Iterator[int]:
    """Symbols after a prompt (N,), N >= 1, one by one; the prompt itself is only read."""
    device, random = _device(model), torch.Generator().manual_seed(options.seed)
    state = model.init_state(1, device)
    scores, state = model.step(prompt[:, None].to(device), state)  # (N, 1, V)
    for _ in range(options.length):
        number = _choose(scores[-1, 0].float().cpu(), options, random)
        yield number
        scores, state = model.step(torch.tensor([[number]], device=device), state)


def _choose(scores: Tensor, options: Options, random: torch.Generator) -> int:
    """One of the symbols by their log-probabilities (V,).

    Raises:
        NotFinite: they are none.
    """
    if scores.isnan().any() or not scores.max().isfinite():  # one symbol may be impossible, not all
        raise NotFinite("the network's output: its probabilities are not finite (NaN)")
    if options.temperature == 0:
        return int(scores.argmax())
    if options.top_k:
        least = scores.topk(min(options.top_k, len(scores))).values[-1]
        scores = scores.masked_fill(scores < least, -math.inf)
    scores = (scores - scores.max()) / options.temperature  # 0 the greatest: nothing overflows
    return int(torch.multinomial(scores.softmax(0), 1, generator=random))


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
