from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from compressnet.operators import tv_l1
from compressnet.operators.protocol import Operator
from compressnet.operators.rof import ROF
from compressnet.operators.tv_l1 import TVL1


def _picture(dtype: type = np.float64) -> np.ndarray:
    """Steps with noise, (25, 34, 3), within [0, 1]."""
    random = np.random.default_rng(0)
    image = np.full((25, 34, 3), (0.2, 0.5, 0.4))
    image[6:20, 12:30] = (0.7, 0.3, 0.6)
    return np.clip(image + random.normal(0, 0.05, image.shape), 0, 1).astype(dtype)


def _gradient(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.diff(plane, axis=1, append=plane[:, -1:]), np.diff(plane, axis=0, append=plane[-1:])


def _total_variation(image: np.ndarray) -> float:
    planes = np.moveaxis(image, 2, 0)
    return sum(float(np.hypot(*_gradient(plane)).sum()) for plane in planes)


def _energy(u: np.ndarray, f: np.ndarray, lambda_: float) -> float:
    return float(np.hypot(*_gradient(u)).sum() + lambda_ * np.abs(u - f).sum())


def _smoothed(f: np.ndarray, lambda_: float, iterations: int = 10000) -> np.ndarray:
    """Gradient descent with momentum on the energy with rounded corners: another way to the same minimum."""
    rounding, u, before, step = 1e-6, f.copy(), f.copy(), 1e-4
    for number in range(iterations):
        v = u + (number / (number + 3)) * (u - before)
        dx, dy = _gradient(v)
        length = np.sqrt(dx**2 + dy**2 + rounding)
        dx, dy = dx / length, dy / length
        slope = -np.diff(dx, axis=1, prepend=0) - np.diff(dy, axis=0, prepend=0)
        slope += lambda_ * (v - f) / np.sqrt((v - f) ** 2 + rounding)
        before, u = u, v - step * slope
    return u


def test_near_the_minimum_of_its_energy() -> None:
    f = _picture()[::2, ::2, 0]
    best = _smoothed(f, 0.5)
    low = _energy(best, f, 0.5)
    tight, default = TVL1(gap=1e-4, max_iterations=5000), TVL1()
    assert _energy(tight(f[..., None])[..., 0], f, 0.5) <= low * (1 + 2e-4)
    assert _energy(default(f[..., None])[..., 0], f, 0.5) <= low * 1.02
    assert low <= _energy(tight(f[..., None])[..., 0], f, 0.5) * 1.01  # both ways lead there


@pytest.mark.parametrize("lambda_", [0.2, 0.5, 1.5])
def test_the_gap_bounds_what_is_left(lambda_: float) -> None:
    f = _picture()[..., 0]
    best = _energy(TVL1(lambda_, gap=1e-5, max_iterations=5000)(f[..., None])[..., 0], f, lambda_)
    solver = tv_l1._Solver(f, lambda_)
    for _ in range(60):
        solver.iterate()
    left = _energy(solver.solution(), f, lambda_) / best - 1
    assert left > 1e-5
    assert not solver.is_within(left / 4)
    for gap in (0.3, 0.1, 0.03, 0.01):
        assert not solver.is_within(gap) or left <= gap / (1 - gap)


def test_stops_at_the_gap_or_at_the_number_of_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    iterate = tv_l1._Solver.iterate

    def counted(solver: tv_l1._Solver) -> None:
        counts.append(solver)
        iterate(solver)

    monkeypatch.setattr(tv_l1._Solver, "iterate", counted)
    f = _picture()[..., :1]
    numbers = []
    for operator in (TVL1(gap=0.1), TVL1(gap=0.01), TVL1(gap=1e-5, max_iterations=73)):
        counts.clear()
        operator(f)
        numbers.append(len(counts))
    assert 10 <= numbers[0] < numbers[1] < 500
    assert numbers[2] == 73


@pytest.mark.parametrize(
    "made",
    [
        [TVL1(1 / weight, gap=1e-3, max_iterations=3000) for weight in (0.3, 0.7, 2, 4, 10)],
        [ROF(weight, eps=1e-7, max_iterations=2000) for weight in (0.01, 0.055, 0.2, 1, 10)],
    ],
    ids=["tv_l1", "rof"],
)
def test_a_stronger_setting_never_raises_total_variation(made: list[Operator]) -> None:
    """For minimisers it is a theorem; what is left to the minimum is allowed for."""
    image = _picture()
    amounts = [_total_variation(image), *(_total_variation(operator(image)) for operator in made)]
    slack = 2e-3 * amounts[0]
    assert all(after <= before + slack for before, after in pairwise(amounts))
    assert amounts[-1] < 0.5 * amounts[0]


@pytest.mark.parametrize("side", [1, 7, 25, 40])
def test_blocks_of_rows_change_nothing(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).random((side, 33, 1))
    operator = TVL1(max_iterations=20)
    whole = operator(image)
    for block in (1, 100, 300):
        monkeypatch.setattr(tv_l1, "_BLOCK", block)
        np.testing.assert_allclose(operator(image), whole, rtol=0, atol=1e-12)


def test_small_structures_vanish_and_large_ones_keep_their_contrast() -> None:
    image = np.full((60, 60, 1), 0.2)
    image[4:8, 4:8] = 0.9  # 4 x 4: its border costs more than the fit
    image[20:56, 20:56] = 0.8
    result = TVL1(gap=1e-3, max_iterations=3000)(image)
    np.testing.assert_allclose(result[2:12, 2:12], 0.2, rtol=0, atol=0.01)
    np.testing.assert_allclose(result[26:50, 26:50], 0.8, rtol=0, atol=0.01)


def _transposed(image: np.ndarray) -> np.ndarray:
    return image.swapaxes(0, 1)


def _negative(image: np.ndarray) -> np.ndarray:
    return 1 - image


@pytest.mark.parametrize("change", [_transposed, _negative])
def test_follows_a_transposition_and_the_negative(change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = _picture()
    np.testing.assert_allclose(TVL1()(change(image)), change(TVL1()(image)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_image_is_unchanged(value: float, dtype: type) -> None:
    image: np.ndarray = np.full((8, 11, 3), value, dtype)
    np.testing.assert_array_equal(TVL1()(image), image)


def test_channels_do_not_mix_and_float32_is_as_good() -> None:
    image = _picture()
    result = TVL1()(image)
    for channel in range(3):
        alone = TVL1()(image[..., channel : channel + 1])
        np.testing.assert_array_equal(result[..., channel : channel + 1], alone)
    np.testing.assert_allclose(TVL1()(_picture(np.float32)), result, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_": 0}, "'lambda' should"),
        ({"lambda_": float("nan")}, "'lambda' should"),
        ({"gap": 0}, "'gap' should"),
        ({"max_iterations": 0}, "'max_iterations' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"tv_l1: {message}"):
        TVL1(**arguments)
