"""What training does with validation data: figures, the best checkpoint, the stop rule, previews."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from compressnet import files
from compressnet.data.protocol import Split
from compressnet.errors import CompressnetError, NotFinite
from compressnet.reporter import Reporter
from compressnet.training.distributed import Group
from compressnet.training.evaluate import draw, measured
from compressnet.training.job import Job
from compressnet.training.track import Tracker


class Validation:
    """Called with the model every `train.evaluate_every` steps.

    Attributes:
        best, best_step: the best value of the task's metric so far, and when. Without validation data
            there is none, and `best` follows `last`.
        history: all values of that metric; schedules that look at results are functions of it.
    """

    def __init__(
        self, tracker: Tracker, job: Job, device: torch.device, group: Group, reporter: Reporter
    ) -> None:
        self.run, self.tracker, self.job, self.device = tracker.run, tracker, job, device
        self.group, self.reporter = group, reporter
        self.best: float | None = None
        self.best_step: int | None = None
        self.history: list[float] = []

    @property
    def rises(self) -> int:
        """How many validations were worse than the one before."""
        return sum(self._worse(after, before) for before, after in pairwise(self.history))

    def stagnates(self, patience: int) -> bool:
        """Whether the last one is worse than the best of those up to `patience` before it."""
        if len(self.history) <= patience:
            return False
        best = (max if self.job.task.best[1] == "max" else min)(self.history[:-patience])
        return self._worse(self.history[-1], best)

    def _worse(self, value: float, other: float) -> bool:
        return value < other if self.job.task.best[1] == "max" else value > other

    def __call__(self, model: nn.Module, step: int, seconds: float) -> bool:
        """Validate `model`, draw previews; whether the recipe's stop rule holds."""
        if self.job.val is None:
            self._preview(model, step, self.job.train)
            return False
        means = self._figures(model, self.job.val, step)
        metric, direction = self.job.task.best
        self.history.append(means[metric])
        if self._improves(means[metric], direction):
            self.best, self.best_step = means[metric], step
        if self.group.is_main:
            self.tracker.log("evaluation", step, seconds=round(seconds, 3), split="val", **means)
        self._preview(model, step, self.job.val)
        return self._reached(means)

    def _figures(self, model: nn.Module, val: Split, step: int) -> dict[str, float]:
        """The means over the validation data; NaN, which is never the best, where an output is not finite."""
        try:
            figures = measured(
                self.job.task,
                model,
                val,
                self.device,
                self.reporter,
                self.run.recipe.eval,
                self.group,
                title="validating",
            ).compute()
        except NotFinite as error:
            self.reporter.note("warning", f"the validation of step {step} has no figures: {error}")
            return {self.job.task.best[0]: math.nan}
        return {key: value for key, value in figures.items() if "/" not in key}

    def is_best(self, step: int) -> bool:
        """Whether `best` should name the checkpoint of `step`."""
        first = not (self.run.folder / "checkpoints" / "best").exists()
        return self.best_step == step or first or self.job.val is None

    def state(self) -> dict[str, Any]:
        """What a resumed run must know (JSON values)."""
        return {"best": self.best, "best_step": self.best_step, "history": self.history}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Put `state` back; an infinite figure was stored as a text."""
        self.best = None if values["best"] is None else float(values["best"])
        self.best_step = values["best_step"]
        self.history = [float(value) for value in values.get("history", [])]

    def forget_best(self) -> None:
        """Let the next validation be the best so far."""
        self.best, self.best_step = None, None

    def _improves(self, figure: float, direction: str) -> bool:
        if math.isnan(figure):
            return False
        return self.best is None or (figure > self.best if direction == "max" else figure < self.best)

    def _reached(self, figures: dict[str, float]) -> bool:
        rule = self.run.recipe.train.stop
        if rule is None or any(map(math.isnan, figures.values())):
            return False
        if rule.metric not in figures:
            there = ", ".join(sorted(figures))
            raise CompressnetError(f"train.stop.metric: '{rule.metric}' is none of the metrics {there}")
        direction = rule.direction or self.job.task.best[1]
        sign = 1 if direction == "max" else -1
        return sign * figures[rule.metric] >= sign * rule.threshold

    def _preview(self, model: nn.Module, step: int, split: Split) -> None:
        count = min(self.run.recipe.train.previews, len(split))
        if not count or not self.group.is_main:
            return
        folder = self.run.folder / "previews"
        self.run.check_there()
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise files.write_error(folder, error) from error
        spread = [
            number * len(split) // count for number in range(count)
        ]  # the first may all be of one class
        for _ in draw(self.job.task, model, split, spread, folder, f"step-{step}-"):
            pass
