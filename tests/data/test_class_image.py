"""How pictures are cut and moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from compressnet.data.class_image import middle, mirrored, planes, random_part, rgb, shifted
from compressnet.data.images import Image
from compressnet.data.sampler import generator

SIDES = st.integers(1, 90)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 40), st.integers(1, 40))
def test_the_middle_is_what_scaling_the_whole_and_cutting_gives(
    height: int, width: int, resize: int, side: int
) -> None:
    """As torchvision has it: Resize, then CenterCrop, which pads with black."""
    pixels = picture(height, width)
    short = min(height, width)
    size = int(resize * width / short), int(resize * height / short)
    whole = Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BILINEAR)
    left, top = (round((n - side) / 2) for n in size)
    wanted = np.asarray(whole.crop((left, top, left + side, top + side)))
    found = middle(pixels, resize, side)
    assert found.shape == (side, side, 3)
    assert np.abs(found.astype(int) - wanted).max() <= 3  # of 255: the box is in float32


def test_a_panorama_of_one_row_costs_nothing() -> None:
    found = middle(picture(1, 500_000), 256, 224)  # 128 million pixels wide, were it scaled
    assert found.shape == (224, 224, 3)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 40), st.integers(0, 99))
def test_a_random_part_is_a_square_of_any_picture(height: int, width: int, side: int, seed: int) -> None:
    pixels = picture(height, width)
    one, other = (random_part(pixels, side, generator(seed)) for _ in range(2))
    assert one.shape == (side, side, 3)
    assert np.array_equal(one, other)


def test_random_parts_have_the_areas_and_shapes_that_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []
    resize = Pillow.Image.resize

    def seen(self: Pillow.Image, size: tuple[int, int], method: int, box: tuple[float, ...]) -> Pillow.Image:
        boxes.append(box)
        return resize(self, size, method, box)  # type: ignore[arg-type]

    monkeypatch.setattr(Pillow.Image, "resize", seen)
    pixels = picture(80, 120)
    for seed in range(300):
        random_part(pixels, 8, generator(seed))
    left, top, right, bottom = np.array(boxes).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= 120).all()
    assert (bottom <= 80).all()
    areas, shapes = (right - left) * (bottom - top) / 9600, (right - left) / (bottom - top)
    assert 0.07 < areas.min() < 0.12
    assert 0.8 < areas.max() <= 1
    assert 0.7 < shapes.min() < 0.8
    assert 1.25 < shapes.max() < 1.4


def test_moved_and_mirrored() -> None:
    pixels = planes(picture(6, 5)).numpy()
    assert np.array_equal(shifted(pixels, 0, generator(0)), pixels)
    seen = {shifted(pixels, 1, generator(seed)).tobytes() for seed in range(100)}
    assert len(seen) == 9
    both = {mirrored(pixels, generator(seed)).tobytes() for seed in range(20)}
    assert both == {pixels.tobytes(), pixels[:, :, ::-1].tobytes()}


def test_gray_is_in_all_channels() -> None:
    gray = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3, 1)
    found = rgb(Image(gray, 16, alpha=np.zeros((2, 3), np.float32)))
    assert np.array_equal(found, np.repeat((gray * 255).round().astype(np.uint8), 3, 2))
    assert torch.equal(planes(found), torch.from_numpy(found).permute(2, 0, 1))
