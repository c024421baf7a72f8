"""Whether a training on the CPU computes its network in C, as one operation with gradients (`can_training`).

`train.cpu_kernels` of the recipe: auto: where that serves the network; off: never. Rounding differs: so a run
that goes on stays with what it was begun with, which is in its run.json.
"""

from __future__ import annotations

import torch
from torch import nn

from compressnet import registry
from compressnet.errors import CompressnetError
from compressnet.run import Run
from compressnet.training.distributed import Group


def of_run(run: Run, group: Group, device: torch.device, model: nn.Module) -> nn.Module | None:
    """`model` as the kernels train it, with its parameters; None: it trains as it is. The same on every rank.

    Raises:
        CompressnetError: the run was begun with kernels that do not serve here.
    """
    if device.type != "cpu":
        return None
    settings = run.recipe.train
    suits = settings.dtype == "float32"  # whether or not it is to be compiled: that is slower
    made: nn.Module | None = registry.find("backend", "winograd_training")(model) if suits else None
    begun_with = group.from_main(_stored(run))
    if begun_with is None:
        all_serve = all(group.gather(made is not None))
        return made if all_serve and settings.cpu_kernels == "auto" else None
    if begun_with and made is None:
        raise CompressnetError(
            f"{run.folder} was begun with the C kernels of its network, which do not run here (not built, or "
            "no AVX2): with others its weights would differ from an uninterrupted run's"
        )
    return made if begun_with else None


def _stored(run: Run) -> bool | None:
    """What `run` was begun with; None before it began."""
    values = run.facts.get("cpu")
    if values is None:
        return False if run.resume_point() else None
    return bool(values.get("kernels", False))  # not in run.json of 0.1
