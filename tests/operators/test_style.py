from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image as Pillow
from skimage import data

from compressnet import signature
from compressnet.errors import UsageError
from compressnet.operators.protocol import luminance
from compressnet.operators.style import Style, gradients


@pytest.fixture(scope="module")
def moon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "moon.png"
    Pillow.fromarray(data.moon()[::3, ::3]).save(path)
    return path


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    """A photograph (100, 150, 3) in [0, 1]."""
    photograph: np.ndarray = data.chelsea()[::3, ::3] / 255
    return photograph


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Between two distributions: the mean difference of their quantiles."""
    places = np.linspace(0, 1, 200)
    return float(np.abs(np.quantile(one, places) - np.quantile(other, places)).mean())


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_has_the_intensities_and_nearly_the_gradients_of_the_reference(
    variant: Literal["released", "paper"], moon: Path, cat: np.ndarray
) -> None:
    model = np.asarray(Pillow.open(moon)) / 255
    result = Style(str(moon), variant=variant)(cat)[..., 0]
    assert _distance(result, model) < 0.01
    assert _distance(luminance(cat), model) > 0.05
    if variant == "paper":  # the released code strengthens gradients beyond the reference's
        matched = Style(str(moon), iterations=1, variant=variant)(cat)[..., 0]
        before = _distance(gradients(luminance(cat)), gradients(model))
        assert _distance(gradients(matched), gradients(model)) < before


def test_a_picture_in_its_own_style_stays_as_it_is(moon: Path) -> None:
    model = np.asarray(Pillow.open(moon)) / 255
    result = Style(str(moon), iterations=1, levels=40, variant="paper").transferred(model)
    assert np.sqrt(np.mean((result - model) ** 2)) < 0.02


def test_is_gray_and_keeps_the_order_of_large_areas(cat: np.ndarray) -> None:
    result = Style()(cat)
    np.testing.assert_array_equal(result, result[..., :1].repeat(3, axis=2))
    image = np.full((30, 60, 3), 0.2)
    image[:, 20:] = 0.5
    image[:, 40:] = 0.8
    left, middle, right = (Style()(image)[10:20, at, 0].mean() for at in (10, 30, 50))
    assert left < middle <= right


def test_the_reference_in_colour_or_gray_gives_the_same(tmp_path: Path, cat: np.ndarray, moon: Path) -> None:
    gray = np.asarray(Pillow.open(moon))
    Pillow.fromarray(np.repeat(gray[..., None], 3, axis=2)).save(tmp_path / "colour.png")
    Pillow.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    expected = Style(str(moon), iterations=1)(cat)
    for name in ("colour.png", "deep.png"):
        result = Style(str(tmp_path / name), iterations=1)(cat)
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-3)


def test_follows_a_transposition(cat: np.ndarray) -> None:
    turned = Style(iterations=2)(cat.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(turned, Style(iterations=2)(cat), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_small_pictures_have_gradients(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random(shape)
    assert gradients(plane).size == max(1, (shape[0] - 1 or 1) * (shape[1] - 1 or 1))
    assert np.isfinite(gradients(plane)).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.png", "gone.png: no such file"),
        (".", ".: is a folder, not an image"),
        ("cut.png", "cut.png: damaged or not supported"),
        ("text.png", "text.png: "),
        ("empty.png", "empty.png: is empty"),
        ("3", "'reference' should be a valid string (got 3)"),
    ],
)
def test_a_reference_that_cannot_be_read_is_one_line(
    name: str, message: str, tmp_path: Path, moon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cut.png").write_bytes(moon.read_bytes()[:900])
    Path("text.png").write_text("no picture")
    Path("empty.png").touch()
    with pytest.raises(UsageError) as caught:
        signature.make("operator", f"style:reference={name}")
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith("operator style: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 0}, "'iterations' should"),
        ({"levels": 1}, "'levels' should"),
        ({"variant": "mine"}, "'variant' should"),
        ({"reference": "gone.png"}, "reference: gone.png: no such file"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"style: {message}"):
        Style(**arguments)
