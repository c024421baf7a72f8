from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.data.label_image import (
    Augmentation,
    LabelledImage,
    WholeImage,
    collate_labelled,
    collate_whole,
    recoloured,
)
from compressnet.data.sampler import generator
from compressnet.errors import CompressnetError

PLAIN = Augmentation(None, None, (1, 1), False, 0.0, 1.0)


def coded(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Areas of 8 x 8 whose colour tells their label."""
    down, across = np.mgrid[:height, :width] // 8
    labels = ((down * 3 + across) % 5).astype(np.uint8)
    return np.repeat((labels / 5).astype(np.float32)[..., None], 3, axis=2), labels


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([None, 1, 20, 33]),
    st.floats(0.3, 1),
    st.floats(1, 3),
    st.integers(0, 1000),
)
def test_every_size_gives_the_crop(
    size: tuple[int, int], crop: tuple[int, int], short: int | None, low: float, high: float, seed: int
) -> None:
    pixels, labels = coded(*size)
    how = Augmentation(short, crop, (low, high), True, 0.5, 0.75)
    image, part = how(pixels, labels, generator(seed))
    assert image.shape == (3, *crop)
    assert part.shape == crop
    assert (image.dtype, part.dtype) == (torch.float32, torch.uint8)
    assert 0 <= image.min() <= image.max() <= 1
    assert set(part.unique().tolist()) <= {*labels.flatten().tolist(), 255}
    again = how(pixels, labels, generator(seed))
    assert torch.equal(image, again[0])
    assert torch.equal(part, again[1])


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.0, 1.0), (1.7, 1.7), (3.0, 3.0)])
def test_labels_stay_with_their_pixels(scale: tuple[float, float]) -> None:
    pixels, labels = coded(64, 80)
    how = Augmentation(None, (48, 56), scale, True, 0.0, 1.0)
    for seed in range(5):
        image, part = how(pixels, labels, generator(seed))
        known = part != 255
        near = (image[0] * 5 - part.float()).abs() < 0.3
        assert near[known].float().mean() > (0.6 if scale[0] < 1 else 0.75)


def test_without_anything_a_photograph_is_as_it_is() -> None:
    pixels, labels = coded(20, 30)
    image, part = PLAIN(pixels, labels, generator(0))
    assert (image.permute(1, 2, 0) - torch.from_numpy(pixels)).abs().max() < 1 / 500
    assert part.tolist() == labels.tolist()
    assert PLAIN._replace(size=10).whole(20, 30) == (10, 15)
    halved, part = PLAIN._replace(size=10)(pixels, labels, generator(0))
    assert halved.shape == (3, 10, 15)
    assert part.shape == (10, 15)


def test_pictures_are_mirrored_with_their_labels() -> None:
    pixels, labels = coded(16, 40)
    seen = set()
    for seed in range(12):
        image, part = PLAIN._replace(flip=True)(pixels, labels, generator(seed))
        seen.add(tuple(part[0].tolist()))
        assert (image[0] * 5 - part).abs().max() < 0.02
    assert seen == {tuple(labels[0].tolist()), tuple(labels[0, ::-1].tolist())}


def test_a_smaller_picture_is_surrounded_by_its_mean_and_255() -> None:
    pixels = np.full((10, 10, 3), [0.2, 0.4, 0.6], np.float32)
    image, part = PLAIN._replace(crop=(20, 30))(pixels, np.zeros((10, 10), np.uint8), generator(3))
    assert (part == 0).sum() == 100
    assert (part == 255).sum() == 500
    assert torch.allclose(image, torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 20, 30), atol=1e-6)


def test_crops_of_one_class_are_avoided() -> None:
    labels = np.zeros((40, 400), np.uint8)
    labels[:, 180:220] = 1
    pixels = np.zeros((40, 400, 3), np.float32)
    mixed = {}
    for most in (0.75, 1.0):
        how = PLAIN._replace(crop=(40, 40), most_of_one_class=most)
        parts = [how(pixels, labels, generator(seed))[1] for seed in range(60)]
        mixed[most] = sum(float(part.float().mean()) not in (0, 1) for part in parts)
    assert mixed[0.75] > mixed[1.0] + 15
    alone = np.zeros((40, 400), np.uint8)  # there is no other place: it ends all the same
    assert how(pixels, alone, generator(0))[1].sum() == 0
    assert how(pixels, alone + 255, generator(0))[1].float().mean() == 255


def test_colours_change_as_asked() -> None:
    image = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(recoloured(image, 0.0, generator(0)), image, atol=1e-5)
    gray = torch.full((3, 4, 4), 0.5)
    for seed in range(5):
        changed = recoloured(gray, 0.3, generator(seed))
        assert (changed - changed[0]).abs().max() < 1e-3  # neither saturation nor hue colours gray
        assert 0.34 < changed.mean() < 0.66
        assert not torch.allclose(recoloured(image, 0.3, generator(seed)), image, atol=0.02)


def test_batches() -> None:
    pictures = [
        LabelledImage(torch.rand(3, 4, 5), torch.full((4, 5), n, dtype=torch.uint8), str(n)) for n in (3, 255)
    ]
    batch = collate_labelled(pictures)
    assert batch.images.shape == (2, 3, 4, 5)
    assert batch.labels.dtype == torch.int64
    assert batch.labels[:, 0, 0].tolist() == [3, 255]
    assert batch.names == ["3", "255"]
    wide = pictures[0]._replace(image=torch.rand(3, 4, 6))
    with pytest.raises(CompressnetError, match=r"several sizes \(5x4, 6x4\) make no batch: set data.crop"):
        collate_labelled([*pictures, wide])
    whole = [WholeImage(torch.zeros(3, n, 2), torch.zeros(n, 2), None, str(n)) for n in (1, 2)]
    assert [image.shape[1] for image in collate_whole(whole).images] == [1, 2]
    assert collate_whole(whole).instances == [None, None]
