"""ShuffleSeg and the networks that it was compared with: scores of the classes of every pixel.

    M. Gamal, M. Siam, M. Abdel-Razek: ShuffleSeg: Real-time Semantic Segmentation Network. 2018,
    arXiv 1803.03816
    M. Siam, M. Gamal, M. Abdel-Razek, S. Yogamani, M. Jagersand: RTSeg: Real-time Semantic Segmentation
    Comparative Study. 2018, arXiv 1803.02758

    x (B, 3, H, W), RGB in [0, 1]
      |  bottom and right edge repeated up to multiples of 8     (B, 3, H', W')
      |  encoder (seg_encoders.py): ShuffleNet, MobileNet or ResNet-18, its normalisation of pictures first
      |  maps of 1/2, 1/4 ... 1/32
      |  decoder (seg_decoders.py): skip, unet or dilation
      |  head                                                    (B, K, H', W')
      |  cropped
    scores (B, K, H, W)

    20 outputs, 360x640 pixels; a MAC is two FLOPs
                                       parameters            MACs    GFLOP
    ShuffleNet    skip = ShuffleSeg     1,014,682     998,505,944     2.00
                  unet                  6,380,870   3,970,768,344     7.94
                  dilation                987,242   3,474,095,544     6.95
    MobileNet     skip                  3,369,240   3,068,835,840     6.14
                  unet                  9,910,132  12,344,258,560    24.69
                  dilation              8,574,504  31,215,052,800    62.43
    ResNet-18     skip                 11,309,912   8,887,797,760    17.78
                  unet = LinkNet       11,535,764   9,740,861,440    19.48

These are the networks of the authors' code, which the papers measured; the rest of it is in the two files.
More than a third of ShuffleSeg (0.37 of its 1.00 billion MACs) is its head, one dense transposed convolution;
with the bilinear one it has 629,865,944 MACs and 912,262 parameters. The 20th output is "ignore", which the
authors train as a class. The encoder of ShuffleNet's own paper (`variant: shufflenet_v1`) has wider
bottlenecks. ResNet-18 with `skip` does not run as the authors ship it: it is built from the same parts as the
others here; with `dilation` it does not run either, and is left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import finite
from compressnet.bounds import ShuffleGroups, Size
from compressnet.kernels.best_output import best_output
from compressnet.layers.data_flow import chains_of_parts
from compressnet.models import seg_decoders, seg_encoders
from compressnet.models.seg_encoders import Variant
from compressnet.signature import DERIVED

Encoder = Literal["shufflenet", "mobilenet", "resnet18"]
Decoder = Literal["skip", "unet", "dilation"]
Head = Literal["deconv", "bilinear"]
Maps = seg_encoders.ShuffleNet | seg_encoders.MobileNet | seg_encoders.ResNet18
Width = Annotated[float, Field(ge=0.05, le=16)]

_LEVELS: dict[Decoder, seg_encoders.Levels] = {"skip": 3, "unet": 5, "dilation": 1}
_SCALE = 8  # from the scores of skip and dilation to pixels; sides are filled up to multiples of it


class Segmenter(nn.Module):
    """The network of the module's docstring, of its three parts.

    Args:
        encoder: pictures to maps, the largest first.
        decoder: those to scores or features.
        head: those to scores of every pixel.
    """

    values = "pictures: RGB in [0, 1]; scores of the classes of every pixel"

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), RGB in [0, 1], of any size, to scores (B, K, H, W)."""
        height, width = x.shape[2:]
        return self.head(self._features(x))[:, :, :height, :width]

    def best(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Pictures (B, 3, H, W) to the best output of every pixel, uint8 (B, H, W).

        Args:
            size: the height and width of the result, to which scores are enlarged.

        Raises:
            NotFinite: the scores are not.
        """
        here = x.shape[2], x.shape[3]
        x = self._features(x)
        enlarges = isinstance(self.head, nn.Upsample)  # then it is done while the best is looked for
        if not enlarges or size not in (None, here):
            return best_output(finite_scores(self.head(x)[:, :, : here[0], : here[1]]), size)
        return best_output(finite_scores(x), (x.shape[2] * _SCALE, x.shape[3] * _SCALE), here)

    def _features(self, x: Tensor) -> Tensor:
        # Of these forms an exported graph finds all sizes behind them as multiples of a number.
        x = filled(x, *((side + _SCALE - 1) // _SCALE * _SCALE - side for side in x.shape[2:]))
        return self.decoder(self.encoder(x))

    def example(self, batch: int = 1, size: int | tuple[int, int] | None = None) -> tuple[Tensor]:
        """Pictures for counting, timing and export; 360 pixels high, 640 wide."""
        return (torch.rand(batch, 3, *sides(size)),)

    def foldable(self) -> list[list[str]]:
        return [*chains_of_parts(self), ["head"]]


def finite_scores(scores: Tensor) -> Tensor:
    """Scores in float32.

    Raises:
        NotFinite: they are not.
    """
    return finite.checked(scores.float(), "the network's output")


def filled(x: Tensor, bottom: int, right: int) -> Tensor:
    """Pictures with the bottom and right edge repeated so often."""
    if not torch.compiler.is_exporting() and bottom == right == 0:
        return x  # no copy; an exported graph has one form for all sizes
    return F.pad(x, (0, right, 0, bottom), mode="replicate")


def sides(size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of an example."""
    if size is None:
        return 360, 640
    return (size, size) if isinstance(size, int) else size


def segmenter(
    num_classes: Annotated[Size, DERIVED] = 20,
    encoder: Encoder = "shufflenet",
    decoder: Decoder = "skip",
    head: Head = "deconv",
    variant: Variant = "released",
    groups: ShuffleGroups = 3,
    width: Width = 1.0,
    bias: bool = True,
) -> Segmenter:
    """A network for segmentation of one of three encoders and one of three decoders.

    Args:
        num_classes: K.
        encoder: its pictures are RGB in [0, 1] whichever it is.
        decoder: "unet" is LinkNet with "resnet18", which has no "dilation".
        head: of "skip" and "dilation", to eight times the size: a dense 16x16 convolution, as released, or
            bilinear, without weights.
        variant: of ShuffleNet: as the authors released it, or as its paper has it.
        groups: of the pointwise convolutions of ShuffleNet.
        width: scales the channels of the encoder, and with them those of "unet".
        bias: of the convolutions of ShuffleNet and MobileNet, beside their norms, as released.

    Raises:
        ValueError: what does not go together.
    """
    if encoder != "shufflenet" and (variant, groups) != ("released", 3):
        raise ValueError(f"'variant' and 'groups' are of 'shufflenet', not of '{encoder}'")
    if (encoder, decoder) == ("resnet18", "dilation"):
        raise ValueError("'resnet18' has no decoder 'dilation': take 'skip' or 'unet'")
    if decoder == "unet" and head != "deconv":
        raise ValueError(f"head '{head}' is of 'skip' and 'dilation', not of '{decoder}'")
    levels = _LEVELS[decoder]
    part: Maps
    if encoder == "shufflenet":
        part = seg_encoders.ShuffleNet(variant, groups, width, bias, levels)
    elif encoder == "mobilenet":
        part = seg_encoders.MobileNet(width, bias, levels)
    else:
        part = seg_encoders.ResNet18(width, levels)
    behind = _decoder(part, num_classes, decoder)
    last = _head(part, num_classes, decoder, head)
    for new in (behind, last) if encoder == "resnet18" else (part, behind, last):  # ResNet has its own start
        seg_decoders.start(new)
    return Segmenter(part, behind, last)


def shuffleseg(
    num_classes: Annotated[Size, DERIVED] = 20,
    head: Head = "deconv",
    variant: Variant = "released",
    groups: ShuffleGroups = 3,
    width: Width = 1.0,
    bias: bool = True,
) -> Segmenter:
    """ShuffleSeg: ShuffleNet and the decoder "skip". Arguments as of `segmenter`.

    1,014,682 parameters, 998,505,944 MACs at 360x640 pixels.
    """
    return segmenter(num_classes, "shufflenet", "skip", head, variant, groups, width, bias)


def _decoder(encoder: Maps, num_classes: int, decoder: Decoder) -> nn.Module:
    if decoder == "skip":
        return seg_decoders.SkipDecoder(encoder.widths, num_classes, encoder.norms)
    if decoder == "dilation":
        return seg_decoders.DilationDecoder(encoder.widths, num_classes)
    if isinstance(encoder, seg_encoders.ResNet18):
        return seg_decoders.LinkNetDecoder(encoder.widths)
    return seg_decoders.UNetDecoder(encoder.widths, encoder.norms)


def _head(encoder: Maps, num_classes: int, decoder: Decoder, head: Head) -> nn.Module:
    if decoder == "unet":
        width = encoder.widths[0]
        if isinstance(encoder, seg_encoders.ResNet18):
            return seg_decoders.linknet_head(width, num_classes)
        return seg_decoders.unet_head(width, num_classes, encoder.norms)
    if head == "deconv":
        return seg_decoders.enlarging(num_classes, _SCALE)
    return nn.Upsample(scale_factor=_SCALE, mode="bilinear", align_corners=False)
