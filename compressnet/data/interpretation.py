"""What the samples of a picture mean: every colour space, depth and layout brought to gray or RGB, and alpha.

decoder (Pillow, tifffile) -> Samples, as stored -> interpret -> Picture: colour, alpha, profile, losses
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as Pillow

from compressnet.data import colour_profiles
from compressnet.errors import CompressnetError

Space = Literal["gray", "white is zero", "rgb", "palette", "cmyk", "ycbcr", "cielab", "icclab"]
CHANNELS: dict[Space, int] = {
    "gray": 1, "white is zero": 1, "rgb": 3, "palette": 1, "cmyk": 4, "ycbcr": 3, "cielab": 3, "icclab": 3,
}  # fmt: skip
REC_601 = (0.299, 0.587, 0.114)
# As TIFF's ExtraSamples numbers them.
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
# CIE XYZ under D50, as CIELab has it, to linear sRGB (Bradford adaptation; Lindbloom's table).
_XYZ_TO_SRGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
_D50 = np.array([0.9642, 1.0, 0.8249])
_BAND = 1 << 19  # pixels that are converted at once: what is temporary stays small


@dataclass
class Samples:
    """A picture as stored.

    Attributes:
        values: uint8 or uint16 (H, W, S): the channels of `space`, then extra samples.
        space: what the first channels are.
        bits: of a sample; its largest value is 2 ** bits - 1.
        extra: what each further sample is; those that it does not reach are unspecified.
        key: the colour that stands for transparent pixels, or None.
        palette: uint8 (N, 3), for `palette`.
        luma: what red, green and blue count in Y, for `ycbcr`.
        icc: the colour profile, or None.
        upright: whether the decoder has applied the orientation already.
        lost: what the decoder could not pass on, one phrase each.
    """

    values: np.ndarray
    space: Space
    bits: int = 8
    extra: tuple[int, ...] = ()
    key: tuple[int, ...] | None = None
    palette: np.ndarray | None = None
    luma: tuple[float, ...] = REC_601
    icc: bytes | None = None
    upright: bool = False
    lost: list[str] = field(default_factory=list)


@dataclass
class Picture:
    """A picture as understood: uint8 or uint16 (H, W, 1 or 3) gray or RGB, and alpha (H, W) or None."""

    colour: np.ndarray
    alpha: np.ndarray | None
    colour_bits: int
    alpha_bits: int
    icc: bytes | None
    lost: list[str]


def interpret(samples: Samples, path: Path) -> Picture:
    """Gray or RGB, and alpha that is not multiplied in.

    Raises:
        CompressnetError: samples whose meaning is not clear; a CMYK profile that is damaged.
    """
    channels = CHANNELS[samples.space]
    colour, extra = samples.values[..., :channels], samples.values[..., channels:]
    kinds = (*samples.extra, *[UNSPECIFIED] * extra.shape[2])[: extra.shape[2]]
    lost = list(samples.lost)
    found = next((place for place, kind in enumerate(kinds) if kind in (ASSOCIATED, UNASSOCIATED)), None)
    alpha = None if found is None else extra[..., found]
    if (unknown := len(kinds) - (alpha is not None)) > 0:
        lost.append(unspecified(unknown))
    if found is not None and kinds[found] == ASSOCIATED:
        if samples.space in ("ycbcr", "cielab", "icclab"):
            raise CompressnetError(
                f"{path}: transparency that is multiplied into {samples.space} samples: save it as RGB"
            )
        if samples.space != "palette":
            place = channels + found
            colour = _in_bands(
                lambda band: _divided(
                    band[..., :channels], band[..., place : place + 1], 2**samples.bits - 1
                ),
                samples.values,
                channels,
            )
    if samples.key is not None:
        alpha = _in_bands(_keyed(samples.key, samples.bits), colour, 1)[..., 0]
    converted, bits, icc = _to_rgb(samples, colour, path, lost)
    return Picture(converted, alpha, bits, samples.bits, icc, lost)


def unspecified(count: int) -> str:
    """The phrase for extra samples that nobody knows the meaning of."""
    return f"{count} extra channel{'s' if count > 1 else ''} of no stated meaning dropped"


def _to_rgb(
    samples: Samples, colour: np.ndarray, path: Path, lost: list[str]
) -> tuple[np.ndarray, int, bytes | None]:
    """Gray or RGB, its bits, and the profile that still holds for it."""
    bits, icc, top = samples.bits, samples.icc, 2**samples.bits - 1
    match samples.space:
        case "white is zero":
            return _in_bands(lambda band: top - band, colour, 1), bits, icc
        case "palette":
            table = samples.palette
            if table is None or int(colour.max(initial=0)) >= len(table):
                raise CompressnetError(f"{path}: damaged: a colour that its palette does not have")
            return _in_bands(lambda band: table[band[..., 0]], colour, 3, np.uint8), 8, icc
        case "cmyk" if icc:
            if bits > 8:
                lost.append(f"{bits} bit reduced to 8: its CMYK profile is applied at 8 bits")
            convert = colour_profiles.to_srgb_bands("CMYK", icc, path)
            return _in_bands(lambda band: convert(_eight_bits(band, bits)), colour, 3, np.uint8), 8, None
        case "cmyk":
            return _in_bands(_cmyk_8 if bits == 8 else _cmyk(top), colour, 3), bits, None
        case "ycbcr":
            return _in_bands(_ycbcr(samples.luma), colour, 3), bits, None
        case "cielab" | "icclab":
            return _in_bands(_lab(samples.space == "cielab", bits), colour, 3), bits, None
    return colour, bits, icc


def _in_bands(
    convert: Callable[[np.ndarray], np.ndarray], values: np.ndarray, channels: int, dtype: type | None = None
) -> np.ndarray:
    height, width = values.shape[:2]
    converted = np.empty((height, width, channels), dtype or values.dtype)
    rows = max(1, _BAND // max(1, width))
    for top in range(0, height, rows):
        converted[top : top + rows] = convert(values[top : top + rows])
    return converted


def _divided(colour: np.ndarray, alpha: np.ndarray, top: int) -> np.ndarray:
    """Colour samples without the alpha that was multiplied into them; as they are where alpha is 0."""
    return np.minimum(np.rint(colour * float(top) / np.where(alpha == 0, top, alpha)), top)


def _keyed(key: tuple[int, ...], bits: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda band: np.where((band == np.array(key)).all(axis=2, keepdims=True), 0, 2**bits - 1)


def _eight_bits(band: np.ndarray, bits: int) -> np.ndarray:
    return band if bits == 8 else np.rint(band * (255 / (2**bits - 1))).astype(np.uint8)


def _cmyk_8(band: np.ndarray) -> np.ndarray:
    size = (band.shape[1], band.shape[0])
    return np.asarray(Pillow.frombytes("CMYK", size, np.ascontiguousarray(band).tobytes()).convert("RGB"))


def _cmyk(top: int) -> Callable[[np.ndarray], np.ndarray]:
    """Pillow's formula at any depth: each ink takes its share of what black leaves."""

    def convert(band: np.ndarray) -> np.ndarray:
        left = top - band[..., 3:].astype(np.int64)
        return left - (band[..., :3] * left + top // 2) // top

    return convert


def _ycbcr(luma: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """TIFF 6.0, section 21, full range."""
    red_share, green_share, blue_share = luma

    def convert(band: np.ndarray) -> np.ndarray:
        y, cb, cr = np.moveaxis(band.astype(np.float64), 2, 0)
        red = y + (cr - 128) * (2 - 2 * red_share)
        blue = y + (cb - 128) * (2 - 2 * blue_share)
        green = (y - red_share * red - blue_share * blue) / green_share
        return np.clip(np.rint(np.stack([red, green, blue], axis=2)), 0, 255)

    return convert


def _lab(signed: bool, bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """CIELab under D50 to sRGB; `signed`: TIFF's own encoding, otherwise the one of ICC profiles."""
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    white = top if signed or bits == 8 else 0xFF00

    def convert(band: np.ndarray) -> np.ndarray:
        lightness = band[..., 0] * (100.0 / white)
        if signed:
            a, b = np.moveaxis(band[..., 1:].view(np.int8 if bits == 8 else np.int16) / unit, 2, 0)
        else:
            a, b = np.moveaxis(band[..., 1:] / unit - 128.0, 2, 0)
        y = (lightness + 16) / 116
        roots = np.stack([y + a / 500, y, y - b / 200], axis=2)
        xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * (3 * (6 / 29) ** 2)) * _D50
        linear = np.clip(xyz @ _XYZ_TO_SRGB.T, 0, 1)
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return np.rint(np.clip(encoded, 0, 1) * top)

    return convert
