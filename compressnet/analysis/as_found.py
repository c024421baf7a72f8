"""Borrow a module: whatever a forward pass does to it, it is left as it was found."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_DICTIONARIES = (dict, OrderedDict, defaultdict)


@contextmanager
def as_found(module: nn.Module) -> Iterator[None]:
    """Put everything back at the end that was set, replaced or registered in `module` and its submodules.

    That is their attributes, and what is in those that are lists or dictionaries: parameters and buffers,
    hooks, training flags, what a forward pass keeps for the next. Tensors whose values were changed in place
    stay changed: lend stand-ins for them.
    """
    with ExitStack() as restored:
        for child in module.modules():
            for value in child.__dict__.values():
                if type(value) in _DICTIONARIES:
                    restored.callback(_restore, value, dict(value))
                elif type(value) is list:
                    restored.callback(value.__setitem__, slice(None), list(value))
            restored.callback(_restore, child.__dict__, dict(child.__dict__))
        yield


def lend_meta(module: nn.Module) -> None:
    """Replace parameters and buffers by some without values; one that is used twice stays one."""
    known: dict[Tensor, Tensor] = {}
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                if parameter not in known:
                    empty = torch.empty_like(parameter, device="meta")
                    known[parameter] = nn.Parameter(empty, parameter.requires_grad)
                child._parameters[name] = known[parameter]  # type: ignore[assignment]
        for name, buffer in child._buffers.items():
            if buffer is not None:
                child._buffers[name] = known.setdefault(buffer, torch.empty_like(buffer, device="meta"))


def lend_buffers(module: nn.Module) -> None:
    """Replace buffers by copies, whose values a forward pass may change."""
    for child in module.modules():
        for name, buffer in child._buffers.items():
            if buffer is not None:
                child._buffers[name] = buffer.clone()


def _restore(target: dict[str, Any], content: dict[str, Any]) -> None:
    target.clear()
    target.update(content)
