"""Image processing of clips: every frame is processed as a photograph of 8 bits is.

frame uint8 (H, W, 3) -> [0, 1] -> `Applier` -> rounded -> uint8 (H, W, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from compressnet.data.images import Image, from_uint8, to_uint8
from compressnet.reporter import Level, Reporter


class FrameReporter:
    """Passes on what a network tells: of frames every note once and no progress, since the bar is the clip's.

    Args:
        reporter: is told it.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._in_clip = False
        self._told: set[str] = set()

    @contextmanager
    def frame(self) -> Iterator[None]:
        """What is told within is told of a frame."""
        self._in_clip = True
        try:
            yield
        finally:
            self._in_clip = False

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        if not self._in_clip:
            self._reporter.stage(name, total, unit, initial)

    def advance(self, n: int = 1, **scalars: float) -> None:
        if not self._in_clip:
            self._reporter.advance(n, **scalars)

    def note(self, level: Level, text: str) -> None:
        if self._in_clip and text in self._told:
            return
        self._told.add(text)
        self._reporter.note(level, text)


class FrameProcessing:
    """Process frames with what processes photographs, which holds its buffers from frame to frame.

    Args:
        process: an `Applier`.
        reporter: that of `process`.
    """

    def __init__(self, process: Callable[[Image], Image], reporter: FrameReporter) -> None:
        self._process, self._reporter = process, reporter
        self._facts: dict[str, Any] = {}

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to the same.

        Raises:
            NotFinite: the network's output is not.
        """
        with self._reporter.frame():
            image = self._process(Image(from_uint8(pixels)))
        self._facts = image.as_json()
        return to_uint8(image.pixels)

    def facts(self) -> dict[str, Any]:
        """What `--json` tells of a photograph, of the last frame."""
        return self._facts
