"""Training a CAN on a CPU in C: the whole network as one operation with gradients.

    forward     planes -> raw outputs R (H, W, C) of each layer and moments, which are kept -> planes
    backward    gradient of planes -> g (H, W, C), which each layer makes that of the one before, in place

A layer's normalisation and leaky ReLU are computed where the next layer reads: so a layer hands raw outputs
and their moments on, and is no operation of its own. With g the gradient of what a leaky ReLU is given,
r = 1 / sqrt(variance + eps), scale = w0 + w1 r, and sums and means over an image:

    gradient of R       scale g - w1 (r^3 mean(g (R - mean)) (R - mean) + r mean(g))
    of w0, w1, beta     sum(g R), sum(g (R - mean)) r + sum(g) beta, w1 sum(g)
    of the bias         w0 sum(g); variant "paper" has it in the convolution

Weights are transformed in float64. What is exactly zero in the plain form is so to 1e-8 here: up to 2e-6 of a
channel's root mean square counts as negative, as zero does.

Kernels: `kernels/can_layer.c`, `kernels/can_gradient.c`. Where they do not serve, the network itself runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from compressnet.kernels import can_gradient, can_layer
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.models import can_tiles
from compressnet.models.can import CAN, NEGATIVE_SLOPE
from compressnet.models.can_strips import is_hooked

_X86_64_V3 = 3  # older processors are faster with torch
# Microseconds of a tile (direct: of a pixel), forward and backward, on one thread of an AMD EPYC (Zen 4). Not
# measured anew as `can_tiles` does: with other tiles a run that is resumed would not be bit-equal.
_COSTS: dict[int, dict[int, tuple[float, float]]] = {
    24: {0: (0.108, 0.22), 2: (0.27, 0.51), 4: (0.74, 1.42), 6: (1.55, 0)},
    32: {0: (0.18, 0.365), 2: (0.42, 0.86), 4: (1.12, 2.18), 6: (2.3, 0)},
}


def serves(model: nn.Module) -> bool:
    """Whether the kernels can train a model, a float32 CAN of 24 or 32 channels, and are fast here."""
    if not isinstance(model, CAN) or not can_gradient.available() or can_layer.level() < _X86_64_V3:
        return False
    if is_hooked(model):
        return False
    blocks: Any = model.blocks
    layers = [(block.conv, 3) for block in blocks] + [(model.last, 1)]
    if not all(_is_plain(layer, kernel) for layer, kernel in layers) or blocks[0].conv.dilation != (1, 1):
        return False
    sizes = [blocks[0].conv.in_channels, *(layer.out_channels for layer, _ in layers)]
    return (
        [layer.in_channels for layer, _ in layers] == sizes[:-1]
        and max(sizes[0], sizes[-1]) <= can_gradient.MOST_PLANES
        and len(set(sizes[1:-1])) == 1
        and sizes[1] in can_layer.CHANNELS
        and all(isinstance(block.norm, AdaptiveNorm) and block.norm.stats == "image" for block in blocks)
        and all(block.norm.channels == sizes[1] for block in blocks)
        and all(p.is_cpu and p.dtype == torch.float32 for p in model.parameters())
    )


def _is_plain(layer: nn.Module, kernel: int) -> bool:
    """A convolution of stride 1 that keeps the size, with zeros around the image."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (kernel, kernel)
        and layer.stride == (1, 1)
        and layer.dilation[0] == layer.dilation[1]
        and layer.padding == tuple(d * (kernel // 2) for d in layer.dilation)
        and layer.padding_mode == "zeros"
        and layer.groups == 1
    )


def backend(model: nn.Module) -> TrainedInC | None:
    """The back end `winograd_training`; None of what the kernels do not serve."""
    return TrainedInC(model) if serves(model) else None  # type: ignore[arg-type]


class TrainedInC(nn.Module):
    """A network that trains in the kernels; it shares its parameters. Without gradients it is the network.

    Args:
        net: one that the kernels serve.
    """

    def __init__(self, net: CAN) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Images (B, in_channels, H, W) to (B, out_channels, H, W).

        Args:
            condition: as the network takes it.
        """
        planes = self.net.with_planes(x, condition)
        if not self.is_for(planes):
            plain: Tensor = self.net(x, condition)
            return plain
        blocks: Any = self.net.blocks
        described = [
            Described(conv.dilation[0], norm.eps, conv.bias is not None, norm.beta is not None)
            for conv, norm in ((block.conv, block.norm) for block in blocks)
        ]
        parameters = [
            parameter
            for block in blocks
            for parameter in (
                block.conv.weight,
                block.conv.bias,
                block.norm.w0,
                block.norm.w1,
                block.norm.beta,
            )
        ]
        parameters += [self.net.last.weight, self.net.last.bias]
        given = [parameter for parameter in parameters if parameter is not None]
        films = self.net.films(condition, len(x))
        stacked = None if films is None else torch.stack([torch.stack(film, dim=1) for film in films], dim=1)
        found: Tensor = _Network.apply(planes, described, stacked, *given)
        return found

    def is_for(self, x: Tensor) -> bool:
        """Whether the kernels compute this call: one for gradients of parameters, in float32."""
        blocks: Any = self.net.blocks
        return (
            torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
            and x.is_cpu
            and x.dtype == torch.float32
            and not x.requires_grad
            and x.ndim == 4
            and x.shape[1] == blocks[0].conv.in_channels
            and x.numel() > 0
            and serves(self.net)
        )


class Described(NamedTuple):
    """A 3x3 layer beside its weights.

    Attributes:
        biased: the convolution has a bias.
        with_beta: the normalisation has one.
    """

    dilation: int
    eps: float
    biased: bool
    with_beta: bool


def choose(channels: int, height: int, width: int, dilation: int, backward: bool) -> int:
    """The size of tiles with which a layer takes the least time."""
    costs = _COSTS[channels]
    sizes = can_gradient.TILES if backward else can_layer.TILES

    def cost(size: int) -> float:
        if size:
            return costs[size][backward] * can_tiles.count(size, height, width, dilation)
        meeting = [
            length + 2 * max(0, length - dilation) for length in (height, width)
        ]  # of three taps a pixel
        return costs[0][backward] * meeting[0] * meeting[1] / 9

    return min(sizes, key=cost)


class _Layer(NamedTuple):
    """A 3x3 layer with its parameters."""

    weight: Tensor
    norm: can_gradient.Norm
    dilation: int


def _layers(
    described: Sequence[Described], parameters: Sequence[Tensor]
) -> tuple[list[_Layer], list[Tensor]]:
    """From the parameters in the order of the network; those of the last layer are what is left."""
    rest = [parameter.detach() for parameter in parameters]
    found = []
    for layer in described:
        weight = rest.pop(0)
        bias = rest.pop(0).contiguous() if layer.biased else None
        w0, w1 = rest.pop(0), rest.pop(0)
        beta = rest.pop(0).contiguous() if layer.with_beta else None
        found.append(_Layer(weight, can_gradient.Norm(w0, w1, bias, beta, layer.eps), layer.dilation))
    return found, rest


def _each_size(
    weights: Sequence[Tensor], sizes: Sequence[int], do: Callable[[Tensor, int], Tensor]
) -> list[Tensor]:
    """`do` of all weights, those with tiles of one size in one go: many small products take longer."""
    found: dict[int, Tensor] = {}
    for size in sorted(set(sizes)):
        places = [place for place, other in enumerate(sizes) if other == size]
        of_size = do(torch.stack([weights[place] for place in places]), size)
        found |= dict(zip(places, of_size, strict=True))
    return [found[place] for place in range(len(sizes))]


class _Kept(NamedTuple):
    """What the backward pass needs of the forward pass.

    Attributes:
        raws: raw outputs (B, H, W, C) of all 3x3 layers but the first, whose are soon made again.
        moments: of the raw outputs of every layer, see `can_layer.first_of_batch`.
        affines: see `can_gradient.affine`.
        films: scale and shift (B, 2, C) behind each normalisation; of a network without a condition none.
        plains: `affines` without these.
    """

    raws: list[Tensor]
    moments: list[Tensor]
    affines: list[Tensor]
    films: Sequence[Tensor]
    plains: list[Tensor]

    def add_affine(self, norm: can_gradient.Norm) -> None:
        """Of the layer whose moments came last."""
        moments, number = self.moments[-1], len(self.affines)
        affine = can_gradient.affine(moments, norm)
        if self.films:
            self.plains.append(affine)
            affine = can_gradient.modulated(affine, moments, self.films[number])
        self.affines.append(affine)


def _forward(x: Tensor, layers: Sequence[_Layer], films: Tensor | None) -> _Kept:
    """The 3x3 layers.

    Args:
        films: (B, layers, 2, C), of a condition.
    """
    batch, _, height, width = x.shape
    channels, version = len(layers[0].weight), can_layer.level()
    sizes = [choose(channels, height, width, layer.dilation, False) for layer in layers[1:]]
    weights = _each_size([layer.weight for layer in layers[1:]], sizes, can_layer.transformed)
    raw = x.new_empty(batch, height, width, channels)  # one by one: the heap gets no large holes
    moments = [can_layer.first_of_batch(x, layers[0].weight, raw, version)]
    kept = _Kept([], moments, [], () if films is None else films.detach().unbind(1), [])
    kept.add_affine(layers[0].norm)
    for layer, size, weight in zip(layers[1:], sizes, weights, strict=True):
        before, raw = raw, torch.empty_like(raw)
        scale, shift = kept.affines[-1][:, 0], kept.affines[-1][:, 1]
        how = (NEGATIVE_SLOPE, weight, size, layer.dilation, version)
        kept.raws.append(raw)
        kept.moments.append(can_layer.middle_of_batch(before, scale, shift, *how, raw))
        kept.add_affine(layer.norm)
    return kept


class _Backward:
    """The backward pass of the layers.

    Attributes:
        of_films: the gradients of what a condition does, (B, 2, C) of each layer, the last layer first.

    Args:
        rows: the weight of the last layer, (O, C).
        height, width: of the images.
    """

    def __init__(self, layers: Sequence[_Layer], rows: Tensor, height: int, width: int) -> None:
        self.layers, self.rows = layers, rows
        dilations = [layer.dilation for layer in layers[1:]]
        self.sizes = [choose(rows.shape[1], height, width, dilation, True) for dilation in dilations]
        self.of_films: list[Tensor] = []

    def __call__(self, x: Tensor, gradient: Tensor, kept: _Kept) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Gradients of the last layer's weight, of the others' and of the normalisations' parameters.

        Args:
            gradient: of the outputs, (B, O, H, W).
            kept: raw outputs are taken away from it, so that memory becomes free.
        """
        layers, raws, version = self.layers, kept.raws, can_layer.level()
        g = torch.empty_like(raws[-1])
        ahead = (raws[-1], g, kept.affines[-1], NEGATIVE_SLOPE)
        of_last, sums = can_gradient.last(gradient, *ahead, self.rows, version)
        of_points: list[Tensor] = []
        of_norms: list[Tensor] = []
        for index in range(len(layers) - 1, 0, -1):
            layer, raw = layers[index], raws.pop()
            normalised, of_norm = self._through_norm(index, sums, kept)
            before = raws[-1] if raws else self._first_raw(x, raw)
            size = self.sizes[index - 1]  # one by one: here memory is at its peak
            how = (NEGATIVE_SLOPE, can_layer.transformed(can_gradient.turned(layer.weight), size), size)
            points, sums = can_gradient.middle(
                g, raw, before, normalised, kept.affines[index - 1], *how, layer.dilation, version
            )
            of_points.insert(0, points)
            of_norms.insert(0, of_norm)
        normalised, of_norm = self._through_norm(0, sums, kept)
        of_first = can_gradient.first(g, before, x, normalised, version)
        others = _each_size(of_points, self.sizes, can_gradient.of_weights)
        return of_last, [of_first, *others], [of_norm, *of_norms]

    def _through_norm(self, index: int, sums: Tensor, kept: _Kept) -> tuple[Tensor, Tensor]:
        """See `can_gradient.through_norm`; what a condition does comes behind it."""
        moments, norm = kept.moments[index], self.layers[index].norm
        if not kept.films:
            return can_gradient.through_norm(moments, sums, norm)
        self.of_films.append(can_gradient.of_film(kept.plains[index], sums))
        more = 1 + kept.films[index][:, 0]
        normalised, of_norm = can_gradient.through_norm(moments, sums * more[:, None], norm)
        normalised[:, 0] *= more
        return normalised, of_norm

    def _first_raw(self, x: Tensor, like: Tensor) -> Tensor:
        """Made again: it takes less than a layer's share of the time, and the memory of one less."""
        raw = torch.empty_like(like)
        can_layer.first_of_batch(x, self.layers[0].weight, raw, can_layer.level())
        return raw


class _Network(torch.autograd.Function):
    """The operation; its inputs are the images, what a condition does (B, layers, 2, C) or None, and the
    parameters in the order of the network."""

    @staticmethod
    def forward(ctx, x, described, films, *parameters):  # type: ignore[no-untyped-def]
        layers, (matrix, *bias) = _layers(described, parameters)
        kept = _forward(x, layers, films)
        batch, _, height, width = x.shape
        out = x.new_empty(batch, len(matrix), height, width)
        scale, shift, rows = kept.affines[-1][:, 0], kept.affines[-1][:, 1], matrix.flatten(1).contiguous()
        constant = bias[0].contiguous() if bias else x.new_zeros(len(matrix))
        version = can_layer.level()
        can_layer.last_of_batch(kept.raws[-1], scale, shift, NEGATIVE_SLOPE, rows, constant, out, version)
        ctx.save_for_backward(x, films, *parameters)
        ctx.described, ctx.kept = described, kept
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, films, *parameters = ctx.saved_tensors
        layers, (matrix, *bias) = _layers(ctx.described, parameters)
        # Raw outputs are let go on the way: for a graph that is walked once more they are made again.
        kept, ctx.kept = ctx.kept or _forward(x, layers, films), None
        backward = _Backward(layers, matrix.flatten(1).contiguous(), *x.shape[2:])
        of_last, of_weights, of_norms = backward(x, gradient, kept)
        with can_layer.one_thread():
            ends = [of_last.float().view_as(matrix), *(gradient.sum((0, 2, 3)) for _ in bias)]
        of_films = None if films is None else torch.stack(backward.of_films[::-1], dim=1).to(films)
        return None, None, of_films, *_gradients(layers, of_weights, of_norms, x.shape[2:]), *ends


def _gradients(
    layers: Sequence[_Layer], of_weights: Sequence[Tensor], of_norms: Sequence[Tensor], size: tuple[int, int]
) -> Iterator[Tensor]:
    """Those of the 3x3 layers' parameters, in the order of the network."""
    for layer, of_weight, of_norm in zip(layers, of_weights, of_norms, strict=True):
        weight = of_weight.to(layer.weight.dtype, memory_format=torch.contiguous_format)
        # Taps that never meet the image: what rounding leaves of them would be whole steps of Adam.
        if layer.dilation >= size[0]:
            weight[:, :, ::2] = 0
        if layer.dilation >= size[1]:
            weight[..., ::2] = 0
        w0, w1, bias, beta = of_norm.float().split([1, 1, *[weight.shape[0]] * 2])
        yield weight
        yield from [bias] if layer.norm.bias is not None else []
        yield from (w0.view(()), w1.view(()))
        yield from [beta] if layer.norm.beta is not None else []
