"""What a transform does to a network: an edit, and the values of the parameters that are new with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressnet.architecture import Edit, apply_edit
from compressnet.errors import NotFinite


@dataclass(frozen=True)
class Change:
    """New layers in the place of others, with their values.

    Attributes:
        edit: as a weights file keeps it.
        tensors: parameters and buffers of the new layers by their full names, in any type; of two that the
            edit ties, the one that is kept.
    """

    edit: Edit
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def apply(self, module: nn.Module) -> None:
        """Change a module in place: new values in the types and on the device of what they replace.

        Raises:
            UsageError: the edit does not fit; nothing is changed then.
            NotFinite: a value is infinite or NaN in the type of the weights; nothing is changed then.
        """
        like = {path: _kind_of(module, path) for path in self.edit["modules"]}
        values = {}
        for name, tensor in self.tensors.items():
            owner = max((path for path in like if name.startswith(f"{path}.")), key=len)
            value = tensor.to(*like[owner]) if tensor.is_floating_point() else tensor.to(like[owner][0])
            if not torch.isfinite(value).all():
                raise NotFinite(f"{name}: its new values are not finite in {str(value.dtype)[6:]}")
            values[name] = value.contiguous()
        trained = {p.requires_grad for p in module.parameters()} != {False}
        with torch.device("meta"):
            apply_edit(module, self.edit)
        for name, value in values.items():
            outer, _, own = name.rpartition(".")
            part: Any = module.get_submodule(outer)
            is_parameter = own in part._parameters
            setattr(part, own, nn.Parameter(value, requires_grad=trained) if is_parameter else value)
        for kept, alias in self.edit.get("ties", []):  # they were tied before they had values
            outer, _, own = alias.rpartition(".")
            setattr(module.get_submodule(outer), own, module.get_parameter(kept))
        for path in self.edit["modules"]:
            module.get_submodule(path).train(module.training)


class Replaced(NamedTuple):
    """Layers that a transform changes, and how.

    Attributes:
        paths: the layer; behind it those that change with it.
        kind: the name of its class.
        text: what a report says of the size: "rank 24".
        is_thin: whether it was made of fewer than ten rows of data a dimension.
        error: by the spectrum (`matrices.lost`), of what is made of the first layer's outputs on the data,
            where outputs themselves cannot be compared; None: not known.
    """

    paths: tuple[str, ...]
    kind: str
    text: str
    change: Change
    is_thin: bool = False
    error: float | None = None


def together(changes: Iterable[Change]) -> Change:
    """Changes of different layers as one edit."""
    edit: Edit = {"modules": {}}
    tensors: dict[str, Tensor] = {}
    for change in changes:
        edit["modules"] |= change.edit["modules"]
        if ties := change.edit.get("ties"):
            edit["ties"] = [*edit.get("ties", []), *ties]
        tensors |= change.tensors
    return Change(edit, tensors)


def shared_ties(module: nn.Module, path: str) -> list[list[str]]:
    """What ties the parameters of a part to those elsewhere, for an edit that puts another in its place."""
    everywhere = list(module.named_parameters(remove_duplicate=False))
    inside = [(name, own) for name, own in everywhere if name.startswith(f"{path}.")]
    outside = [(name, own) for name, own in everywhere if not name.startswith(f"{path}.")]
    return [[other, name] for name, own in inside for other, shared in outside if shared is own]


def _kind_of(module: nn.Module, path: str) -> tuple[torch.device, torch.dtype]:
    """Where the numbers of a part are, and of what type; those of the whole where it has none."""
    for owner in (module.get_submodule(path), module):
        for tensor in (*owner.parameters(), *owner.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32
