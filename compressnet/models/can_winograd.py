"""CAN on a CPU in C: each layer in one pass over one buffer, by Winograd's filtering where that is faster.

    planes (3, H, W)
      |  first convolution                                       raw outputs (H, W, C), moments
      |  normalised, leaky ReLU, convolved, in place: per layer  raw outputs (H, W, C), moments
      |  normalised, leaky ReLU, 1x1
    planes (3, H, W)

A dilated convolution is a plain one on each of d x d interleaved pictures, and Winograd's filtering serves
plain ones: with tiles of M x M outputs it takes (M + 2)^2 products where the direct form takes 9 M^2. Which M
is fastest depends on how many whole tiles a picture has: `can_tiles`. Results differ from the plain form by
rounding: 2e-5 of the largest value, of `precise` 1e-5 (tiles of 2 and the direct form only).

The kernel: `kernels/can_layer.c`. Where it does not serve, `can_strips` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.errors import UsageError
from compressnet.kernels import can_layer
from compressnet.models import can_strips, can_tiles
from compressnet.models.can import CAN, NEGATIVE_SLOPE, Film
from compressnet.models.can_dense import Dense, dense
from compressnet.models.can_strip_layer import Moments, films_of, modulated, normalisation

_PLANES = 16  # of the input at most
_PRECISE = (0, 2)
_RING_ROWS = max(can_layer.TILES) + 3  # of a thread
_SAVED_ROWS = 32  # where threads meet, in all
_X86_64_V3 = 3  # older processors are faster in strips
# transformed weights, and those that they were made of; of a convolution, by size of tiles
_Made = dict[int, tuple[list[Tensor], Tensor]]
_made: WeakKeyDictionary[nn.Module, _Made] = WeakKeyDictionary()


def serves(model: nn.Module) -> bool:
    """Whether the kernel can run a model, a float32 CAN of at most 32 channels, and is fast here."""
    return _network(model) is not None


class Network(NamedTuple):
    """A CAN as the kernel takes it.

    Attributes:
        convolutions: of the blocks, in order.
        norms: the one behind each of them.
        last: of 1x1.
        channels: of the kernel, at least those of the widest layer; what is left over is zeros.
    """

    convolutions: list[Dense]
    norms: list[nn.Module]
    last: Dense
    channels: int


def _network(model: nn.Module) -> Network | None:
    """None of what the kernel does not serve."""
    if not isinstance(model, CAN) or not can_layer.available() or can_layer.level() < _X86_64_V3:
        return None
    if can_strips.is_hooked(model):
        return None
    blocks: Any = model.blocks
    convolutions, last = [dense(block.conv) for block in blocks], dense(model.last, kernel=1)
    norms = [block.norm for block in blocks]
    if last is None or not all(can_strips.takes_norm(norm) for norm in norms):
        return None
    layers = [layer for layer in (*convolutions, last) if layer is not None]
    if len(layers) <= len(convolutions) or layers[0].in_channels > _PLANES or layers[0].dilation > 1:
        return None
    if any(before.out_channels != layer.in_channels for before, layer in pairwise(layers)):
        return None
    widest = max(layer.in_channels for layer in layers[1:])
    channels = next((size for size in can_layer.CHANNELS if size >= widest), None)
    if channels is None or not all(p.is_cpu and p.dtype == torch.float32 for p in model.parameters()):
        return None
    return Network(layers[:-1], norms, last, channels)


class Winograd(nn.Module):
    """A network that runs in the kernel; it shares its parameters.

    Args:
        net: one that the kernel `serves`.
        precise: with tiles of 2 and the direct form only.

    Attributes:
        keeps: whether the image of a call stays in memory for the next one, of a clip's frames or of
            photographs of one size: fresh memory costs a tenth of the time.
    """

    inference_only = True

    def __init__(self, net: CAN, precise: bool = False) -> None:
        super().__init__()
        self.net, self.keeps = net, False
        self.sizes: Sequence[int] = _PRECISE if precise else can_layer.TILES
        self._image: Tensor | None = None  # of the last call

    @torch.no_grad()
    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Images (B, in_channels, H, W), float32 on the CPU, to (B, out_channels, H, W), channels_last.

        Args:
            condition: as the network takes it.
            progress: told how many rows more are done, of `rows`.

        Raises:
            UsageError: another type or device.
        """
        if not self.is_for(x):
            found = f"{x.dtype} {tuple(x.shape)} on {x.device.type}"
            raise UsageError(f"--backend winograd: images in float32 on the CPU only, not {found}")
        network, (batch, _, height, width) = self._network(), x.shape
        out = x.new_empty(batch, height, width, network.last.out_channels).permute(0, 3, 1, 2)
        image = self._taken(height, width, network.channels)
        x, films = self.net.with_planes(x, condition), self.net.films(condition, batch)
        for number, (pixels, result) in enumerate(zip(x, out, strict=True)):
            own = films_of(films, number, len(network.convolutions))
            self._run(network, pixels, own, image, result, progress or _ignore)
        self._image = image if self.keeps else None
        return out

    def is_for(self, x: Tensor) -> bool:
        """Whether the kernel can run on `x`."""
        return x.is_cpu and x.dtype == torch.float32 and x.ndim == 4 and x.numel() > 0

    def rows(self, x: Tensor) -> int:
        """The rows that `progress` is told of in all."""
        return x.shape[0] * x.shape[2] * (len(self._network().convolutions) + 1)

    def bytes(self, height: int, width: int) -> int:
        """What a call takes for its activations beside those that are held from the one before, about."""
        network = self._network()
        reach = max(self.sizes) * max(layer.dilation for layer in network.convolutions)
        row = 4 * network.channels * (width + reach)
        image = 0 if self._holds(height, width) else 4 * network.channels * height * width
        return image + row * (_RING_ROWS * torch.get_num_threads() + _SAVED_ROWS)

    def tiles(self, height: int, width: int) -> list[int]:
        """The sizes of tiles that the layers behind the first take, 0: the direct form."""
        network = self._network()
        return [
            can_tiles.choose(self.sizes, network.channels, height, width, layer.dilation)
            for layer in network.convolutions[1:]
        ]

    def _network(self) -> Network:
        network = _network(self.net)
        if network is None:
            raise UsageError("--backend winograd: the network has been changed to one that it does not run")
        return network

    def _holds(self, height: int, width: int) -> bool:
        return self._image is not None and self._image.shape[:2] == (height, width)

    def _taken(self, height: int, width: int, channels: int) -> Tensor:
        """The image that is held, if it fits. It is taken away: another thread's call gets one of its own."""
        image, self._image = self._image, None
        if image is not None and image.shape == (height, width, channels):
            return image
        del image  # the old one goes first
        return torch.empty(height, width, channels)

    def _run(
        self,
        network: Network,
        pixels: Tensor,
        films: Sequence[Film | None],
        image: Tensor,
        result: Tensor,
        progress: Callable[[int], None],
    ) -> None:
        height, width, channels = image.shape
        version, (first, *middle) = can_layer.level(), network.convolutions
        if len(pixels) != first.in_channels:
            raise ValueError(f"CAN: images of {first.in_channels} planes, not of {len(pixels)}")
        found = can_layer.first(pixels, _padded(first.weight().float(), channels), image, version)
        progress(height)
        affine = _affine(first, network.norms[0], films[0], found)
        layers = zip(middle, network.norms[1:], films[1:], self.tiles(height, width), strict=True)
        for layer, norm, film, tiles in layers:
            weights = _transformed(layer, tiles, channels)
            found = can_layer.middle(image, *affine, NEGATIVE_SLOPE, weights, tiles, layer.dilation, version)
            affine = _affine(layer, norm, film, found)
            progress(height)
        weight = network.last.weight().float().flatten(1)
        bias = weight.new_zeros(len(weight)) if network.last.bias is None else network.last.bias.detach()
        weight = F.pad(weight, (0, channels - weight.shape[1])).contiguous()
        can_layer.last(image, *affine, NEGATIVE_SLOPE, weight, bias, result, version)
        progress(height)


def _transformed(layer: Dense, tiles: int, channels: int) -> Tensor:
    """The weights for tiles of a size; made once, as long as they are not changed."""
    made = _made.setdefault(layer.parts[0], {})
    held = made.get(tiles)
    if held is None or held[1].shape[-1] != channels or not layer.has_weights(held[0]):
        copies, weight = layer.copies(), _padded(layer.weight(), channels, channels)
        made[tiles] = held = copies, can_layer.transformed(weight, tiles)
    return held[1]


def _padded(weight: Tensor, outputs: int, inputs: int | None = None) -> Tensor:
    """Zeros for the channels of the kernel that a layer has not."""
    more = 0 if inputs is None else inputs - weight.shape[1]
    return F.pad(weight.detach(), (0, 0, 0, 0, 0, more, 0, outputs - weight.shape[0]))


def _affine(
    layer: Dense, norm: nn.Module, film: Film | None, moments: can_layer.Moments
) -> tuple[Tensor, Tensor]:
    """Scale and shift of raw outputs, to which the convolution's bias has not been added; 0 of channels that
    the layer has not."""
    count, channels = layer.out_channels, len(moments.mean)
    bias = moments.mean.new_zeros(count) if layer.bias is None else layer.bias.detach().double()
    seen = Moments()
    seen.count, seen.mean, seen.squares = 1, moments.mean[:count] + bias, moments.variance[:count]
    found = modulated(normalisation(norm, seen), film)
    scale, shift = found or (torch.ones_like(bias), torch.zeros_like(bias))
    shift = shift.double() + scale.double() * bias
    return F.pad(scale.float(), (0, channels - count)), F.pad(shift.float(), (0, channels - count))


def backend(model: nn.Module) -> Winograd | None:
    """The back end `winograd`; None of what the kernel does not serve."""
    return Winograd(model) if serves(model) else None  # type: ignore[arg-type]


def precise_backend(model: nn.Module) -> Winograd | None:
    """The back end `winograd_precise`: of tiles of 2 and the direct form only."""
    return Winograd(model, precise=True) if serves(model) else None  # type: ignore[arg-type]


def _ignore(_: int) -> None:
    pass
