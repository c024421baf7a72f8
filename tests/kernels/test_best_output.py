"""The kernel `best_output` against torch's own enlarging and argmax."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.kernels import best_output as kernel
from compressnet.kernels.best_output import best_output

needs_kernel = pytest.mark.skipif(not kernel.available(), reason="the kernel is not built")
sides = st.integers(1, 40)


def _scores(shape: tuple[int, ...], seed: int, channels_last: bool) -> torch.Tensor:
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return scores.to(memory_format=torch.channels_last) if channels_last else scores


def _agree(scores: torch.Tensor, size: tuple[int, int], found: torch.Tensor) -> None:
    """The output found is the best one, but for roundings, of scores that torch enlarges."""
    large = torch.nn.functional.interpolate(scores, size, mode="bilinear", align_corners=False)
    large = large[:, :, : found.shape[1], : found.shape[2]]
    off = large.amax(1) - large.gather(1, found[:, None].long())[:, 0]
    assert off.max() <= 1e-5


@needs_kernel
@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 11, 20, 256]),
    sides,
    sides,
    sides,
    sides,
    st.booleans(),
    st.data(),
)
def test_equals_torch(
    batch: int, outputs: int, h: int, w: int, height: int, width: int, last: bool, data: st.DataObject
) -> None:
    scores = _scores((batch, outputs, h, w), h * 41 + w, last)
    kept = data.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    found = best_output(scores, (height, width), kept)
    assert found.shape == (batch, *kept)
    assert found.dtype == torch.uint8
    _agree(scores, (height, width), found)


@needs_kernel
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("scores", "size"), [((45, 80), (360, 640)), ((70, 300), (70, 300)), ((130, 1), (2, 700))]
)
def test_equals_torch_across_tasks(scores: tuple[int, int], size: tuple[int, int], last: bool) -> None:
    """More rows and columns than a task has, and more threads than one."""
    given = _scores((2, 5, *scores), 0, last)
    _agree(given, size, best_output(given, size))
    view = given[:, 1:4, 1:]
    _agree(view, size, best_output(view, size))


@pytest.mark.parametrize("torchs", [False, True])
def test_the_first_among_equals(torchs: bool) -> None:
    scores = torch.zeros(1, 4, 3, 11)
    scores[:, 2:] = 1.0
    assert _run(torchs, scores, (9, 30)).unique().tolist() == [2]
    half = scores.bfloat16()
    assert _run(torchs, half, None).unique().tolist() == [2]


def _run(torchs: bool, scores: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    if not torchs:
        return best_output(scores, size)
    with kernel.reference():
        return best_output(scores, size)


@pytest.mark.parametrize(
    ("shape", "size", "kept"),
    [((1, 257, 2, 2), None, None), ((1, 0, 2, 2), None, None), ((1, 3, 2, 2), (4, 4), (5, 4))],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], size: tuple[int, int] | None, kept: tuple[int, int] | None
) -> None:
    with pytest.raises(ValueError, match="best_output"):
        best_output(torch.zeros(shape), size, kept)


@needs_kernel
def test_views_and_long_sides() -> None:
    scores = torch.randn(1, 3, 5, 7, dtype=torch.complex64).conj().imag
    assert scores.is_neg()
    assert torch.equal(best_output(scores), scores.argmax(1).to(torch.uint8))
    high = torch.zeros(1, 2, 2**24 + 9, 1)
    high[0, 1, 1::2] = 1
    assert torch.equal(best_output(high)[0, :, 0], high[0, 1, :, 0].to(torch.uint8))


def test_no_pictures() -> None:
    assert best_output(torch.zeros(0, 3, 2, 2), (4, 4)).shape == (0, 4, 4)
