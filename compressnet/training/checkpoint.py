"""Checkpoints: a folder of the weights and, for the newest, all that makes a resumed run the same run.

step-<n>/model.safetensors   what users take: with averaging on, the average
step-<n>/state.safetensors   raw weights, optimiser, random and carried state of every rank
step-<n>/state.json          step, world size, what validation knows; the SHA-256 of state.safetensors, sealed
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet import files, json_file, weights
from compressnet.architecture import seal
from compressnet.errors import CompressnetError, CompressnetNote
from compressnet.json_file import Form
from compressnet.run import Run
from compressnet.run_files import Count
from compressnet.training import soap
from compressnet.training.soap import SOAP
from compressnet.weights import Architecture

Figure = float | Literal["nan", "inf", "-inf"]  # JSON has no numbers that are not finite


class State(Form):
    """The form of state.json. Those of version 0.1 have no `sha256` (of the tensors) and no seal."""

    step: Count
    world: Annotated[int, Field(ge=1)]
    epoch: Count
    seconds: Annotated[float, Field(ge=0)]
    validation_owed: bool
    average_since: Count | None
    best: Figure | None
    best_step: Count | None
    history: list[Figure] = Field(default_factory=list)
    model: str | None = None  # the digest of model.safetensors beside it
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    seal: str | None = None


def write(
    run: Run,
    step: int,
    published: nn.Module,
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
) -> None:
    """Write checkpoint `step`, whole or not at all, and point `last` to it; one of that step is replaced.

    Args:
        published: the model that users get.
        tensors: the training state's tensors.
        values: the training state's JSON values, see `State`.
    """
    with files.new_folder(run.checkpoints.of(step), replace=True) as folder:
        weights.save(folder / "model.safetensors", published, architecture)
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        data = safetensors.torch.save(stored)
        files.write_bytes(folder / "state.safetensors", data)
        sums = {
            "model": weights.stored_digest(folder / "model.safetensors"),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        described = files.finite({"step": step, **values, **sums})
        files.write_json(folder / "state.json", {**described, "seal": seal(described)})
    run.point("last", step)


def read(run: Run, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The training state of a checkpoint of `run`.

    Raises:
        CompressnetError: it is damaged; the message names another to resume from.
    """
    try:
        values = read_values(folder)
        beside = weights.stored_digest(folder / "model.safetensors")
        if values.get("model") not in (None, beside):
            raise CompressnetError(f"{folder}: its training state is not of the weights beside it")
        try:
            data = (folder / "state.safetensors").read_bytes()
            if values.get("sha256") not in (None, hashlib.sha256(data).hexdigest()):
                raise CompressnetError(
                    f"{folder / 'state.safetensors'} is damaged: its SHA-256 does not match"
                )
            stored = safetensors.torch.load(data)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CompressnetError(f"{folder / 'state.safetensors'} is damaged: {reason}") from error
    except CompressnetError as error:
        raise CompressnetError(f"{error}{run.checkpoints.resume_hint(folder)}") from error
    if values.get("sha256") is None:
        warnings.warn(
            f"{folder}: written by compressnet 0.1 without a checksum: damage cannot be noticed",
            CompressnetNote,
            stacklevel=2,
        )
    # Views into the file lie at odd addresses, where matrix products may round otherwise than at even ones.
    return {name: tensor.clone() for name, tensor in stored.items()}, values


def read_values(folder: Path) -> dict[str, Any]:
    """What state.json of a checkpoint says.

    Raises:
        CompressnetError: it is damaged.
    """
    path = folder / "state.json"
    values: dict[str, Any] = json_file.read(path)
    state = json_file.check(State, values, str(path))
    if (state.seal is None) != (state.sha256 is None) or state.seal not in (None, seal(values)):
        raise CompressnetError(f"{path} is damaged: it was changed after it was written")
    if f"step-{state.step}" != folder.name:
        raise CompressnetError(f"{path} is damaged: it is of step {state.step}")
    return values


def check_world(run: Run, folder: Path, world: int) -> None:
    """Refuse to resume with another number of processes than the run was trained with.

    Raises:
        CompressnetError: says how to start instead; or the checkpoint is damaged.
    """
    try:
        trained = read_values(folder)["world"]
    except CompressnetError as error:
        raise CompressnetError(f"{error}{run.checkpoints.resume_hint(folder)}") from error
    if trained != world:
        raise CompressnetError(
            f"{run.folder} was trained by {trained} process(es) and goes on with as many only: "
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
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], source: str
) -> None:
    """Put the tensors of `optimizer_state` back.

    Raises:
        CompressnetError: they are not of this model; the message begins with `source`.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        if not key.startswith("optimizer."):
            continue
        name, _, slot = key.removeprefix("optimizer.").rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or not _fits(optimizer, parameter, slot, value):
            raise CompressnetError(
                f"{source}: its training state does not fit model and optimiser: {key[:200]!r}"
            )
        # Adam keeps its step counters on the CPU.
        place = "cpu" if slot == "step" else parameter.device
        optimizer.state[parameter][slot] = value.clone().to(place)
    for name, parameter in parameters.items():
        if missing := _missing(optimizer, parameter):
            raise CompressnetError(f"{source}: its training state lacks optimizer.{name}/{missing[0]}")


def _fits(optimizer: torch.optim.Optimizer, parameter: Tensor, slot: str, value: Tensor) -> bool:
    """Whether `value` can be what an optimiser keeps of a parameter under that name."""
    if slot == "step":
        return _is_count(value)
    if value.dtype != parameter.dtype:
        return False
    if isinstance(optimizer, SOAP):
        return soap.slots(parameter).get(slot) == tuple(value.shape)
    return bool(slot) and value.shape in (torch.Size(), parameter.shape)


def _is_count(value: Tensor) -> bool:
    """Of steps, as torch keeps it: a number in float32."""
    if value.shape or value.dtype != torch.float32:
        return False
    count = value.item()
    return math.isfinite(count) and count >= 0 and count == int(count)


def _missing(optimizer: torch.optim.Optimizer, parameter: Tensor) -> list[str]:
    """What an optimiser needs of a parameter to go on; nothing where it has not begun."""
    if not isinstance(optimizer, SOAP) or parameter not in optimizer.state:
        return []
    return sorted(soap.slots(parameter).keys() - optimizer.state[parameter].keys())


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Torch's random state on the CPU and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Tensor], device: torch.device, source: str) -> None:
    """Put `random_state` back.

    Raises:
        CompressnetError: it is none; the message begins with `source`.
    """
    try:
        torch.set_rng_state(state["cpu"].clone())  # a view with an offset crashes torch
        if device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"].clone(), device)
    except (KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CompressnetError(f"{source}: its training state has no random state: {reason}") from error
