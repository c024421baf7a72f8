"""TV-L1: total variation with an absolute fit, which removes small structures and keeps contrast.

M. Nikolova: A Variational Approach to Remove Outliers and Impulse Noise. JMIV 20, 2004; T. Chan, S. Esedoglu:
Aspects of Total Variation Regularized L1 Function Approximation. SIAM J. Appl. Math. 65, 2005. Solved by the
primal-dual iteration of A. Chambolle and T. Pock (JMIV 40, 2011, algorithm 1), over-relaxed (L. Condat, JOTA
158, 2013). Written from the equations.

A pass over the picture is one iteration: blocks of rows small enough for the processor's cache are taken
through the dual and the primal step together. The dual step of a block needs only the row below it as it was,
the primal step the row above it as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compressnet.bounds import Fraction, Repeats
from compressnet.operators.protocol import Pixels, check_arguments, check_pixels

Real = NDArray[np.floating[Any]]

_TAU = 0.02  # the primal step: fastest of 0.005 to 0.08 on photographs in [0, 1] at lambda 0.5
_RELAXATION = 1.9  # below 2; 1 is the plain iteration and takes twice as many
_CHECK_EVERY = 10
_BLOCK = 2**15  # values of an array that are worked on at once


class TVL1:
    """Minimise TV(u) + lambda * norm1(u - image) in each channel by itself; Neumann borders.

    Differences are forward and TV is isotropic. Arithmetic is in the type of the image.

    Args:
        lambda_: weight of the fit; structures narrower than about 2 / lambda pixels vanish. Smaller is
            stronger. The default is the fit to the network released for arXiv 1709.00643.
        gap: stop when the energy is shown to be within this part of its least value. The bound is wide:
            at 0.02 the picture is within about 60 dB of the end.
        max_iterations: stop there in any case.

    Raises:
        ValueError: an argument out of range.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        lambda_: Annotated[float, Field(ge=0.01, le=100)] = 0.5,
        gap: Fraction = 0.02,
        max_iterations: Repeats = 500,
    ) -> None:
        check_arguments(self, "tv_l1", lambda_=lambda_, gap=gap, max_iterations=max_iterations)
        self.lambda_, self.gap, self.max_iterations = lambda_, gap, max_iterations

    def __call__(self, image: Pixels) -> Pixels:
        """Image (H, W, C) in [0, 1], float32 or float64, to the same shape and type in [0, 1]."""
        check_pixels(image, "tv_l1")
        result = np.empty_like(image)
        for channel in range(image.shape[2]):
            solver = _Solver(np.ascontiguousarray(image[..., channel]), self.lambda_)
            for count in range(1, self.max_iterations + 1):
                solver.iterate()
                if count % _CHECK_EVERY == 0 and solver.is_within(self.gap):
                    break
            result[..., channel] = solver.solution()
        return np.clip(result, 0, 1, out=result)


class _Solver:
    """The iteration on one plane.

    The dual field is stored divided by the dual step 1 / (8 tau): its length is at most 8 tau, and the primal
    step adds an eighth of its divergence.

    Attributes:
        u: the primal plane (H, W), relaxed.
        mirrored: 2 prox - u, at which the gradient is taken.
        px, py: the dual field, relaxed; its last column and its last row stay 0.
    """

    def __init__(self, plane: Real, lambda_: float) -> None:
        self.plane, self.lambda_ = plane, lambda_
        self.u, self.mirrored = plane.copy(), plane.copy()
        self.px, self.py = np.zeros_like(plane), np.zeros_like(plane)
        self._rows = max(1, _BLOCK // plane.shape[1])
        self._work = np.empty((3, min(self._rows, len(plane)), plane.shape[1]), dtype=plane.dtype)

    def iterate(self) -> None:
        height = len(self.plane)
        for begin in range(0, height, self._rows):
            end = min(begin + self._rows, height)
            self._dual_step(begin, end)
            self._primal_step(begin, end)

    def solution(self) -> Real:
        """The primal plane, not relaxed."""
        result: Real = (self.u + self.mirrored) / 2
        return result

    def is_within(self, gap: float) -> bool:
        """Whether the energy of `solution()` is at most 1 / (1 - `gap`) times the least."""
        energy = bound = 0.0
        low, high = self.plane.min(), self.plane.max()
        height = len(self.plane)
        for begin in range(0, height, self._rows):
            end = min(begin + self._rows, height)
            energy += self._energy(begin, end)
            bound += self._bound(begin, end, low, high)
        return energy - bound <= gap * energy

    def _dual_step(self, begin: int, end: int) -> None:
        """p += relaxation (projection(p + gradient(mirrored)) - p)"""
        x, y, length = self._work[:, : end - begin]
        px, py = self.px[begin:end], self.py[begin:end]
        _gradient(self.mirrored, begin, end, x, y)
        x += px
        y += py
        _lengths(x, y, length)
        np.maximum(length, 8 * _TAU, out=length)
        np.divide(_RELAXATION * 8 * _TAU, length, out=length)
        for field, projected in ((px, x), (py, y)):
            projected *= length
            field *= 1 - _RELAXATION
            field += projected

    def _primal_step(self, begin: int, end: int) -> None:
        """u += relaxation (prox - u), then the next mirrored = 2 prox(u + divergence(p) / 8) - u"""
        change, clipped, _ = self._work[:, : end - begin]
        u, mirrored, plane = self.u[begin:end], self.mirrored[begin:end], self.plane[begin:end]
        np.subtract(mirrored, u, out=change)
        change *= _RELAXATION / 2
        u += change
        self._divergence(begin, end, change)
        change *= 1 / 8
        change += u
        change -= plane
        np.clip(change, -_TAU * self.lambda_, _TAU * self.lambda_, out=clipped)
        change -= clipped  # exactly 0 where the plane keeps its value
        change += plane
        np.multiply(change, 2, out=mirrored)
        mirrored -= u

    def _divergence(self, begin: int, end: int, result: Real) -> None:
        px, py = self.px[begin:end], self.py[begin:end]
        np.add(px, py, out=result)
        result[:, 1:] -= px[:, :-1]
        result[1:] -= py[:-1]
        if begin:
            result[0] -= self.py[begin - 1]

    def _energy(self, begin: int, end: int) -> float:
        x, y, length = self._work[:, : end - begin]
        stop = min(end + 1, len(self.u))
        solution = (self.u[begin:stop] + self.mirrored[begin:stop]) / 2
        _gradient(solution, 0, end - begin, x, y)
        _lengths(x, y, length)
        fit = np.abs(solution[: end - begin] - self.plane[begin:end])
        return float(length.sum(dtype=np.float64) + self.lambda_ * fit.sum(dtype=np.float64))

    def _bound(self, begin: int, end: int, low: float, high: float) -> float:
        """The least of the Lagrangian over planes within [low, high], where the solution is: a dual value.

        The field is projected to length 1 first. A pixel's least is at the plane's own value, or, where the
        divergence is above lambda, at an end of the range.
        """
        above = max(begin - 1, 0)
        px, py = self.px[above:end], self.py[above:end]
        length = np.sqrt(px * px + py * py)
        np.maximum(length, 8 * _TAU, out=length)
        px, py = px / length, py / length
        slope = -(px + py)  # of the Lagrangian: minus the divergence
        slope[:, 1:] += px[:, :-1]
        slope[1:] += py[:-1]
        slope = slope[begin - above :]
        plane = self.plane[begin:end]
        excess = np.abs(slope)
        excess -= self.lambda_
        np.maximum(excess, 0, out=excess)
        room = np.where(slope > 0, plane - low, high - plane)
        return float((slope * plane - excess * room).sum(dtype=np.float64))


def _gradient(plane: Real, begin: int, end: int, x: Real, y: Real) -> None:
    """Forward differences of rows `begin` to `end` of a plane, 0 beyond its borders."""
    rows = plane[begin:end]
    np.subtract(rows[:, 1:], rows[:, :-1], out=x[:, :-1])
    x[:, -1] = 0
    below = plane[begin + 1 : end + 1]
    np.subtract(below, rows[: len(below)], out=y[: len(below)])
    y[len(below) :] = 0


def _lengths(x: Real, y: Real, result: Real) -> None:
    """sqrt(x^2 + y^2)"""
    np.multiply(x, x, out=result)
    result += y * y
    np.sqrt(result, out=result)
