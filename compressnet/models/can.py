"""CAN: a context aggregation network for fast image processing.

Q. Chen, J. Xu, V. Koltun: Fast Image Processing with Fully-Convolutional Networks. ICCV 2017,
arXiv 1709.00643.

    x (B, 3, H, W), RGB in [0, 1]
      |  3x3 convolution, dilation 1     \\
      |  adaptive normalisation           |  (B, w, H, W)
      |  leaky ReLU 0.2                  /
      |  the same with dilation 2, 4, 8, ... 2^(depth - 3), then 1 again: (B, w, H, W) throughout
      |  1x1 convolution with bias, linear
    y (B, 3, H, W), RGB, not clamped

No down-sampling, no skip. can24: depth 9, w = 24, receptive field 257. can32: depth 10, w = 32, 513.
Every 3x3 kernel starts as the identity (an option: `kernels`).

A network of several operators, or of one with a dial, is told which by a condition (B, K): a one-hot choice,
or the strength. As published it comes as K constant planes beside the image (`condition="planes"`). `"film"`
is ours: a linear map of the condition scales and shifts each normalised feature map (feature-wise linear
modulation, E. Perez et al., arXiv 1709.07871), and starts as the identity.

Differences: variant "released" (default) follows the authors' code, with a bias per channel inside the
normalisation; variant "paper" has it in the convolution, as in the paper's formula. Parameter counts agree.
The released code works in BGR; here it is RGB, and `CAN.from_released` swaps the channels of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.bounds import OptionalSize, Size
from compressnet.errors import CompressnetError
from compressnet.layers.adaptive_norm import AdaptiveNorm, Stats
from compressnet.layers.dilated_conv import DilatedConv2d
from compressnet.models.can_start import identity_kernels, mixed_kernels, pass_image_through
from compressnet.signature import DERIVED

Variant = Literal["released", "paper"]
Norm = Literal["an", "bn", "none"]
Kernels = Literal["identity", "mixed"]
LastLayer = Literal["glorot", "identity"]
Condition = Literal["none", "planes", "film"]
Film = tuple[Tensor, Tensor]  # scale and shift of feature maps, (B, w) each

_EPS = 1e-3
NEGATIVE_SLOPE = 0.2


def dilations(depth: int) -> list[int]:
    """Dilations of the depth - 1 layers of 3x3: 1, 2, 4, ... 2^(depth - 3), then 1."""
    return [2**layer for layer in range(depth - 2)] + [1]


class Block(nn.Module):
    """3x3 convolution -> normalisation -> leaky ReLU."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        dilation: int,
        variant: Variant,
        norm: Norm,
        stats: Stats,
        kernels: Kernels,
    ) -> None:
        super().__init__()
        bias = norm == "none" or (norm == "an" and variant == "paper")
        self.conv = DilatedConv2d(in_channels, width, dilation, bias=bias)
        if norm == "an":
            self.norm: nn.Module = AdaptiveNorm(width, beta=variant == "released", eps=_EPS, stats=stats)
        else:
            self.norm = nn.BatchNorm2d(width, eps=_EPS) if norm == "bn" else nn.Identity()
        if kernels == "mixed":
            mixed_kernels(self.conv.weight, first=in_channels != width)
        else:
            identity_kernels(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, film: Film | None = None) -> Tensor:
        x = self.conv(x)  # (B, w, H, W)
        if film is not None:
            scale, shift = (part[:, :, None, None] for part in film)  # (B, w, 1, 1)
            return F.leaky_relu(torch.addcmul(shift, self.norm(x), 1 + scale), NEGATIVE_SLOPE, inplace=True)
        if isinstance(self.norm, AdaptiveNorm):
            return self.norm(x, negative_slope=NEGATIVE_SLOPE)  # (B, w, H, W)
        x = self.norm(x)  # (B, w, H, W)
        return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)  # (B, w, H, W); nothing else keeps its input


class CAN(nn.Module):
    """The network of the module's docstring.

    Args:
        depth: layers, the 1x1 included; at least 3.
        width: feature maps w.
        in_channels: 3, more with condition planes.
        out_channels: planes of the result.
        variant: where the bias per channel is: "released" in the normalisation, "paper" in the convolution.
        norm: "an" adaptive, "bn" PyTorch's batch normalisation with eps 1e-3 (running averages in `eval()`),
            "none".
        stats: of the adaptive normalisation; "frozen" is a different function, see `AdaptiveNorm`.
        kernels: start of the 3x3 layers: "identity" as in the paper; "mixed" has random edge filters beside
            it, better for runs of minutes (`can_start.mixed_kernels`).
        last_layer: start of the 1x1: "glorot" as released; "identity" passes the first three feature maps
            through and has 0.3 x Glorot elsewhere, better for runs of minutes.
        condition: how the network is told what to do: see above.
        conditions: K, the numbers of a condition.

    Raises:
        ValueError: an argument out of range, or `stats="frozen"` without `norm="an"`.
    """

    values = "images: RGB in [0, 1]; the output is not clamped"
    input_names = ("input", "condition")

    def __init__(
        self,
        depth: int,
        width: int,
        in_channels: int = 3,
        out_channels: int = 3,
        variant: Variant = "released",
        norm: Norm = "an",
        stats: Stats = "image",
        kernels: Kernels = "identity",
        last_layer: LastLayer = "glorot",
        condition: Condition = "none",
        conditions: int = 0,
    ) -> None:
        super().__init__()
        if (condition == "none") != (conditions == 0):
            raise ValueError(
                f"condition '{condition}' and {conditions} numbers of a condition: a network that is to do "
                "several things takes condition 'planes' or 'film', one that does one thing 'none'"
            )
        if depth < 3 or min(width, in_channels, out_channels) < 1:
            raise ValueError(f"depth {depth} must be at least 3, widths and channels at least 1")
        if stats == "frozen" and norm != "an":
            raise ValueError(f"stats 'frozen' belongs to norm 'an', not to norm '{norm}'")
        self.condition, self.conditions = condition, conditions
        sizes = [in_channels + conditions * (condition == "planes")] + [width] * (depth - 2)
        self.blocks = nn.Sequential(
            *(
                Block(n, width, d, variant, norm, stats, kernels)
                for n, d in zip(sizes, dilations(depth), strict=True)
            )
        )
        self.film = nn.Linear(conditions, 2 * width * (depth - 1)) if condition == "film" else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        self.last = nn.Conv2d(width, out_channels, 1)
        nn.init.xavier_uniform_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        if last_layer == "identity":
            pass_image_through(self.last.weight)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Images (B, in_channels, H, W), RGB in [0, 1], to (B, out_channels, H, W), not clamped.

        Args:
            condition: (B, K) or (K,), of a network that takes one. Of "planes" the images may hold it
                instead, as K planes behind the others.

        Raises:
            ValueError: the condition is missing, or of another length, or there is none to take.
        """
        x = self._without_crash(self.with_planes(x, condition))  # (B, 3, H, W)
        films = self.films(condition, len(x))
        if films is None:
            x = self.blocks(x)  # (B, w, H, W)
        else:
            for block, film in zip(self.blocks, films, strict=True):
                x = block(x, film)  # (B, w, H, W)
        return self.last(x)  # (B, 3, H, W)

    def with_planes(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """What the first convolution reads: the images, with the condition as planes where it takes them."""
        self._check_condition(x, condition)
        if self.condition != "planes" or condition is None:
            return x
        planes = condition.to(x).expand(len(x), -1)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return torch.cat([x, planes], dim=1)  # (B, 3 + K, H, W)

    def films(self, condition: Tensor | None, batch: int) -> list[Film] | None:
        """Scale and shift of the feature maps of each block; None: this network has none."""
        if self.film is None:
            return None
        assert condition is not None
        numbers = self.film(condition.to(self.film.weight).expand(batch, -1))  # (B, 2 w (depth - 1))
        blocks = numbers.view(batch, len(self.blocks), 2, -1).unbind(1)
        return [(block[:, 0], block[:, 1]) for block in blocks]

    def example(self, batch: int = 1, size: int | tuple[int, int] = 64) -> tuple[Tensor, ...]:
        """Inputs for counting, timing and export: images in [0, 1] of `size` (height, width), a condition."""
        height, width = (size, size) if isinstance(size, int) else size
        # the first kernel whatever compression has made of its module: (out, in, kh, kw)
        channels = next(p.shape[1] for p in self.blocks.parameters() if p.ndim == 4)
        if self.condition == "none":
            return (torch.rand(batch, channels, height, width),)
        images = torch.rand(batch, channels - self.conditions * (self.condition == "planes"), height, width)
        return images, torch.eye(self.conditions)[:1].repeat(batch, 1)

    def foldable(self) -> list[list[str]]:
        """What follows what (`layers.data_flow`): each convolution and its normalisation."""
        blocks = [(index, block) for index, block in enumerate(self.blocks) if isinstance(block, Block)]
        there = [index for index, block in blocks if not isinstance(block.norm, nn.Identity)]
        return [[f"blocks.{index}.conv", f"blocks.{index}.norm"] for index in there]

    @classmethod
    def from_released(cls, arrays: Mapping[str, NDArray[Any]], stats: Stats = "image") -> CAN:
        """The network with the authors' weights, for RGB images.

        Args:
            arrays: TensorFlow variables by name (`g_conv1/weights` (3, 3, in, out), ...), with or without
                `weights/` in front, as `tf_bundle.read_bundle` returns them. Optimiser state is ignored.
            stats: "frozen" takes the stored moving averages, a different function (see `AdaptiveNorm`).

        Raises:
            CompressnetError: missing, unknown or misshapen variables; one line names them.
        """
        from compressnet.models.can_released import released_kind, released_state

        name, arguments = released_kind(arrays)
        net = {"can24": can24, "can32": can32}[name](**arguments, stats=stats)
        net.load_state_dict(released_state(arrays, net.state_dict()))
        return net

    def _check_condition(self, x: Tensor, condition: Tensor | None) -> None:
        if condition is None:
            first: Any = next(self.blocks.parameters())
            if self.condition == "film" or (self.condition == "planes" and x.shape[1] != first.shape[1]):
                raise ValueError(f"CAN: this network takes a condition of {self.conditions} numbers")
        elif self.condition == "none":
            raise ValueError("CAN: this network takes no condition")
        elif condition.shape[-1] != self.conditions or condition.ndim > 2:
            raise ValueError(
                f"CAN: a condition of {self.conditions} numbers for each image, not {tuple(condition.shape)}"
            )

    def _without_crash(self, x: Tensor) -> Tensor:
        """Keep away from a fault of torch 2.13 in bfloat16 training on the CPU in the channels_last layout.

        There the weight gradient of a dilated convolution with more than 16 input channels that are no
        multiple of 16 is NaN (dilation 2) or a segmentation fault that takes the process down (from 4 on).
        It takes channels_last in the input or in the weights; so the input is made channels-first here and
        such weights are refused. A test in a child process tells when torch has repaired it.
        """
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return x
        if not (x.dtype == torch.bfloat16 or _autocast_bf16()):
            return x
        risky = [
            module.weight
            for module in self.modules()
            if isinstance(module, nn.Conv2d) and max(module.dilation) > 1 and module.in_channels % 16
        ]
        if not all(weight.is_contiguous() for weight in risky):
            raise CompressnetError(
                "can: bfloat16 training on the CPU fails in the channels_last layout (torch 2.13); convert "
                "the model with .to(memory_format=torch.contiguous_format) or train in float32"
            )
        return x.contiguous() if risky else x


def can24(
    in_channels: Annotated[Size, DERIVED] = 3,
    out_channels: Annotated[Size, DERIVED] = 3,
    variant: Variant = "released",
    norm: Norm = "an",
    stats: Stats = "image",
    kernels: Kernels = "identity",
    last_layer: LastLayer = "glorot",
    condition: Condition = "none",
    conditions: Annotated[OptionalSize | None, DERIVED] = None,  # None: none
) -> CAN:
    """CAN24 of the paper: depth 9, width 24, 37,219 parameters. Arguments as in `CAN`."""
    sizes = 9, 24, in_channels, out_channels
    return CAN(*sizes, variant, norm, stats, kernels, last_layer, condition, conditions or 0)


def can32(
    in_channels: Annotated[Size, DERIVED] = 3,
    out_channels: Annotated[Size, DERIVED] = 3,
    variant: Variant = "released",
    norm: Norm = "an",
    stats: Stats = "image",
    kernels: Kernels = "identity",
    last_layer: LastLayer = "glorot",
    condition: Condition = "none",
    conditions: Annotated[OptionalSize | None, DERIVED] = None,  # None: none
) -> CAN:
    """CAN32 of the paper: depth 10, width 32, 74,997 parameters. Arguments as in `CAN`."""
    sizes = 10, 32, in_channels, out_channels
    return CAN(*sizes, variant, norm, stats, kernels, last_layer, condition, conditions or 0)


def _autocast_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
