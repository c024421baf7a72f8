"""What another network learns from: the loss of each task is that of its outputs, and gradients pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import registry
from compressnet.data.audio_class import AudioClassBatch
from compressnet.data.class_image import ClassImageBatch
from compressnet.data.image_pair import ImageBatch
from compressnet.data.label_image import LabelledBatch
from compressnet.data.sentences import SentenceBatch
from compressnet.data.synthetic import SequenceBatch, Synthetic
from compressnet.data.text import TextBatch
from compressnet.models.can import can24
from compressnet.models.kws_svdf import kws_svdf
from compressnet.models.language_model import LanguageModel
from compressnet.models.lstm_1997 import lstm_1997_network
from compressnet.models.resnet import resnet20
from compressnet.models.segmentation import shuffleseg
from compressnet.models.sequence_classifier import SequenceClassifier
from compressnet.tasks.conditioned_operator import ConditionedOperator
from compressnet.tasks.image_classification import ImageClassification
from compressnet.tasks.image_processing import ImageOperator, ImageTranslation
from compressnet.tasks.keyword_spotting import KeywordSpotting
from compressnet.tasks.language_modelling import LanguageModelling
from compressnet.tasks.segmentation import Segmentation
from compressnet.tasks.sequence_classification import SequenceClassification
from compressnet.tasks.sequence_regression import SequenceRegression


class Case(NamedTuple):
    task: Any
    model: nn.Module
    batch: Any
    loss: Callable[[Tensor, Any], Tensor]  # of values and a batch


def regression() -> SequenceRegression:
    task = SequenceRegression()
    assets, _ = task.prepare(Synthetic("adding").open("train", {}, 0))
    task.use(assets)
    return task


def pictures() -> ImageBatch:
    inputs, targets = (torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8) for _ in range(2))
    return ImageBatch(inputs, targets, ["a", "b"], [0, 1])


def told_pictures() -> ImageBatch:
    return pictures()._replace(conditions=torch.eye(2), groups=("rof", "l0"))


def mean_square(values: Tensor, batch: ImageBatch) -> Tensor:
    return F.mse_loss(values, batch.targets / 255)


def sequences() -> SequenceBatch:
    scored = torch.zeros(7, 3, dtype=torch.bool)
    scored[-2:, 1:] = True
    return SequenceBatch(torch.rand(7, 3, 2), torch.rand(7, 3, 1), scored, None)


def classifier() -> Case:
    task = ImageClassification()
    preparation = {"resize": 8, "side": 8, "mean": [0.5] * 3, "std": [0.2] * 3}
    task.use({"classes": ["a", "b", "c"], "preparation": preparation})
    batch = ClassImageBatch(
        torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 2, 1]), []
    )
    network = resnet20(3, [8, 8, 8])
    return Case(task, network, batch, lambda values, batch: F.cross_entropy(values, batch.labels))


def segmentation() -> Case:
    task = Segmentation(weights="none")
    colours = {"colours": [[0, 0, 0], [1, 0, 0], [2, 0, 0]], "ignored_ids": [], "ignored_colours": []}
    sizes = {"short_side": 16, "class_pixels": [1, 1, 1, 0]}
    task.use({"classes": ["a", "b", "c"], "ids": [0, 1, 2], **colours, **sizes})
    labels = torch.randint(0, 3, (2, 16, 24))
    labels[0, :4] = 255
    batch = LabelledBatch(torch.rand(2, 3, 16, 24), labels, [])

    def loss(values: Tensor, batch: LabelledBatch) -> Tensor:
        return F.cross_entropy(values, batch.labels.flatten(), ignore_index=255)

    return Case(task, shuffleseg(3, width=0.25), batch, loss)


CASES: dict[str, Callable[[], Case]] = {
    "conditioned_operator": lambda: Case(
        ConditionedOperator(["rof", "l0"]),
        can24(condition="film", conditions=2),
        told_pictures(),
        mean_square,
    ),
    "image_classification": classifier,
    "image_operator": lambda: Case(ImageOperator("rof"), can24(), pictures(), mean_square),
    "image_translation": lambda: Case(ImageTranslation(), can24(), pictures(), mean_square),
    "keyword_spotting": lambda: Case(
        KeywordSpotting(),
        kws_svdf(3, "30k"),
        AudioClassBatch(torch.rand(3, 16_000) - 0.5, torch.tensor([0, 2, 1]), []),
        lambda values, batch: F.cross_entropy(values, batch.labels),
    ),
    "language_modelling": lambda: Case(
        LanguageModelling(),
        LanguageModel(30, 12, "sru"),
        TextBatch(torch.randint(30, (5, 3)), torch.randint(30, (5, 3))),
        lambda values, batch: F.cross_entropy(values, batch.targets.flatten()),
    ),
    "segmentation": segmentation,
    "sequence_classification": lambda: Case(
        SequenceClassification(),
        SequenceClassifier(30, 4, 12, embedding_size=5),
        SentenceBatch(torch.randint(30, (5, 3)), torch.tensor([5, 2, 1]), torch.tensor([3, 0, 1])),
        lambda values, batch: F.cross_entropy(values, batch.labels),
    ),
    "sequence_regression": lambda: Case(
        regression(),
        lstm_1997_network(),
        sequences(),
        lambda values, batch: (values - batch.targets[batch.scored]).square().sum() / 6,
    ),
}


def test_every_task_is_here() -> None:
    assert CASES.keys() == registry.TASKS.keys()


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_the_outputs(name: str) -> None:
    torch.manual_seed(0)
    task, model, batch, loss_of = CASES[name]()
    values, kind, state = task.outputs(model, batch, ())
    loss = loss_of(values, batch)
    wanted = task.loss(model, batch, ())
    torch.testing.assert_close(loss, wanted.mean)
    torch.testing.assert_close(state, wanted.state)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert kind == ("logits" if values.ndim == 2 and values.shape[1] > 1 else "values")


@pytest.mark.parametrize(
    "softmax",
    [
        {},
        {"softmax": "adaptive", "cutoffs": [9]},
        {"softmax": "classes", "class_sizes": [10, 20]},
    ],
    ids=str,
)
def test_a_state_is_carried_and_every_softmax_has_logits(softmax: dict[str, Any]) -> None:
    torch.manual_seed(0)
    task, words = LanguageModelling(), torch.randint(30, (6, 2))
    model = LanguageModel(30, 12, "sru", activation_penalty=1.0, **softmax)
    whole = task.outputs(model, TextBatch(words, words), ())
    first = task.outputs(model, TextBatch(words[:4], words[:4]), ())
    second = task.outputs(model, TextBatch(words[4:], words[4:]), first.state)
    torch.testing.assert_close(torch.cat([first.values, second.values]), whole.values)
    losses, _ = task.predict(model.eval(), TextBatch(words, words), ())
    torch.testing.assert_close(
        F.cross_entropy(whole.values, words.flatten(), reduction="none"), losses.flatten()
    )
