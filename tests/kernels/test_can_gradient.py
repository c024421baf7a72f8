"""The gradients of the layers of a CAN in C against torch's in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from compressnet.kernels import can_gradient as kernel
from compressnet.kernels import can_layer

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel is not built")

LEVELS = sorted({can_layer.level(limit) for limit in (1, 3, 4)}) if kernel.available() else []
MOST = 2e-6  # of the norm
SLOPE = 0.2


@pytest.fixture(autouse=True)
def _as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def _numbers(batch: int, channels: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """`normalised`, `affine`."""
    normalised = torch.randn(batch, 4, channels, generator=random) * 0.5
    affine = torch.randn(batch, 4, channels, generator=random) * 0.5
    affine[:, 0] += 2
    affine[:, 3] = 1e-6
    return normalised, affine


def _before(affine: Tensor, height: int, width: int, random: torch.Generator) -> Tensor:
    """Raw outputs whose z is not so near to zero that rounding decides about its sign."""
    batch, _, channels = affine.shape
    z = torch.randn(batch, height, width, channels, generator=random)
    z = z + torch.where(z < 0, -0.01, 0.01)  # randn gives exact zeros
    return (z - affine[:, None, None, 1]) / affine[:, None, None, 0]


def _z(before: Tensor, affine: Tensor) -> Tensor:
    wide = affine.double()[:, None, None]
    return before.double() * wide[..., 0, :] + wide[..., 1, :]


def _sums(g: Tensor, before: Tensor, affine: Tensor) -> Tensor:
    off = before.double() - affine.double()[:, None, None, 2]
    return torch.stack([g.sum((1, 2)), (g * off).sum((1, 2))], 1)


def _planes(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


def _through_norm(g: Tensor, raw: Tensor, normalised: Tensor) -> Tensor:
    wide = normalised.double()[:, None, None]
    return wide[..., 0, :] * g.double() + wide[..., 1, :] * (raw.double() - wide[..., 3, :]) + wide[..., 2, :]


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(can_layer.CHANNELS),
    st.sampled_from(kernel.TILES),
    st.integers(1, 3),
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from([1, 2, 3, 4, 8, 16, 64, 256]),
    st.sampled_from([1, 2]),
)
def test_middle_equals_the_plain_form(
    level: int, channels: int, tiles: int, batch: int, height: int, width: int, dilation: int, threads: int
) -> None:
    torch.set_num_threads(threads)
    random = torch.Generator().manual_seed(height * 61 + width)
    shape = (batch, height, width, channels)
    g, raw = (torch.randn(shape, generator=random) for _ in range(2))
    normalised, affine = _numbers(batch, channels, random)
    before = _before(affine, height, width, random)
    weight = torch.randn(channels, channels, 3, 3, generator=random) / (9 * channels) ** 0.5
    d, z = _through_norm(g, raw, normalised), _z(before, affine)
    how = {"padding": dilation, "dilation": dilation}
    active = _planes(F.leaky_relu(z, SLOPE))
    of_weight = conv2d_weight(active, weight.shape, _planes(d), **how)
    of_input = conv2d_input(active.shape, weight.double(), _planes(d), **how).permute(0, 2, 3, 1)
    expected = torch.where(z > 0, of_input, SLOPE * of_input)
    turned = can_layer.transformed(kernel.turned(weight), tiles)
    points, sums = kernel.middle(g, raw, before, normalised, affine, SLOPE, turned, tiles, dilation, level)
    assert _apart(g, expected) <= MOST
    assert _apart(kernel.of_weights(points, tiles), of_weight) <= MOST
    largest = expected.abs().sum((1, 2)).max().clamp_min(1e-30) * before.abs().max()
    assert (sums - _sums(expected, before, affine)).abs().max() <= MOST * largest


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("planes", [1, 3, 4, 16])
@pytest.mark.parametrize("channels", can_layer.CHANNELS)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (2, 5, 90), (3, 53, 14)])
def test_ends_equal_the_plain_form(
    level: int, planes: int, channels: int, batch: int, height: int, width: int
) -> None:
    random = torch.Generator().manual_seed(1)
    normalised, affine = _numbers(batch, channels, random)
    before = _before(affine, height, width, random)
    gradient = torch.randn(batch, width, height, planes, generator=random).permute(0, 3, 2, 1)
    matrix = torch.randn(planes, channels, generator=random)
    image = torch.empty(batch, height, width, channels)
    found = kernel.last(gradient, before, image, affine, SLOPE, matrix, level)
    z = _z(before, affine)
    g = torch.einsum("bohw,oc->bhwc", gradient.double(), matrix.double())
    expected = torch.where(z > 0, g, SLOPE * g)
    of_matrix = torch.einsum("bohw,bhwc->oc", gradient.double(), F.leaky_relu(z, SLOPE))
    assert _apart(image, expected) <= MOST
    assert _apart(found.weights, of_matrix) <= MOST
    largest = expected.abs().sum((1, 2)).max() * before.abs().max()
    assert (found.sums - _sums(expected, before, affine)).abs().max() <= MOST * largest

    pixels = torch.randn(batch, height, width, planes, generator=random).permute(0, 3, 1, 2)
    of_first = kernel.first(image, before, pixels, normalised, level)
    d = _through_norm(image, before, normalised)
    expected = conv2d_weight(pixels.double(), (channels, planes, 3, 3), _planes(d), padding=1)
    assert _apart(of_first, expected) <= MOST


def test_what_is_nearly_zero_counts_as_negative() -> None:
    """Exact zeros, whose slope is that of negative values, come out of Winograd's filtering as +-1e-8."""
    channels, least = 24, 1e-6
    affine = torch.zeros(1, 4, channels)
    affine[:, 0], affine[:, 3] = 1, least
    before = torch.tensor([-1.0, -1e-8, 0.0, 1e-8, 0.99e-6, 1.01e-6, 1.0])[:, None].expand(-1, channels)
    before = before.reshape(1, 1, 7, channels).contiguous()
    image = torch.empty_like(before)
    kernel.last(torch.ones(1, 1, 1, 7), before, image, affine, SLOPE, torch.ones(1, channels), LEVELS[-1])
    expected = torch.tensor([SLOPE] * 5 + [1.0] * 2)
    assert torch.equal(image, expected[:, None].expand(-1, channels).reshape(image.shape))


def _all(channels: int, tiles: int, dilation: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    batch, height, width = 2, 130, 37
    normalised, affine = _numbers(batch, channels, random)
    before = _before(affine, height, width, random)
    raw = torch.randn(before.shape, generator=random)
    g = torch.empty_like(raw)
    weight = torch.randn(channels, channels, 3, 3, generator=random)
    planes = torch.randn(batch, 3, height, width, generator=random)
    matrix = torch.randn(3, channels, generator=random)
    found = kernel.last(planes, raw, g, affine, SLOPE, matrix, LEVELS[-1])
    turned = can_layer.transformed(kernel.turned(weight), tiles)
    more = kernel.middle(g, raw, before, normalised, affine, SLOPE, turned, tiles, dilation, LEVELS[-1])
    return [*found, *more, g, kernel.first(g, before, planes, normalised, LEVELS[-1])]


@pytest.mark.parametrize("tiles", kernel.TILES)
@pytest.mark.parametrize("dilation", [1, 2, 16])
def test_threads_change_no_bit(tiles: int, dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_PIXELS", 500)  # many parts of a small picture
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(_all(24, tiles, dilation))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_parts_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tasks of one phase meet, each reads rows that the other overwrites."""
    whole = _all(32, 4, 2)
    monkeypatch.setattr(kernel, "_PIXELS", 300)
    for one, other in zip(whole, _all(32, 4, 2), strict=True):
        assert _apart(other, one.double()) <= MOST


def test_what_does_not_fit_is_refused() -> None:
    random = torch.Generator().manual_seed(0)
    normalised, affine = _numbers(2, 24, random)
    image = torch.randn(2, 9, 8, 24)
    turned = can_layer.transformed(torch.randn(24, 24, 3, 3), 4)
    good: list[Any] = [image, image, image, normalised, affine, SLOPE, turned, 4, 1, LEVELS[-1]]
    kernel.middle(*good)
    for place, bad in (
        (0, image.double()),
        (0, image.transpose(1, 2)),
        (1, image[:, :8]),
        (2, image[:1]),
        (3, normalised[:1]),
        (4, affine[..., :23]),
        (6, turned[:-1]),
        (7, 6),
        (8, 0),
    ):
        other: list[Any] = [bad if at == place else value for at, value in enumerate(good)]
        with pytest.raises(ValueError, match="can_"):
            kernel.middle(*other)
    planes = torch.rand(2, 3, 9, 8)
    for bad_planes in (torch.rand(2, 17, 9, 8), torch.rand(2, 3, 8, 9), planes.double(), planes[:1]):
        with pytest.raises(ValueError, match="can_"):
            kernel.first(image, image, bad_planes, normalised, LEVELS[-1])
        with pytest.raises(ValueError, match="can_"):
            kernel.last(bad_planes, image, image, affine, SLOPE, torch.rand(3, 24), LEVELS[-1])
    with pytest.raises(ValueError, match="can_"):
        kernel.last(planes, image, image, affine, SLOPE, torch.rand(4, 24), LEVELS[-1])
    norm = kernel.Norm(torch.tensor(1.0), torch.tensor(0.5), None, torch.zeros(24), 1e-3)
    moments = torch.rand(2, 49, dtype=torch.float64)
    kernel.affine(moments, norm)
    for bad_norm in (norm._replace(beta=torch.zeros(23)), norm._replace(w0=torch.zeros(2))):
        with pytest.raises(ValueError, match="can_"):
            kernel.affine(moments, bad_norm)
    with pytest.raises(ValueError, match="can_"):
        kernel.affine(moments.float(), norm)
    with pytest.raises(ValueError, match="can_"):
        kernel.through_norm(moments, torch.zeros(2, 2, 23, dtype=torch.float64), norm)
