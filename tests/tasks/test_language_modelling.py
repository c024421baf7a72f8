"""The task of language modelling: figures, vocabulary, generation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.data.text import Part, TextBatch, TextSplit
from compressnet.data.vocabulary import Tokenizer
from compressnet.errors import CompressnetError, UsageError
from compressnet.models.language_model import LanguageModel
from compressnet.reporter import Silent
from compressnet.source import Source
from compressnet.tasks.artefacts import Figures, Text
from compressnet.tasks.language_modelling import LanguageModelling, Options, TextMetrics, generate
from compressnet.weights import Architecture


class Next(nn.Module):
    """After each of V symbols the next number is nearly certain. The state is how many it has read."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def init_state(self, batch: int, device: Any = None, dtype: Any = None) -> tuple[Tensor, ...]:
        return (torch.zeros(1),)

    def forward(
        self, words: Tensor, state: tuple[Tensor, ...] = (), targets: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        scores = torch.full((*words.shape, self.size), -3.0)
        scores.scatter_(-1, ((words + 1) % self.size)[..., None], 3.0)
        scores = scores.log_softmax(-1)
        state = ((state[0] if state else torch.zeros(1)) + len(words),)
        if targets is not None:
            return -scores.gather(-1, targets[..., None])[..., 0], state
        return scores, state

    step = forward


def prepared(text: str, level: Any = "character", classes: int = 0) -> LanguageModelling:
    task = LanguageModelling(classes)
    split = TextSplit(Part(Path("t"), text=text), Tokenizer(level), 2, 1, {}, True)
    assets, _ = task.prepare(split)
    task.use(assets)
    return task


def test_perplexity_and_bits() -> None:
    metrics = TextMetrics(characters=True)
    metrics.update(torch.tensor([[math.log(2.0)], [math.log(8.0)]]), None)  # type: ignore[arg-type]
    assert metrics.compute() == pytest.approx({"loss": math.log(4), "perplexity": 4, "bits_per_character": 2})
    assert "bits_per_character" not in _merged([(1.0, 2), (3.0, 2)]).compute()
    assert _merged([(1.0, 2), (3.0, 2)]).compute()["loss"] == 1


def _merged(states: list[tuple[float, int]]) -> TextMetrics:
    metrics = TextMetrics(characters=False)
    metrics.merge(states)
    return metrics


def test_classes_follow_the_training_text() -> None:
    split = TextSplit(Part(Path("t"), text="aaaabbcd"), Tokenizer("character"), 2, 1, {}, True)
    assets, model_args = LanguageModelling(classes=2).prepare(split)
    assert assets["vocabulary"] == ["a", "b", "c", "d"]
    assert model_args == {"vocab_size": 4, "class_sizes": [1, 3]}
    with pytest.raises(UsageError, match=r"task\.classes: 1 to 4"):
        LanguageModelling(classes=5).prepare(split)


def test_weights_that_training_starts_from_keep_their_symbols() -> None:
    split = TextSplit(Part(Path("t"), text="ddddccba"), Tokenizer("character"), 2, 1, {}, True)
    assets = {"tokenizer": Tokenizer("character").to_dict(), "vocabulary": ["a", "b", "c", "d"]}
    parent = Architecture("language_modelling", {}, "m", {"class_sizes": [1, 3]}, assets=assets)
    sizes = {"vocab_size": 4, "class_sizes": [1, 3]}
    assert LanguageModelling(classes=2).prepare(split, parent) == (assets, sizes)
    with pytest.raises(UsageError, match=r"task\.classes is 0, that of the weights in init is 2"):
        LanguageModelling().prepare(split, parent)
    of_images = replace(parent, assets={"operator": "l0"})
    assert LanguageModelling().prepare(split, of_images)[0]["vocabulary"] == ["d", "c", "a", "b"]


def test_the_loss_is_the_mean_over_the_targets_and_carries_the_state() -> None:
    torch.manual_seed(0)
    model, task = LanguageModel(5, 4), prepared("abcde")
    batch = TextBatch(torch.randint(5, (3, 2)), torch.randint(5, (3, 2)))
    first = task.loss(model, batch, ())
    assert first.count == 6
    second = task.loss(model, batch, first.state)
    losses, _ = model(batch.inputs, first.state, batch.targets)
    torch.testing.assert_close(second.mean, losses.mean())
    assert not torch.equal(first.mean, second.mean)


def test_generation_goes_on_and_is_repeatable() -> None:
    model, prompt = Next(7), torch.tensor([0, 1, 2])
    assert list(generate(model, prompt, Options(length=6, temperature=0))) == [3, 4, 5, 6, 0, 1]
    assert list(generate(model, prompt, Options(length=6, top_k=1))) == [3, 4, 5, 6, 0, 1]
    for top_k in (0, 2):
        assert list(generate(model, prompt, Options(length=2, temperature=1e-45, top_k=top_k))) == [3, 4]
    hot = Options(length=50, temperature=5.0, seed=3)
    one = list(generate(model, prompt, hot))
    assert one == list(generate(model, prompt, hot))
    assert one != list(generate(model, prompt, Options(length=50, temperature=5.0, seed=4)))
    assert len(set(one)) > 3


def test_generation_with_a_state_is_the_model_on_the_whole_text() -> None:
    torch.manual_seed(0)
    model = LanguageModel(9, 6, init_range=2.0).eval()
    text = [3, 1]
    for _ in range(8):
        log_probabilities, _ = model(torch.tensor(text)[:, None])
        text.append(int(log_probabilities[-1, 0].argmax()))
    assert list(generate(model, torch.tensor([3, 1]), Options(length=8, temperature=0))) == text[2:]


def test_a_prompt_is_gone_on_with() -> None:
    task = prepared("eeeeeddddcccbba")  # numbers: e d c b a
    ((source, artefact),) = task.apply(
        Next(5), [], {"prompt": "ed", "length": 2, "temperature": 0.0}, Silent()
    )
    assert source == Source("prompt")
    assert artefact == Text("edcb")


def test_unknown_words_of_a_prompt_are_named() -> None:
    with pytest.raises(CompressnetError, match=r"--prompt: 1 symbols.*'q'"):
        list(prepared("abc").apply(Next(3), [], {"prompt": "aq"}, Silent()))
    task = prepared("the cat <unk>\n", "word")
    ((_, artefact),) = task.apply(Next(4), [], {"prompt": "the dog", "length": 1}, Silent())
    assert isinstance(artefact, Text)
    assert artefact.text.startswith("the <unk> ")
    with pytest.raises(CompressnetError, match="--prompt: not UTF-8"):
        list(task.apply(Next(4), [], {"prompt": "\udcff"}, Silent()))


def test_files_are_measured_and_a_bad_one_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("edcba")
    (tmp_path / "bad").write_text("xyz")
    task = prepared("eeeeeddddcccbba")
    bad, good = Source.of(tmp_path / "bad"), Source.of(tmp_path / "good")
    results = dict(task.apply(Next(5), [bad, good], {}, Silent()))
    assert isinstance(results[bad], CompressnetError)
    figures = results[good]
    assert isinstance(figures, Figures)
    assert figures.values["symbols"] == 5
    assert "unknown" not in figures.values
    # What stands before the text is e (number 0), after which d is expected; then all is as expected.
    sure = math.log(math.exp(3) + 4 * math.exp(-3)) - 3
    assert figures.values["loss"] == pytest.approx((5 * sure + 6) / 5, rel=1e-5)


def test_previews_are_texts() -> None:
    task = prepared("eeeeeddddcccbba")
    ((name, text),) = task.preview(Next(5), [TextBatch(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]))])
    assert name == "text"
    assert text.startswith("e >>> ")
