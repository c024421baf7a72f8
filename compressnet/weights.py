"""Weights files: safetensors that say what they are the weights of. No pickle, no path, no time inside.

model -> save -> FILE {tensors, architecture} -> load -> build(architecture) -> model
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from compressnet import files, signature
from compressnet.errors import CompressnetError, UsageError

FORMAT = 1
KEY = "compressnet"


@dataclass(frozen=True)
class Architecture:
    """What a weights file says of itself.

    Attributes:
        task, task_args: the task's name and arguments as a recipe writes them.
        model, model_args: the model's name and arguments, with those that follow from the data.
        edits: what was done to the model after it was built, in order; each
            `{"modules": {path: {"layer": name, "args": {...}}}, "ties": [[path, path], ...]}`.
        assets: what the task needs besides weights (vocabulary, class names, ...).
        data: what identifies the training data; no paths.
        smoke: whether the weights come from a smoke run.
        format: version of this description.
    """

    task: str
    task_args: dict[str, Any]
    model: str
    model_args: dict[str, Any]
    edits: list[dict[str, Any]] = field(default_factory=list)
    assets: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    smoke: bool = False
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str) -> Architecture:
        """Parse `to_json`'s text.

        Raises:
            CompressnetError: written by a newer version, or not ours.
        """
        try:
            raw = json.loads(text)
            version = int(raw["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise CompressnetError(f"{source}: its description is not readable: {error}") from error
        if version > FORMAT:
            raise CompressnetError(
                f"{source}: weights format {version} is newer than this compressnet reads ({FORMAT}): "
                "upgrade compressnet"
            )
        try:
            architecture = cls(**raw)
        except TypeError as error:
            raise CompressnetError(f"{source}: its description is not readable: {error}") from error
        if not isinstance(architecture.model_args, dict) or not isinstance(architecture.edits, list):
            raise CompressnetError(f"{source}: its description is not readable: model_args or edits")
        return architecture


def build(architecture: Architecture) -> nn.Module:
    """The module that an architecture describes, freshly initialised: the only way from a name to a module.

    Raises:
        UsageError: unknown model, layer or argument.
    """
    model: nn.Module = signature.build("model", architecture.model, architecture.model_args)
    for edit in architecture.edits:
        apply_edit(model, edit)
    return model


def apply_edit(model: nn.Module, edit: Mapping[str, Any]) -> None:
    """Replace modules and tie parameters as one edit says (see `Architecture.edits`), in place."""
    for path, layer in edit.get("modules", {}).items():
        model.set_submodule(path, signature.build("layer", layer["layer"], layer["args"]))
    for kept, alias in edit.get("ties", []):
        owner, _, name = alias.rpartition(".")
        setattr(model.get_submodule(owner), name, model.get_parameter(kept))


def save(path: Path, model: nn.Module, architecture: Architecture) -> None:
    """Write a model's weights with its description, atomically.

    A module with a `before_save()` is asked to run it on the copy that is saved.

    Raises:
        CompressnetError: the disk is full or read-only.
    """
    files.write_bytes(path, to_bytes(tensors_of(model), architecture))


def to_bytes(tensors: Mapping[str, Tensor], architecture: Architecture) -> bytes:
    """A weights file as bytes: the same for the same weights, whatever layout they have in memory."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    return safetensors.torch.save(stored, metadata={KEY: architecture.to_json()})


def raw_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's own parameters and persistent buffers, tied ones once."""
    unique = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return {name: tensor for name, tensor in model.state_dict().items() if name in unique}


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """`raw_tensors` as they are published: of a copy on which every `before_save` ran."""
    if any(hasattr(module, "before_save") for module in model.modules()):
        model = copy.deepcopy(model)
        for module in model.modules():
            if (before_save := getattr(module, "before_save", None)) is not None:
                before_save()
    return raw_tensors(model)


def load(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Read a weights file.

    Raises:
        CompressnetError: missing, truncated, not ours, or written by a newer version.
    """
    architecture = read_architecture(path)
    try:
        return architecture, safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def read_architecture(path: Path) -> Architecture:
    """What a weights file says of itself, without reading the weights."""
    if not path.is_file():
        raise CompressnetError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    if KEY not in metadata:
        raise CompressnetError(f"{path}: a safetensors file, but not one that compressnet wrote")
    return Architecture.from_json(metadata[KEY], str(path))


def load_into(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str, skip: tuple[str, ...] = ()
) -> None:
    """Copy `tensors` into `model`.

    Args:
        model: changed in place.
        tensors: by the names of `tensors_of`.
        source: what to call them in messages.
        skip: modules that keep their fresh weights (prefixes of names).

    Raises:
        CompressnetError: names or shapes differ.
    """
    own = raw_tensors(model)
    for prefix in skip:
        if not any(_below(name, prefix) for name in own):
            raise UsageError(f"init_skip: the model has no '{prefix}' (it has: {', '.join(_top_names(own))})")
    own = {name: t for name, t in own.items() if not any(_below(name, prefix) for prefix in skip)}
    wrong = [name for name in own if name not in tensors]
    wrong += [name for name in tensors if name not in own and not any(_below(name, p) for p in skip)]
    if wrong:
        raise CompressnetError(
            f"{source} does not fit the model: {len(wrong)} names differ, first '{wrong[0]}'"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)} in the file, {tuple(tensor.shape)} in the model"
            raise CompressnetError(f"{source} does not fit the model: '{name}' is {shapes}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def digest(tensors: Mapping[str, Tensor], architecture: Architecture) -> str:
    """SHA-256 of what the network computes: weights, model, arguments, edits, assets; never of the file."""
    summary = hashlib.sha256()
    described = [architecture.model, architecture.model_args, architecture.edits, architecture.assets]
    summary.update(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous()
        summary.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        summary.update(flat.view(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return summary.hexdigest()


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _top_names(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted({name.split(".")[0] for name in tensors})


def _unreadable(path: Path, error: Exception) -> CompressnetError:
    return CompressnetError(f"{path}: damaged or not a safetensors file: {' '.join(str(error).split())}")
