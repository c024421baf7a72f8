"""What training does with validation data: figures, the best checkpoint, the stop rule, previews."""

from __future__ import annotations

import torch
from torch import nn

from compressnet import files
from compressnet.data.protocol import Split
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter
from compressnet.training.distributed import Group
from compressnet.training.evaluate import draw, evaluate
from compressnet.training.job import Job
from compressnet.training.track import Tracker


class Validation:
    """Called with the model every `train.evaluate_every` steps.

    Attributes:
        best: the best value of the task's metric so far. Without validation data there is none, and `best`
            follows `last`.
    """

    def __init__(
        self, tracker: Tracker, job: Job, device: torch.device, group: Group, reporter: Reporter
    ) -> None:
        self.run, self.tracker, self.job, self.device = tracker.run, tracker, job, device
        self.group, self.reporter = group, reporter
        self.best: float | None = None
        self._improved = False

    def __call__(self, model: nn.Module, step: int, seconds: float) -> bool:
        """Validate `model`, draw previews; whether the recipe's stop rule holds."""
        if self.job.val is None:
            self._preview(model, step, self.job.train)
            return False
        figures = evaluate(
            self.job.task,
            model,
            self.job.val,
            self.device,
            self.reporter,
            self.run.recipe.eval,
            self.group,
            title="validating",
        )
        means = {key: value for key, value in figures.items() if "/" not in key}
        metric, direction = self.job.task.best
        if self.best is None or (means[metric] > self.best) == (direction == "max"):
            self.best, self._improved = means[metric], True
        if self.group.is_main:
            self.tracker.log("evaluation", step, seconds=round(seconds, 3), split="val", **means)
        self._preview(model, step, self.job.val)
        return self._reached(means)

    def take_is_best(self) -> bool:
        """Whether `best` should name the checkpoint just written (asked once a checkpoint)."""
        first = not (self.run.folder / "checkpoints" / "best").exists()
        is_best = self._improved or first or self.job.val is None
        self._improved = False
        return is_best

    def _reached(self, figures: dict[str, float]) -> bool:
        rule = self.run.recipe.train.stop
        if rule is None:
            return False
        if rule.metric not in figures:
            there = ", ".join(sorted(figures))
            raise CompressnetError(f"train.stop.metric: '{rule.metric}' is none of the metrics {there}")
        sign = -1 if self.job.task.best == (rule.metric, "min") else 1
        return sign * figures[rule.metric] >= sign * rule.threshold

    def _preview(self, model: nn.Module, step: int, split: Split) -> None:
        count = min(self.run.recipe.train.previews, len(split))
        if not count or not self.group.is_main:
            return
        folder = self.run.folder / "previews"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise files.write_error(folder, error) from error
        for _ in draw(self.job.task, model, split, range(count), folder, f"step-{step}-"):
            pass
