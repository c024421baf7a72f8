"""Guided upsampling against the guided filter of the operators, and what it must leave as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.analysis.count import count
from compressnet.layers import guided_upsample
from compressnet.layers.guided_upsample import GuidedUpsample, enlarged, shrunk
from compressnet.operators.guided_filter import guided_filter

SIZES = [(1, 1), (1, 20), (20, 1), (2, 3), (31, 40), (64, 37)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many bands in a small picture."""
    monkeypatch.setattr(guided_upsample, "_LOW_PIXELS", 50)
    monkeypatch.setattr(guided_upsample, "_PIXELS", 100)


def case(factor: int, height: int, width: int, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """A guide, the same small, and a result for it."""
    torch.manual_seed(height)
    guide = torch.rand(2, 3, height, width, **options)
    low_guide = shrunk(guide, factor)
    return guide, low_guide, torch.rand_like(low_guide)


@pytest.mark.usefixtures("narrow_bands")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("radius", "eps"), [(1, 1e-4), (3, 1e-6), (40, 1e-2)])
def test_at_factor_1_it_is_the_guided_filter(size: tuple[int, int], radius: int, eps: float) -> None:
    guide, low_guide, low = case(1, *size)
    layer = GuidedUpsample(1, radius, eps)
    expected = [
        [
            guided_filter(plane.numpy(), target.numpy(), radius, eps)
            for plane, target in zip(*pair, strict=True)
        ]
        for pair in zip(guide, low, strict=True)
    ]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = layer(guide, low_guide, low).numpy()
        np.testing.assert_allclose(found, np.array(expected), atol=1e-6)


def test_variances_do_not_cancel_where_a_picture_is_bright_and_flat() -> None:
    """As mean squares less squared means, in float32, they are off by a quarter here."""
    torch.manual_seed(0)
    guide, low = 0.9 + torch.randint(8, (1, 1, 20, 20)) / 4096, torch.rand(1, 1, 20, 20)
    layer = GuidedUpsample(1, 2, 1e-8)
    exact = layer.coefficients(guide.double(), low.double())[0]
    found = layer.coefficients(guide, low)[0].double()
    assert (found - exact).abs().max() <= 2e-3 * exact.abs().max()


@pytest.mark.usefixtures("narrow_bands")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", SIZES)
def test_bands_change_nothing(layout: torch.memory_format, factor: int, size: tuple[int, int]) -> None:
    guide, low_guide, low = case(factor, *size)
    guide = guide.contiguous(memory_format=layout)
    layer = GuidedUpsample(factor, 2)
    whole = layer(guide, low_guide, low)
    with torch.no_grad():
        in_bands = layer(guide, low_guide, low)
        torch.testing.assert_close(shrunk(guide, factor), low_guide, rtol=0, atol=1e-6)
    torch.testing.assert_close(in_bands, whole, rtol=0, atol=1e-6)
    assert in_bands.shape == guide.shape
    assert in_bands.stride() == guide.stride()


@pytest.mark.parametrize("size", SIZES)
def test_blocks_at_the_edges_are_means_of_what_is_left(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    expected = [
        [x[..., i : i + 3, j : j + 3].mean((2, 3)) for j in range(0, size[1], 3)]
        for i in range(0, size[0], 3)
    ]
    wanted = torch.stack([torch.stack(row, dim=-1) for row in expected], dim=-2)
    torch.testing.assert_close(shrunk(x, 3), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_between_pixels_it_is_bilinear(factor: int) -> None:
    x = torch.rand(2, 3, 9, 14, dtype=torch.float64)
    expected = F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged(x, factor), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_stays(size: tuple[int, int]) -> None:
    guide, low_guide, low = case(3, *size)
    found = GuidedUpsample()(guide, low_guide, torch.full_like(low, 0.7))
    torch.testing.assert_close(found, torch.full_like(guide, 0.7), rtol=0, atol=1e-6)
    flat = torch.full_like(guide, 0.3)
    with torch.no_grad():
        found = GuidedUpsample()(flat, shrunk(flat, 3), torch.full_like(low, 0.7))
    torch.testing.assert_close(found, torch.full_like(guide, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 3])
def test_what_is_affine_in_the_guide_is_exact(factor: int) -> None:
    guide, low_guide, _ = case(factor, 31, 40)
    found = GuidedUpsample(factor, eps=1e-10)(guide, low_guide, 0.2 - 3 * low_guide)
    torch.testing.assert_close(found, 0.2 - 3 * guide, rtol=0, atol=1e-5)


def test_a_ramp_over_a_flat_guide_lies_where_it_should() -> None:
    """Away from the borders, whose windows are not symmetric."""
    ramp = torch.arange(60.0)[:, None] + torch.arange(45.0) / 3
    ramp, guide = ramp.expand(1, 3, -1, -1), torch.ones(1, 3, 60, 45)
    found = GuidedUpsample(3)(guide, shrunk(guide, 3), shrunk(ramp, 3))
    torch.testing.assert_close(found[..., 12:-12, 12:-12], ramp[..., 12:-12, 12:-12], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("factor", "radius", "size"), [(1, 2, (4, 5)), (2, 1, (5, 4)), (3, 1, (7, 5))])
def test_gradients(factor: int, radius: int, size: tuple[int, int]) -> None:
    inputs = [x.requires_grad_() for x in case(factor, *size, dtype=torch.float64)]
    assert torch.autograd.gradcheck(GuidedUpsample(factor, radius, 1e-2), inputs)
    assert torch.autograd.gradcheck(lambda x: shrunk(x, factor), inputs[:1])


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    guide, low_guide, low = case(3, 20, 31)
    both = GuidedUpsample()(guide, low_guide, low)
    alone = GuidedUpsample()(guide[1:], low_guide[1:], low[1:])
    assert torch.equal(both[1:], alone)


def test_types() -> None:
    guide, low_guide, low = case(3, 20, 31)
    exact = GuidedUpsample()(guide, low_guide, low)
    with torch.no_grad():
        near = GuidedUpsample()(guide.bfloat16(), shrunk(guide.bfloat16(), 3), low.bfloat16())
    assert near.dtype == torch.bfloat16
    assert shrunk(guide.bfloat16(), 3).dtype == torch.float32
    assert (near.float() - exact).abs().max() < 0.1
    assert GuidedUpsample()(guide.bfloat16(), low_guide, low).dtype == torch.float32


@pytest.mark.parametrize("factor", [1, 3, 4])
def test_the_formula_counts_what_is_done(factor: int) -> None:
    layer = GuidedUpsample(factor, 2)
    counted = count(layer, layer.example(2, (48, 96)))
    assert (counted.macs, counted.parameters, counted.problems) == (0, 0, [])
    formula = sum(term.value for term in layer.cost((2, 3, 48, 96)))
    assert formula == pytest.approx(counted.total("elementwise"), rel=0.15)


def test_what_it_refuses() -> None:
    guide, low_guide, low = case(3, 20, 31)
    for others in ((low_guide[..., 1:], low), (low_guide, low[:, :2]), (guide, guide)):
        with pytest.raises(ValueError, match=r"small ones are \(2, 3, 7, 11\) at factor 3, not "):
            GuidedUpsample()(guide, *others)
    for arguments, message in (
        ((0,), "factor 0 and"),
        ((3, 0), "radius 0"),
        ((3, 1, 0.0), "eps must be above"),
    ):
        with pytest.raises(ValueError, match=message):
            GuidedUpsample(*arguments)
