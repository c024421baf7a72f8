"""CIE Lab with the white of D50: what colour profiles take, in which every gray has a = b = 0.

sRGB: IEC 61966-2-1. Its primaries are adapted from D65 to D50 by Bradford's method.
"""

from __future__ import annotations

import numpy as np

from compressnet.operators.grid_system import Real, strips
from compressnet.operators.protocol import Pixels

_XYZ = np.array(  # of linear sRGB, adapted to D50
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
_TO_XYZ = _XYZ / _XYZ.sum(axis=1, keepdims=True)  # on the scale of white
_TO_RGB = np.linalg.inv(_TO_XYZ)
_DELTA = 6 / 29


def rgb_to_lab(image: Pixels) -> Real:
    """sRGB (H, W, 3) in [0, 1] to L in [0, 100], a and b, float64."""
    result = np.empty(image.shape)
    for top, bottom in strips(*image.shape[:2]):
        rgb = np.clip(image[top:bottom].astype(np.float64), 0, 1)
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = np.einsum("yxc,dc->yxd", linear, _TO_XYZ)
        f = np.where(xyz > _DELTA**3, np.cbrt(xyz), xyz / (3 * _DELTA**2) + 4 / 29)
        strip = result[top:bottom]
        strip[..., 0] = np.clip(116 * f[..., 1] - 16, 0, 100)
        strip[..., 1] = 500 * (f[..., 0] - f[..., 1])
        strip[..., 2] = 200 * (f[..., 1] - f[..., 2])
    return result


def lab_to_rgb(lab: Real) -> Real:
    """The inverse; colours that sRGB does not have are below 0 or above 1."""
    result = np.empty(lab.shape)
    for top, bottom in strips(*lab.shape[:2]):
        strip = lab[top:bottom]
        middle = (strip[..., 0] + 16) / 116
        f = np.stack([middle + strip[..., 1] / 500, middle, middle - strip[..., 2] / 200], axis=-1)
        xyz = np.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
        linear = np.einsum("yxc,dc->yxd", xyz, _TO_RGB)
        power = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
        result[top:bottom] = np.where(linear <= 0.0031308, 12.92 * linear, power)
    return result
