"""The task of segmentation: what is stored, what is learned, what is predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressnet.data.label_classes import LabelClasses
from compressnet.data.label_image import LabelledBatch, LabelledImage, WholeBatch, WholeImage
from compressnet.errors import CompressnetError
from compressnet.tasks.segmentation import Segmentation

CLASSES = LabelClasses(("sky", "road"), (4, 9), ((10, 20, 200), (90, 90, 90)), (0,), ((0, 0, 0),))


class Data:
    """What `prepare` asks of a training split."""

    classes = CLASSES

    def short_side(self) -> int:
        return 8

    def class_pixels(self) -> np.ndarray:
        return np.array([60, 40, 20])


class Planes(nn.Module):
    """Scores that are planes of the picture."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs, self.factor = outputs, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.outputs] * 10 * self.factor


def prepared(**settings: Any) -> Segmentation:
    task = Segmentation(**settings)
    assets, sizes = task.prepare(Data())
    assert sizes == task.sizes()
    again = Segmentation(**settings)
    again.use(assets)
    assert again.classes == CLASSES
    return again


def test_what_is_stored() -> None:
    task = Segmentation()
    assets, sizes = task.prepare(Data())
    assert sizes == {"num_classes": 2}
    assert (assets["classes"], assets["ids"]) == (["sky", "road"], [4, 9])
    assert (assets["short_side"], assets["class_pixels"]) == (8, [60, 40, 20])
    damages: list[dict[str, Any]]
    damages = [{"short_side": 0}, {"class_pixels": [-1]}, {"class_pixels": [1, 2]}, {"classes": []}]
    damages.append({"ids": [4, 4]})
    for damage in damages:
        with pytest.raises(CompressnetError, match="assets"):
            Segmentation().use({**assets, **damage})


def test_the_ignored_are_an_output_as_released() -> None:
    task = prepared(weights="released", ignore_output=True)
    assert task.sizes() == {"num_classes": 3}
    image = torch.zeros(1, 3, 8, 8)
    image[:, 2] = 1
    labels = torch.full((1, 8, 8), 255)
    sure = task.loss(Planes(3), LabelledBatch(image, labels, ["a"]), ())
    wrong = task.loss(Planes(3), LabelledBatch(image, labels * 0, ["a"]), ())
    assert (sure.count, wrong.count) == (64, 64)
    assert sure.mean < 0.01 < wrong.mean
    whole = WholeBatch([(image[0] * 255).byte()], [labels[0].byte()], [None], ["a"])
    found, _ = task.predict(Planes(3), whole, ())
    assert found[0].unique().tolist() == [255]


def test_ignored_pixels_teach_nothing() -> None:
    task = prepared()
    model = Planes(2)
    labels = torch.full((2, 8, 8), 255)
    loss = task.loss(model, LabelledBatch(torch.rand(2, 3, 8, 8), labels, ["a", "b"]), ())
    loss.mean.backward()
    assert (loss.mean.item(), loss.count) == (0, 1)
    assert model.factor.grad == 0
    labels[0, 0, 0] = 1
    assert task.loss(model, LabelledBatch(torch.rand(2, 3, 8, 8), labels, ["a", "b"]), ()).mean > 0


def test_dice_is_added_and_told() -> None:
    batch = LabelledBatch(torch.rand(1, 3, 8, 8), torch.randint(0, 2, (1, 8, 8)), ["a"])
    plain, both = (prepared(dice=factor).loss(Planes(2), batch, ()) for factor in (0.0, 2.0))
    torch.testing.assert_close(both.mean, plain.mean + 2 * both.logs["dice"])


def test_photographs_of_several_sizes_are_predicted() -> None:
    task = prepared()
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((8, 9), (8, 9), (20, 8))]
    batch = WholeBatch(images, [image[0] for image in images], [None] * 3, ["a", "b", "c"])
    found, _ = task.predict(Planes(2), batch, ())
    assert [tuple(labels.shape) for labels in found] == [(8, 9), (8, 9), (20, 8)]
    assert (found[0] == (images[0][1] > images[0][0])).all()


def test_an_evaluation_sees_the_weights_that_are() -> None:
    """What is made ready for one is not taken for the next."""
    task, model = prepared(), Planes(2)
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[1] = 200
    batch = WholeBatch([image], [image[0]], [None], ["a"])
    assert task.predict(model, batch, ())[0][0].unique().tolist() == [1]
    with torch.no_grad():
        model.factor.fill_(-1)
    task.metrics()
    assert task.predict(model, batch, ())[0][0].unique().tolist() == [0]


def test_previews_show_photograph_labels_found_and_errors() -> None:
    task = prepared()
    whole = WholeImage(torch.zeros(3, 20, 30, dtype=torch.uint8), torch.zeros(20, 30).byte(), None, "a")
    part = LabelledImage(torch.rand(3, 20, 30), torch.full((20, 30), 255).byte(), "b")
    samples: list[Any] = [whole, part]
    for sample in samples:
        ((name, picture),) = task.preview(Planes(2), [sample])
        assert name == sample.name
        assert picture.width == 2 * 30 + 4
        assert picture.height >= 2 * 20 + 4
