"""CAN on a photograph of any size in bounded memory: the same result, layer by layer, strip by strip.

Adaptive normalisation takes its statistics from the whole photograph, so tiles that go through the whole
network change the result, and so would one pass of statistics for all layers: those of a layer depend on the
global ones of the layer before. Here one layer is finished before the next begins:

    buffer (H, W, w): what the convolution of the last layer gave, not yet normalised
      |  read a strip: scale * x + shift, leaky ReLU 0.2, zeros around the photograph
      |  convolve
      |  its moments are merged into those of the layer (float64; T. F. Chan et al., 1979)
    buffer: the strip is overwritten in place

A kernel of dilation d joins only rows that are d apart. So a strip takes every d-th row: d interleaved
pictures of H / d rows, each convolved with a vertical dilation of 1. Nothing outside such a picture is
needed; inside it one row above, kept as it was before it was overwritten, and one below. Strips are small
enough for the processor's cache, which makes this the fastest way on the CPU too, ahead of torch.compile
(see benchmarks/can_inference.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.errors import CompressnetError
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.models.activation_buffer import Buffer, FileBuffer, MemoryBuffer, Strip
from compressnet.models.can import CAN, NEGATIVE_SLOPE

_STRIP_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}  # of one strip: what a level-2 cache, a GPU likes
_ROWS_AT_LEAST = 12  # of one-row strips: three read, one written, temporaries of both, float32 copies
_STRIPS_AT_ONCE = 6

Affine = tuple[Tensor, Tensor]  # scale and shift (w,), float32 at least


@dataclass(frozen=True)
class Plan:
    """How one photograph is processed.

    Attributes:
        strip_bytes: of the activations of one strip.
        spill: the buffer lies in an unnamed temporary file.
        bytes: what activations take in memory, about.
    """

    strip_bytes: int
    spill: bool
    bytes: int


def supports(model: nn.Module) -> TypeGuard[CAN]:
    """A CAN whose layers are as built (networks that `compress` has rewritten run in the plain form)."""
    if not isinstance(model, CAN) or not isinstance(model.last, nn.Conv2d):
        return False
    return all(
        isinstance(block.conv, nn.Conv2d)
        and block.conv.kernel_size == (3, 3)
        and block.conv.padding == block.conv.dilation
        and block.conv.dilation[0] == block.conv.dilation[1]
        and block.conv.groups == 1
        and (isinstance(block.norm, (AdaptiveNorm, nn.Identity)) or _fixed_batch_norm(block.norm))
        for block in model.blocks
    )


def plain_bytes(net: CAN, height: int, width: int) -> int:
    """What the plain form takes for its activations in inference, about: four tensors of a layer."""
    return 4 * height * _row_bytes(net, width)


def plan(net: CAN, height: int, width: int, max_bytes: int | None = None) -> Plan:
    """The fastest way within `max_bytes` for activations (the photograph and the result are not counted).

    Raises:
        CompressnetError: not even strips of one row fit; the message says what does.
    """
    row = _row_bytes(net, width)
    wanted = max(_STRIP_BYTES.get(net.last.weight.device.type, 2 << 20), row)
    if max_bytes is None:
        return Plan(wanted, False, height * row + _STRIPS_AT_ONCE * wanted)
    least = _ROWS_AT_LEAST * row
    if max_bytes < least:
        raise CompressnetError(
            f"max_memory: a photograph {width} pixels wide needs at least {-(-least // 2**20)} MB, "
            f"not {max_bytes / 2**20:.3g}"
        )
    spill = height * row + least > max_bytes
    free = max_bytes - (0 if spill else height * row)
    strip = min(wanted, max(row, free // _STRIPS_AT_ONCE))
    return Plan(strip, spill, (0 if spill else height * row) + max(least, _STRIPS_AT_ONCE * strip))


@torch.no_grad()
def forward_in_strips(
    net: CAN, x: Tensor, how: Plan | None = None, progress: Callable[[int], None] | None = None
) -> Tensor:
    """`net(x)` to 1e-5 (float32): images (B, in_channels, H, W) to (B, out_channels, H, W), channels_last.

    Args:
        net: one that `supports` accepts, in the type and on the device of `x`. Its convolutions may be
            bfloat16 while its normalisations are float32.
        how: from `plan`.
        progress: told how many rows more are done, of `rows_in_all`.

    Raises:
        CompressnetError: the temporary file cannot be written.
    """
    how = how or plan(net, x.shape[2], x.shape[3])
    images = [_forward_image(net, image.permute(1, 2, 0), how, progress or _ignore) for image in x]
    return torch.stack(images).permute(0, 3, 1, 2) if len(images) > 1 else images[0][None].permute(0, 3, 1, 2)


def infer(model: nn.Module, x: Tensor) -> Tensor:
    """`model(x)` without gradients: in strips where that is faster, on the CPU, and the model allows it."""
    if x.device.type == "cpu" and supports(model) and x.dtype == model.last.weight.dtype:
        return forward_in_strips(model, x)
    with torch.no_grad():
        return model(x)


def rows_in_all(net: CAN, x: Tensor) -> int:
    """The rows that `forward_in_strips` reports in all."""
    return x.shape[0] * x.shape[2] * (len(net.blocks) + 1)


def _forward_image(net: CAN, pixels: Tensor, how: Plan, progress: Callable[[int], None]) -> Tensor:
    """(H, W, in_channels) to (H, W, out_channels)."""
    height, width = pixels.shape[:2]
    features = net.last.in_channels
    shape = (height, width, features)
    make = FileBuffer if how.spill else MemoryBuffer.empty
    source: Buffer = MemoryBuffer(pixels.contiguous())
    with make(shape, pixels.dtype, pixels.device) as target:
        affine: Affine | None = None
        slope = 1.0
        for block in net.blocks:
            affine = _layer(block, source, target, affine, slope, how, progress)
            source, slope = target, NEGATIVE_SLOPE
        y = pixels.new_empty(height, width, net.last.out_channels)
        weight = net.last.weight.flatten(1)
        for strip in _strips(shape, 1, how.strip_bytes // target.row_bytes):
            rows = slice(strip.begin, strip.end)
            y[rows] = F.linear(_activated(source.read(strip), affine, slope), weight, net.last.bias)[0]
            progress(strip.rows)
    return y


def _layer(
    block: nn.Module,
    source: Buffer,
    target: Buffer,
    affine: Affine | None,
    slope: float,
    how: Plan,
    progress: Callable[[int], None],
) -> Affine | None:
    """Convolve `source` into `target`, which may be the same; returns how the result is to be normalised."""
    conv, norm = block.conv, block.norm
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.Module)
    dilation = conv.dilation[0]
    weight = conv.weight.contiguous(memory_format=torch.channels_last)
    moments = _Moments() if isinstance(norm, AdaptiveNorm) and norm.stats == "image" else None
    above: Tensor | None = None  # the last row of the strip before, as it was
    for strip in _strips(source.shape, dilation, how.strip_bytes // target.row_bytes):
        below = min(1, strip.total - strip.end)
        x = source.new((strip.phases, strip.count + 2, *source.shape[1:]))  # (G, n + 2, W, C)
        read = x[:, 1 : 1 + strip.count + below]
        _activated(source.read(strip.longer(below)), affine, slope, out=read)
        x[:, :1] = 0 if strip.begin == 0 or above is None else above
        if not below:
            x[:, -1] = 0
        above = x[:, strip.count : strip.count + 1].clone() if below else None
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, conv.bias, padding=(0, dilation), dilation=(1, dilation))
        rows = y.permute(0, 2, 3, 1)  # (G, n, W, w)
        target.write(strip, rows)
        if moments is not None:
            moments.add(rows.reshape(-1, rows.shape[3]))
        progress(strip.rows)
    return _normalisation(norm, moments)


def _strips(shape: tuple[int, int, int], dilation: int, rows: int) -> Iterator[Strip]:
    """Every row once: whole columns of several interleaved pictures, or pieces of one, of about `rows` rows.

    Pictures that begin above H % dilation have one row more than the others; a strip holds equal ones.
    """
    height = shape[0]
    rows = max(1, rows)
    longer = height % dilation
    for first, last, total in (
        (0, longer, height // dilation + 1),
        (longer, dilation, height // dilation),
    ):
        if not total:
            continue
        together = max(1, rows // (total + 2))
        if together > 1 or total <= rows:
            for phase in range(first, last, together):
                yield Strip(dilation, phase, min(together, last - phase), 0, total, total)
            continue
        for phase in range(first, last):
            for begin in range(0, total, rows):
                yield Strip(dilation, phase, 1, begin, min(begin + rows, total), total)


def _activated(x: Tensor, affine: Affine | None, slope: float, out: Tensor | None = None) -> Tensor:
    """scale * x + shift and leaky ReLU, in float32 at least, rounded once to the type of x."""
    out = torch.empty_like(x) if out is None else out
    if affine is None:
        wide = out.copy_(x)
    elif affine[0].dtype == x.dtype:
        wide = torch.addcmul(affine[1], x, affine[0], out=out)
    else:
        wide = torch.addcmul(affine[1], x, affine[0])
    if slope != 1:
        F.leaky_relu_(wide, slope)
    return out if wide is out else out.copy_(wide)


class _Moments:
    """Mean and biased variance of all that was added, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0  # sum of (x - mean)^2

    def add(self, x: Tensor) -> None:
        """(N, C), all rows of a strip."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.mean(dim=0)
        squares = (wide - mean).square_().sum(dim=0).double()
        count = self.count + x.shape[0]
        delta = mean.double() - self.mean
        self.mean = self.mean + delta * (x.shape[0] / count)
        self.squares = self.squares + squares + delta.square() * (self.count * x.shape[0] / count)
        self.count = count

    def result(self) -> Affine:
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.squares, Tensor)
        return self.mean, self.squares / self.count


def _normalisation(norm: nn.Module, moments: _Moments | None) -> Affine | None:
    """Scale and shift (w,) for `scale * x + shift`."""
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
        return scale, norm.bias - scale * norm.running_mean
    if not isinstance(norm, AdaptiveNorm):
        return None
    if moments is None:
        mean, variance = norm.get_buffer("moving_mean"), norm.get_buffer("moving_variance")
    else:
        mean, variance = moments.result()
    mean, variance = mean.view(1, -1, 1, 1).double(), variance.view(1, -1, 1, 1).double()
    scale, shift = norm.scale_and_shift(mean, variance)
    kind = torch.promote_types(norm.w0.dtype, torch.float32)
    return scale.flatten().to(kind), (shift - scale * mean).flatten().to(kind)


def _fixed_batch_norm(norm: object) -> bool:
    return isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats and not norm.training


def _row_bytes(net: CAN, width: int) -> int:
    return width * net.last.in_channels * net.last.weight.element_size()


def _ignore(_: int) -> None:
    pass
