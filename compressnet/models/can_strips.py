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

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.errors import CompressnetError
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.models.activation_buffer import Buffer, FileBuffer, MemoryBuffer, Strip
from compressnet.models.can import CAN, NEGATIVE_SLOPE, Film
from compressnet.models.can_strip_layer import (
    Affine,
    Layer,
    Moments,
    activated,
    films_of,
    modulated,
    normalisation,
    split,
)

_STRIP_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}  # of one strip: what a level-2 cache, a GPU likes
_ROWS_AT_LEAST = 12  # of one-row strips: three read, one written, temporaries of both, float32 copies
_ROWS_BETWEEN = 8  # that are kept where the runs of several threads meet, a thread
_STRIPS_AT_ONCE = 6

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@dataclass(frozen=True)
class Plan:
    """How one photograph is processed.

    Attributes:
        strip_bytes: of the activations of one strip.
        spill: the buffer lies in an unnamed temporary file.
        bytes: what activations take in memory, about.
        threads: that do strips at the same time.
    """

    strip_bytes: int
    spill: bool
    bytes: int
    threads: int = 1


def supports(model: nn.Module) -> TypeGuard[CAN]:
    """A CAN whose layers are as built (networks that `compress` has rewritten run in the plain form)."""
    if not isinstance(model, CAN) or not isinstance(model.last, nn.Conv2d) or is_hooked(model):
        return False
    return all(
        isinstance(block.conv, nn.Conv2d)
        and block.conv.kernel_size == (3, 3)
        and block.conv.padding == block.conv.dilation
        and block.conv.dilation[0] == block.conv.dilation[1]
        and block.conv.groups == 1
        and takes_norm(block.norm)
        for block in model.blocks
    )


def is_hooked(model: nn.Module) -> bool:
    """Whether functions of others run before or behind its modules, which other forms would leave out."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class InStrips(nn.Module):
    """A network whose forward goes in strips; it shares its parameters."""

    inference_only = True

    def __init__(self, net: CAN) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        max_bytes: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Images (B, in_channels, H, W) to (B, out_channels, H, W), without gradients.

        Args:
            condition: as the network takes it.
            max_bytes: that activations may take, the rest lies in a file; None: as much as is fast.
            progress: told how many rows more are done, of `rows`.

        Raises:
            CompressnetError: not even strips of one row fit; the temporary file cannot be written.
        """
        how = plan(self.net, x.shape[2], x.shape[3], max_bytes)
        return forward_in_strips(self.net, x, how, progress, condition)

    def rows(self, x: Tensor) -> int:
        """The rows that `progress` is told of in all."""
        return rows_in_all(self.net, x)

    def plain_bytes(self, height: int, width: int) -> int:
        """What the plain form takes for its activations, about."""
        return plain_bytes(self.net, height, width)

    def is_for(self, x: Tensor) -> bool:
        """Whether it is the fastest way for `x`: on the CPU, in the network's own type."""
        return x.device.type == "cpu" and x.dtype == self.net.last.weight.dtype

    def in_bfloat16(self) -> InStrips:
        """A copy of the network with convolutions in bfloat16; normalisations stay in float32."""
        return InStrips(in_bfloat16(self.net))


def backend(model: nn.Module) -> InStrips | None:
    """The network in strips; None where it cannot."""
    return InStrips(model) if supports(model) else None


def in_bfloat16(model: CAN) -> CAN:
    """A copy with convolutions in bfloat16; normalisations keep parameters and statistics in float32."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.bfloat16()
    return model


def plain_bytes(net: CAN, height: int, width: int) -> int:
    """What the plain form takes for its activations in inference, about: four tensors of a layer."""
    return 4 * height * _row_bytes(net, width)


def least_bytes(net: CAN, width: int) -> int:
    """What activations take in strips of one row, the others in a file."""
    return _ROWS_AT_LEAST * _row_bytes(net, width)


def plan(net: CAN, height: int, width: int, max_bytes: int | None = None) -> Plan:
    """The fastest way within `max_bytes` for activations (the photograph and the result are not counted).

    Raises:
        CompressnetError: not even strips of one row fit; the message says what does.
    """
    row = _row_bytes(net, width)
    device = net.last.weight.device.type
    wanted = max(_STRIP_BYTES.get(device, 2 << 20), row)
    threads = torch.get_num_threads() if device == "cpu" else 1
    if max_bytes is None:
        return Plan(wanted, False, height * row + threads * _STRIPS_AT_ONCE * wanted, threads)
    least = least_bytes(net, width)
    if max_bytes < least:
        raise CompressnetError(
            f"max_memory: a photograph {width} pixels wide needs at least {-(-least // 2**20)} MB, "
            f"not {max_bytes / 2**20:.3g}"
        )
    spill = height * row + least > max_bytes
    buffer = 0 if spill else height * row
    free = max_bytes - buffer
    threads = max(1, min(threads, free // (least + _ROWS_BETWEEN * row)))
    between = 0 if threads == 1 else _ROWS_BETWEEN * row
    strip = min(wanted, max(row, (free // threads - between) // _STRIPS_AT_ONCE))
    return Plan(strip, spill, buffer + threads * (between + max(least, _STRIPS_AT_ONCE * strip)), threads)


@torch.no_grad()
def forward_in_strips(
    net: CAN,
    x: Tensor,
    how: Plan | None = None,
    progress: Callable[[int], None] | None = None,
    condition: Tensor | None = None,
) -> Tensor:
    """`net(x)` to 1e-5 (float32): images (B, in_channels, H, W) to (B, out_channels, H, W), channels_last.

    Args:
        net: one that `supports` accepts, in the type and on the device of `x`. Its convolutions may be
            bfloat16 while its normalisations are float32.
        how: from `plan`.
        progress: told how many rows more are done, of `rows_in_all`.
        condition: as the network takes it.

    Raises:
        CompressnetError: the temporary file cannot be written.
    """
    how, x = how or plan(net, x.shape[2], x.shape[3]), net.with_planes(x, condition)
    films = net.films(condition, len(x))
    images = []
    for number, image in enumerate(x):
        own = films_of(films, number, len(net.blocks))
        images.append(_forward_image(net, image.permute(1, 2, 0), own, how, progress or _ignore))
    return torch.stack(images).permute(0, 3, 1, 2) if len(images) > 1 else images[0][None].permute(0, 3, 1, 2)


def rows_in_all(net: CAN, x: Tensor) -> int:
    """The rows that `forward_in_strips` reports in all."""
    return x.shape[0] * x.shape[2] * (len(net.blocks) + 1)


def _forward_image(
    net: CAN, pixels: Tensor, films: Sequence[Film | None], how: Plan, progress: Callable[[int], None]
) -> Tensor:
    """(H, W, in_channels) to (H, W, out_channels)."""
    height, width = pixels.shape[:2]
    make = FileBuffer if how.spill else MemoryBuffer.empty
    source: Buffer = MemoryBuffer(pixels.contiguous())
    with (
        make((height, width, net.last.in_channels), pixels.dtype, pixels.device) as target,
        _each(how.threads) as each,
    ):
        affine: Affine | None = None
        slope = 1.0
        for block, film in zip(net.blocks, films, strict=True):
            assert isinstance(block.conv, nn.Conv2d)
            assert isinstance(block.norm, nn.Module)
            layer = Layer(block.conv, block.norm, source, target, affine, slope)
            affine = modulated(normalisation(block.norm, _layer(layer, how, each, progress)), film)
            source, slope = target, NEGATIVE_SLOPE
        y = pixels.new_empty(height, width, net.last.out_channels)
        weight = net.last.weight.flatten(1)

        def last(strip: Strip) -> int:
            rows = activated(source.read(strip), affine, slope)
            y[strip.begin : strip.end] = F.linear(rows, weight, net.last.bias)[0]
            return strip.rows

        for rows in each(last, split(height, 1, how.strip_bytes // target.row_bytes)):
            progress(rows)
    return y


def _layer(layer: Layer, how: Plan, each: Each, progress: Callable[[int], None]) -> Moments:
    """Do all of it; the moments are merged in a fixed order, so that the result does not depend on chance."""
    runs = layer.runs(how.strip_bytes, how.threads)
    moments = Moments()
    if how.threads == 1:
        for run in runs:
            moments.merge(layer.convolve(run, progress))
        return moments
    for run, part in zip(runs, each(layer.convolve, runs), strict=True):
        moments.merge(part)
        progress(sum(strip.rows for strip in run.strips))
    return moments


@contextmanager
def _each(threads: int) -> Iterator[Each]:
    """A `map` over threads, each of which computes alone.

    Strips are small: torch's own threads would meet at a barrier thousands of times, and on a machine with
    other work to do wait there for one another (measured: 20 times as long). These meet once a layer.
    """
    if threads == 1:
        yield map
        return
    before = torch.get_num_threads()
    inference = torch.is_inference_mode_enabled()  # such modes belong to a thread

    def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        def call(item: Any) -> Any:
            with torch.inference_mode(inference), torch.no_grad():
                return function(item)

        return pool.map(call, items)

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield each
        finally:
            torch.set_num_threads(before)  # what a thread sets, some libraries take for all


def takes_norm(norm: object) -> bool:
    """Whether a normalisation is a scale and a shift of each map, once its moments are known."""
    if isinstance(norm, (AdaptiveNorm, nn.Identity)):
        return True
    return isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats and not norm.training


def _row_bytes(net: CAN, width: int) -> int:
    return width * net.last.in_channels * net.last.weight.element_size()


def _ignore(_: int) -> None:
    pass
