"""Checkpoints: a folder of the weights and, for the newest, all that makes a resumed run the same run.

step-<n>/model.safetensors   what users take: with averaging on, the average
step-<n>/state.safetensors   raw weights, optimiser, random and carried state of every rank
step-<n>/state.json          step, world size, small values of the optimiser
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from compressnet import files, weights
from compressnet.errors import CompressnetError
from compressnet.run import Run
from compressnet.weights import Architecture


def write(
    run: Run,
    step: int,
    published: nn.Module,
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
) -> None:
    """Write checkpoint `step`, whole or not at all, and point `last` to it.

    Args:
        published: the model that users get.
        tensors: the training state's tensors.
        values: the training state's JSON values.
    """
    target = run.folder / "checkpoints" / f"step-{step}"
    if target.exists():  # the same step, saved again after a resume: the files are equal
        run.point("last", step)
        return
    with files.new_folder(target) as folder:
        weights.save(folder / "model.safetensors", published, architecture)
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        files.write_bytes(folder / "state.safetensors", safetensors.torch.save(stored))
        files.write_json(folder / "state.json", {"step": step, **values})
    run.point("last", step)


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The training state of a checkpoint.

    Raises:
        CompressnetError: it has none (older checkpoints keep only weights) or it is damaged.
    """
    try:
        stored = safetensors.torch.load_file(folder / "state.safetensors")
        values = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CompressnetError(f"{folder}: no training state to resume from: {error}") from error
    # Views into the file lie at odd addresses, where matrix products may round otherwise than at even ones.
    return {name: tensor.clone() for name, tensor in stored.items()}, values


def check_world(folder: Path, world: int) -> None:
    """Refuse to resume with another number of processes than the run was trained with.

    Raises:
        CompressnetError: says how to start instead.
    """
    trained = json.loads((folder / "state.json").read_text())["world"]
    if trained != world:
        raise CompressnetError(
            f"{folder.parents[1]} was trained by {trained} process(es) and goes on with as many only: "
            f"use torchrun --nproc-per-node {trained}"
        )


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors as `optimizer.<parameter>.<slot>`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    found = {}
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                found[f"optimizer.{names[parameter]}/{slot}"] = value
    return found


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put the tensors of `optimizer_state` back."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        if not key.startswith("optimizer."):
            continue
        name, _, slot = key.removeprefix("optimizer.").rpartition("/")
        parameter = parameters[name]
        # Adam keeps its step counters on the CPU.
        place = "cpu" if slot == "step" else parameter.device
        optimizer.state[parameter][slot] = value.clone().to(place)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Torch's random state on the CPU and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put `random_state` back."""
    torch.set_rng_state(state["cpu"].clone())  # a view with an offset crashes torch
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].clone(), device)
