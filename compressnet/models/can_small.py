"""A CAN on a small copy of the picture, and guided upsampling: a ninth of the pixels at factor 3.

Q. Chen, J. Xu, V. Koltun: Fast Image Processing with Fully-Convolutional Networks. ICCV 2017,
arXiv 1709.00643, within
H. Wu, S. Zheng, J. Zhang, K. Huang: Fast End-to-End Trainable Guided Filter. CVPR 2018, arXiv 1803.05596.

    x (B, 3, H, W), RGB in [0, 1]  ----------------------.
      |  means of blocks of factor x factor               |
    small (B, 3, ceil(H / factor), ceil(W / factor))      |
      |  CAN (`models.can`)                               |  the guide
    result for the small picture                          |
      |  guided upsampling (`layers.guided_upsample`)  <-'
    y (B, 3, H, W), RGB, not clamped

In each window of the small picture and each channel the result is an affine function of the picture. There
are no weights outside of the CAN, which is trained through all of it. Pictures of any size: blocks at the
right and the lower edge have the pixels that are left. The receptive field is that of the CAN times `factor`.
A condition is the CAN's; the guide is the picture alone.

Differences: Wu et al. shrink bilinearly and take eps 1e-8; for the upsampling see `layers.guided_upsample`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from torch import Tensor, nn

from compressnet.bounds import OptionalSize, Positive, Size
from compressnet.layers.adaptive_norm import Stats
from compressnet.layers.data_flow import chains_of_parts
from compressnet.layers.guided_upsample import GuidedUpsample, Radius, Scale, shrunk
from compressnet.models.can import CAN, Condition, Kernels, LastLayer, Norm, Variant, can24
from compressnet.signature import DERIVED


class SmallCAN(nn.Module):
    """The network of the module's docstring.

    Args:
        can: the network for the small picture. The first planes of its input are the guides of its outputs.
        upsample: of what it puts out.

    Attributes:
        condition, conditions: those of `can`.

    Raises:
        ValueError: the CAN has more outputs than inputs, and so no guide for some.
    """

    input_names = CAN.input_names
    values = CAN.values

    def __init__(self, can: CAN, upsample: GuidedUpsample) -> None:
        super().__init__()
        planes = can.example(1, 1)[0].shape[1]
        if can.last.out_channels > planes:
            raise ValueError(
                f"every output plane is guided by an input plane: {can.last.out_channels} of {planes}"
            )
        self.can, self.upsample = can, upsample
        self.condition, self.conditions = can.condition, can.conditions

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Images (B, in_channels, H, W), RGB in [0, 1], to (B, out_channels, H, W), not clamped.

        Args:
            condition: as the CAN takes it, (B, K) or (K,); of "planes" the images may hold it instead.

        Raises:
            ValueError: the condition is missing, or of another length, or there is none to take.
        """
        return self.around(self.can, x, condition)

    def around(self, can: Callable[..., Tensor], x: Tensor, condition: Tensor | None = None) -> Tensor:
        """`forward` with another form of the CAN: `can(small)`, or `can(small, condition)`."""
        small = shrunk(x, self.upsample.factor)  # (B, in_channels, h, w), float32 at least
        told = () if condition is None else (condition,)
        low = can(small.to(x.dtype), *told)  # (B, out_channels, h, w)
        planes = low.shape[1]
        return self.upsample(x[:, :planes], small[:, :planes], low)  # (B, out_channels, H, W)

    def small_size(self, height: int, width: int) -> tuple[int, int]:
        """Of the picture that the CAN reads."""
        factor = self.upsample.factor
        return -(-height // factor), -(-width // factor)

    def example(self, batch: int = 1, size: int | tuple[int, int] = 64) -> tuple[Tensor, ...]:
        """Inputs for counting, timing and export: images in [0, 1] of `size` (height, width), a condition."""
        return self.can.example(batch, size)

    def foldable(self) -> list[list[str]]:
        """What follows what (`layers.data_flow`): what the CAN says."""
        return chains_of_parts(self)


def can24_small(
    in_channels: Annotated[Size, DERIVED] = 3,
    out_channels: Annotated[Size, DERIVED] = 3,
    variant: Variant = "released",
    norm: Norm = "an",
    stats: Stats = "image",
    kernels: Kernels = "identity",
    last_layer: LastLayer = "glorot",
    condition: Condition = "none",
    conditions: Annotated[OptionalSize | None, DERIVED] = None,  # None: none
    factor: Scale = 3,
    radius: Radius = 1,
    eps: Positive = 1e-4,
) -> SmallCAN:
    """CAN24 on a picture `factor` times smaller, with guided upsampling; 37,219 parameters.

    Arguments as in `CAN` and `GuidedUpsample`.
    """
    can = can24(in_channels, out_channels, variant, norm, stats, kernels, last_layer, condition, conditions)
    return SmallCAN(can, GuidedUpsample(factor, radius, eps))
