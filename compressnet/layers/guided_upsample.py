"""Guided upsampling: a small result made as large as the picture that it was computed from, edges and all.

H. Wu, S. Zheng, J. Zhang, K. Huang: Fast End-to-End Trainable Guided Filter. CVPR 2018, arXiv 1803.05596.
K. He, J. Sun: Fast Guided Filter. 2015, arXiv 1505.00996.

    guide (B, C, H, W)  ------------------------------------------.
      |  mean of each block of factor x factor                     |
    low guide (B, C, h, w), low result (B, C, h, w)                |
      |  in each window: result = a guide + b, least squares       |
      |  means of a and b over the windows that a pixel is in      |
    a, b (B, C, h, w)                                              |
      |  bilinear                                                  |
    a, b (B, C, H, W)                                              |
      |  a guide + b  <-------------------------------------------'
    y (B, C, H, W)

h = ceil(H / factor), w = ceil(W / factor): blocks at the right and the lower edge may be cut off. Windows
have (2 radius + 1)^2 pixels, of which only those within the picture count. Each channel has its own guide:
red guides red. With factor 1 it is the guided filter with a gray guide (`operators.guided_filter`).

Differences: the authors' layer leaves out the means of a and b when it makes a result larger; here they are
taken, as He and Sun do. Centres of pixels are aligned with the blocks that they are the means of
(`align_corners=False`), so that an affine result comes out exact inside of the picture.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import Positive
from compressnet.cost import Term

Scale = Annotated[int, Field(ge=1, le=64)]  # how many times smaller
Radius = Annotated[int, Field(ge=1, le=64)]  # of windows; the work grows with it

_LOW_PIXELS = 40_000  # of a band of one small plane: its temporaries stay in a level-2 cache, or near it
_PIXELS = 140_000  # of a band of all planes, at full size
_TEMPORARIES = 20  # planes
_CENTRE = 1  # of three neighbours


class GuidedUpsample(nn.Module):
    """A result that is `factor` times smaller than its guide, as large as the guide.

    Gradients reach all three inputs. Without gradients, on a CPU, it goes in bands of rows, with the same
    result: the coefficients are never as large as the guide in memory. Computed in float32 at least.
    Variances are of differences between neighbours: nothing cancels where a picture is bright and flat.

    Args:
        factor: how many times smaller, from 1 to 64.
        radius: of the windows, in pixels of the small picture, from 1 to 64.
        eps: added to the variance of the guide, above 0: windows with far less are averaged.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, factor: Scale = 3, radius: Radius = 1, eps: Positive = 1e-4) -> None:
        super().__init__()
        if min(factor, radius) < 1:
            raise ValueError(f"GuidedUpsample: factor {factor} and radius {radius} must be at least 1")
        if not eps > 0:
            raise ValueError(f"GuidedUpsample: eps must be above 0, got {eps}")
        self.factor, self.radius, self.eps = factor, radius, eps

    def forward(self, guide: Tensor, low_guide: Tensor, low: Tensor) -> Tensor:
        """The result, (B, C, H, W).

        Args:
            guide: (B, C, H, W), floating point.
            low_guide: (B, C, h, w), as `shrunk` makes it.
            low: the result for it, (B, C, h, w).

        Returns:
            In the type that guide and result have together.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        self._check(guide, low_guide, low)
        if _takes_bands(guide):
            y = self._in_bands(guide, self._coefficients_in_bands(low_guide, low))
        else:
            slope, offset = (
                enlarged(coefficient, self.factor)[..., : guide.shape[2], : guide.shape[3]]
                for coefficient in self.coefficients(low_guide, low)
            )
            y = torch.addcmul(offset, slope, guide.to(offset.dtype))
        return y.to(torch.promote_types(guide.dtype, low.dtype))

    def coefficients(self, low_guide: Tensor, low: Tensor) -> Tensor:
        """a and b of every pixel, (2, B, C, h, w), means over the windows that it is in."""
        pair = torch.stack([low_guide.to(_wide(low)), low.to(_wide(low))])
        across, down = (_share(pair, axis, self.radius) for axis in (-1, -2))
        means, seconds = _along(pair, -1, self.radius, across)
        # A variance over a window is the mean of those over its rows and the variance of the rows' means.
        within = _sum(seconds, -2, self.radius) * down
        means, seconds = _along(means, -2, self.radius, down)
        variance, covariance = within + seconds
        slope = covariance / (variance + self.eps)
        coefficients = torch.stack([slope, torch.addcmul(means[1], slope, means[0], value=-1)])
        return _sum(_sum(coefficients, -1, self.radius), -2, self.radius) * (down * across)

    def example(self, batch: int = 1, size: int | tuple[int, int] = 64) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs for counting and timing: a guide of `size` (height, width), the same small, a result."""
        height, width = (size, size) if isinstance(size, int) else size
        guide = torch.rand(batch, 3, height, width)
        low = shrunk(guide, self.factor)
        return guide, low, torch.rand_like(low)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of a guide (B, C, H, W). No MACs: nothing is a product of matrices."""
        batch, channels, height, width = input_shape
        between = sum(place != 0 for place in _places(self.factor))
        symbols = {"B": batch, "C": channels, "H": height, "W": width, "r": self.radius, "f": self.factor}
        symbols |= {"h": -(-height // self.factor), "w": -(-width // self.factor), "p": between}
        return [
            # Moments along each axis 12 r + 4; three sums of two planes 4 r each; shares and quotients
            Term("elementwise", "coefficients", "B·C·h·w·(36·r+17)", symbols),
            # Of two planes: p of the f pixels that one becomes lie between two, along rows and then columns
            Term("elementwise", "upsampling", "B·C·h·w·2·p·(1+f)", symbols),
            Term("elementwise", "result", "B·C·H·W", symbols),
        ]

    def bytes(self, channels: int, height: int, width: int) -> int:
        """What a call without gradients takes on a CPU beside guide and result, about: of one picture."""
        high, across = -(-height // self.factor), -(-width // self.factor)
        low_rows = min(high, _low_rows(across, self.radius) + 4 * self.radius)
        rows = min(high, _rows(width, self.factor)) + 2
        temporary = _TEMPORARIES * low_rows * across + 6 * channels * rows * width
        return 4 * (4 * channels * high * across + temporary)  # both small ones, a and b

    def extra_repr(self) -> str:
        return f"factor={self.factor}, radius={self.radius}, eps={self.eps}"

    def _check(self, guide: Tensor, low_guide: Tensor, low: Tensor) -> None:
        wanted = (*guide.shape[:-2], *(-(-side // self.factor) for side in guide.shape[-2:]))
        if guide.ndim != 4 or low_guide.shape != wanted or low.shape != wanted:
            raise ValueError(
                f"GuidedUpsample: of a guide {tuple(guide.shape)} small ones are {wanted} at factor "
                f"{self.factor}, not {tuple(low_guide.shape)} and {tuple(low.shape)}"
            )

    def _coefficients_in_bands(self, low_guide: Tensor, low: Tensor) -> Tensor:
        """Plane by plane, each band with the rows around it that its windows reach."""
        (height, width), reach = low.shape[2:], 2 * self.radius
        most = _low_rows(width, self.radius)
        found = low.new_empty((2, *low.shape), dtype=_wide(low))
        for image, channel in product(range(low.shape[0]), range(low.shape[1])):
            plane = (slice(image, image + 1), slice(channel, channel + 1))
            for top in range(0, height, most):
                bottom, first = min(top + most, height), max(top - reach, 0)
                rows = (*plane, slice(first, min(bottom + reach, height)))
                band = self.coefficients(low_guide[rows], low[rows])
                found[:, *plane, top:bottom] = band[..., top - first : bottom - first, :]
        return found

    def _in_bands(self, guide: Tensor, coefficients: Tensor) -> Tensor:
        """a guide + b. In the layout of the guide, or the last step would take several times as long."""
        (height, width), most = guide.shape[2:], _rows(guide.shape[3], self.factor)
        out = torch.empty_like(guide, dtype=coefficients.dtype)
        last = guide.is_contiguous(memory_format=torch.channels_last) and not guide.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        for top in range(0, coefficients.shape[3], most):
            near = torch.arange(top - 1, top + most + 1).clamp_(0, coefficients.shape[3] - 1)
            rows = slice(top * self.factor, min((top + most) * self.factor, height))
            for image in range(len(guide)):
                band = F.pad(coefficients[:, image].index_select(-2, near), (1, 1, 0, 0), mode="replicate")
                band = _between(band, -1, self.factor)[..., :width].contiguous(memory_format=layout)
                self._result(guide[image, :, rows], band, out[image, :, rows])
        return out

    def _result(self, guide: Tensor, coefficients: Tensor, out: Tensor) -> None:
        """Of a band (C, rows, W), from coefficients (2, C, rows / factor + 2, W)."""
        for phase, place in enumerate(_places(self.factor)):
            part = guide[:, phase :: self.factor]
            slope, offset = _shifted(coefficients, -2, place)[:, :, : part.shape[1]]
            torch.addcmul(offset, slope, part.to(offset.dtype), out=out[:, phase :: self.factor])


def shrunk(x: Tensor, factor: int) -> Tensor:
    """Pictures (B, C, H, W) as means of blocks, (B, C, ceil(H / factor), ceil(W / factor)).

    The last blocks of a row or a column have the pixels that are left. In float32 at least.
    """
    if _takes_bands(x):
        return _shrunk_in_bands(x, factor)
    return F.avg_pool2d(x.to(_wide(x)), factor, ceil_mode=True, count_include_pad=False)


def enlarged(x: Tensor, factor: int) -> Tensor:
    """(..., C, h, w) to (..., C, h factor, w factor), bilinear between the centres of pixels.

    As `interpolate(scale_factor=factor)`, which on a CPU takes three times as long, and whose weights are off
    by 1e-5 in large pictures.
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return _between(_between(padded, -1, factor), -2, factor)


def _takes_bands(x: Tensor) -> bool:
    """In graphs a loop over rows would fix the height."""
    return x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _shrunk_in_bands(x: Tensor, factor: int) -> Tensor:
    """Rows first, which are contiguous, then columns. torch's pooling takes three times as long."""
    height, width = x.shape[2:]
    found = x.new_empty((*x.shape[:2], -(-height // factor), -(-width // factor)), dtype=_wide(x))
    most = _rows(width, factor)
    for top in range(0, found.shape[2], most):
        band = _sums(x[:, :, top * factor : (top + most) * factor].to(found.dtype), 2, factor)
        for channel in range(x.shape[1]):  # in channels_last a plane at a time is twice as fast
            _sums(band[:, channel], 2, factor, out=found[:, channel, top : top + most])
    for axis, length in ((-2, height), (-1, width)):
        share = 1 / (length - torch.arange(0, length, factor)).clamp_(max=factor).to(found.dtype)
        found.mul_(_lengthwise(share, axis))
    return found


def _rows(width: int, factor: int) -> int:
    """Small rows of a band of full width."""
    return max(1, _PIXELS // (width * factor))


def _low_rows(width: int, radius: int) -> int:
    """Rows of a band of a small plane. Others around it are needed: it is no smaller than these."""
    return max(_LOW_PIXELS // width, 2 * radius)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _sums(x: Tensor, axis: int, factor: int, out: Tensor | None = None) -> Tensor:
    """Of `factor` neighbours, fewer at the end."""
    every = [slice(None)] * axis
    total = torch.clone(x[*every, ::factor]) if out is None else out.copy_(x[*every, ::factor])
    for place in range(1, factor):
        part = x[*every, place::factor]
        total.narrow(axis, 0, part.shape[axis]).add_(part)
    return total


def _along(pair: Tensor, axis: int, radius: int, share: Tensor) -> tuple[Tensor, Tensor]:
    """Moments in windows along an axis, of guide and result (2, ..., h, w).

    Args:
        share: as of `_share`.

    Returns:
        Means of both; variance of the guide and covariance, (2, ..., h, w) each. They are sums of differences
        to the pixel in the middle: there is nothing large to cancel.
    """
    length = pair.shape[axis]
    firsts, seconds = [], []
    for shift in range(1, radius + 1):
        difference = _cut(pair, axis, shift, None) - _cut(pair, axis, 0, -shift)
        ahead, behind = _both(difference, axis, shift, length)
        firsts.append(ahead - behind)
        ahead, behind = _both(difference * difference[:1], axis, shift, length)
        seconds.append(ahead + behind)
    first, second = (reduce(torch.add, terms) * share for terms in (firsts, seconds))
    return pair + first, torch.addcmul(second, first, first[:1], value=-1)


def _sum(x: Tensor, axis: int, radius: int) -> Tensor:
    """In windows along an axis, of pixels within the picture."""
    padded, length = _framed(x, axis, radius), x.shape[axis]
    return reduce(torch.add, (padded.narrow(axis, shift, length) for shift in range(2 * radius + 1)))


def _both(difference: Tensor, axis: int, shift: int, length: int) -> tuple[Tensor, Tensor]:
    """Of each pixel: the difference to the one `shift` ahead, and of the one behind to it; 0 at borders."""
    padded = _framed(difference, axis, shift)
    return padded.narrow(axis, shift, length), padded.narrow(axis, 0, length)


def _share(x: Tensor, axis: int, radius: int) -> Tensor:
    """1 over the pixels of each window along an axis."""
    place = torch.arange(x.shape[axis], device=x.device)
    count = (place + radius).clamp(max=x.shape[axis] - 1) - (place - radius).clamp(min=0) + 1
    share = 1 / count.to(x.dtype)
    return _lengthwise(share, axis)


def _lengthwise(numbers: Tensor, axis: int) -> Tensor:
    """One number for each place along an axis, -2 or -1."""
    return numbers[:, None] if axis == -2 else numbers


def _cut(x: Tensor, axis: int, begin: int, end: int | None) -> Tensor:
    return x[..., begin:end, :] if axis == -2 else x[..., begin:end]


def _framed(x: Tensor, axis: int, size: int) -> Tensor:
    """Zeros at both ends of an axis; quicker than `pad`, which fills the whole first."""
    shape = list(x.shape)
    shape[axis] = size
    zeros = x.new_zeros(shape)
    return torch.cat([zeros, x, zeros], axis)


def _places(factor: int) -> list[float]:
    """Where the pixels of a block lie, measured from its centre, in blocks."""
    return [(2 * number + 1 - factor) / (2 * factor) for number in range(factor)]


def _shifted(padded: Tensor, axis: int, place: float) -> Tensor:
    """What lies at `place` between neighbours, of an axis with one pixel more at both ends."""
    length = padded.shape[axis] - 2
    centre = padded.narrow(axis, _CENTRE, length)
    if place == 0:
        return centre
    return torch.lerp(centre, padded.narrow(axis, _CENTRE + (1 if place > 0 else -1), length), abs(place))


def _between(padded: Tensor, axis: int, factor: int) -> Tensor:
    """`factor` pixels of each but the outer ones of an axis."""
    parts = [_shifted(padded, axis, place) for place in _places(factor)]
    inner = padded.ndim + axis
    return torch.stack(parts, dim=inner + 1).flatten(inner, inner + 1)
