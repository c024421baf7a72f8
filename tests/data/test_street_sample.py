from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from compressnet.data.label_image import LabelledBatch, LabelledImage, WholeImage
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.data.street_sample import StreetSample
from compressnet.data.street_scene import CLASSES, scene
from compressnet.errors import CompressnetError


def test_a_scene_is_a_function_of_seed_split_and_number() -> None:
    one, again, other = (StreetSample().open("train", {}, seed) for seed in (0, 0, 1))
    key = Key(0, 5, 77)
    again = ForkingPickler.loads(ForkingPickler.dumps(again))  # as worker processes get it
    assert torch.equal(one[key].image, again[key].image)
    assert torch.equal(one[key].labels, again[key].labels)
    drawn = [one[key], one[Key(0, 5, 78)], other[key]]
    assert not any(torch.equal(a.image, b.image) for n, a in enumerate(drawn) for b in drawn[:n])
    for split in ("val", "test"):  # always the same
        a, b = (StreetSample().open(split, {}, seed)[Key(epoch, 3, 9)] for seed, epoch in ((0, 0), (1, 4)))
        assert torch.equal(a.image, b.image)
    test, val = (StreetSample().open(split, {}, 0)[Key(0, 3, 3)] for split in ("test", "val"))
    assert not torch.equal(test.image, val.image)


def test_samples() -> None:
    train, test = (StreetSample(size=[64, 96]).open(split, {}, 0) for split in ("train", "test"))
    batch = train.collate([train[Key(0, index, index)] for index in range(3)])
    assert isinstance(train[Key(0, 0, 0)], LabelledImage)
    assert isinstance(batch, LabelledBatch)
    assert batch.images.shape == (3, 3, 64, 96)
    assert 0 <= batch.images.min() < batch.images.max() <= 1
    assert (train.crop, train.short_side(), len(train)) == ((64, 96), 64, 1_000)
    whole = test[Key(0, 1, 1)]
    assert isinstance(whole, WholeImage)
    assert whole.image.dtype == torch.uint8
    assert whole.labels.shape == (64, 96)
    assert whole.name == "test/street-1"
    assert test.facts()["synthetic"] is True
    assert test.facts() != train.facts()
    with pytest.raises(NoSuchSplit, match="only train, val and test"):
        StreetSample().open("all", {}, 0)
    with pytest.raises(CompressnetError, match="the data has the classes sky, building"):
        StreetSample().open("test", {"classes": ["sky"]}, 0)


def test_every_class_is_there_and_hidden_now_and_then() -> None:
    split = StreetSample(size=[64, 96]).open("train", {}, 0)
    pixels = split.class_pixels()
    assert pixels.sum() == 64 * 64 * 96
    assert pixels[-1] == 0
    assert (pixels[:-1] / pixels.sum() > 0.005).all()
    seen = np.array([split[Key(0, n, n)].labels.unique().numel() for n in range(20)])
    assert seen.min() >= 4
    assert seen.max() == len(CLASSES)


def test_colour_alone_does_not_tell_the_class() -> None:
    """The nearest mean colour is right for few pixels, so that a network has something to learn."""
    scenes = [scene(64, 96, generator(n)) for n in range(16)]
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in scenes]).astype(np.float32)
    labels = np.concatenate([labels.reshape(-1) for _, labels in scenes])
    means = np.stack([pixels[labels == label].mean(0) for label in range(len(CLASSES))])
    nearest = ((pixels[:, None] - means) ** 2).sum(2).argmin(1)
    overlaps = [
        ((nearest == label) & (labels == label)).sum() / ((nearest == label) | (labels == label)).sum()
        for label in range(len(CLASSES))
    ]
    assert np.mean(overlaps) < 0.3


@pytest.mark.parametrize("size", [(16, 16), (33, 200), (300, 40)])
def test_scenes_of_any_size(size: tuple[int, int]) -> None:
    image, labels = scene(*size, generator(1))
    assert image.shape == (*size, 3)
    assert labels.shape == size
    assert labels.max() < len(CLASSES)
