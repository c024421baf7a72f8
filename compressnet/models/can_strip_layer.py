"""One layer of a CAN, strip by strip: see `can_strips`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.models.activation_buffer import Buffer, Strip
from compressnet.models.can import Film

Affine = tuple[Tensor, Tensor]  # scale and shift (w,), float32 at least


@dataclass(frozen=True)
class Run:
    """Strips that one thread takes one after the other.

    Attributes:
        above: what the source holds in the row above the first strip (1, 1, W, C), if there is one.
        below: the same below the last. Both are read before any thread overwrites them.
    """

    strips: list[Strip]
    above: Tensor | None
    below: Tensor | None


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution from `source` into `target`, which may be the same buffer.

    Attributes:
        affine: how the source is normalised when it is read, before a leaky ReLU of `slope`.
    """

    conv: nn.Conv2d
    norm: nn.Module
    source: Buffer
    target: Buffer
    affine: Affine | None
    slope: float

    def runs(self, strip_bytes: int, threads: int) -> list[Run]:
        """The whole layer, in pieces that may be done at the same time."""
        dilation = self.conv.dilation[0]
        strips = list(split(self.source.shape[0], dilation, strip_bytes // self.target.row_bytes))
        parts = 1 if threads == 1 else -(-4 * threads // dilation)
        found = []
        for first in (number for number, strip in enumerate(strips) if strip.begin == 0):
            one = strips[first : first + 1]
            while one[-1].end < one[-1].total:
                one.append(strips[first + len(one)])
            size = -(-len(one) // parts)
            found += [self._run(one[at : at + size]) for at in range(0, len(one), size)]
        return found

    def convolve(self, run: Run, progress: Callable[[int], None] | None = None) -> Moments:
        """Do the strips of `run`; returns the moments of the result."""
        dilation, moments = self.conv.dilation[0], Moments()
        weight = self.conv.weight.contiguous(memory_format=torch.channels_last)
        above = None if run.above is None else activated(run.above, self.affine, self.slope)
        for strip in run.strips:
            x = self.source.new((strip.phases, strip.count + 2, *self.source.shape[1:]))  # (G, n + 2, W, C)
            x[:, :1] = 0 if above is None else above
            inside = strip is not run.strips[-1]
            rows = self.source.read(strip.longer(1) if inside else strip)
            activated(rows, self.affine, self.slope, out=x[:, 1 : 1 + rows.shape[1]])
            if not inside:
                x[:, -1:] = 0 if run.below is None else activated(run.below, self.affine, self.slope)
            above = x[:, strip.count : strip.count + 1].clone()
            y = F.conv2d(
                x.permute(0, 3, 1, 2), weight, self.conv.bias, padding=(0, dilation), dilation=(1, dilation)
            ).permute(0, 2, 3, 1)  # (G, n, W, w)
            self.target.write(strip, y)
            if needs_moments(self.norm):
                moments.add(y.reshape(-1, y.shape[3]))
            if progress is not None:
                progress(strip.rows)
        return moments

    def _run(self, strips: list[Strip]) -> Run:
        first, last = strips[0], strips[-1]
        above = self.source.read(first.row(first.begin - 1)).clone() if first.begin else None
        below = self.source.read(last.row(last.end)).clone() if last.end < last.total else None
        return Run(strips, above, below)


def split(height: int, dilation: int, rows: int) -> Iterator[Strip]:
    """Every row once: whole columns of several interleaved pictures, or pieces of one, of about `rows` rows.

    Pictures that begin above H % dilation have one row more than the others; a strip holds equal ones.
    """
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


def activated(x: Tensor, affine: Affine | None, slope: float, out: Tensor | None = None) -> Tensor:
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


class Moments:
    """Mean and biased variance of all that was added, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0  # sum of (x - mean)^2

    def add(self, x: Tensor) -> None:
        """(N, C), all rows of a strip."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.mean(dim=0)
        self._merge(x.shape[0], mean.double(), (wide - mean).square_().sum(dim=0).double())

    def merge(self, other: Moments) -> None:
        if isinstance(other.mean, Tensor) and isinstance(other.squares, Tensor):
            self._merge(other.count, other.mean, other.squares)

    def _merge(self, number: int, mean: Tensor, squares: Tensor) -> None:
        count = self.count + number
        delta = mean - self.mean
        self.mean = self.mean + delta * (number / count)
        self.squares = self.squares + squares + delta.square() * (self.count * number / count)
        self.count = count

    def result(self) -> Affine:
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.squares, Tensor)
        return self.mean, self.squares / self.count


def needs_moments(norm: nn.Module) -> bool:
    """Whether it takes statistics of the picture."""
    return isinstance(norm, AdaptiveNorm) and norm.stats == "image"


def films_of(films: list[Film] | None, number: int, blocks: int) -> list[Film | None]:
    """What a condition does in each block to one image of a batch: (w,) each; None: there is no condition."""
    return [None] * blocks if films is None else [(scale[number], shift[number]) for scale, shift in films]


def modulated(affine: Affine | None, film: Film | None) -> Affine | None:
    """Scale and shift (w,), with those of a condition (w,) behind them."""
    if film is None:
        return affine
    more, shift = 1 + film[0], film[1]
    return (more, shift) if affine is None else (affine[0] * more, affine[1] * more + shift)


def normalisation(norm: nn.Module, moments: Moments) -> Affine | None:
    """Scale and shift (w,) for `scale * x + shift`."""
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
        return scale, norm.bias - scale * norm.running_mean
    if not isinstance(norm, AdaptiveNorm):
        return None
    if not needs_moments(norm):
        mean, variance = norm.get_buffer("moving_mean"), norm.get_buffer("moving_variance")
    else:
        mean, variance = moments.result()
    mean, variance = mean.view(1, -1, 1, 1).double(), variance.view(1, -1, 1, 1).double()
    scale, shift = norm.scale_and_shift(mean, variance)
    kind = torch.promote_types(norm.w0.dtype, torch.float32)
    return scale.flatten().to(kind), (shift - scale * mean).flatten().to(kind)
