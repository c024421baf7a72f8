"""Gradients of the layers of a CAN (`can_layer`), for a batch of images at a time.

With R the raw outputs of a layer, z what its leaky ReLU is given and g the gradient with respect to z:

    last    gradient of planes (B, O, H, W) -> g (B, H, W, C) of the last 3x3, gradient of weights, sums
    middle  g of a layer, in place          -> g of the layer before, gradient of weights, sums
    first   g of the first layer            -> gradient of weights

`sums` (B, 2, C) are those over an image of g and of g * (R - mean): all that the gradients of normalisation
take. `affine` (B, 4, C) is what is asked of the layer before: scale and shift of its normalisation, the mean
of its raw outputs, and up to which z counts as negative. `normalised` (B, 4, C) is what makes the gradient of
R of g, from_output * g + from_mean * (R - mean) + constant: these three, then the mean.

Nothing depends on the number of threads, to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from compressnet.kernels import can_layer, library
from compressnet.kernels.can_layer import check, taps_to_points

_kernel = library.Kernel("can_gradient")

TILES = (0, 2, 4)
MOST_PLANES = 16
_NEGATIVE = 2e-6  # of a channel's root mean square: up to there z counts as negative, as exact zeros do
_ROWS = 12  # of a task at least: a multiple of every size of tiles
_PIXELS, _PARTS = 16384, 16  # of a part at least; parts of a layer at most, each with a sum of its own


class Gradients(NamedTuple):
    """Of a layer: of its weights, float64 in the form that the layer names, and `sums` (B, 2, C), float64."""

    weights: Tensor
    sums: Tensor


def available() -> bool:
    """Whether both halves were built, load here and are not switched off."""
    return _kernel.available() and can_layer.available()


class Norm(NamedTuple):
    """The adaptive normalisation behind a convolution: its parameters, and the bias of the convolution."""

    w0: Tensor
    w1: Tensor
    bias: Tensor | None
    beta: Tensor | None
    eps: float

    def checked(self) -> tuple[Tensor | None, ...]:
        """Its parameters.

        Raises:
            ValueError: they are no float32 of one number, and of contiguous ones.
        """
        for tensor in (self.w0, self.w1):
            check(tensor, ())
        given = [tensor for tensor in (self.bias, self.beta) if tensor is not None]
        for tensor in given:
            check(tensor, tuple(given[0].shape))
        return self[:4]


def affine(moments: Tensor, norm: Norm) -> Tensor:
    """What the next layer reads with: float32 (B, 4, C).

    Args:
        moments: of raw outputs without the bias, from `can_layer.first_of_batch` or `middle_of_batch`.
    """
    batch, channels = _check_moments(moments, norm)
    found = torch.empty(batch, 4, channels)
    tensors = (moments, *norm.checked(), found)
    _kernel.call("can_affine", tensors, (channels, batch, moments.stride(0)), reals=(norm.eps, _NEGATIVE))
    return found


def modulated(plain: Tensor, moments: Tensor, film: Tensor) -> Tensor:
    """`affine` with a condition's scale and shift behind the normalisation, z = (1 + scale) AN(R) + shift.

    Args:
        plain: from `affine`.
        film: of each image, (B, 2, C).
    """
    channels, more = plain.shape[2], 1 + film[:, 0]
    scale, shift, mean, _ = plain.unbind(1)
    scale, shift = scale * more, shift * more + film[:, 1]
    variance = (moments[:, 1 + channels : 1 + 2 * channels] / moments[:, :1]).float()
    square = scale.square() * variance + (scale * mean + shift).square()
    return torch.stack([scale, shift, mean, _NEGATIVE * square.sqrt()], dim=1)


def of_film(plain: Tensor, sums: Tensor) -> Tensor:
    """The gradient of a condition's scale and shift, float64 (B, 2, C), from `affine` and the sums of g."""
    scale, shift, mean, _ = plain.double().unbind(1)
    of_scale = scale * sums[:, 1] + (scale * mean + shift) * sums[:, 0]
    return torch.stack([of_scale, sums[:, 0]], dim=1)


def through_norm(moments: Tensor, sums: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The gradient of the normalisation: `normalised`, float32 (B, 4, C), and float64 (2 + 2 C,).

    These are the gradients of w0, w1, the bias and beta.

    Args:
        sums: of g, (B, 2, C).
    """
    batch, channels = _check_moments(moments, norm)
    if sums.shape != (batch, 2, channels) or sums.dtype != torch.float64 or not sums.is_contiguous():
        raise ValueError(f"can_gradient: sums {tuple(sums.shape)} {sums.dtype}, not {(batch, 2, channels)}")
    normalised, found = torch.empty(batch, 4, channels), _zeros(2 + 2 * channels)
    tensors = (moments, sums, *norm.checked(), normalised, found)
    _kernel.call("can_affine_gradient", tensors, (channels, batch, moments.stride(0)), reals=[norm.eps])
    return normalised, found


def turned(weight: Tensor) -> Tensor:
    """Weights (O, I, 3, 3) as those of the convolution that leads gradients back: (I, O, 3, 3)."""
    return weight.flip(2, 3).transpose(0, 1)


def of_weights(found: Tensor, tiles: int) -> Tensor:
    """Gradients of weights (..., C, C, 3, 3), float64, from `transformed` ones' (..., points, C, C)."""
    with can_layer.one_thread():
        taps = taps_to_points(tiles).T @ found.flatten(-2, -1)
    return (
        taps.unflatten(-1, found.shape[-2:])
        .unflatten(-3, (3, 3))
        .movedim((-4, -3), (-2, -1))
        .transpose(-4, -3)
    )


def last(
    planes: Tensor, before: Tensor, image: Tensor, affine: Tensor, slope: float, weight: Tensor, version: int
) -> Gradients:
    """The 1x1 convolution; weights (O, C).

    Args:
        planes: gradient of the outputs, (B, O, H, W), of any strides.
        before: raw outputs of the layer before, (B, H, W, C).
        image: (B, H, W, C), is written.
        weight: (O, C).
        version: from `can_layer.level`.
    """
    batch, height, width, channels = before.shape
    count = weight.shape[0]
    _check_planes(planes, (batch, count, height, width))
    check(before, (batch, height, width, channels))
    check(image, (batch, height, width, channels))
    check(affine, (batch, 4, channels))
    check(weight, (count, channels))
    rows = _rows(height, width)
    shares = _zeros(batch, -(-height // rows), count + 2, channels)
    total, sums = _zeros(count, channels), _zeros(batch, 2, channels)
    tensors = (planes, before, image, affine, weight, shares, total, sums)
    sizes = (channels, version, batch, height, width, count, *planes.stride(), rows)
    _kernel.call("can_last_gradient", tensors, sizes, [torch.get_num_threads()], [slope])
    return Gradients(total, sums)


def middle(
    gradient: Tensor,
    raw: Tensor,
    before: Tensor,
    normalised: Tensor,
    affine: Tensor,
    slope: float,
    weights: Tensor,
    tiles: int,
    dilation: int,
    version: int,
) -> Gradients:
    """A 3x3 convolution; weights (points, inputs, outputs), see `of_weights`.

    Args:
        gradient: g of this layer, (B, H, W, C); becomes that of the layer before.
        raw, before: raw outputs of this layer and of the one before, (B, H, W, C).
        weights: `turned` and `transformed`, for these `tiles`.
        version: from `can_layer.level`.
    """
    batch, height, width, channels = gradient.shape
    if tiles not in TILES or dilation < 1:
        raise ValueError(f"can_gradient: tiles {tiles}, dilation {dilation}")
    for image in (gradient, raw, before):
        check(image, (batch, height, width, channels))
    for numbers in (normalised, affine):
        check(numbers, (batch, 4, channels))
    points = (tiles + 2) ** 2 if tiles else 9
    check(weights, (points, channels, channels))
    phases, longest = min(dilation, height), -(-height // dilation)  # rows of a phase
    parts = max(1, min(_PARTS, batch * height * width // _PIXELS))
    tasks_wanted = -(-parts // (batch * phases))
    span = max(1, -(-longest // (tasks_wanted * _ROWS))) * _ROWS
    tasks = -(-longest // span)
    parts = min(parts, batch * phases * tasks)
    threads = torch.get_num_threads()
    room = torch.zeros(threads, _kernel.size("can_gradient_room", channels, version, tiles, width, dilation))
    saved = torch.empty(batch, phases * (tasks - 1) * 2, width, channels)
    shares = torch.zeros(parts, points, channels, channels)
    own, sums = _zeros(batch * phases * tasks, 2, channels), _zeros(batch, 2, channels)
    total = _zeros(points, channels, channels)
    tensors = (gradient, raw, before, normalised, affine, weights, saved, shares, total, own, sums, room)
    sizes = (channels, version, tiles, batch, height, width, dilation, span, parts)
    _kernel.call("can_gradient", tensors, sizes, [threads], [slope])
    return Gradients(total, sums)


def first(gradient: Tensor, raw: Tensor, pixels: Tensor, normalised: Tensor, version: int) -> Tensor:
    """The first convolution: the gradient of its weights, float64 (C, P, 3, 3).

    Args:
        gradient, raw: g and raw outputs of this layer, (B, H, W, C).
        pixels: (B, P, H, W), of any strides.
        version: from `can_layer.level`.
    """
    batch, height, width, channels = gradient.shape
    planes = pixels.shape[1]
    _check_planes(pixels, (batch, planes, height, width))
    for image in (gradient, raw):
        check(image, (batch, height, width, channels))
    check(normalised, (batch, 4, channels))
    rows, threads = _rows(height, width), torch.get_num_threads()
    room = torch.zeros(threads, _kernel.size("can_first_gradient_room", channels, version, width, planes))
    shares = _zeros(batch, -(-height // rows), 9, planes, channels)
    total = _zeros(3, 3, planes, channels)
    tensors = (gradient, raw, pixels, normalised, shares, total, room)
    sizes = (channels, version, batch, height, width, planes, *pixels.stride(), rows)
    _kernel.call("can_first_gradient", tensors, sizes, [threads])
    return total.permute(3, 2, 0, 1)


def _check_moments(moments: Tensor, norm: Norm) -> tuple[int, int]:
    """Images and channels."""
    batch, channels = moments.shape[0], (moments.shape[1] - 1) // 2
    if moments.shape[1] != 1 + 2 * channels or moments.dtype != torch.float64 or moments.stride(1) != 1:
        raise ValueError(f"can_gradient: moments {tuple(moments.shape)} {moments.dtype}")
    for tensor in (norm.bias, norm.beta):
        if tensor is not None and tensor.shape != (channels,):
            raise ValueError(f"can_gradient: {tuple(tensor.shape)} of {channels} channels")
    return batch, channels


def _check_planes(given: Tensor, shape: tuple[int, ...]) -> None:
    fits = tuple(given.shape) == shape and 1 <= shape[1] <= MOST_PLANES
    if not fits or given.dtype != torch.float32 or not given.is_cpu:
        raise ValueError(f"can_gradient: planes {tuple(given.shape)} {given.dtype}, not float32 {shape}")


def _rows(height: int, width: int) -> int:
    """Rows of a part of the first or last layer."""
    parts = max(1, min(_PARTS, height * width // _PIXELS))
    return -(-height // parts)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)
