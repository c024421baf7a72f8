"""Optimisers, learning rates as pure functions of the step, and the average of weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from compressnet.recipe import Train


def make_optimizer(model: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters; weight decay spares biases, scalars and vectors."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    betas = (settings.betas[0], settings.betas[1])
    return kind(groups, lr=settings.lr, betas=betas, eps=settings.eps)


def learning_rate(step: int, total: int, settings: Train, epoch: int = 0, rises: int = 0) -> float:
    """The rate of `step` (from 0) of `total`: linear warm-up, then the schedule down to `final_lr`.

    Args:
        epoch: how many were completed before.
        rises: validations that were worse than the one before.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "decay":
        return settings.lr * settings.decay ** max(0, epoch + 1 - settings.decay_from)
    if settings.schedule == "rise":
        return settings.lr * settings.decay**rises
    progress = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    share = 1 - progress if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return settings.final_lr + (settings.lr - settings.final_lr) * share


class Average:
    """Average of a model's weights; buffers are copied.

    Args:
        decay: of an exponential moving average; that of early steps is (1 + step) / (10 + step), so that a
            short run does not average its start. None: the mean of all weights from `since` on.
        since: the step with whose weights the average begins.
    """

    def __init__(self, model: nn.Module, decay: float | None, since: int = 0) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.since = decay, since

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step`, counted from 0."""
        count = step - self.since + 1  # weights in the mean so far
        decay = count / (count + 1) if self.decay is None else min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for buffer, new in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(new)
