"""The five-point system (Id + L_w) u = f of a grid of pixels with weighted edges.

L_w is the graph Laplacian: (L_w u)(i) is the sum over the up to four neighbours j of w(i, j) (u(i) - u(j)).
Weighted least squares, relative total variation and non-local dehazing end in it. Their weights range over
eight decades, and neighbouring ones differ by as much, along rows and along columns. Solved by conjugate
gradients; the preconditioner is one V cycle of semicoarsening multigrid: of the rows only the even ones go to
the next coarser grid, an odd row is interpolated from its two neighbours, and rows are relaxed as a whole.

S. Schaffer: A Semicoarsening Multigrid Method for Elliptic Partial Differential Equations with Highly
Discontinuous and Anisotropic Coefficients. SIAM J. Sci. Comput. 20, 1998 (interpolation by solving rows).
Written from the equations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from compressnet.errors import CompressnetError

Real = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Solver = Literal["auto", "direct", "multigrid"]

_DIRECT_PIXELS = 64 * 64  # up to here the direct solver is the faster one
_STRIP = 1 << 15  # pixels worked on at once, so that they stay in the cache of a core
_SINGLE_LIMIT = 1e6  # times the data weights: of a larger diagonal float32 would lose them
_MAX_ITERATIONS = 3000


class GridSystem:
    """The system with given weights, prepared once and solved for any number of right-hand sides.

    Deterministic and on one thread. Memory: about 150 bytes a pixel; the direct solver takes several hundred,
    the more the larger the grid.

    Args:
        horizontal: weights (H, W - 1) of the edges between (y, x) and (y, x + 1).
        vertical: weights (H - 1, W) of the edges between (y, x) and (y + 1, x).
        solver: `direct` factorises the matrix; `multigrid` iterates; `auto` takes the first up to 64x64.
        data: weights (H, W) in place of Id; 1 by default. At least one is above 0.

    Raises:
        ValueError: weights that do not fit together, are negative or not finite, or make a singular system.
    """

    def __init__(
        self, horizontal: Real, vertical: Real, solver: Solver = "auto", data: Real | None = None
    ) -> None:
        self._horizontal, self._vertical = horizontal, vertical
        self._data = np.ones((len(horizontal), vertical.shape[1])) if data is None else data
        _check(self._data, horizontal, vertical)
        self.height, self.width = self._data.shape
        if solver == "auto":
            solver = "direct" if self._data.size <= _DIRECT_PIXELS else "multigrid"
        prepare = _factorised if solver == "direct" else _Cycle
        self._prepared = prepare(self._data, horizontal, vertical)
        self.iterations: list[int] = []

    def solve(self, right: Real, start: Real | None = None, tolerance: float = 1e-6) -> Real:
        """The solution for right-hand sides (..., H, W), each to norm(residual) <= tolerance * norm(right).

        `start` is a guess of the same shape. `iterations` lists afterwards how many each one took.

        Raises:
            CompressnetError: no solution in 3,000 iterations.
        """
        if right.shape[-2:] != (self.height, self.width):
            expected = f"(..., {self.height}, {self.width})"
            raise ValueError(f"a grid: expected right-hand sides {expected}, got {right.shape}")
        planes = np.ascontiguousarray(right, dtype=np.float64).reshape(-1, self.height, self.width)
        if not isinstance(self._prepared, _Cycle):
            columns = self._prepared.solve(planes.reshape(len(planes), -1).T)
            return np.ascontiguousarray(columns.T).reshape(right.shape)
        result = (
            np.zeros(planes.shape) if start is None else np.array(start, np.float64).reshape(planes.shape)
        )
        self.iterations = [
            self._iterate(self._prepared, b, x, tolerance) for b, x in zip(planes, result, strict=True)
        ]
        return result.reshape(right.shape)

    def _iterate(self, cycle: _Cycle, right: Real, x: Real, tolerance: float) -> int:
        """Flexible conjugate gradients from the guess `x`, which becomes the solution."""
        q, z = np.empty_like(x), np.empty_like(x)
        self._product(x, q)
        residual = right - q
        target = tolerance * math.sqrt(_dot(right, right))
        if math.sqrt(_dot(residual, residual)) <= target:
            return 0
        p = np.zeros_like(x)
        step, before = 0.0, 1.0
        for iteration in range(1, _MAX_ITERATIONS + 1):
            z[...] = cycle(residual.astype(cycle.dtype))
            now = _dot(residual, z)
            # Polak's and Ribiere's form, as the preconditioner, in float32, is not quite symmetric.
            p *= -step * _dot(q, z) / before if iteration > 1 else 0.0
            p += z
            self._product(p, q)
            step, before = now / _dot(p, q), now
            np.multiply(p, step, out=z)
            x += z
            np.multiply(q, step, out=z)
            residual -= z
            if math.sqrt(_dot(residual, residual)) <= target:
                return iteration
        raise CompressnetError(
            f"a grid of {self.width}x{self.height} pixels: no solution in {_MAX_ITERATIONS} iterations"
        )

    def _product(self, u: Real, result: Real) -> None:
        """(data + L_w) u, strip by strip."""
        last = self.height - 1
        for top, bottom in strips(self.height, self.width):
            strip = result[top:bottom]
            np.multiply(self._data[top:bottom], u[top:bottom], out=strip)
            flow = np.diff(u[top:bottom], axis=1)
            flow *= self._horizontal[top:bottom]
            strip[:, :-1] -= flow
            strip[:, 1:] += flow
            first, end = max(top - 1, 0), min(bottom, last)  # of the vertical edges that touch the strip
            flow = np.diff(u[first : end + 1], axis=0)
            flow *= self._vertical[first:end]
            strip[: end - top] -= flow[top - first :]
            strip[first + 1 - top :] += flow[: bottom - 1 - first]


def _check(data: Real, horizontal: Real, vertical: Real) -> None:
    height, width = data.shape
    if horizontal.shape != (height, width - 1) or vertical.shape != (height - 1, width):
        raise ValueError(
            "a grid: weights (H, W), (H, W - 1) and (H - 1, W) belong together, "
            f"got {data.shape}, {horizontal.shape} and {vertical.shape}"
        )
    for weights in (data, horizontal, vertical):
        if weights.size and not (weights.min() >= 0 and math.isfinite(weights.max())):
            raise ValueError("a grid: the weights must be finite and not negative")
    if not data.max() > 0:
        raise ValueError("a grid: the weights of the data are all 0")


def _dot(a: Real, b: Real) -> float:
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))  # not BLAS, which takes all threads


def strips(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """First row and row behind the last of strips of about `_STRIP` pixels."""
    step = max(1, _STRIP // width)
    for top in range(0, rows, step):
        yield top, min(top + step, rows)


def _stencil(data: Real, horizontal: Real, vertical: Real) -> tuple[Real, Real, Real]:
    """Diagonal, couplings to the right (H, W), 0 in the last column, and to the row below (1, H - 1, W)."""
    diagonal = np.array(data, dtype=np.float64, order="C")
    diagonal[:, 1:] += horizontal
    diagonal[:, :-1] += horizontal
    diagonal[1:] += vertical
    diagonal[:-1] += vertical
    east = np.zeros_like(diagonal)
    east[:, :-1] = horizontal
    return diagonal, east, vertical[None]


def _factorised(data: Real, horizontal: Real, vertical: Real) -> Any:
    """The matrix, factorised by SuperLU."""
    from scipy import sparse  # here: both take a while to import, and most pictures are larger
    from scipy.sparse.linalg import splu

    diagonal = _stencil(data, horizontal, vertical)[0]
    number = np.arange(diagonal.size).reshape(diagonal.shape)
    one = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    other = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    weight = -np.concatenate([horizontal.ravel(), vertical.ravel()])
    rows = np.concatenate([number.ravel(), one, other])
    columns = np.concatenate([number.ravel(), other, one])
    values = np.concatenate([diagonal.ravel(), weight, weight])
    matrix = sparse.csc_matrix((values, (rows, columns)), shape=(diagonal.size, diagonal.size))
    options = {"SymmetricMode": True}
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)


# ---- the preconditioner


class _Rows:
    """Systems along rows, one tridiagonal matrix a row, in factors L D L^T.

    Args:
        factors: of `_factors`, for rows (R, W).
        dtype: float32 or float64, of all that is solved.
    """

    def __init__(self, factors: tuple[Real, Real], dtype: type) -> None:
        self._pivots: Floats = factors[0].astype(dtype)
        self._lower: Floats = factors[1].astype(dtype)
        self._solver = lapack.spttrs if dtype is np.float32 else lapack.dpttrs

    def solve(self, right: Floats, first: int) -> None:
        """In place, for the rows from `first` on that `right` (r, W), contiguous, stands for."""
        begin, end = first * right.shape[1], first * right.shape[1] + right.size
        _solve(self._solver, self._pivots[begin:end], self._lower[begin : end - 1], right)


def _factors(diagonal: Real, east: Real) -> tuple[Real, Real]:
    """Pivots and lower diagonal of rows (R, W): one long tridiagonal matrix, as `east` ends in 0."""
    if diagonal.size < 2:  # of which LAPACK's wrapper makes no system
        return diagonal.ravel(), np.zeros(0)
    pivots, lower, failed = lapack.dpttrf(diagonal.ravel(), -east.ravel()[:-1])
    if failed:
        raise ValueError("a grid: pixels without data, not tied to the others, or weights too far apart")
    return pivots, lower


def _solve(solver: Any, pivots: Floats, lower: Floats, right: Floats) -> None:
    if right.size == 1:
        right /= pivots[0]
    elif right.size:
        flat = right.reshape(-1)
        flat[...], _ = solver(pivots, lower, flat, overwrite_b=1)


class _Level:
    """The even and the odd rows of one grid.

    Couplings between rows are arrays (1 or 3, R, W): of the upper row at x to the lower one at x, x - 1 and
    x + 1.
    """

    def __init__(self, even: _Rows, odd: _Rows, below: Floats) -> None:
        self._even, self._odd = even, odd
        self._even_over_odd = np.ascontiguousarray(below[:, ::2])
        self._odd_over_even = np.ascontiguousarray(below[:, 1::2])

    def relax_even(self, right: Floats, x: Floats, alone: bool = False) -> None:
        """Solve the even rows of `x` (H, W) with its odd ones given; `alone`: these are taken as 0."""
        even, odd, right = x[::2], x[1::2], right[::2]
        for top, bottom in strips(*even.shape):
            strip = np.array(right[top:bottom], order="C")
            if not alone:
                self._odd_to_even(strip, odd, top, bottom)
            self._even.solve(strip, top)
            even[top:bottom] = strip

    def relax_odd(self, right: Floats, x: Floats) -> None:
        """Solve the odd rows of `x` with its even ones given."""
        even, odd, right = x[::2], x[1::2], right[1::2]
        last = len(even) - 1
        for top, bottom in strips(*odd.shape):
            strip = np.array(right[top:bottom], order="C")
            _add_from_above(strip, self._even_over_odd[:, top:bottom], even[top:bottom])
            end = min(bottom, last)  # with an even height the last odd row has none below it
            _add_from_below(strip[: end - top], self._odd_over_even[:, top:end], even[top + 1 : end + 1])
            self._odd.solve(strip, top)
            odd[top:bottom] = strip

    def from_odd(self, odd: Floats) -> Floats:
        """What odd rows of these values add to the even ones: if they are the latest change, the residual."""
        result = np.zeros((self._odd_over_even.shape[1] + 1, odd.shape[1]), odd.dtype)
        for top, bottom in strips(*result.shape):
            self._odd_to_even(result[top:bottom], odd, top, bottom)
        return result

    def _odd_to_even(self, strip: Floats, odd: Floats, top: int, bottom: int) -> None:
        end, first = min(bottom, len(odd)), max(top, 1)
        _add_from_below(strip[: end - top], self._even_over_odd[:, top:end], odd[top:end])
        above = slice(first - 1, bottom - 1)
        _add_from_above(strip[first - top :], self._odd_over_even[:, above], odd[above])


def _add_from_below(upper: Floats, coupling: Floats, lower: Floats) -> None:
    product = coupling[0] * lower
    upper += product
    if len(coupling) == 3:
        product = product[:, 1:]
        upper[:, 1:] += np.multiply(coupling[1, :, 1:], lower[:, :-1], out=product)
        upper[:, :-1] += np.multiply(coupling[2, :, :-1], lower[:, 1:], out=product)


def _add_from_above(lower: Floats, coupling: Floats, upper: Floats) -> None:
    product = coupling[0] * upper
    lower += product
    if len(coupling) == 3:
        product = product[:, 1:]
        lower[:, :-1] += np.multiply(coupling[1, :, 1:], upper[:, 1:], out=product)
        lower[:, 1:] += np.multiply(coupling[2, :, :-1], upper[:, :-1], out=product)


class _Cycle:
    """One symmetric V cycle: an approximate inverse of the system. Built in float64, applied in `dtype`.

    On the finest grid columns are relaxed too, before and after all else: there the weights differ most. That
    saves 30 to 60 % of the iterations on photographs.
    """

    def __init__(self, data: Real, horizontal: Real, vertical: Real) -> None:
        diagonal, east, below = _stencil(data, horizontal, vertical)
        single = diagonal.max() < _SINGLE_LIMIT * min(1.0, data.mean())
        self.dtype: type = np.float32 if single else np.float64
        self._columns = self._level(*_stencil(data.T, vertical.T, horizontal.T))[0]
        self._levels: list[_Level] = []
        while len(diagonal) > 1:
            level, odd = self._level(diagonal, east, below)
            self._levels.append(level)
            diagonal, east, below = _coarser(diagonal, east, below, odd)
        self._last = _Rows(_factors(diagonal, east), self.dtype)

    def _level(self, diagonal: Real, east: Real, below: Real) -> tuple[_Level, tuple[Real, Real]]:
        odd = _factors(diagonal[1::2], east[1::2])
        even = _factors(diagonal[::2], east[::2])
        rows = _Rows(even, self.dtype), _Rows(odd, self.dtype)
        return _Level(*rows, below.astype(self.dtype)), odd

    def __call__(self, right: Floats) -> Floats:
        """(H, W) -> (H, W)."""
        turned = np.ascontiguousarray(right.T)
        columns = np.empty_like(turned)
        self._columns.relax_even(turned, columns, alone=True)
        self._columns.relax_odd(turned, columns)
        columns = np.ascontiguousarray(self._rows(right, 0, np.ascontiguousarray(columns.T)).T)
        self._columns.relax_odd(turned, columns)
        self._columns.relax_even(turned, columns)
        return np.ascontiguousarray(columns.T)

    def _rows(self, right: Floats, depth: int, start: Floats | None = None) -> Floats:
        """From the grid of `depth` on, from `start`, which is overwritten, or 0."""
        x = np.empty_like(right) if start is None else start
        if depth == len(self._levels):
            x[...] = right
            self._last.solve(x, 0)
            return x
        level = self._levels[depth]
        before = 0 if start is None else x[1::2].copy()
        level.relax_even(right, x, alone=start is None)
        level.relax_odd(right, x)
        x[::2] += self._rows(level.from_odd(x[1::2] - before), depth + 1)
        level.relax_odd(right, x)
        level.relax_even(right, x)
        return x


def _coarser(diagonal: Real, east: Real, below: Real, odd: tuple[Real, Real]) -> tuple[Real, Real, Real]:
    """Diagonal, east couplings and couplings to the row below of the even rows alone: P^T A P.

    P gives a pixel of an odd row the values of its neighbours above and below with the weights `up` and
    `down`: what the row would be if the row above, or the one below, were 1 everywhere.
    """
    if len(below) == 1:
        below = np.concatenate([below, np.zeros((2, *below.shape[1:]))])
    over, under = below[:, ::2], below[:, 1::2]
    pairs = under.shape[1]  # of even rows, with an odd one between them
    centre, right = diagonal[1::2], east[1::2]
    up = over[0] + _from_right(over[1]) + _from_left(over[2])
    down = np.zeros_like(up)
    down[:pairs] = under.sum(axis=0)
    _solve(lapack.dpttrs, *odd, up)
    _solve(lapack.dpttrs, *odd, down)

    new_diagonal, new_east = diagonal[::2].copy(), east[::2].copy()
    new_diagonal[: len(up)] += up * (up * centre - 2 * over[0])
    new_east[: len(up)] += (up * right + over[2]) * _from_right(up) + up * _from_right(over[1])
    up, over, down, centre, right = up[:pairs], over[:, :pairs], down[:pairs], centre[:pairs], right[:pairs]
    new_diagonal[1:] += down * (down * centre - 2 * under[0])
    new_east[1:] += (down * right + _from_right(under[1])) * _from_right(down) + down * under[2]
    new_below = np.stack(
        [
            over[0] * down + up * under[0] - up * centre * down,
            (up * _from_left(right) + over[1]) * _from_left(down) + up * under[1],
            (up * right + over[2]) * _from_right(down) + up * under[2],
        ]
    )
    return new_diagonal, new_east, new_below


def _from_right(rows: Real) -> Real:
    """Each pixel's right neighbour, 0 in the last column."""
    result = np.zeros_like(rows)
    result[:, :-1] = rows[:, 1:]
    return result


def _from_left(rows: Real) -> Real:
    result = np.zeros_like(rows)
    result[:, 1:] = rows[:, :-1]
    return result
