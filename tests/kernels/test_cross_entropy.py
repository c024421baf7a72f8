"""The C kernel of the cross-entropy against torch's in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from compressnet.kernels import cross_entropy as kernel
from compressnet.kernels.cross_entropy import cross_entropy

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel was not built here")


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_ENOUGH", 0)


def loss_and_gradient(scores: Tensor, words: Tensor, dlosses: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.detach().requires_grad_()
    losses = cross_entropy(scores, words)
    return losses, torch.autograd.grad(losses, scores, dlosses)[0]


def expected(scores: Tensor, words: Tensor, dlosses: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.double().detach().requires_grad_()
    losses = F.cross_entropy(scores, words, reduction="none")
    (gradient,) = torch.autograd.grad(losses, scores, dlosses.double())
    return losses.float(), gradient.float()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40) | st.integers(500, 1100), st.floats(0.1, 60), st.integers(0, 99))
def test_agrees_with_torch(rows: int, count: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    scores, words, dlosses = (
        scale * torch.randn(rows, count),
        torch.randint(count, (rows,)),
        torch.randn(rows),
    )
    torch.testing.assert_close(
        loss_and_gradient(scores, words, dlosses), expected(scores, words, dlosses), rtol=1e-5, atol=1e-5
    )


def test_many_classes_lose_nothing() -> None:
    """What torch adds up number by number is off by 1e-4 here."""
    torch.manual_seed(0)
    scores, words = torch.randn(2, 300_000), torch.tensor([0, 299_999])
    losses, gradient = loss_and_gradient(scores, words, torch.ones(2))
    wanted = expected(scores, words, torch.ones(2))
    torch.testing.assert_close((losses, gradient), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradient.double().sum(1), torch.zeros(2, dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_threads_and_memory_layouts_change_nothing() -> None:
    torch.manual_seed(0)
    scores, words, dlosses = torch.randn(3000, 40), torch.randint(40, (3000,)), torch.randn(3000)
    plain = loss_and_gradient(scores, words, dlosses)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.testing.assert_close(loss_and_gradient(scores, words, dlosses), plain, rtol=0, atol=0)
        strided = torch.stack([words, words], 1)[:, 0], torch.stack([dlosses, dlosses], 1)[:, 0]
        torch.testing.assert_close(
            loss_and_gradient(scores.t().contiguous().t(), *strided), plain, rtol=0, atol=0
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_row(bad: float) -> None:
    scores, words = torch.randn(3, 21), torch.tensor([0, 1, 2])
    scores[1, 20] = bad
    losses = cross_entropy(scores, words)
    torch.testing.assert_close(losses, F.cross_entropy(scores, words, reduction="none"), equal_nan=True)
    assert losses[[0, 2]].isfinite().all()


@pytest.mark.parametrize("word", [-1, 21])
def test_a_word_that_is_none(word: int) -> None:
    with pytest.raises(IndexError, match="words must be from 0 to 20"):
        cross_entropy(torch.zeros(2, 21), torch.tensor([0, word]))


def test_no_rows() -> None:
    assert cross_entropy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_what_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_ENOUGH", 100)
    assert kernel.serves(torch.zeros(10, 10))
    assert not kernel.serves(torch.zeros(9, 10))
    assert not kernel.serves(torch.zeros(10, 10).double())
    assert not kernel.serves(torch.zeros(10, 10, device="meta"))
    with kernel.reference():
        assert not kernel.serves(torch.zeros(10, 10))


def test_in_the_reference_gradients_of_gradients_are_torchs() -> None:
    scores, words = torch.randn(2, 7, dtype=torch.float64, requires_grad=True), torch.tensor([1, 3])
    assert torch.autograd.gradgradcheck(lambda x: cross_entropy(x, words), (scores,))


def test_the_scores_stay_and_a_graph_can_be_used_twice() -> None:
    scores, words = torch.randn(4, 33, requires_grad=True), torch.tensor([0, 1, 2, 32])
    before = scores.detach().clone()
    losses = cross_entropy(scores, words)
    first, second = (torch.autograd.grad(losses.sum(), scores, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(scores.detach(), before, rtol=0, atol=0)


def test_no_product_is_counted() -> None:
    with FlopCounterMode(display=False) as counted:
        cross_entropy(torch.randn(4, 33, requires_grad=True), torch.tensor([0, 1, 2, 3])).sum().backward()
    assert counted.get_total_flops() == 0


def test_compiled_without_breaks() -> None:
    scores, words = torch.randn(4, 33, requires_grad=True), torch.tensor([0, 1, 2, 3])
    compiled = torch.compile(cross_entropy, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(scores, words), cross_entropy(scores, words))
