from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.analysis.count import count
from compressnet.cost import total
from compressnet.layers.adaptive_norm import AdaptiveNorm, Stats


def _trained(layer: AdaptiveNorm) -> AdaptiveNorm:
    """Every parameter and buffer away from its neutral start; mu negative, as in the released weights."""
    torch.manual_seed(3)
    with torch.no_grad():
        layer.w0.fill_(0.85)
        layer.w1.fill_(-0.16)
        if layer.beta is not None:
            layer.beta.normal_()
        for buffer in layer.buffers():
            buffer.uniform_(0.2, 2.0)
    return layer


def _literal(layer: AdaptiveNorm, x: Tensor) -> Tensor:
    """The paper's formula, image by image, in float64."""
    x = x.double()
    images = []
    for image in x:
        mean = image.mean(dim=(1, 2), keepdim=True)
        variance = ((image - mean) ** 2).mean(dim=(1, 2), keepdim=True)
        normalised = (image - mean) / (variance + layer.eps).sqrt()
        if layer.beta is not None:
            normalised = normalised + layer.beta.double().view(-1, 1, 1)
        images.append(layer.w0.double() * image + layer.w1.double() * normalised)
    return torch.stack(images)


@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 17, 12), (1, 5, 1, 1), (2, 5, 1, 7)])
def test_equals_the_papers_form(beta: bool, shape: tuple[int, ...]) -> None:
    layer = _trained(AdaptiveNorm(5, beta=beta))
    x = torch.randn(shape) * 4 + 7
    torch.testing.assert_close(layer(x), _literal(layer, x).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("slope", [1.0, 0.2])
@pytest.mark.parametrize("beta", [True, False])
def test_gradients_equal_those_of_the_papers_form(beta: bool, slope: float) -> None:
    layer = _trained(AdaptiveNorm(4, beta=beta)).double()
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last if beta else torch.contiguous_format).requires_grad_()
    weight = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    inputs = [x, *layer.parameters()]
    ours = torch.autograd.grad((layer(x, negative_slope=slope) * weight).sum(), inputs)
    literal = F.leaky_relu(_literal(layer, x), slope)
    papers = torch.autograd.grad((literal * weight).sum(), inputs)
    for a, b in zip(ours, papers, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stats", ["image", "frozen"])
def test_leaky_relu_in_one_call(stats: Stats) -> None:
    layer = _trained(AdaptiveNorm(3, stats=stats))
    x = torch.randn(2, 3, 7, 8)
    before = x.clone()
    expected = F.leaky_relu(layer(x), 0.2)
    assert (expected < 0).any()
    torch.testing.assert_close(layer(x, negative_slope=0.2), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, negative_slope=0.2), expected)
    assert torch.equal(x, before)


def test_only_what_needs_a_gradient_gets_one() -> None:
    layer = _trained(AdaptiveNorm(3))
    x = torch.randn(1, 3, 5, 5)
    layer(x, negative_slope=0.2).sum().backward()
    assert layer.w0.grad is not None
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x, negative_slope=0.2).sum().backward()
    assert x.grad is not None
    assert not layer(x.detach()).requires_grad


def test_starts_as_the_identity() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(AdaptiveNorm(3)(x), x, rtol=0, atol=1e-6)


def test_statistics_are_of_each_image_in_training_and_evaluation() -> None:
    layer = _trained(AdaptiveNorm(3))
    x = torch.randn(4, 3, 9, 9) * torch.tensor([1.0, 5.0, 0.1, 30.0]).view(4, 1, 1, 1)
    together = layer.train()(x)
    alone = torch.cat([layer.eval()(image[None]) for image in x])
    torch.testing.assert_close(together, alone)


def test_statistics_in_float32_for_bfloat16_features() -> None:
    layer = _trained(AdaptiveNorm(2))
    x = (torch.randn(1, 2, 64, 64) + 40).bfloat16()  # a mean that eats all 8 bits of a bfloat16 variance
    expected = _literal(layer, x)
    for got in (layer(x), layer.bfloat16()(x)):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), expected, rtol=8e-3, atol=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_large_means_do_not_cancel() -> None:
    layer = _trained(AdaptiveNorm(1))
    with torch.no_grad():
        layer.w0.zero_()
        layer.w1.fill_(1.0)
    x = torch.randn(1, 1, 100, 100) * 0.5 + 1000
    torch.testing.assert_close(layer(x), _literal(layer, x).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("beta", "count"), [(True, 2 + 24), (False, 2)])
def test_parameters_and_no_buffers(beta: bool, count: int) -> None:
    layer = AdaptiveNorm(24, beta=beta)
    assert sum(p.numel() for p in layer.parameters()) == count
    assert set(layer.state_dict()) == {"w0", "w1"} | ({"beta"} if beta else set())


def test_frozen_uses_its_buffers_and_is_affine() -> None:
    layer = _trained(AdaptiveNorm(3, stats="frozen"))
    assert {"moving_mean", "moving_variance"} <= set(layer.state_dict())
    x = torch.randn(2, 3, 6, 6)
    mean, variance = (layer.get_buffer(n).view(-1, 1, 1) for n in ("moving_mean", "moving_variance"))
    assert layer.beta is not None
    normalised = (x - mean) / (variance + 1e-3).sqrt() + layer.beta.view(-1, 1, 1)
    torch.testing.assert_close(layer(x), layer.w0 * x + layer.w1 * normalised)
    crop = layer(x[..., :3, :3])
    torch.testing.assert_close(crop, layer(x)[..., :3, :3])
    image = _trained(AdaptiveNorm(3))
    assert not torch.allclose(image(x[..., :3, :3]), image(x)[..., :3, :3], atol=1e-3)


@pytest.mark.parametrize(
    "arguments", [{"channels": 0}, {"channels": 3, "eps": 0}, {"channels": 3, "stats": "x"}]
)
def test_refuses(arguments: dict) -> None:
    with pytest.raises(ValueError, match="AdaptiveNorm"):
        AdaptiveNorm(**arguments)


@pytest.mark.parametrize("stats", ["image", "frozen"])
@pytest.mark.parametrize("beta", [True, False])
def test_cost_is_what_torch_does(stats: Stats, beta: bool) -> None:
    layer = AdaptiveNorm(5, beta=beta, stats=stats)
    inputs = layer.example(2, (7, 4))
    assert inputs[0].shape == (2, 5, 7, 4)
    terms = layer.cost((2, 5, 7, 4))
    assert total(terms, "parameters") == 2 + 5 * beta
    assert total(terms, "macs") == 0
    counted = count(layer, inputs)
    assert counted.problems == []
    assert counted.total("elementwise") == total(terms, "elementwise")
