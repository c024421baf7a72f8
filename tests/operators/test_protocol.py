"""Table-driven: whatever is registered keeps the contract of operators."""

from __future__ import annotations

import numpy as np
import pytest

from compressnet import registry, signature
from compressnet.operators.protocol import Operator, check_colour, luminance

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (23, 31)]


@pytest.fixture(scope="module", params=sorted(registry.OPERATORS))
def operator(request: pytest.FixtureRequest) -> Operator:
    made: Operator = signature.make("operator", request.param)
    return made


def _name(operator: Operator) -> str:
    where = f"{type(operator).__module__}:{type(operator).__qualname__}"
    return next(name for name, place in registry.OPERATORS.items() if place == where)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), "expected an image"),
        (np.zeros((0, 4, 3)), "expected an image"),
        (np.zeros((4, 4, 3), np.uint8), "divide by 255"),
        (np.zeros((4, 4, 3), np.float16), "float32 or float64"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_refuses_what_is_no_image_of_floats(operator: Operator, image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"{_name(operator)}: .*{message}"):
        operator(image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_shape_type_range_and_its_input(operator: Operator, dtype: type) -> None:
    for height, width in SHAPES:
        image: np.ndarray = np.random.default_rng(0).random((height, width, 3)).astype(dtype)
        before = image.copy()
        result = operator(image)
        np.testing.assert_array_equal(image, before)
        assert not np.shares_memory(result, image)
        assert result.shape == image.shape
        assert result.dtype == dtype
        assert result.min() >= 0
        assert result.max() <= 1
        np.testing.assert_array_equal(operator(image), result)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_pictures_of_any_size_give_numbers(operator: Operator, value: float) -> None:
    for height, width in SHAPES:
        result = operator(np.full((height, width, 3), value))
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1


def test_a_view_gives_the_same_result(operator: Operator) -> None:
    image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    np.testing.assert_array_equal(operator(image[::2, ::-1]), operator(image[::2, ::-1].copy()))


def test_colour_is_three_channels_and_luminance_their_weighted_sum() -> None:
    with pytest.raises(ValueError, match="pencil: expected three channels, red, green and blue, got 1"):
        check_colour(np.zeros((2, 2, 1)), "pencil")
    image = np.random.default_rng(0).random((3, 4, 3))
    np.testing.assert_allclose(luminance(image), image @ [0.298936, 0.587043, 0.114021], rtol=0, atol=1e-6)
    np.testing.assert_allclose(luminance(np.ones((1, 1, 3), np.float32)), 1, rtol=0, atol=1e-15)
