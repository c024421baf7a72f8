"""The layers of a CAN in C against torch's convolution in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from compressnet.kernels import can_layer as kernel

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel is not built")

LEVELS = sorted({kernel.level(limit) for limit in (1, 3, 4)}) if kernel.available() else []
MOST = {0: 2e-6, 2: 1e-6, 4: 1e-5, 6: 1.5e-5}  # of the largest output
SLOPE = 0.2


def _threads(count: int) -> None:
    torch.set_num_threads(count)


@pytest.fixture(autouse=True)
def _as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _plain(image: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, dilation: int) -> Tensor:
    x = F.leaky_relu(image.double() * scale.double() + shift.double(), SLOPE).permute(2, 0, 1)[None]
    return F.conv2d(x, weight.double(), padding=dilation, dilation=dilation)[0].permute(1, 2, 0)


def _case(channels: int, height: int, width: int, seed: int, size: float = 1.0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(height, width, channels, generator=random) * size
    weight = torch.randn(channels, channels, 3, 3, generator=random) / (9 * channels) ** 0.5
    scale = torch.rand(channels, generator=random) + 0.5
    return image, scale, torch.randn(channels, generator=random) * 0.1 * size, weight


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(kernel.CHANNELS),
    st.sampled_from(kernel.TILES),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([1, 2, 3, 4, 8, 16, 64, 256]),
    st.sampled_from([1, 2]),
    st.sampled_from([1.0, 1e4, 1e-4]),
)
def test_equals_the_plain_form(
    level: int, channels: int, tiles: int, height: int, width: int, dilation: int, threads: int, size: float
) -> None:
    _threads(threads)
    image, scale, shift, weight = _case(channels, height, width, height * 61 + width, size)
    expected = _plain(image, scale, shift, weight, dilation)
    weights = kernel.transformed(weight, tiles)
    moments = kernel.middle(image, scale, shift, SLOPE, weights, tiles, dilation, level)
    largest = expected.abs().max()
    assert (image - expected).abs().max() <= MOST[tiles] * largest
    assert (moments.mean - expected.mean((0, 1))).abs().max() <= MOST[tiles] * largest
    variance = expected.var((0, 1), unbiased=False)
    assert (moments.variance - variance).abs().max() <= 4 * MOST[tiles] * largest**2


@pytest.mark.parametrize("tiles", kernel.TILES)
@pytest.mark.parametrize(
    ("height", "width", "dilation"), [(200, 37, 1), (171, 50, 2), (90, 33, 16), (61, 80, 4)]
)
def test_threads_change_no_bit(tiles: int, height: int, width: int, dilation: int) -> None:
    image, scale, shift, weight = _case(24, height, width, 0)
    weights = kernel.transformed(weight, tiles)
    found = []
    for threads in (1, 2, 5):
        _threads(threads)
        own = image.clone()
        moments = kernel.middle(own, scale, shift, SLOPE, weights, tiles, dilation, LEVELS[-1])
        found.append((own, *moments))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("planes", [3, 4, 16])
@pytest.mark.parametrize("channels", kernel.CHANNELS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 90), (83, 14)])
def test_ends(level: int, planes: int, channels: int, height: int, width: int) -> None:
    random = torch.Generator().manual_seed(1)
    pixels = torch.rand(height, width, planes, generator=random).permute(2, 0, 1)
    weight = torch.randn(channels, planes, 3, 3, generator=random)
    image = torch.empty(height, width, channels)
    moments = kernel.first(pixels, weight, image, level)
    expected = F.conv2d(pixels[None].double(), weight.double(), padding=1)[0].permute(1, 2, 0)
    torch.testing.assert_close(image.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moments.mean, expected.mean((0, 1)), rtol=1e-5, atol=1e-5)
    _, scale, shift, _ = _case(channels, 1, 1, 2)
    matrix, bias = torch.randn(planes, channels, generator=random), torch.randn(planes, generator=random)
    out = torch.empty(height, width, planes).permute(2, 0, 1)
    kernel.last(image, scale, shift, SLOPE, matrix, bias, out, level)
    values = F.leaky_relu(image.double() * scale.double() + shift.double(), SLOPE)
    expected = (values @ matrix.double().T + bias.double()).permute(2, 0, 1)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tiles", kernel.TILES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_near(tiles: int, value: float) -> None:
    image, scale, shift, weight = _case(32, 40, 41, 3)
    image[20, 21, 5] = value
    kernel.middle(image, scale, shift, SLOPE, kernel.transformed(weight, tiles), tiles, 1, LEVELS[-1])
    bad = ~torch.isfinite(image).all(2)
    assert bad[19:22, 20:23].all()
    reach = tiles + 1
    bad[20 - reach : 21 + reach, 21 - reach : 22 + reach] = False
    assert not bad.any()


def test_what_does_not_fit_is_refused() -> None:
    image, scale, shift, weight = _case(24, 9, 8, 4)
    weights = kernel.transformed(weight, 4)
    good: list[Any] = [image, scale, shift, SLOPE, weights, 4, 1, LEVELS[-1]]
    kernel.middle(*good)
    for place, other in (
        (0, image.double()),
        (0, image.transpose(0, 1)),
        (1, scale[:23]),
        (2, shift.repeat(2)[::2]),
        (4, weights[:-1]),
        (4, kernel.transformed(weight, 2)),
    ):
        bad: list[Any] = [other if at == place else value for at, value in enumerate(good)]
        with pytest.raises(ValueError, match="can_layer"):
            kernel.middle(*bad)
    with pytest.raises(ValueError, match="can_layer"):
        kernel.first(torch.rand(3, 9, 8), torch.rand(24, 4, 3, 3), image, LEVELS[-1])
    strange = torch.rand(9, 8, 7)  # the kernel would take 32
    with pytest.raises(ValueError, match="can_layer"):
        kernel.first(torch.rand(3, 9, 8), torch.rand(7, 3, 3, 3), strange, LEVELS[-1])
    with pytest.raises(ValueError, match="can_layer"):
        kernel.middle(strange, torch.rand(7), torch.rand(7), SLOPE, torch.rand(9, 7, 7), 0, 1, LEVELS[-1])
    with pytest.raises(ValueError, match="can_layer"):
        kernel.last(
            image, scale, shift, SLOPE, torch.rand(3, 24), torch.rand(3), torch.rand(3, 8, 9), LEVELS[-1]
        )
