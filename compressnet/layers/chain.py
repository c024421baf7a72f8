"""Layers in a row in the place of one: what a layer that was split into factors becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from compressnet import cost, signature
from compressnet.cost import Term
from compressnet.errors import UsageError, shown

_DEEPEST = 4  # chains in each other

Row = Annotated[list[Any], Field(min_length=1, max_length=100)]


class Chain(nn.Sequential):
    """Registered layers, each of which takes what the one before it returns.

    It stands where one layer stood: what that was given besides its input goes to the last one. So a linear
    layer and an output layer of a language model are called as the output layer alone, `(hidden, words)`.

    Args:
        layers: `{layer: NAME, args: {...}}` each, in order; at most 100, and chains at most four deep.

    Raises:
        UsageError: one of them is of another form, unknown, or does not take its arguments; the message says
            which, counted from 0 as the names of their parameters are.
    """

    def __init__(self, layers: Row) -> None:
        _check_depth(layers)
        super().__init__(*(_built(number, entry) for number, entry in enumerate(layers)))

    def forward(self, x: Any, *others: Any) -> Any:
        """What the last layer returns of `x`, which went through all before it, and `others`."""
        *first, last = self
        for layer in first:
            x = layer(x)
        return last(x, *others)


def linear_terms(module: nn.Module, rows: int) -> list[Term]:
    """The cost of a linear layer, or of a chain of them, on `rows` vectors; [] of anything else."""
    if isinstance(module, Chain):
        return [term for layer in module for term in linear_terms(layer, rows)]
    if not isinstance(module, nn.Linear):
        return []
    return cost.linear(module.in_features, module.out_features, rows=rows, bias=module.bias is not None)


def _built(number: int, entry: Any) -> nn.Module:
    if not _is_layer(entry):
        raise UsageError(
            f"layer chain: its layer {number} must be {{layer: NAME, args: {{...}}}}, got {shown(entry)}"
        )
    try:
        made = signature.build("layer", entry["layer"], entry["args"])
    except UsageError as error:
        raise UsageError(f"layer chain: its layer {number}: {error}") from error
    assert isinstance(made, nn.Module)
    return made


def _is_layer(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and entry.keys() == {"layer", "args"}
        and isinstance(entry["layer"], str)
        and isinstance(entry["args"], Mapping)
    )


def _check_depth(layers: Row) -> None:
    """Before anything is built, level by level."""
    level: list[Any] = list(layers)
    for _ in range(_DEEPEST):
        inner = [entry["args"].get("layers") for entry in level if _is_layer(entry)]
        level = [entry for row in inner if isinstance(row, list) for entry in row]
        if not level:
            return
    raise UsageError(f"layer chain: chains in each other, more than {_DEEPEST} deep")
