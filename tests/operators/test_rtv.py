from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressnet.operators.grid_system import Solver
from compressnet.operators.rtv import RTV

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "operators.npz"


def _textured(height: int = 80, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Two areas, without and with a checkered texture."""
    y, x = np.mgrid[:height, :width]
    area = (x > width // 2)[..., None]
    flat = np.where(area, (0.7, 0.3, 0.4), (0.2, 0.5, 0.6))
    return flat, flat + 0.08 * np.where((x // 2 + y // 2) % 2, 1, -1)[..., None]


@pytest.mark.parametrize(("solver", "scale"), [("direct", 1e-6), ("multigrid", 1e-5)])
def test_equals_the_authors_code(solver: Solver, scale: float) -> None:
    if not GOLDEN.is_file():
        pytest.skip(
            "needs the output of the authors' MATLAB code (operators.npz), which may not be distributed"
        )
    golden = np.load(GOLDEN)
    smooth = RTV().smooth(golden["input_rgb_u8"] / 255, solver)
    np.testing.assert_allclose(smooth, golden["rtv_default"], rtol=0, atol=scale)


def test_removes_texture_and_keeps_a_step() -> None:
    flat, textured = _textured()
    result = RTV()(textured)
    assert np.abs(textured - flat).mean() > 0.07
    assert np.abs(result - flat)[:, 8:-8].mean() < 0.012
    middle = flat.shape[1] // 2
    assert np.abs(result[:, middle + 2] - result[:, middle - 1]).mean() > 0.25


def test_more_is_smoother() -> None:
    image = np.random.default_rng(0).random((40, 50, 3))
    spread = [RTV(lambda_)(image).std() for lambda_ in (0.001, 0.01, 0.1)]
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(9, 14, 3), (66, 70, 1)])
def test_constant_image_is_unchanged(value: float, shape: tuple[int, int, int]) -> None:
    image = np.full(shape, value)
    np.testing.assert_allclose(RTV()(image), image, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "tolerance"), [((20, 31, 3), 1e-11), ((70, 81, 3), 1e-5)])
def test_turned_pictures_give_turned_results(shape: tuple[int, int, int], tolerance: float) -> None:
    image = np.random.default_rng(0).random(shape)
    turned = RTV()(image.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(turned, RTV()(image), rtol=0, atol=tolerance)


def test_stays_within_the_range_of_the_channel_and_keeps_its_mean() -> None:
    image = 0.3 + 0.4 * np.random.default_rng(0).random((66, 70, 3))
    result = RTV().smooth(image)
    assert result.min() >= image.min()
    assert result.max() <= image.max()
    np.testing.assert_allclose(result.mean(axis=(0, 1)), image.mean(axis=(0, 1)), rtol=0, atol=1e-6)


def test_float32_equals_float64() -> None:
    image = _textured()[1].astype(np.float32)
    assert RTV()(image).dtype == np.float32
    np.testing.assert_allclose(RTV()(image), RTV()(image.astype(np.float64)), rtol=0, atol=1e-7)


def test_gray_stays_gray_and_equals_one_channel() -> None:
    gray = np.random.default_rng(0).random((12, 13, 1))
    result = RTV()(np.repeat(gray, 3, axis=2))
    np.testing.assert_allclose(result, np.repeat(RTV()(gray), 3, axis=2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_": 0}, "'lambda' should"),
        ({"lambda_": float("nan")}, "'lambda' should"),
        ({"sigma": 0.4}, "'sigma' should"),
        ({"sharpness": 0}, "'sharpness' should"),
        ({"iterations": 0}, "'iterations' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"rtv: {message}"):
        RTV(**arguments)
