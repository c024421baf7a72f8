from __future__ import annotations

import numpy as np
import pytest

from compressnet.operators.rof import ROF


def _photo(dtype: type = np.float64) -> np.ndarray:
    """Steps with noise, (41, 53, 3), within [0, 1]."""
    random = np.random.default_rng(0)
    image = np.full((41, 53, 3), (0.2, 0.5, 0.4))
    image[10:30, 20:45] = (0.7, 0.3, 0.6)
    return np.clip(image + random.normal(0, 0.05, image.shape), 0, 1).astype(dtype)


def _total_variation(plane: np.ndarray) -> float:
    dx = np.diff(plane, axis=1, append=plane[:, -1:])
    dy = np.diff(plane, axis=0, append=plane[-1:])
    return float(np.sqrt(dx**2 + dy**2).sum())


def _energy(u: np.ndarray, f: np.ndarray, weight: float) -> float:
    return _total_variation(u) + float(((u - f) ** 2).sum()) / (2 * weight)


def test_reduces_total_variation_and_keeps_the_mean() -> None:
    image = _photo()
    result = ROF()(image)
    for channel in range(3):
        assert _total_variation(result[..., channel]) < 0.5 * _total_variation(image[..., channel])
    np.testing.assert_allclose(result.mean(axis=(0, 1)), image.mean(axis=(0, 1)), rtol=0, atol=1e-4)


def _primal_dual(f: np.ndarray, weight: float, iterations: int = 3000) -> np.ndarray:
    """A. Chambolle, T. Pock (JMIV 40, 2011), algorithm 1, far beyond convergence."""
    tau = sigma = 1 / np.sqrt(8)
    u, average = f.copy(), f.copy()
    px, py = np.zeros_like(f), np.zeros_like(f)
    for _ in range(iterations):
        px += sigma * np.diff(average, axis=1, append=average[:, -1:])
        py += sigma * np.diff(average, axis=0, append=average[-1:])
        norm = np.maximum(1, np.sqrt(px**2 + py**2))
        px, py = px / norm, py / norm
        divergence = np.diff(px, axis=1, prepend=0) + np.diff(py, axis=0, prepend=0)
        before = u
        u = (u + tau * divergence + tau / weight * f) / (1 + tau / weight)
        average = 2 * u - before
    return u


@pytest.mark.parametrize("weight", [0.02, 0.055, 0.2])
def test_near_the_minimum_of_its_energy(weight: float) -> None:
    f = _photo()[..., 0]
    ours, best = ROF(weight)(f[..., None])[..., 0], _primal_dual(f, weight)
    low = _energy(best, f, weight)
    assert low <= _energy(ours, f, weight) < 1.01 * low
    assert np.sqrt(np.mean((ours - best) ** 2)) < 10 ** (-45 / 20)  # 45 dB


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (7, 1, 3), (16, 9, 1)])
def test_keeps_shape_type_range_and_its_input(shape: tuple[int, ...], dtype: type) -> None:
    image: np.ndarray = np.random.default_rng(0).random(shape).astype(dtype)
    before = image.copy()
    result = ROF(0.1)(image)
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(result, image)
    assert result.shape == shape
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= 1


def test_float32_equals_float64() -> None:
    np.testing.assert_allclose(ROF()(_photo(np.float32)), ROF()(_photo()), rtol=0, atol=2e-3)


def test_channels_do_not_mix() -> None:
    image = _photo()
    for channel in range(3):
        alone = ROF()(image[..., channel : channel + 1])
        np.testing.assert_array_equal(ROF()(image)[..., channel : channel + 1], alone)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_constant_image_is_unchanged(value: float) -> None:
    image = np.full((8, 11, 3), value)
    np.testing.assert_array_equal(ROF()(image), image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 0}, "'weight' should"),
        ({"weight": float("nan")}, "'weight' should"),
        ({"eps": 0}, "'eps' should"),
        ({"max_iterations": 0}, "'max_iterations' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"rof: {message}"):
        ROF(**arguments)
