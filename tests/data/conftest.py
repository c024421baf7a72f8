from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

MakePhoto = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root and a cache of this test's own."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("COMPRESSNET_DATA", str(root))
    monkeypatch.setenv("COMPRESSNET_CACHE", str(tmp_path / "cache"))
    return root


@pytest.fixture
def make_photo() -> MakePhoto:
    """Writes a small photograph: smooth, with an edge, different for every path."""

    def make(path: Path, height: int = 24, width: int = 36) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(path.name) + sum(path.name.encode()))
        ramp = np.linspace(0, 200, width)[None, :, None] + rng.uniform(0, 40, (height, 1, 3))
        ramp[height // 2 :] *= 0.5
        Pillow.fromarray(ramp.astype(np.uint8)).save(path)
        return path

    return make
