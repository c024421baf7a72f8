"""What `apply` makes of a clip: the clip with every frame changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from compressnet.data.video import open_clip
from compressnet.data.video_writing import CLIP_SUFFIXES, Change, Redrawn, redraw
from compressnet.errors import CompressnetError, CutShort, NotFinite, is_out_of_memory
from compressnet.reporter import Reporter
from compressnet.source import Source


class Video:
    """A clip that is made while it is written: one frame at a time is in memory.

    Args:
        source: the clip; of what is piped in, held (see `Source.held`).
        change: what becomes of a frame: see `redraw`.
        facts: what was found in all frames, for `--json`.
        less: what to do where memory does not suffice.
    """

    suffixes: ClassVar[tuple[str, ...]] = CLIP_SUFFIXES
    printed: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def __init__(
        self,
        source: Source,
        change: Change,
        reporter: Reporter,
        facts: Callable[[], Mapping[str, Any]],
        less: str = "scale the clip down",
    ) -> None:
        self._source, self._change, self._reporter = source, change, reporter
        self._facts, self._less = facts, less
        self._done = Redrawn()

    def write(self, path: Path) -> list[str]:
        try:
            file = self._source.open()
        except OSError as error:  # left as it is, it would be told of the output
            raise CompressnetError(f"{self._source}: cannot be read: {error.strerror or error}") from error
        try:
            with file, open_clip(file, str(self._source)) as clip:
                try:
                    self._done = redraw(clip, path, self._change, self._reporter)
                except NotFinite as error:
                    raise NotFinite(f"{self._source}: frame {clip.frames}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise CompressnetError(f"{self._source}: out of memory: {self._less}") from error
        if self._done.cut_short:
            raise CutShort(f"{self._done.cut_short}; the result ends there")
        return self._done.lost

    def rows(self) -> None:
        return None

    def as_json(self) -> dict[str, Any]:
        """Frames and seconds that were written, and the facts; zeros before."""
        return {"frames": self._done.frames, "seconds": round(self._done.seconds, 3), **self._facts()}
