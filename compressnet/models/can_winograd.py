"""CAN on a CPU in C: each layer in one pass over one buffer, by Winograd's filtering where that is faster.

    planes (3, H, W)
      |  first convolution                                       raw outputs (H, W, C), moments
      |  normalised, leaky ReLU, convolved, in place: per layer  raw outputs (H, W, C), moments
      |  normalised, leaky ReLU, 1x1
    planes (3, H, W)

A dilated convolution is a plain one on each of d x d interleaved pictures, and Winograd's filtering serves
plain ones: with tiles of M x M outputs it takes (M + 2)^2 products where the direct form takes 9 M^2. Which M
is fastest depends on how many whole tiles a picture has: `choose`. Results differ from the plain form by
rounding: 2e-5 of the largest value, of `precise` 1e-5 (tiles of 2 and the direct form only).

The kernel: `kernels/can_layer.c`. Where it does not serve, `can_strips` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.errors import UsageError
from compressnet.kernels import can_layer
from compressnet.models import can_strips
from compressnet.models.can import CAN, NEGATIVE_SLOPE, Block
from compressnet.models.can_strip_layer import Moments, normalisation

_PLANES = 16  # of the input at most
_PRECISE = (0, 2)
_X86_64_V3 = 3  # older processors are faster in strips
# Microseconds of a tile (direct: of a pixel), on one thread of an AMD EPYC (Zen 4).
_COSTS = {
    24: {0: 0.1, 2: 0.245, 4: 0.653, 6: 1.375},
    32: {0: 0.169, 2: 0.398, 4: 0.94, 6: 1.854},
}


def serves(model: nn.Module) -> bool:
    """Whether the kernel can run a model, a float32 CAN of 24 or 32 channels, and is fast here."""
    if not can_layer.available() or not can_strips.supports(model):
        return False
    channels = model.last.in_channels
    convolutions: list[Any] = [block.conv for block in model.blocks]
    inputs = [convolution.in_channels for convolution in convolutions]
    return (
        channels in can_layer.CHANNELS
        and inputs[0] <= _PLANES
        and inputs[1:] == [channels] * (len(inputs) - 1)
        and all(convolution.out_channels == channels for convolution in convolutions)
        and all(convolution.stride == (1, 1) for convolution in convolutions)
        and convolutions[0].dilation == (1, 1)
        and all(weight.is_cpu and weight.dtype == torch.float32 for weight in model.parameters())
        and can_layer.level() >= _X86_64_V3
    )


class Winograd(nn.Module):
    """A network that runs in the kernel; it shares its parameters.

    Args:
        net: one that the kernel `serves`.
        precise: with tiles of 2 and the direct form only.
    """

    inference_only = True

    def __init__(self, net: CAN, precise: bool = False) -> None:
        super().__init__()
        self.net = net
        self.sizes: Sequence[int] = _PRECISE if precise else can_layer.TILES
        self._weights: dict[tuple[int, int], tuple[tuple[int, int], Tensor]] = {}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W), float32 on the CPU, to (B, out_channels, H, W), channels_last.

        Raises:
            UsageError: another type or device.
        """
        if not self.is_for(x):
            raise UsageError(f"--backend winograd: float32 on the CPU only, not {x.dtype} on {x.device.type}")
        batch, _, height, width = x.shape
        out = x.new_empty(batch, height, width, self.net.last.out_channels).permute(0, 3, 1, 2)
        image = x.new_empty(height, width, self.net.last.in_channels)
        for pixels, result in zip(x, out, strict=True):
            self._run(pixels, image, result)
        return out

    def is_for(self, x: Tensor) -> bool:
        """Whether the kernel can run on `x`."""
        return x.is_cpu and x.dtype == torch.float32

    def _run(self, pixels: Tensor, image: Tensor, result: Tensor) -> None:
        height, width, channels = image.shape
        version, last = can_layer.level(), self.net.last
        blocks: Any = self.net.blocks
        found = can_layer.first(pixels, blocks[0].conv.weight, image, version)
        for index in range(1, len(blocks)):
            dilation = blocks[index].conv.dilation[0]
            tiles = choose(self.sizes, channels, height, width, dilation)
            weights = self._transformed(index, tiles)
            affine = _affine(blocks[index - 1], found)
            found = can_layer.middle(image, *affine, NEGATIVE_SLOPE, weights, tiles, dilation, version)
        bias = last.weight.new_zeros(last.out_channels) if last.bias is None else last.bias
        weight = last.weight.flatten(1).contiguous()
        can_layer.last(image, *_affine(blocks[-1], found), NEGATIVE_SLOPE, weight, bias, result, version)

    def _transformed(self, index: int, tiles: int) -> Tensor:
        """The weights of a block for tiles of a size; made once, as long as they are not changed."""
        block: Any = self.net.blocks[index]
        weight = block.conv.weight
        held, state = self._weights.get((index, tiles)), (weight.data_ptr(), weight._version)
        if held is None or held[0] != state:
            held = state, can_layer.transformed(weight, tiles)
            self._weights[index, tiles] = held
        return held[1]


def choose(sizes: Sequence[int], channels: int, height: int, width: int, dilation: int) -> int:
    """The size of tiles, of those given, with which a layer takes the least time."""
    costs = _COSTS[channels]
    return min(sizes, key=lambda size: costs[size] * _count(size, height, width, dilation))


def _count(size: int, height: int, width: int, dilation: int) -> float:
    """Tiles of a layer; of the direct form pixels, of which those with fewer taps count less."""
    if not size:
        if dilation < min(height, width):
            return height * width
        rows = (
            height + 2 * max(0, height - dilation)
        ) / 3  # of three taps down a pixel beyond an edge has none
        return rows * width * (1 if dilation < width else 1 / 3)
    return _along(size, height, dilation) * _along(size, width, dilation)


def _along(size: int, length: int, dilation: int) -> int:
    """Tiles along a side, of all phases."""
    longer, whole = length % dilation, length // dilation  # so many phases have a pixel more than the others
    return longer * -(-(whole + 1) // size) + (min(dilation, length) - longer) * -(-whole // size)


def _affine(block: Block, moments: can_layer.Moments) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of raw outputs, to which the convolution's bias has not been added."""
    conv: Any = block.conv
    bias = torch.zeros_like(moments.mean) if conv.bias is None else conv.bias.double()
    seen = Moments()
    seen.count, seen.mean, seen.squares = 1, moments.mean + bias, moments.variance
    scale, shift = normalisation(block.norm, seen) or (torch.ones_like(bias), torch.zeros_like(bias))
    return scale.float().contiguous(), (shift.double() + scale.double() * bias).float().contiguous()


def backend(model: nn.Module) -> Winograd | None:
    """The back end `winograd`; None of what the kernel does not serve."""
    return Winograd(model) if serves(model) else None  # type: ignore[arg-type]


def precise_backend(model: nn.Module) -> Winograd | None:
    """The back end `winograd_precise`: of tiles of 2 and the direct form only."""
    return Winograd(model, precise=True) if serves(model) else None  # type: ignore[arg-type]
