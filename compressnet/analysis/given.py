"""What the functions of the Python API are given: what is meant is taken, all else told in a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressnet.errors import UsageError
from compressnet.subject import Loaded


def module_of(given: object, function: str) -> nn.Module:
    """The module itself, or that of what `compressnet.load` returned.

    Args:
        function: who was given it, for the message.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(given, Loaded):
        return given.model
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, str):
        opened = f'compressnet.load("{given}")'
        raise UsageError(f"{function}: '{given}' is a text: give a torch.nn.Module, or {opened}")
    raise UsageError(f"{function}: give a torch.nn.Module, not {_kind(given)}")


def inputs_of(given: object, function: str) -> tuple[Any, ...]:
    """The arguments of a call: those of a tuple or list, or a tensor, which is the only one.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(given, Tensor | PackedSequence):
        return (given,)
    if isinstance(given, tuple | list):
        return tuple(given)
    raise UsageError(f"{function}: its inputs are a tensor or a tuple of them, not {_kind(given)}")


def calls_of(given: object) -> list[Any]:
    """The inputs of calls, one after the other.

    Raises:
        UsageError: it is nothing to go through.
    """
    if isinstance(given, Iterable) and not isinstance(given, Mapping | str):
        return list(given)
    raise UsageError(f"compress: its inputs are a list, of each call a tensor or a tuple, not {_kind(given)}")


def check_forms(forms: object, function: str) -> None:
    """Refuse what is no mapping from names to what can be called without arguments.

    Raises:
        UsageError: what is wrong with it.
    """
    if not isinstance(forms, Mapping):
        raise UsageError(f'{function}: give {{"name": lambda: module(x), ...}}, not {_kind(forms)}')
    for name, form in forms.items():
        if isinstance(form, nn.Module | Loaded):
            raise UsageError(f"{function}: '{name}' needs its inputs: write lambda: module(x)")
        if not callable(form):
            raise UsageError(f"{function}: '{name}' is {_kind(form)}: give a callable, as lambda: module(x)")


def _kind(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
