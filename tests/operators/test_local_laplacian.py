from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressnet.operators import pyramids
from compressnet.operators.local_laplacian import LocalLaplacian, local_laplacian
from compressnet.operators.protocol import luminance

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "operators.npz"


def _picture(height: int = 23, width: int = 30) -> np.ndarray:
    """A step, a ramp and texture in three colours, within [0, 1]."""
    random = np.random.default_rng(0)
    image = np.linspace(0.1, 0.4, width)[None, :, None] * np.array([1, 0.9, 0.7])
    image = np.repeat(image, height, axis=0)
    image[height // 2 :] += 0.4
    return np.clip(image + random.normal(0, 0.03, image.shape), 0, 1)


def test_equals_the_authors_code() -> None:
    if not GOLDEN.is_file():
        pytest.skip(
            "needs the output of the authors' MATLAB code (operators.npz), which may not be distributed"
        )
    golden = np.load(GOLDEN)
    filter_ = LocalLaplacian(sigma=0.2, factor=2, levels=10)
    result = local_laplacian(golden["gray"].astype(np.float64), filter_.detail, 10)
    expected = golden["llf_s02_f2_N10"]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6 * np.ptp(expected))


def _slow(plane: np.ndarray, sigma: float, factor: float) -> np.ndarray:
    """The filter of 2011: every coefficient from a pyramid of its own, remapped around its own gray value."""
    levels = pyramids.levels_for(*plane.shape)
    gaussian = pyramids.gaussian_pyramid(plane, levels)
    output = [np.empty_like(level) for level in gaussian[:-1]]
    for level, coefficients in enumerate(output):
        for place in np.ndindex(coefficients.shape):
            difference = plane - gaussian[level][place]
            remapped = plane + factor * difference * np.exp(-(difference**2) / (2 * sigma**2))
            coefficients[place] = pyramids.laplacian_pyramid(remapped, level + 2)[level][place]
    return pyramids.collapse([*output, gaussian[-1]])


@pytest.mark.parametrize(("sigma", "factor"), [(0.3, 2.0), (0.15, -0.7)])
def test_tends_to_the_slow_filter(sigma: float, factor: float) -> None:
    plane = luminance(_picture(11, 14))
    expected = _slow(plane, sigma, factor)
    detail = LocalLaplacian(sigma, factor).detail
    errors = [np.abs(local_laplacian(plane, detail, levels) - expected).max() for levels in (10, 40, 160)]
    assert errors[2] < errors[1] / 4 < errors[0] / 16
    assert errors[2] < 1e-4


def test_factor_scales_details_but_not_strong_edges() -> None:
    image = np.full((40, 40, 3), 0.2)
    image[:, 20:] = 0.8
    image += np.random.default_rng(0).normal(0, 0.01, (40, 40, 1))
    np.testing.assert_allclose(LocalLaplacian(factor=0)(image), image, rtol=0, atol=1e-12)
    spreads = []
    for factor in (-1, 0, 1):
        result = LocalLaplacian(0.1, factor, 40)(image)
        spreads.append(result[5:35, 2:15].std())
        step = result[5:35, 26:].mean() - result[5:35, :14].mean()
        assert abs(step - 0.6) < 0.05
    assert spreads[0] < 0.5 * spreads[1]
    assert spreads[2] > 1.5 * spreads[1]


def test_colours_keep_their_ratio() -> None:
    image = 0.4 * _picture() + 0.1
    result = LocalLaplacian(factor=0.5)(image)
    assert result.min() > 0
    assert result.max() < 1
    ratio = result / image
    np.testing.assert_allclose(ratio, ratio[..., :1].repeat(3, axis=2), rtol=1e-9)


def test_gray_stays_gray_and_black_is_no_division_by_zero() -> None:
    gray = np.repeat(_picture()[..., :1], 3, axis=2)
    gray[5:9, 5:9] = 0
    result = LocalLaplacian()(gray)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, result[..., :1].repeat(3, axis=2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_constant_image_is_unchanged(value: float) -> None:
    image = np.full((9, 14, 3), value)
    np.testing.assert_allclose(LocalLaplacian()(image), image, rtol=0, atol=1e-12)


def test_follows_a_transposition() -> None:
    image = _picture()
    turned = LocalLaplacian()(image.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(turned, LocalLaplacian()(image), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0}, "'sigma' should"),
        ({"sigma": float("nan")}, "'sigma' should"),
        ({"factor": -2}, "'factor' should"),
        ({"factor": float("inf")}, "'factor' should"),
        ({"levels": 1}, "'levels' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"local_laplacian: {message}"):
        LocalLaplacian(**arguments)
