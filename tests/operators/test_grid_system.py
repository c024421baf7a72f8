from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.errors import CompressnetError
from compressnet.operators import grid_system
from compressnet.operators.grid_system import GridSystem, Real

Weights = tuple[Real, Real]


def _weights(height: int, width: int, low: float = -2, high: float = 3, seed: int = 0) -> Weights:
    """Independent ones, from 10^low to 10^high."""
    random = np.random.default_rng(seed)
    horizontal = 10 ** random.uniform(low, high, (height, width - 1))
    return horizontal, 10 ** random.uniform(low, high, (height - 1, width))


def _edges(height: int, width: int, low: float, high: float) -> Weights:
    """Those of a picture of stains: about `high` within them, `low` across their edges."""
    y, x = np.mgrid[:height, :width]
    stains = np.sin(x / 9) + np.sin(y / 7) + np.sin((x + 2 * y) / 13)
    picture = np.tanh(4 * stains) + 0.001 * np.random.default_rng(0).random((height, width))
    horizontal, vertical = (
        1 / (1 / high + np.abs(np.diff(picture, axis=axis)) ** 2 / low) for axis in (1, 0)
    )
    return horizontal, vertical


def _dense(horizontal: Real, vertical: Real, data: Real | None = None) -> np.ndarray:
    height, width = len(horizontal), vertical.shape[1]
    number = np.arange(height * width).reshape(height, width)
    matrix = np.diag(np.ones(height * width) if data is None else data.ravel())
    edges = [(number[:, :-1], number[:, 1:], horizontal), (number[:-1], number[1:], vertical)]
    for one, other, weight in edges:
        for i, j, w in zip(one.ravel(), other.ravel(), weight.ravel(), strict=True):
            matrix[i, i] += w
            matrix[j, j] += w
            matrix[i, j] -= w
            matrix[j, i] -= w
    return matrix


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["direct", "multigrid"]), st.booleans())
def test_solves_the_system(height: int, width: int, solver: grid_system.Solver, given_data: bool) -> None:
    random = np.random.default_rng(height * 10 + width)
    horizontal, vertical = _weights(height, width)
    data = random.random((height, width)) if given_data else None
    right = random.random((2, height, width))
    system = GridSystem(horizontal, vertical, solver, data)
    expected = np.linalg.solve(_dense(horizontal, vertical, data), right.reshape(2, -1).T).T
    found = system.solve(right, tolerance=1e-10)
    np.testing.assert_allclose(found.reshape(2, -1), expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(system.solve(right[1], tolerance=1e-10), found[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (1, 40), (40, 1), (2, 2), (3, 5), (33, 64), (50, 31)]
)
def test_multigrid_is_the_direct_solution(shape: tuple[int, int]) -> None:
    weights, right = _weights(*shape), np.random.default_rng(1).random(shape)
    found, exact = (GridSystem(*weights, solver).solve(right) for solver in ("multigrid", "direct"))
    np.testing.assert_allclose(found, exact, rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    ("weights", "most"),
    [
        (_edges(120, 160, 1e-5, 1e5), 25),
        (_edges(120, 160, 1, 1e5), 40),
        ((np.full((120, 159), 1e5), np.full((119, 160), 1e-5)), 4),
        ((np.full((120, 159), 1e-5), np.full((119, 160), 1e5)), 4),
        ((np.full((120, 159), 1e5), np.full((119, 160), 1e5)), 6),
        (_weights(120, 160, 0, 5), 60),
        (_weights(120, 160, -5, 5), 300),  # no picture: each pixel's tie to each neighbour by itself
    ],
    ids=["edges", "strong edges", "rows", "columns", "flat", "random", "random over ten decades"],
)
def test_weights_of_ten_decades(weights: Weights, most: int) -> None:
    right = np.random.default_rng(0).random((120, 160))
    system = GridSystem(*weights, "multigrid")
    found = system.solve(right)
    assert 0 < system.iterations[0] <= most
    rest = GridSystem(*weights, "direct").solve(right) - found
    assert np.sqrt(np.mean(rest**2)) <= 1e-6 * np.sqrt(np.mean(right**2))  # 1 is the least eigenvalue


def test_iterations_hardly_grow_with_the_size() -> None:
    counts = []
    for height, width in ((120, 160), (270, 360)):  # as 480p is to 1080p
        system = GridSystem(*_edges(height, width, 0.01, 1e4))
        system.solve(np.random.default_rng(0).random((height, width)))
        counts += system.iterations
    assert counts[1] <= 1.5 * counts[0]


def test_a_guess_saves_iterations() -> None:
    weights, right = _weights(70, 80), np.random.default_rng(0).random((70, 80))
    system = GridSystem(*weights)
    exact = system.solve(right)
    before = system.iterations[0]
    guess = exact + 1e-4 * right
    copy = guess.copy()
    np.testing.assert_allclose(system.solve(right, start=guess), exact, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(guess, copy)
    assert 0 < system.iterations[0] < before
    system.solve(right, start=exact)
    assert system.iterations == [0]
    np.testing.assert_array_equal(system.solve(np.zeros((70, 80))), 0)


def test_large_weights_are_solved_in_double_precision() -> None:
    weights = _edges(70, 80, 1, 1e8)
    right = np.random.default_rng(0).random((70, 80))
    found, exact = (GridSystem(*weights, solver).solve(right) for solver in ("multigrid", "direct"))
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)


def test_small_grids_are_solved_directly() -> None:
    for side, iterations in ((64, []), (65, [2])):
        system = GridSystem(np.ones((side, 63)), np.ones((side - 1, 64)))
        system.solve(np.random.default_rng(0).random((side, 64)))
        assert len(system.iterations) == len(iterations)


def test_the_same_to_the_bit() -> None:
    weights, right = _edges(90, 70, 0.1, 1e4), np.random.default_rng(0).random((90, 70))
    np.testing.assert_array_equal(GridSystem(*weights).solve(right), GridSystem(*weights).solve(right))


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, right = _weights(75, 60), np.random.default_rng(0).random((75, 60))
    whole = GridSystem(*weights).solve(right)
    for strip in (1, 60 * 4, 60 * 7):
        monkeypatch.setattr(grid_system, "_STRIP", strip)
        np.testing.assert_allclose(GridSystem(*weights).solve(right), whole, rtol=0, atol=1e-8)


def test_refuses_what_is_no_system(monkeypatch: pytest.MonkeyPatch) -> None:
    ones = np.ones((3, 3))
    with pytest.raises(ValueError, match="belong together"):
        GridSystem(ones, ones)
    with pytest.raises(ValueError, match="not negative"):
        GridSystem(-ones[:, 1:], ones[1:])
    with pytest.raises(ValueError, match="finite"):
        GridSystem(ones[:, 1:], np.full((2, 3), np.inf))
    with pytest.raises(ValueError, match="all 0"):
        GridSystem(ones[:, 1:], ones[1:], data=0 * ones)
    with pytest.raises(ValueError, match="not tied to the others"):
        GridSystem(0 * ones[:, 1:], 0 * ones[1:], "multigrid", data=np.eye(3))
    with pytest.raises(ValueError, match="expected right-hand sides"):
        GridSystem(ones[:, 1:], ones[1:]).solve(ones[1:])
    monkeypatch.setattr(grid_system, "_MAX_ITERATIONS", 2)
    with pytest.raises(CompressnetError, match="80x70 pixels: no solution in 2 iterations"):
        GridSystem(*_weights(70, 80)).solve(np.ones((70, 80)) + np.eye(70, 80))
