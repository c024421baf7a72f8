"""The run's log and, where the recipe asks for it, the same figures for TensorBoard.

train.track: tensorboard -> RUN/metrics.jsonl and RUN/tensorboard/   (`tensorboard --logdir runs`)
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from compressnet.errors import CompressnetError
from compressnet.run import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def check_installed(track: str) -> None:
    """Refuse before training, not at its first line of log.

    Args:
        track: `train.track` of the recipe.

    Raises:
        CompressnetError: the package that it needs is not installed.
    """
    if track == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise CompressnetError(
            "train.track: tensorboard needs the package tensorboard: pip install 'compressnet[track]' "
            "(or --set train.track=none)"
        )


class Tracker:
    """Writes one event of training to every place that the recipe names. Only rank 0 may call it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._writer: SummaryWriter | None = None

    def log(self, event: str, step: int, **values: Any) -> None:
        """A line of metrics.jsonl; its numbers are the scalars `<event>/<name>` of TensorBoard.

        Raises:
            CompressnetError: the disk is full or read-only.
        """
        self.run.log(event, step=step, **values)
        if self.run.recipe.train.track != "tensorboard":
            return
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            # A resumed run does steps again that a killed one had logged: TensorBoard drops those.
            self._writer = SummaryWriter(str(self.run.folder / "tensorboard"), purge_step=step)
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{event}/{name}", value, step)
        self._writer.flush()  # shown at once, and there after a kill

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
