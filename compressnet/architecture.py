"""What a weights file says of itself, and the only way from there to a module.

    Architecture --to_json--> {..., digest, seal} --from_json--> Architecture, digest
                 --build----> model --apply_edit, one after the other--> model

The description is data from strangers: it is bounded, has one form, and builds only what is registered. Its
seal is the SHA-256 of the rest: `task_args`, `smoke` and others are no part of the digest of the weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import ConfigDict, Field, with_config
from pydantic.dataclasses import dataclass
from torch import nn
from typing_extensions import TypedDict

from compressnet import json_file, signature
from compressnet.errors import CompressnetError, UsageError, named

FORMAT = 2
_REPLACED = 16  # layers that edits may replace, one after the other, for each tensor that is there at the end
Name = Annotated[str, Field(min_length=1, max_length=200)]
Path = Annotated[str, Field(max_length=1000)]
_STRICT = ConfigDict(strict=True, extra="forbid")
_HEX = re.compile(r"[0-9a-f]{64}")


@with_config(_STRICT)
class Layer(TypedDict):
    """A layer by its name in the registry, with its arguments."""

    layer: Name
    args: dict[str, Any]


@with_config(_STRICT)
class Edit(TypedDict, total=False):
    """What was done to a model after it was built: modules replaced, then parameters tied; all or nothing.

    `modules` are layers by the path of the module in whose place they come; `ties` are pairs of a parameter's
    name and another's that is the same from then on.
    """

    modules: dict[Path, Layer]
    ties: list[Annotated[list[Path], Field(min_length=2, max_length=2)]]


@dataclass(frozen=True, config=_STRICT)
class Architecture:
    """What weights are the weights of.

    Attributes:
        task, task_args: the task's name and arguments as a recipe writes them.
        model, model_args: the model's name and arguments, with those that follow from the data.
        edits: what was done to the model after it was built, in order.
        assets: what the task needs besides weights (vocabulary, class names, ...).
        data: what identifies the training data; no paths.
        smoke: whether the weights come from a smoke run.
    """

    task: Name
    task_args: dict[str, Any]
    model: Name
    model_args: dict[str, Any]
    edits: Annotated[list[Edit], Field(max_length=1000)] = field(default_factory=list)
    assets: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    smoke: bool = False


class Description(NamedTuple):
    """What stands in a weights file.

    Attributes:
        digest: of the tensors beside it (`weights.digest`); None: the file is of format 1, which has none.
    """

    architecture: Architecture
    digest: str | None


def to_json(architecture: Architecture, digest: str) -> str:
    """The description of a file whose tensors have this digest, sealed."""
    fields = {**dataclasses.asdict(architecture), "format": FORMAT, "digest": digest}
    return json.dumps({**fields, "seal": seal(fields)}, sort_keys=True)


def seal(fields: Mapping[str, Any]) -> str:
    """SHA-256 of a description without its seal, or of another record that carries one."""
    rest = {key: value for key, value in fields.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def from_json(text: str, source: str, *, sealed: bool = True) -> Description:
    """Parse `to_json`'s text, or that of format 1.

    Args:
        source: what to call the file in messages.
        sealed: refuse a description that was changed; False: take it as it stands.

    Raises:
        CompressnetError: written by a newer version, changed since it was written, or not ours.
    """
    fields = json_file.parse(text, f"{source}: its description")
    version = fields.get("format") if isinstance(fields, dict) else None
    if type(version) is not int or version < 1:
        raise CompressnetError(f"{source}: its description is damaged: it names no format")
    if version > FORMAT:
        raise CompressnetError(
            f"{source}: weights format {version} is newer than this compressnet reads ({FORMAT}): "
            "upgrade compressnet"
        )
    rest = {key: value for key, value in fields.items() if key not in ("format", "digest", "seal")}
    if version == 1:
        if {"digest", "seal"} & fields.keys():
            raise CompressnetError(f"{source}: its description is damaged: format 1 has no digest")
        return Description(_checked(rest, source), None)
    for key in ("digest", "seal"):
        if not isinstance(fields.get(key), str) or not _HEX.fullmatch(fields[key]):
            raise CompressnetError(f"{source}: its description is damaged: its {key} is missing or none")
    if sealed and fields["seal"] != seal(fields):
        changed = f"{source}: its description was changed after it was written"
        raise CompressnetError(f"{changed}; {import_it(source)}")
    return Description(_checked(rest, source), fields["digest"])


def import_it(source: str) -> str:
    """What to do with a file that was changed."""
    return (
        "restore it from a copy or, if you changed it yourself, take it as it is with: "
        f"compressnet import {source} -o NEW.safetensors"
    )


def _checked(fields: Mapping[str, Any], source: str) -> Architecture:
    return json_file.check(Architecture, dict(fields), f"{source}: its description")


def build(architecture: Architecture) -> nn.Module:
    """The module that an architecture describes, freshly initialised: the only way from a name to a module.

    Raises:
        UsageError: unknown model, layer or argument, or an edit that does not fit the model.
    """
    model: nn.Module = signature.build("model", architecture.model, architecture.model_args)
    for edit in architecture.edits:
        apply_edit(model, edit)
    return model


def build_on_meta(architecture: Architecture, tensors: int, source: str) -> nn.Module:
    """`build_stored` without memory and work, on the device `meta`."""
    with torch.device("meta"):
        return build_stored(architecture, tensors, source)


def build_stored(architecture: Architecture, tensors: int, source: str) -> nn.Module:
    """`build` of what a file says, which may be damaged: not far beyond the tensors there are.

    Args:
        tensors: how many the file has.
        source: the file, for messages.

    Raises:
        CompressnetError: it cannot be built, or has more tensors than the file.
    """
    layers = (layer for edit in architecture.edits for layer in edit.get("modules", {}).values())
    replaced = sum(map(_count, layers))
    if replaced > 64 + _REPLACED * tensors:
        raise CompressnetError(
            f"{source}: its description is damaged: it replaces {replaced:,} layers "
            f"and has {tensors:,} tensors"
        )
    # What is replaced or tied later counts too: the limit is above what a file has, to end what is endless.
    with _at_most(4 * tensors + 64 * (1 + replaced), source):
        try:
            return build(architecture)
        except CompressnetError as error:
            raise CompressnetError(f"{source}: {error}") from error
        except (RuntimeError, TypeError, OverflowError, MemoryError, ArithmeticError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CompressnetError(f"{source}: its model cannot be built: {reason}") from error


def _count(layer: Any) -> int:
    """Layers in a description, those of chains too."""
    inner = (
        layer["args"].get("layers")
        if isinstance(layer, dict) and isinstance(layer.get("args"), dict)
        else None
    )
    return 1 + sum(map(_count, inner)) if isinstance(inner, list) else 1


@contextmanager
def _at_most(limit: int, source: str) -> Iterator[None]:
    """Stop a model that is being built by this thread as soon as it has more parameters than `limit`."""
    me, count = threading.get_ident(), 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        if threading.get_ident() == me and (count := count + 1) > limit:
            raise CompressnetError("its description has many more tensors than the file")

    handle = nn.modules.module.register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def apply_edit(model: nn.Module, edit: Edit) -> None:
    """Replace modules and tie parameters as one edit says, in place; or nothing, where it does not fit.

    Raises:
        UsageError: a path that is not there or lies in another, or parameters that are not alike.
    """
    replacements = edit.get("modules", {})
    _check_paths(model, replacements)
    undo: list[tuple[nn.Module, str, Any]] = []
    try:
        for path, layer in replacements.items():
            _put(model, path, signature.build("layer", layer["layer"], layer["args"]), undo)
        for kept, alias in edit.get("ties", []):
            _put(model, alias, _tied(model, kept, alias), undo)
    except BaseException:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)
        raise


def _put(model: nn.Module, path: str, value: Any, undo: list[tuple[nn.Module, str, Any]]) -> None:
    outer, _, name = path.rpartition(".")
    owner = model.get_submodule(outer)
    undo.append((owner, name, getattr(owner, name)))
    setattr(owner, name, value)


def _check_paths(model: nn.Module, paths: Mapping[str, Any]) -> None:
    known = {path for path, _ in model.named_modules(remove_duplicate=False) if path}
    for path in paths:
        if not known:
            raise UsageError("an edit replaces a part of a model that is one layer and has none")
        if path not in known:
            raise UsageError(f"an edit replaces '{named(path)}', which the model has not")
        outer = path.rpartition(".")[0]
        while outer:
            if outer in paths:
                raise UsageError(f"an edit replaces '{outer}' and '{path}', which lies in it")
            outer = outer.rpartition(".")[0]


def _tied(model: nn.Module, kept: str, alias: str) -> nn.Parameter:
    """The parameter `kept`, where `alias` can be the same."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in (kept, alias):
        if name not in parameters:
            raise UsageError(f"an edit ties '{named(name)}', which the model has not")
    mine, theirs = parameters[kept], parameters[alias]
    if kept == alias or mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        shapes = f"{tuple(mine.shape)} and {tuple(theirs.shape)}"
        raise UsageError(f"an edit ties '{kept}' and '{alias}', which are not alike ({shapes})")
    return mine
