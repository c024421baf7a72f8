"""Optimisers, learning rates as pure functions of the step, and the average of weights."""

from __future__ import annotations

import copy
import math
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from compressnet.recipe import Train
from compressnet.training.soap import SOAP


def make_optimizer(model: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters.

    Weight decay spares biases, scalars and vectors, and the parameters of its own that a module names in a
    tuple `no_decay`.
    """
    spared = {getattr(module, name) for module in model.modules() for name in getattr(module, "no_decay", ())}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and p not in spared]
    rest = [p for p in trained if p.ndim <= 1 or p in spared]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "soap": SOAP}[settings.optimizer]
    given: dict[str, Any] = {} if settings.betas is None else {"betas": tuple(settings.betas)}
    return kind(groups, lr=settings.lr, eps=settings.eps, **given)


def learning_rate(step: int, total: int, settings: Train, epoch: int = 0, rises: int = 0) -> float:
    """The rate of `step` (from 0) of `total`: linear warm-up, then the schedule, mostly down to `final_lr`.

    Args:
        epoch: how many were completed before.
        rises: validations that were worse than the one before.
    """
    lr = _lr_of_piece(step, settings) if settings.pieces else settings.lr
    if step < settings.warmup_steps:
        return lr * (step + 1) / settings.warmup_steps
    if settings.schedule in ("constant", "pieces"):
        return lr
    if settings.schedule == "decay":
        return lr * settings.decay ** max(0, epoch + 1 - settings.decay_from)
    if settings.schedule == "rise":
        return lr * settings.decay**rises
    progress = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    if settings.schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        share = (1 - progress) ** (settings.power if settings.schedule == "poly" else 1)
    return settings.final_lr + (lr - settings.final_lr) * share


def _lr_of_piece(step: int, settings: Train) -> float:
    ends = accumulate(steps for steps, _ in settings.pieces)
    past = sum(step >= end for end in ends)
    return settings.pieces[min(past, len(settings.pieces) - 1)][1]


class Average:
    """Average of a model's weights; buffers and whole numbers are copied.

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
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)
        for buffer, new in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(new)
