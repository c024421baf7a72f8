"""SOAP against Adam, against itself in another basis, and through a checkpoint."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from compressnet.errors import CompressnetError
from compressnet.training import soap
from compressnet.training.checkpoint import optimizer_state, restore_optimizer
from compressnet.training.soap import SOAP


def run(optimizer: torch.optim.Optimizer, parameter: Tensor, gradients: list[Tensor]) -> Tensor:
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach().clone()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(), (5,), (1, 1)])
def test_of_vectors_it_is_adam(shape: tuple[int, ...]) -> None:
    start, gradients = random(*shape), [random(*shape, seed=n) for n in range(1, 8)]
    mine, adams = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    found = run(SOAP([mine], lr=0.1, betas=(0.9, 0.95)), mine, gradients)
    # the first gradient only makes the basis
    expected = run(torch.optim.Adam([adams], lr=0.1, betas=(0.9, 0.95)), adams, gradients[1:])
    torch.testing.assert_close(found, expected)


def test_a_turned_problem_takes_turned_steps() -> None:
    """Which Adam's do not: rows and columns of a weight have no say in how it moves."""
    left, right = (torch.linalg.qr(random(5, 5, seed=seed))[0] for seed in (50, 60))
    start, gradients = random(5, 5), [random(5, 5, seed=n) for n in range(1, 40)]
    plain, turned = nn.Parameter(start.clone()), nn.Parameter(left @ start @ right)
    found = run(SOAP([plain], lr=0.05), plain, gradients)
    other = run(SOAP([turned], lr=0.05), turned, [left @ gradient @ right for gradient in gradients])
    torch.testing.assert_close(left @ found @ right, other, rtol=1e-6, atol=1e-6)
    assert float((found - start).abs().max()) > 0.1


def test_the_equations() -> None:
    """A basis from every step, beside the algorithm written with eigenvectors that are computed anew."""
    start, gradients = random(3, 5), [random(3, 5, seed=n) for n in range(1, 4)]
    parameter = nn.Parameter(start.clone())
    found = run(SOAP([parameter], lr=0.1, betas=(0.8, 0.9), every=100), parameter, gradients)
    first, *others = gradients
    q_left, q_right = (torch.linalg.eigh(m)[1] for m in (first @ first.T, first.T @ first))
    mean, squares, expected = torch.zeros(3, 5), torch.zeros(3, 5), start
    for step, gradient in enumerate(others, 1):
        mean = 0.8 * mean + 0.2 * gradient
        squares = 0.9 * squares + 0.1 * (q_left.T @ gradient @ q_right) ** 2
        size = (squares / (1 - 0.9**step)).sqrt() + 1e-8
        move = q_left @ ((q_left.T @ mean @ q_right) / (1 - 0.8**step) / size) @ q_right.T
        expected = expected - 0.1 * move
    torch.testing.assert_close(found, expected)


def test_it_follows_the_eigenvectors() -> None:
    """Of gradients of one distribution the basis becomes that of the running mean."""
    parameter, scale = nn.Parameter(random(6, 6)), torch.logspace(0, -2, 6, dtype=torch.float64)
    turn = torch.linalg.qr(random(6, 6, seed=9))[0]
    optimizer = SOAP([parameter], lr=1e-3, betas=(0.9, 0.999), every=1)
    run(optimizer, parameter, [turn @ (scale[:, None] * random(6, 6, seed=n)) for n in range(400)])
    state = optimizer.state[parameter]
    held = state["left_basis"].T @ state["left"] @ state["left_basis"]
    off = held - torch.diag(held.diagonal())
    assert float(off.abs().max() / held.abs().max()) < 1e-3
    assert held.diagonal().tolist() == sorted(held.diagonal().tolist(), reverse=True)


def test_long_sides_keep_their_basis() -> None:
    assert soap.slots(torch.zeros(3, 500, 3, 3)).keys() == {
        "step",
        "exp_avg",
        "exp_avg_sq",
        "left",
        "left_basis",
    }
    parameter = nn.Parameter(random(2, 1500))
    run(SOAP([parameter], lr=0.1), parameter, [random(2, 1500, seed=n) for n in range(12)])
    assert parameter.isfinite().all()


def test_the_layout_in_memory_does_not_matter() -> None:
    start, gradients = random(4, 3, 3, 3), [random(4, 3, 3, 3, seed=n) for n in range(1, 14)]
    plain = nn.Parameter(start.clone())
    last = nn.Parameter(start.clone(memory_format=torch.channels_last))
    found = run(SOAP([plain], lr=0.1, weight_decay=0.1), plain, gradients)
    assert torch.equal(found, run(SOAP([last], lr=0.1, weight_decay=0.1), last, gradients))


def test_the_number_of_threads_does_not_matter() -> None:
    gradients = [torch.outer(random(64), random(256))] + [random(64, 256, seed=n) for n in range(1, 24)]
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            parameter = nn.Parameter(torch.zeros(64, 256))
            found.append(run(SOAP([parameter], lr=0.1), parameter, [g.float() for g in gradients]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_gradients_of_zero() -> None:
    """Channels that no image reaches: nothing moves, and nothing is broken later."""
    parameter = nn.Parameter(random(4, 6))
    start = parameter.detach().clone()
    optimizer = SOAP([parameter], lr=0.1)
    assert torch.equal(run(optimizer, parameter, [torch.zeros(4, 6, dtype=torch.float64)] * 12), start)
    assert run(optimizer, parameter, [random(4, 6, seed=n) for n in range(12)]).isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_one_gradient_of_low_rank(scale: float) -> None:
    """As of a map from one number, (384, 1): LAPACK found no eigenvectors in float32."""
    column, row = random(384).float(), torch.zeros(12)
    row[0] = scale
    parameter = nn.Parameter(torch.zeros(384, 12))
    optimizer = SOAP([parameter], lr=0.1)
    run(optimizer, parameter, [torch.outer(column, row)])
    basis = optimizer.state[parameter]["left_basis"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(384), rtol=0, atol=1e-4)
    assert run(optimizer, parameter, [torch.outer(column, row)] * 12).isfinite().all()


def test_eigenvectors_that_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    parameter = nn.Parameter(random(4, 6))
    assert (
        run(SOAP([parameter], lr=0.1), parameter, [random(4, 6, seed=n) for n in range(12)]).isfinite().all()
    )


def test_a_checkpoint_goes_on_to_the_bit() -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            x = random(2, 3, 6, 6, seed=step).float()
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

    whole = model()
    optimizer = SOAP(whole.parameters(), lr=0.01)
    train(whole, optimizer, range(13))
    kept = optimizer_state(optimizer, whole)
    assert all(value.is_contiguous() for value in kept.values())  # as files are
    stored = {name: value.clone() for name, value in kept.items()}
    again = model()
    again.load_state_dict(whole.state_dict())
    restored = SOAP(again.parameters(), lr=0.01)
    restore_optimizer(restored, again, stored, "here")
    for net, one in ((whole, optimizer), (again, restored)):
        train(net, one, range(13, 25))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    step, left = stored["optimizer.0.weight/step"], stored.pop("optimizer.0.weight/left")
    damaged = {
        "left": [torch.zeros(5, 5), left.double(), left.long()],
        "step": [step * math.nan, step - 100, step + 0.5, step.bool(), step[None]],
        "exp_avg": [torch.zeros(4, 3, 3, 3).half()],
    }
    for slot, values in damaged.items():
        for value in values:
            with pytest.raises(CompressnetError, match="here: its training state does not fit model and opt"):
                restore_optimizer(restored, again, {**stored, f"optimizer.0.weight/{slot}": value}, "here")
    with pytest.raises(CompressnetError, match="here: its training state lacks optimizer.0.weight/left"):
        restore_optimizer(SOAP(again.parameters()), again, stored, "here")
