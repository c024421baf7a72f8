from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from compressnet import signature
from compressnet.errors import UsageError
from compressnet.operators import dark_channel as module
from compressnet.operators.dark_channel import DarkChannel, brightest, dark_channel, mean_of_top, transmission

AirLight = Literal["top", "he"] | tuple[float, float, float]
GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "operators.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    if not GOLDEN.is_file():
        pytest.skip("needs the output of a peer's MATLAB code (operators.npz), which may not be distributed")
    return dict(np.load(GOLDEN))


def _picture(height: int = 25, width: int = 33) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3)) * 0.8 + 0.1


def test_the_dark_channel_is_that_of_the_peer(golden: dict[str, np.ndarray]) -> None:
    dark = dark_channel(golden["input_rgb_u8"] / 255, 15)
    np.testing.assert_allclose(dark, golden["dark_channel_15"], rtol=0, atol=1e-7)


def test_the_transmission_is_that_of_the_peer(golden: dict[str, np.ndarray]) -> None:
    air = np.array([221, 211, 211]) / 255
    t = transmission(golden["input_rgb_u8"] / 255, air, 0.95, 15)
    np.testing.assert_allclose(t, golden["trans_est"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", [1, 3, 5, 99])
def test_the_dark_channel_is_the_least_value_around(window: int) -> None:
    image, reach = _picture(7, 9), window // 2
    dark = dark_channel(image, window)
    for y, x in np.ndindex(7, 9):
        around = image[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        assert dark[y, x] == around.min()


def test_air_light_of_pixels_that_differ() -> None:
    image = _picture(20, 50)
    dark = np.random.default_rng(1).permutation(1000).reshape(20, 50) / 1000
    ten = np.argsort(-dark, axis=None)[:10]
    np.testing.assert_allclose(mean_of_top(image, dark, 0.01), image.reshape(-1, 3)[ten].mean(axis=0))
    three = image.reshape(-1, 3)[np.argsort(-dark, axis=None)[:3]]
    np.testing.assert_array_equal(brightest(image, dark, 0.003), three[three.sum(axis=1).argmax()])


def test_air_light_of_equal_pixels_does_not_depend_on_their_order() -> None:
    image, dark = _picture(10, 10), np.zeros((10, 10))
    dark[0, :2] = 0.9  # two of the four that 4 % are: the other two are a part of all the rest
    expected = (2 * image[0, :2].mean(axis=0) + 2 * image.reshape(-1, 3)[2:].mean(axis=0)) / 4
    np.testing.assert_allclose(mean_of_top(image, dark, 0.04), expected)
    np.testing.assert_array_equal(mean_of_top(image, dark, 1e-6), image[0, :2].mean(axis=0))
    np.testing.assert_array_equal(brightest(np.full((3, 3, 3), 0.5), np.zeros((3, 3)), 0.1), [0.5, 0.5, 0.5])


@pytest.mark.parametrize("air_light", ["top", "he", (0.9, 0.85, 0.95)])
def test_removes_haze(air_light: AirLight) -> None:
    random = np.random.default_rng(0)
    air = np.array([0.9, 0.85, 0.95])
    clear = random.random((80, 100, 3)) * np.array([1, 0.7, 0.4])  # with dark pixels in every window
    depth = np.linspace(0.05, 1, 80)[:, None, None] ** 0.5
    hazy = clear * depth + air * (1 - depth)
    result = DarkChannel(window=9, air_light=air_light)(hazy)
    below = slice(30, 80)  # at the horizon little of the picture is left
    assert np.abs(result - clear)[below].mean() < 0.4 * np.abs(hazy - clear)[below].mean()


def test_the_formula_with_an_air_light_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    image, air = _picture(), np.array([0.8, 0.9, 1.0])
    monkeypatch.setattr(module, "guided_filter", lambda guide, target, radius, eps: target.copy())
    t = np.maximum(1 - 0.6 * dark_channel(image / air, 3), 0.1)[..., None]
    expected = np.clip((image - air) / t + air, 0, 1)
    result = DarkChannel(window=3, omega=0.6, air_light=(0.8, 0.9, 1.0))(image)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("air_light", ["top", "he"])
def test_constant_image_is_unchanged(value: float, air_light: AirLight) -> None:
    image: np.ndarray = np.full((9, 14, 3), value)
    np.testing.assert_allclose(DarkChannel(air_light=air_light)(image), image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("guide", ["gray", "colour"])
@pytest.mark.parametrize("air_light", ["top", "he"])
def test_follows_transposition_and_flips(guide: Literal["gray", "colour"], air_light: AirLight) -> None:
    image, operator = _picture(), DarkChannel(guide=guide, air_light=air_light)
    result = operator(image)
    np.testing.assert_allclose(operator(image.swapaxes(0, 1)).swapaxes(0, 1), result, rtol=0, atol=1e-9)
    np.testing.assert_allclose(operator(image[::-1])[::-1], result, rtol=0, atol=1e-9)


def test_less_haze_is_removed_of_a_smaller_share() -> None:
    image = 0.5 * _picture() + 0.4
    spreads = [DarkChannel(omega=omega)(image).std() for omega in (0.2, 0.5, 0.95)]
    assert image.std() < spreads[0] < spreads[1] < spreads[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 4}, "'window' should"),
        ({"window": 0}, "'window' should"),
        ({"radius": 0}, "'radius' should"),
        ({"omega": 0}, "'omega' should"),
        ({"eps": 0}, "'eps' should"),
        ({"guide": "green"}, "'guide' should"),
        ({"air_light": "bottom"}, "'air_light' should"),
        ({"air_light": (1, 1)}, "'air_light' should"),
        ({"air_light": (0, 1, 1)}, "'air_light' should"),
        ({"air_light": (float("nan"), 1, 1)}, "'air_light' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"dark_channel: {message}"):
        DarkChannel(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1,2]", "'air_light' should be three numbers"),
        ("0.9", "'air_light' should be three numbers"),
        ("[0.9,0.9,1.2]", "'air_light' should be less than or equal to 1 (got 1.2)"),
        ("[0.9,0,0.9]", "'air_light' should be greater than or equal to 0.01 (got 0)"),
        ("[a,b,c]", "'air_light' should be a valid number"),
        ("bottom", "'air_light' should be 'top' or 'he' (got 'bottom')"),
    ],
)
def test_a_wrong_air_light_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        signature.make("operator", f"dark_channel:air_light={text}")
    assert len(caught.value.problems) == 1
    assert f"operator dark_channel: {message}" in str(caught.value)


def test_an_air_light_of_three_numbers_can_be_written() -> None:
    operator = signature.make("operator", "dark_channel:air_light=[0.8, 0.9, 1],window=3")
    assert operator.air_light == (0.8, 0.9, 1.0)
