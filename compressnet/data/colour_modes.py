"""Pillow's colour modes brought down to gray, RGB and alpha; colour profiles; EXIF orientation."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

from compressnet.errors import CompressnetError


def flatten_mode(handle: Pillow.Image, icc: bytes | None, path: Path) -> tuple[Pillow.Image, bytes | None]:
    """One of Pillow's modes L, LA, RGB, RGBA; a profile of another colour space is applied and dropped."""
    mode = handle.mode
    transparent = "transparency" in handle.info
    if (mode in ("L", "RGB") and not transparent) or mode in ("LA", "RGBA"):
        return handle, icc
    if mode in ("1", "L", "La"):
        return handle.convert("LA" if mode == "La" or transparent else "L"), icc
    if mode in ("P", "PA", "RGB", "RGBa", "RGBX"):
        return handle.convert("RGBA" if transparent or mode in ("PA", "RGBa") else "RGB"), icc
    if mode == "CMYK" and icc:
        return _with_profile(handle, icc, path), None
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return handle.convert("RGB"), None
    raise CompressnetError(
        f"{path}: pixels of Pillow's mode {mode} (32 bit) are not supported; use 8 or 16 bit"
    )


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        samples = samples.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def to_srgb(colour: np.ndarray, icc: bytes, path: Path) -> np.ndarray:
    """uint8 (H, W, 3) in sRGB; samples that are sRGB already come back as they are, 16 bit included."""
    profile = _open_profile(icc, path)
    if "srgb" in ImageCms.getProfileDescription(profile).lower():
        return colour
    if colour.dtype == np.uint16:
        colour = np.rint(colour / np.float32(257)).astype(np.uint8)
    return np.asarray(
        _with_profile(Pillow.fromarray(colour.squeeze(-1) if colour.shape[2] == 1 else colour), icc, path)
    )


def _open_profile(icc: bytes, path: Path) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except (OSError, ImageCms.PyCMSError):
        raise CompressnetError(f"{path}: its colour profile is damaged; remove or replace it") from None


def _with_profile(handle: Pillow.Image, icc: bytes, path: Path) -> Pillow.Image:
    profile = _open_profile(icc, path)
    try:
        converted = ImageCms.profileToProfile(
            handle,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except ImageCms.PyCMSError as error:
        raise CompressnetError(f"{path}: its colour profile does not fit its pixels: {error}") from None
    if converted is None:
        raise CompressnetError(f"{path}: its colour profile cannot be applied")
    return converted
