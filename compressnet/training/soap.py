"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners.

N. Vyas, D. Morwani, R. Zhao, I. Shapira, D. Brandfonbrener, L. Janson, S. Kakade: SOAP: Improving and
Stabilizing Shampoo using Adam. arXiv 2409.11321. Written from algorithm 3.

    G (m, n), the gradient of a weight; of a convolution (out, in * kh * kw)
    L (m, m), R (n, n): running means of G G^T and G^T G
    Q_L, Q_R: their eigenvectors, followed by one step of the power method and QR every `every` steps
    Adam moves Q_L^T G Q_R, and its step is turned back

A network of a few channels has small matrices: the step costs little beside a pass over a photograph, and it
takes far fewer of them than Adam. On a CPU the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from compressnet.kernels.can_layer import one_thread

_LARGEST = 1024  # side of a matrix; a longer side keeps its own basis
_SIDES = ("left", "right")


class SOAP(torch.optim.Optimizer):
    """The optimiser of the module's docstring, for real parameters. Vectors and scalars are moved as by Adam.

    Args:
        betas: decay of the mean of gradients; of their squares and of L and R. The paper's are 0.95 and 0.95.
        weight_decay: decoupled, as in AdamW.
        every: steps from one basis to the next.

    As in the authors' code, the first step only makes the first basis.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        every: int = 10,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "every": every}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step from the gradients that the parameters hold."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                gradient = parameter.grad.reshape(_shape(parameter))
                # eigenvectors of equal eigenvalues hang on the last bit of the products
                with one_thread() if parameter.is_cpu else nullcontext():
                    if state:
                        _move(parameter, gradient, state, group)
                    else:
                        state.update(_first(parameter, gradient))
        return loss


def slots(parameter: Tensor) -> dict[str, tuple[int, ...]]:
    """What the optimiser keeps of a parameter, by name, with its shape."""
    shape = _shape(parameter)
    sides = {
        name: (size, size)
        for side, size in zip(_SIDES, shape, strict=True)
        if parameter.ndim > 1 and 1 < size <= _LARGEST
        for name in (side, f"{side}_basis")
    }
    return {"step": (), "exp_avg": shape, "exp_avg_sq": shape, **sides}


def _shape(parameter: Tensor) -> tuple[int, int]:
    """(m, n); of vectors and scalars n is 1."""
    rows = parameter.shape[0] if parameter.ndim else 1
    return rows, parameter.numel() // rows


def _first(parameter: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """What is kept after the first gradient: the bases, and that no step was made."""
    state = {name: gradient.new_zeros(shape) for name, shape in slots(parameter).items()}
    state["step"] = state["step"].cpu()  # as Adam's
    for side in _SIDES:
        if side in state:
            state[side] = _outer(gradient, side)
            state[f"{side}_basis"] = _eigenvectors(state[side])
    return state


def _eigenvectors(matrix: Tensor) -> Tensor:
    """Those of a symmetric matrix, largest first.

    One gradient makes a matrix of low rank, of which LAPACK does not always find the eigenvectors, in float32
    least of all. Then one step of the power method stands in: the basis is followed from there all the same.
    """
    try:
        return torch.linalg.eigh(matrix.double())[1].flip(1).to(matrix.dtype).contiguous()
    except torch.linalg.LinAlgError:
        return _orthonormal(matrix)


def _orthonormal(matrix: Tensor) -> Tensor:
    """In the layout in which a checkpoint gives it back: products of another differ in the last bit."""
    return torch.linalg.qr(matrix)[0].contiguous()


def _outer(gradient: Tensor, side: str) -> Tensor:
    return gradient @ gradient.T if side == "left" else gradient.T @ gradient


def _move(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    (slow, fast), rate = group["betas"], group["lr"]
    state["step"] += 1
    step = int(state["step"])
    turned = _turned(gradient, state)
    state["exp_avg"].lerp_(gradient, 1 - slow)
    state["exp_avg_sq"].mul_(fast).addcmul_(turned, turned, value=1 - fast)
    size = (state["exp_avg_sq"] / (1 - fast**step)).sqrt_().add_(group["eps"])
    direction = _turned_back(_turned(state["exp_avg"], state).div_(size), state)
    parameter.mul_(1 - rate * group["weight_decay"])
    parameter.sub_(direction.view(parameter.shape), alpha=rate / (1 - slow**step))
    for side in _SIDES:
        if side in state:
            state[side].lerp_(_outer(gradient, side), 1 - fast)
            if step % group["every"] == 0:
                _follow(side, state)


def _turned(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """(m, n) in the basis."""
    x = state["left_basis"].T @ x if "left" in state else x
    return x @ state["right_basis"] if "right" in state else x.clone()


def _turned_back(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    x = state["left_basis"] @ x if "left" in state else x
    return x @ state["right_basis"].T if "right" in state else x


def _follow(side: str, state: dict[str, Tensor]) -> None:
    """The basis after one step of the power method, in the order of its eigenvalues; squares go with it."""
    matrix, basis = state[side], state[f"{side}_basis"]
    values = (basis * (matrix @ basis)).sum(dim=0)  # of Rayleigh
    order = values.argsort(descending=True, stable=True)
    axis = _SIDES.index(side)
    state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, order)
    state[f"{side}_basis"] = _orthonormal(matrix @ basis[:, order])
