from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.operators.l0 import L0

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "operators.npz"


def _literal(image: np.ndarray, lambda_: float, kappa: float) -> np.ndarray:
    """Algorithm 1 with full complex transforms and transfer functions taken from the kernels."""
    height, width, _ = image.shape
    kernel_x, kernel_y = np.zeros((height, width)), np.zeros((height, width))
    kernel_x[0, 0] -= 1
    kernel_x[0, -1] += 1
    kernel_y[0, 0] -= 1
    kernel_y[-1, 0] += 1
    fx, fy = (np.fft.fft2(k)[..., None] for k in (kernel_x, kernel_y))
    data = np.fft.fft2(image, axes=(0, 1))
    smooth, beta = image, 2 * lambda_
    while beta < 1e5:
        h = np.roll(smooth, -1, axis=1) - smooth
        v = np.roll(smooth, -1, axis=0) - smooth
        keep = ((h**2 + v**2).sum(axis=2, keepdims=True) >= lambda_ / beta).astype(float)
        gradient = fx.conj() * np.fft.fft2(h * keep, axes=(0, 1)) + fy.conj() * np.fft.fft2(
            v * keep, axes=(0, 1)
        )
        smooth = np.fft.ifft2(
            (data + beta * gradient) / (1 + beta * (abs(fx) ** 2 + abs(fy) ** 2)), axes=(0, 1)
        ).real
        beta *= kappa
    return np.clip(smooth, 0, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_authors_code(dtype: type) -> None:
    if not GOLDEN.is_file():
        pytest.skip(
            "needs the output of the authors' MATLAB code (operators.npz), which may not be distributed"
        )
    golden = np.load(GOLDEN)
    image = (golden["input_rgb_u8"] / 255).astype(dtype)
    np.testing.assert_allclose(L0(0.01, 2.0)(image), golden["l0_lam001"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (7, 1, 3), (2, 2, 3), (15, 22, 3), (31, 17, 1)])
@pytest.mark.parametrize(("lambda_", "kappa"), [(0.01, 2.0), (0.05, 1.6)])
def test_equals_the_algorithm_at_any_size(shape: tuple[int, ...], lambda_: float, kappa: float) -> None:
    image = np.random.default_rng(1).random(shape)
    np.testing.assert_allclose(L0(lambda_, kappa)(image), _literal(image, lambda_, kappa), rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.sampled_from([np.float32, np.float64])
)
def test_keeps_shape_type_range_and_its_input(height: int, width: int, channels: int, dtype: type) -> None:
    image: np.ndarray = (
        np.random.default_rng(height * 100 + width).random((height, width, channels)).astype(dtype)
    )
    before = image.copy()
    result = L0()(image)
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(result, image)
    assert result.shape == image.shape
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_image_is_unchanged(value: float) -> None:
    image = np.full((9, 14, 3), value)
    np.testing.assert_allclose(L0()(image), image, rtol=0, atol=1e-12)


def test_gray_stays_gray() -> None:
    gray = np.repeat(np.random.default_rng(0).random((12, 13, 1)), 3, axis=2)
    result = L0()(gray)
    np.testing.assert_allclose(result, result[..., :1].repeat(3, axis=2), rtol=0, atol=1e-12)


def test_removes_texture_and_keeps_a_strong_edge() -> None:
    random = np.random.default_rng(0)
    image = np.full((32, 32, 3), 0.2)
    image[8:24, 8:24] = 0.8
    noisy = image + random.normal(0, 0.02, image.shape)
    result = L0(0.02)(noisy)
    assert np.abs(result - image).max() < 0.03
    assert np.abs(np.diff(result, axis=1)[10:22, 10:22]).max() < 0.002  # inside the square
    assert np.abs(np.diff(noisy, axis=1)[10:22, 10:22]).max() > 0.05
    assert np.diff(result, axis=1)[10:22, 7].min() > 0.55  # its left side


def test_a_view_gives_the_same_result() -> None:
    image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    np.testing.assert_array_equal(L0()(image[::2, ::-1]), L0()(image[::2, ::-1].copy()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_": 0}, "'lambda' should"),
        ({"lambda_": -1}, "'lambda' should"),
        ({"lambda_": float("nan")}, "'lambda' should"),
        ({"lambda_": 2}, "'lambda' should"),
        ({"kappa": 1}, "'kappa' should"),
        ({"kappa": float("inf")}, "'kappa' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"l0: {message}"):
        L0(**arguments)
