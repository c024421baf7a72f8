"""Compressed networks on disk: a run of their own beside its parent, or a weights file.

runs/<recipe>-<method>-<n>/     recipe.yaml of the parent, run.json with `parent` and `command`,
                                checkpoints/step-0, compress.json, compress.png; the rest is its fine-tuning
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressnet import files, weights
from compressnet.architecture import Architecture, Edit
from compressnet.recipe import Recipe
from compressnet.run import Run
from compressnet.run_files import COMPRESSION as REPORT
from compressnet.training import cpu_settings
from compressnet.training import device as devices
from compressnet.training.train import commit, versions


def with_edits(architecture: Architecture, edits: Sequence[Edit]) -> Architecture:
    """The description of a network that was edited further."""
    return replace(architecture, edits=[*architecture.edits, *edits])


def report_of(path: Path) -> Path:
    """Where the report of a weights file is: beside it."""
    return path.with_suffix(".compress.json")


def in_run(folder: Path) -> Path:
    """Where the report of a run is."""
    return folder / REPORT


def name_of(recipe: str, methods: Sequence[str]) -> str:
    """`cls_cifar10-fold-tucker`: the recipe, and what was done."""
    return "-".join([recipe, *(method.partition(":")[0] for method in methods)])


def write_run(
    recipe: Recipe,
    module: nn.Module,
    architecture: Architecture,
    parent: dict[str, str],
    command: Sequence[str],
    report: dict[str, Any],
    name: str,
    folder: Path | None = None,
    runs: Path = Path("runs"),
    steps: int = 0,
) -> Run:
    """A run whose only checkpoint, of step 0, is a compressed network.

    Args:
        recipe: the parent's; with `steps` that of the fine-tuning.
        parent: the subject it was made of, and the digest of its weights.
        folder: where; None: the next free `<name>-<n>` below `runs`.
        steps: of the fine-tuning that follows (`finetune`); its recipe begins from this step 0.

    Raises:
        CompressnetError: the folder is in use, or cannot be written to.
    """
    recipe = recipe.model_copy(update={"name": name, "is_smoke": architecture.smoke})
    if steps:  # a run that is killed before its weights are there must not train from fresh ones
        recipe = recipe.model_copy(update={"init": f"{folder or runs / name}@step-0"})
    run = Run.create(recipe, runs, folder)
    with run.lock():
        run.update(compressed=True, total_steps=steps)  # if it fails below, nothing trains the parent anew
        files.write_json(in_run(run.folder), report)  # first: where there are weights, they are explained
        with files.new_folder(run.checkpoints.of(0), replace=True) as made:
            weights.save(made / "model.safetensors", module, architecture)
        if steps:
            run.recipe = recipe.model_copy(update={"init": f"{run.folder}@step-0"})
            files.write_text(run.folder / "recipe.yaml", run.recipe.to_yaml())
        for pointer in ("last", "best"):
            run.point(pointer, 0)
        run.update(
            parent=parent,
            command=list(command),
            step=0,
            total_steps=steps,
            train_seconds=0.0,
            device=devices.name(torch.device("cpu")),
            threads=torch.get_num_threads(),
            cpu=cpu_settings.current().as_dict(),
            versions=versions(),
            commit=commit(),
            data=architecture.data,
            compressed=True,
            digest=weights.digest(weights.tensors_of(module), architecture),
        )
        if not steps:
            run.log("start", step=0)
            run.finish("done", "")
    return run
