"""Fine-tuning of what was compressed: by its parent's recipe at a tenth of the rate, with it as teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from compressnet import registry, signature, yaml_file
from compressnet.architecture import Architecture
from compressnet.errors import UsageError
from compressnet.recipe import Recipe
from compressnet.reporter import Reporter
from compressnet.run import Run
from compressnet.tasks.distillation import open_teacher
from compressnet.training.train import Outcome, train

_RATE = 0.1  # of the first one that the parent was trained with
_OURS = ("task", "model", "init", "init_skip", "init_only", "train.steps", "train.epochs")
_DROPPED = ("epochs", "pieces", "stop", "average_after")  # how long, or at what rate, the parent trained


def recipe_for(
    base: Recipe, architecture: Architecture, teacher: str, steps: int, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe of a fine-tuning, without the `init` that it will have.

    Args:
        base: that of the parent, or another for networks that have none.
        architecture: the parent's; its task and model are trained, whatever `base` says of their arguments.
        teacher: the parent as a subject.
        overrides: `a.b=value`, applied last.

    Raises:
        UsageError: `base` is of another task or model, an override would change what is fine-tuned, or the
            teacher cannot teach it.
        RecipeError: an override is not valid.
    """
    for kind in ("task", "model"):
        mine, theirs = getattr(architecture, kind), getattr(base, kind).name
        if mine != theirs:
            raise UsageError(
                f"--recipe: it is for the {kind} '{theirs}', {teacher} is of the {kind} '{mine}': "
                "name one that could have trained it"
            )
    for override in overrides:
        key = override.partition("=")[0]
        if any(key == ours or key.startswith(f"{ours}.") for ours in _OURS):
            raise UsageError(f"--set {key}: --finetune says how long, and the network is the compressed one")
    dropped = ("smoke", "init", "init_skip", "init_only")
    data = {key: value for key, value in base.to_dict().items() if key not in dropped}
    data["task"] = {"name": architecture.task, **architecture.task_args}
    data["model"] = {"name": architecture.model, **_chosen(architecture)}
    settings = base.train
    train = {key: value for key, value in data["train"].items() if key not in _DROPPED}
    train |= {
        "steps": steps,
        "lr": _RATE * (settings.pieces[0][1] if settings.pieces else settings.lr),
        "schedule": "cosine",
        "warmup_steps": 0,
        "final_lr": 0.0,
        "distill": {"teacher": teacher, "weight": 0.5, "temperature": 2.0},
    }
    recipe = Recipe.parse(yaml_file.dumps({**data, "train": train}), "the fine-tuning", overrides)
    if recipe.train.distill:
        open_teacher(recipe.train.distill, architecture)
    return recipe


def finetune(run: Run, device: torch.device, reporter: Reporter, command: Sequence[str]) -> Outcome:
    """Train a compressed run from its step 0; `train --resume` goes on with it, should it be stopped.

    Raises:
        Interrupted: a signal came; the run is saved.
        CompressnetError: it could not go on; the last good checkpoint is kept.
    """
    with run.lock(reporter):
        return train(run, device=device, reporter=reporter, command=command)


def _chosen(architecture: Architecture) -> dict[str, Any]:
    """The model's arguments without those that follow from the data."""
    known = signature.parameters(registry.find("model", architecture.model))
    return {key: value for key, value in architecture.model_args.items() if not known[key].derived}
