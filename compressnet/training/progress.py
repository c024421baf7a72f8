"""Figures of steps, gathered for the progress line and the log."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Step:
    """What one optimiser step did.

    Attributes:
        loss: mean over the targets of the global batch.
        samples: in the global batch.
        stop, late: whether any rank was asked to stop, or should save for the time that has passed.
    """

    loss: float
    lr: float
    grad_norm: float
    samples: int
    logs: dict[str, float]
    stop: bool
    late: bool


class Progress:
    """Counts of the current stretch of training, for the log and the progress line."""

    def __init__(self, seconds_before: float) -> None:
        self.before, self.began = seconds_before, time.monotonic()
        self.saved = self.began
        self.samples = 0
        self.window: list[Step] = []

    def add(self, step: Step) -> float:
        """Count a step; returns the seconds of training so far."""
        self.window.append(step)
        self.samples += step.samples
        return self.before + time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Samples a second since this process began."""
        return self.samples / max(1e-9, time.monotonic() - self.began)

    def summary(self) -> dict[str, float]:
        """Means over the window, the newest learning rate."""
        last, count = self.window[-1], len(self.window)
        means = {key: sum(step.logs[key] for step in self.window) / count for key in last.logs}
        loss = sum(step.loss for step in self.window) / count
        norm = sum(step.grad_norm for step in self.window) / count
        return {"loss": loss, "lr": last.lr, "grad_norm": norm, "samples_per_s": round(self.rate, 3), **means}
