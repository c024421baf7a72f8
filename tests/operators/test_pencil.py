from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressnet import signature
from compressnet.errors import UsageError
from compressnet.operators.pencil import Pencil, strokes, toned

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "operators.npz"


def test_strokes_are_those_of_a_peer() -> None:
    if not GOLDEN.is_file():
        pytest.skip("needs the output of a peer's MATLAB code (operators.npz), which may not be distributed")
    golden = np.load(GOLDEN)
    result = strokes(golden["gray"].astype(np.float64), 8, 1, 8)
    error = np.mean((result - golden["pencil_stroke"]) ** 2)
    assert -10 * np.log10(error) > 70  # dB; 40 was asked for


def test_an_edge_is_drawn_as_a_line_along_it_and_beyond_its_end() -> None:
    gray = np.full((60, 60), 0.5)
    gray[20:40, 10:30] = 0.9
    result = strokes(gray, 8, 1, 8)
    assert result[20:36, 28:32].min() < 0.2  # its right side
    assert result[42, 29] < 0.9  # the line goes on
    np.testing.assert_allclose(result[5:12, 45:55], 1)
    assert (result.min(), result.max()) == (0, 1)


@pytest.mark.parametrize("angle", [0, 45, 90, 135])
def test_lines_lie_along_their_gradients(angle: int) -> None:
    down, right = np.mgrid[-20:21, -20:21]
    across = {0: down, 45: down + right, 90: right, 135: down - right}[angle]
    result = strokes((across > 0).astype(float), 8, 0, 8)
    middle = result[8:-8, 8:-8]
    assert middle[np.abs(across[8:-8, 8:-8]) > 8].min() > 0.99
    assert middle[across[8:-8, 8:-8] == 0].max() < 0.4


def test_the_tone_is_that_of_a_drawing() -> None:
    gray = np.linspace(0, 1, 65536).reshape(256, 256)
    levels = np.unique(np.rint(255 * toned(gray, (1, 0, 0))[8:-8, 8:-8]))
    assert levels.min() > 150  # bright: an exponential fall from 255 by 9 levels
    middle = toned(gray, (0, 1, 0))[8:-8, 8:-8] * 255
    assert 100 < middle.min() < middle.max() < 228
    assert abs(np.median(middle) - 165) < 4
    dark = toned(gray, (0, 0, 1))[8:-8, 8:-8] * 255
    assert abs(np.median(dark) - 90) < 2
    assert 40 < dark.min() < dark.max() < 140


def test_the_tone_keeps_the_order_of_gray_values_and_has_a_frame() -> None:
    gray = np.repeat(np.linspace(0, 1, 80)[None], 40, axis=0)
    result = toned(gray, (76, 22, 2))
    assert (np.diff(result[20, 6:-6]) >= 0).all()
    assert result[0, 40] < 0.7 * result[20, 40]
    np.testing.assert_allclose(result[5:-5, 40], result[20, 40])


def test_a_drawing_is_gray_and_white_where_nothing_is() -> None:
    image = np.full((50, 50, 3), 0.9)
    image[20:30, 20:30] = (0.7, 0.2, 0.1)
    result = Pencil()(image)
    np.testing.assert_array_equal(result, result[..., :1].repeat(3, axis=2))
    assert result[25, 8:12].min() > 0.95
    assert result[25, 19].max() < 0.7


def test_follows_a_transposition_but_for_its_window_of_even_size() -> None:
    image = np.random.default_rng(0).random((30, 41, 3))
    result = Pencil()(image)
    np.testing.assert_allclose(Pencil()(image.swapaxes(0, 1)).swapaxes(0, 1), result, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "'length' should"),
        ({"width": 9}, "'width' should"),
        ({"directions": 0}, "'directions' should"),
        ({"tone": (1, 2)}, "'tone' should"),
        ({"tone": (0, 0, 0)}, "'tone' should"),
        ({"tone": (1, 1, float("nan"))}, "'tone' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"pencil: {message}"):
        Pencil(**arguments)


def test_a_wrong_tone_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"^operator pencil: 'tone' should be three numbers, \[a, b, c\]"):
        signature.make("operator", "pencil:tone=[1,2]")
