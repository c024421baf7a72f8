"""Layers of a CAN: convolution, the normalisation and leaky ReLU before it, the moments of its outputs.

    first   planes (P, H, W) -> raw outputs (H, W, C), moments
    middle  raw outputs, scale and shift (C) -> raw outputs in place, moments
    last    raw outputs, scale and shift -> planes (O, H, W)

A middle layer is computed directly or by Winograd's minimal filtering on tiles of 2, 4 or 6 outputs a side:
with fewer multiplications, and errors of about 5e-7 (direct), 3e-7, 5e-6 and 9e-6 of the largest output.
`transformed` makes the weights for each. Sums and their order do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from compressnet.kernels import library

_kernel = library.Kernel("can_layer")
available, reference = _kernel.available, _kernel.reference

CHANNELS = (24, 32)
TILES = (0, 2, 4, 6)  # outputs a side; 0: the direct convolution
_ALL_TILES = 12  # rows: a multiple of every size
_ROWS = 32  # of a part at least
_PARTS = 16  # of a layer, for as many threads, where its phases are fewer
_POINTS: dict[int, list[float]] = {2: [0, 1, -1], 4: [0, 1, -1, 2, -2], 6: [0, 1, -1, 2, -2, 0.5, -0.5]}


class Moments(NamedTuple):
    """Of each channel, float64 (C,): mean and biased variance."""

    mean: Tensor
    variance: Tensor


def level(limit: int = 4) -> int:
    """The x86-64 level whose version of the kernel runs here, at most `limit`; 1: that for any processor."""
    return _kernel.size("can_level", limit)


@cache
def filtering(tiles: int) -> Tensor:
    """G of Winograd's filtering, float64 (tiles + 2, 3): weights G w G'."""
    points = _POINTS[tiles]
    rows = []
    for x in points:
        others = torch.tensor([x - other for other in points if other != x], dtype=torch.float64)
        rows.append(torch.tensor([1.0, x, x * x], dtype=torch.float64) / others.prod())
    if tiles == 2:  # the kernel has the sign of the first point, and the half of the others, here
        rows[0] = -rows[0]
    return torch.stack([*rows, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)])


@cache
def taps_to_points(tiles: int) -> Tensor:
    """What makes of the 9 taps of a weight its points, float64 (points, 9): G on both axes."""
    return torch.kron(filtering(tiles), filtering(tiles)) if tiles else torch.eye(9, dtype=torch.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Of torch: the order in which its products and sums are added depends on how many there are."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def transformed(weight: Tensor, tiles: int) -> Tensor:
    """Weights (..., C, C, 3, 3) for tiles of such a size: float32 (..., points, inputs, outputs)."""
    taps = weight.detach().double().movedim((-2, -1, -3, -4), (-4, -3, -2, -1)).flatten(-4, -3)
    if tiles:
        with one_thread():
            taps = (taps_to_points(tiles) @ taps.flatten(-2, -1)).unflatten(-1, taps.shape[-2:])
    return taps.float().contiguous()


def first(pixels: Tensor, weight: Tensor, image: Tensor, version: int) -> Moments:
    """The first convolution, of dilation 1.

    Args:
        pixels: (P, H, W), of any strides.
        weight: (C, P, 3, 3).
        image: (H, W, C), is written.
        version: from `level`.
    """
    return _result(first_of_batch(pixels[None], weight, image[None], version)[0], image.shape)


def first_of_batch(pixels: Tensor, weight: Tensor, images: Tensor, version: int) -> Tensor:
    """The first convolution of pixels (B, P, H, W): images (B, H, W, C) are written.

    Returns:
        Of each image, float64 (B, 1 + 2 C): how many pixels, means, sums of squares around these.
    """
    batch, planes, height, width = pixels.shape
    channels, threads = images.shape[3], torch.get_num_threads()
    check(images, (batch, height, width, channels))
    if pixels.dtype != torch.float32 or not pixels.is_cpu:
        raise ValueError(f"can_layer: pixels {pixels.dtype} on {pixels.device.type}")
    rows = _rows(height, _PARTS)
    moments = _moments(batch, -(-height // rows), channels)
    taps = weight.detach().permute(2, 3, 1, 0).contiguous()
    check(taps, (3, 3, planes, channels))
    room = torch.zeros(threads, _kernel.size("can_first_room", channels, version, width, planes))
    tensors = (pixels, images, taps, moments, room)
    sizes = (channels, version, batch, height, width, planes, *pixels.stride(), rows)
    _kernel.call("can_first", tensors, sizes, [threads])
    return moments[:, -1]


def middle(
    image: Tensor,
    scale: Tensor,
    shift: Tensor,
    slope: float,
    weights: Tensor,
    tiles: int,
    dilation: int,
    version: int,
) -> Moments:
    """A convolution of leaky ReLU(scale * image + shift), in place.

    Args:
        image: (H, W, C).
        scale, shift: float32 (C,).
        weights: from `transformed`, for these `tiles`.
        version: from `level`.
    """
    images, affine = image[None], (scale[None], shift[None])
    found = middle_of_batch(images, *affine, slope, weights, tiles, dilation, version, images)
    return _result(found[0], image.shape)


def middle_of_batch(
    images: Tensor,
    scale: Tensor,
    shift: Tensor,
    slope: float,
    weights: Tensor,
    tiles: int,
    dilation: int,
    version: int,
    out: Tensor,
) -> Tensor:
    """`middle` of images (B, H, W, C).

    Args:
        scale, shift: (B, C), of any one stride.
        out: (B, H, W, C), is written: `images` itself, or what shares no memory with it.

    Returns:
        As `first_of_batch`.
    """
    batch, height, width, channels = images.shape
    check(images, (batch, height, width, channels))
    check(out, (batch, height, width, channels))
    check(weights, ((tiles + 2) ** 2 if tiles else 9, channels, channels))
    apart = _check_numbers(scale, shift, batch, channels)
    threads, phases = torch.get_num_threads(), min(dilation, height)
    longest = -(-height // dilation)  # rows of a phase
    rows = _rows(longest, _PARTS // phases)
    parts = -(-longest // rows)
    # One thread takes a phase at once; more than one find tasks for each, also at their ends.
    span = rows if threads > 1 else rows * parts
    cuts = -(-longest // span) - 1 if out is images else 0
    moments = _moments(batch, phases * parts, channels)
    saved = torch.empty(batch, phases * cuts * 2, width, channels)
    room = torch.zeros(threads, _kernel.size("can_room", channels, version, tiles, width, dilation))
    tensors = (images, out, scale, shift, weights, saved, moments, room)
    sizes = (channels, version, tiles, batch, height, width, dilation, rows, span, apart)
    _kernel.call("can_layer", tensors, sizes, [threads], [slope])
    return moments[:, -1]


def last(
    image: Tensor,
    scale: Tensor,
    shift: Tensor,
    slope: float,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    version: int,
) -> None:
    """The 1x1 convolution of leaky ReLU(scale * image + shift).

    Args:
        image: (H, W, C).
        weight, bias: (O, C) and (O,), contiguous.
        out: (O, H, W), of any strides; is written.
    """
    last_of_batch(image[None], scale[None], shift[None], slope, weight, bias, out[None], version)


def last_of_batch(
    images: Tensor,
    scale: Tensor,
    shift: Tensor,
    slope: float,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    version: int,
) -> None:
    """`last` of images (B, H, W, C); scale and shift (B, C) of any one stride; out (B, O, H, W)."""
    batch, height, width, channels = images.shape
    check(images, (batch, height, width, channels))
    check(weight, (out.shape[1], channels))
    check(bias, (out.shape[1],))
    apart = _check_numbers(scale, shift, batch, channels)
    if out.shape[0] != batch or out.shape[2:] != (height, width) or out.dtype != torch.float32:
        raise ValueError(f"can_layer: {tuple(out.shape)} of images {tuple(images.shape)}")
    tensors = (images, scale, shift, weight, bias, out)
    sizes = (
        channels,
        version,
        batch,
        height,
        width,
        out.shape[1],
        *out.stride(),
        _rows(height, _PARTS),
        apart,
    )
    _kernel.call("can_last", tensors, sizes, [torch.get_num_threads()], [slope])


def check(given: Tensor, shape: tuple[int, ...]) -> None:
    """C believes its sizes: what does not fit would be read from behind the end.

    Raises:
        ValueError: it is not contiguous float32 of this shape on the CPU, or of no channels of the kernel.
    """
    fits = tuple(given.shape) == shape and given.dtype == torch.float32 and given.is_cpu
    if not fits or not given.is_contiguous() or (len(shape) > 1 and shape[-1] not in CHANNELS):
        raise ValueError(f"can_layer: {tuple(given.shape)} {given.dtype} where float32 {shape} is read")


def _check_numbers(scale: Tensor, shift: Tensor, batch: int, channels: int) -> int:
    """Both (B, C), of whole rows: how many floats these are apart."""
    for given in (scale, shift):
        fits = given.shape == (batch, channels) and given.dtype == torch.float32 and given.is_cpu
        if not fits or given.stride(1) != 1 or given.stride() != scale.stride():
            raise ValueError(
                f"can_layer: {tuple(given.shape)} {given.dtype}, not float32 {(batch, channels)}"
            )
    return scale.stride(0)


def _rows(height: int, parts: int) -> int:
    """Of a part, of so many at the most; whole tiles of every size."""
    rows = max(_ROWS, -(-height // max(1, parts)))
    return -(-rows // _ALL_TILES) * _ALL_TILES


def _moments(batch: int, parts: int, channels: int) -> Tensor:
    return torch.zeros(batch, parts + 1, 1 + 2 * channels, dtype=torch.float64)


def _result(found: Tensor, image: tuple[int, ...]) -> Moments:
    pixels = image[0] * image[1]
    assert found[0] == pixels, (found[0], pixels)
    mean, squares = found[1:].chunk(2)
    return Moments(mean, squares / pixels)
