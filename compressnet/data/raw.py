"""Raw photographs (DNG, NEF) through rawpy, an optional extra: a neutral development, 16 bit, sRGB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from compressnet.errors import CompressnetError

# Camera white balance and no automatic brightness: the development does not depend on the picture.
SETTINGS: dict[str, Any] = {"use_camera_wb": True, "no_auto_bright": True, "output_bps": 16}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import rawpy
    except ImportError:
        raise CompressnetError(
            f"{path}: raw photographs need rawpy: install the extra with `pip install 'compressnet[raw]'`"
        ) from None
    try:
        with rawpy.imread(str(path)) as raw:
            yield raw
    except rawpy.LibRawError as error:
        text = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise CompressnetError(f"{path}: cannot be read as a raw photograph: {text}") from None


def raw_size(path: Path) -> tuple[int, int]:
    """Width and height as developed (turned upright)."""
    with _opened(path) as raw:
        sizes = raw.sizes
        turned = sizes.flip in (5, 6)
        return (sizes.height, sizes.width) if turned else (sizes.width, sizes.height)


def develop(path: Path) -> np.ndarray:
    """The photograph as uint16 (H, W, 3), sRGB, upright (spec fip.md 10)."""
    with _opened(path) as raw:
        developed: np.ndarray = raw.postprocess(**SETTINGS)
    return developed
