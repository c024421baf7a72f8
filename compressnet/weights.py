"""Weights files: safetensors that say what they are the weights of. No pickle, no path, no time inside.

    model -> save -> FILE {tensors, description} -> load       -> Architecture, tensors
                                                 -> open_model -> Architecture, model

A file carries the digest of its tensors and a seal of its description; both are checked on opening. Its
values are finite and of the model's names, shapes and types, or it is refused.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from compressnet import architecture as description
from compressnet import files, finite
from compressnet.architecture import Architecture, Description, apply_edit, build
from compressnet.errors import CompressnetError, CompressnetNote, UsageError

__all__ = [
    "KEY",
    "Architecture",
    "apply_edit",
    "as_saved",
    "build",
    "build_from",
    "digest",
    "load",
    "load_into",
    "open_model",
    "raw_tensors",
    "read_architecture",
    "save",
    "stored_digest",
    "tensors_of",
    "to_bytes",
]

KEY = "compressnet"


def save(path: Path, model: nn.Module, architecture: Architecture, *, replace: bool = True) -> None:
    """Write a model's weights with its description, atomically.

    A module with a `before_save()` is asked to run it on the copy that is saved.

    Args:
        replace: take the place of a file that is there.

    Raises:
        CompressnetError: the disk is full or read-only, or a value is not finite; or there is a file, and
            `replace` is False.
    """
    files.write_bytes(path, to_bytes(tensors_of(model), architecture, str(path)), replace=replace)


def to_bytes(tensors: Mapping[str, Tensor], architecture: Architecture, source: str = "weights") -> bytes:
    """A weights file as bytes: the same for the same weights, whatever layout they have in memory.

    Raises:
        CompressnetError: a value is not finite.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    _check_finite(stored, f"cannot write {source}")
    text = description.to_json(architecture, digest(stored, architecture))
    return safetensors.torch.save(stored, metadata={KEY: text})


def raw_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's own parameters and persistent buffers, tied ones once."""
    unique = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return {name: tensor for name, tensor in model.state_dict().items() if name in unique}


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """`raw_tensors` as they are published: of `as_saved(model)`."""
    return raw_tensors(as_saved(model))


def as_saved(model: nn.Module) -> nn.Module:
    """The model as its file will have it: a copy on which every `before_save` ran; itself, if none is."""
    if not any(hasattr(module, "before_save") for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for module in model.modules():
        if (before_save := getattr(module, "before_save", None)) is not None:
            before_save()
    return model


def load(path: Path, *, unchanged: bool = True) -> tuple[Architecture, dict[str, Tensor]]:
    """Read a weights file.

    Args:
        unchanged: refuse a file that is not as it was written; False: take it as it is.

    Raises:
        CompressnetError: missing, truncated, changed, not ours, written by a newer version, or some of its
            values are not finite.
    """
    try:
        with _opened(path) as file:
            stored = _described(path, file.metadata(), sealed=unchanged)
            # Copies: what was checked must not change under our hands with the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    _check_digest(path, stored, tensors, unchanged)
    _check_finite(tensors, str(path))
    return stored.architecture, tensors


def open_model(path: Path, *, unchanged: bool = True) -> tuple[Architecture, nn.Module]:
    """The model of a weights file: compared with the file before memory is taken, and never initialised.

    Args:
        unchanged: as of `load`.

    Raises:
        CompressnetError: as of `load`; or the description cannot be built, or does not fit the tensors.
    """
    architecture, tensors = load(path, unchanged=unchanged)
    model = description.build_on_meta(architecture, len(tensors), str(path))
    _fill(model, _fitting(raw_tensors(model), tensors, str(path)))
    return architecture, model


def read_architecture(path: Path) -> Architecture:
    """What a weights file says of itself, without reading the weights.

    Raises:
        CompressnetError: missing, not ours, changed, or written by a newer version.
    """
    try:
        with _opened(path) as file:
            return _described(path, file.metadata(), sealed=True).architecture
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def build_from(path: Path) -> nn.Module:
    """The model that a weights file describes, freshly initialised: its weights are not read.

    Raises:
        CompressnetError: as of `read_architecture`; or it cannot be built.
    """
    try:
        with _opened(path) as file:
            architecture = _described(path, file.metadata(), sealed=True).architecture
            tensors = len(file.keys())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    return description.build_stored(architecture, tensors, str(path))


def stored_digest(path: Path) -> str | None:
    """The digest that a weights file carries (None: one of format 1), without reading the weights.

    Raises:
        CompressnetError: as of `read_architecture`.
    """
    try:
        with _opened(path) as file:
            return _described(path, file.metadata(), sealed=True).digest
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def load_into(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
) -> None:
    """Copy `tensors` into `model`.

    Args:
        model: changed in place.
        tensors: by the names of `tensors_of`.
        source: what to call them in messages.
        skip: modules that keep their fresh weights (prefixes of names).
        only: modules that alone are filled; `tensors` may be those of another model with the same modules.

    Raises:
        CompressnetError: names, shapes or types differ.
    """
    own = raw_tensors(model)
    for option, prefixes in (("init_skip", skip), ("init_only", only)):
        for prefix in prefixes:
            if not any(_below(name, prefix) for name in own):
                if option == "init_skip" and prefix in dict(model.named_modules()):
                    continue  # it has no weights, and so none that would be taken
                has = ", ".join(_top_names(own))
                raise UsageError(f"{option}: the model has no '{prefix}' (it has: {has})")
    for prefix in only:
        if not any(_below(name, prefix) for name in tensors):
            has = ", ".join(_top_names(tensors))
            raise UsageError(f"init_only: {source} has no '{prefix}' (it has: {has})")

    def is_taken(name: str) -> bool:
        return not any(_below(name, p) for p in skip) and (not only or any(_below(name, p) for p in only))

    own = {name: tensor for name, tensor in own.items() if is_taken(name)}
    given = {name: tensor for name, tensor in tensors.items() if name in own or is_taken(name)}
    with torch.no_grad():
        for name, tensor in _fitting(own, given, source).items():
            own[name].copy_(tensor)


def digest(tensors: Mapping[str, Tensor], architecture: Architecture) -> str:
    """SHA-256 of what the network computes: weights, model, arguments, edits, assets; never of the file."""
    summary = hashlib.sha256()
    described = [architecture.model, architecture.model_args, architecture.edits, architecture.assets]
    summary.update(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous()
        summary.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        if flat.numel():
            summary.update(flat.view(-1).view(torch.uint8).numpy().data)
    return summary.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CompressnetError(f"{path}: no such weights file")
    with ExitStack() as stack:
        name = str(path)
        if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
            # safetensors takes names that are text only, and this one is bytes.
            name = f"/dev/fd/{stack.enter_context(open(path, 'rb')).fileno()}"
        yield stack.enter_context(safetensors.safe_open(name, framework="pt"))


def _described(path: Path, metadata: Mapping[str, str] | None, *, sealed: bool) -> Description:
    if metadata is None or KEY not in metadata:
        raise CompressnetError(f"{path}: a safetensors file, but not one that compressnet wrote")
    return description.from_json(metadata[KEY], str(path), sealed=sealed)


def _check_digest(path: Path, stored: Description, tensors: Mapping[str, Tensor], unchanged: bool) -> None:
    if stored.digest is None:
        if not unchanged:
            return  # it is being written anew
        _note(
            f"{path}: written by compressnet 0.1 without a digest: damage to its values cannot be noticed; "
            f"`compressnet import {path} -o NEW.safetensors` writes it anew"
        )
    elif stored.digest != digest(tensors, stored.architecture):
        if not unchanged:
            _note(f"{path}: its values or its model are not those that were written; taken as they are")
            return
        raise CompressnetError(
            f"{path}: its values are not those that were written (their digest differs); "
            f"{description.import_it(str(path))}"
        )


def _check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in tensors.items():
        finite.checked(tensor, f"{source}: '{name}'")


def _fitting(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """`tensors` for the tensors of a model, in their types.

    Raises:
        CompressnetError: names, shapes or types differ; other floating types are converted, and that is said.
    """
    if wrong := sorted(own.keys() ^ tensors.keys()):
        raise CompressnetError(
            f"{source} does not fit the model: {len(wrong)} names differ, first {wrong[0][:200]!r}"
        )
    converted: list[str] = []
    for name, tensor in own.items():
        theirs = tensors[name]
        if tensor.shape != theirs.shape:
            shapes = f"{tuple(theirs.shape)} in the file, {tuple(tensor.shape)} in the model"
            raise CompressnetError(f"{source} does not fit the model: '{name}' is {shapes}")
        if tensor.dtype != theirs.dtype:
            if not (tensor.is_floating_point() and theirs.is_floating_point()):
                kinds = f"{_kind(theirs)} in the file, {_kind(tensor)} in the model"
                raise CompressnetError(f"{source} does not fit the model: '{name}' is {kinds}")
            converted.append(name)
    if converted:
        first = converted[0]
        _note(
            f"{source}: {len(converted)} of {len(own)} tensors are converted to the model's type, first "
            f"'{first}' from {_kind(tensors[first])} to {_kind(own[first])}"
        )
    fitting = {name: tensors[name].to(tensor.dtype) for name, tensor in own.items()}
    _check_finite({name: fitting[name] for name in converted}, source)  # float64 has larger numbers
    return fitting


def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put `tensors` (by the names of `raw_tensors`) in the places of a model's tensors on `meta`.

    What is not stored the model makes again: a module that has such buffers says how in `make_buffers()`.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    filled: dict[int, Tensor] = {}
    for name, tensor in named:
        if name in tensors:
            is_parameter = isinstance(tensor, nn.Parameter)
            new = nn.Parameter(tensors[name], tensor.requires_grad) if is_parameter else tensors[name]
            filled[id(tensor)] = new
    for module in model.modules():
        for name, held in [*module._parameters.items(), *module._buffers.items()]:
            if held is not None and id(held) in filled:
                setattr(module, name, filled[id(held)])
        if (make_buffers := getattr(module, "make_buffers", None)) is not None:
            make_buffers()
    left = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert not left, f"{type(model).__name__}: {left[0]} is neither stored nor made by make_buffers()"


def _note(text: str) -> None:
    warnings.warn(text, CompressnetNote, stacklevel=2)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _top_names(tensors: Mapping[str, Any]) -> list[str]:
    return sorted({name.split(".")[0] for name in tensors})


def _unreadable(path: Path, error: Exception) -> CompressnetError:
    reason = " ".join(str(error).split())[:300]
    return CompressnetError(f"{path}: damaged or not a safetensors file ({reason}): restore it from a copy")
