"""`fold`: batch norms and what else follows a layer linearly taken up by it, without an error.

What goes into what, and when it is exact: `layers/fold.py`. Other methods then see weights as they act.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn

from compressnet.analysis.fold import TOLERANCE
from compressnet.compression.change import Change, Replaced, together
from compressnet.compression.network import Kept, Network
from compressnet.errors import CompressnetError
from compressnet.layers.fold import Folding, difference, folding, rounding


class Fold:
    """Every layer with what it takes up."""

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        found = folding(network.module)
        done = [] if found is None else [_of(network, found, group) for group in found.groups]
        outcomes = [one for one in done if one is not None]
        if outcomes:
            _check(network, together(one.change for one in outcomes))
        yield from outcomes


def _of(network: Network, found: Folding, group: tuple[str, ...]) -> Replaced | None:
    """One layer with what it takes up; None: one of them is to stay."""
    first, *others = group
    if first not in network.selection or any(network.selection.skips(path) for path in others):
        return None
    tensors = {f"{first}.{name}": tensor for name, tensor in found.tensors[first].items()}
    edit = {path: found.edit["modules"][path] for path in group}
    kind = type(network.module.get_submodule(first)).__name__
    return Replaced(group, kind, f"takes up {', '.join(others)}", Change({"modules": edit}, tensors))


def _check(network: Network, change: Change) -> None:
    """Compare outputs on the first batch: which layers follow each other may be a guess.

    Raises:
        CompressnetError: they differ.
    """
    made = copy.deepcopy(network.module)
    change.apply(made)
    wanted, outputs = _outputs(network, network.module), _outputs(network, made)
    off = difference(outputs, wanted)
    if off > max(TOLERANCE, rounding(network.module)):
        raise CompressnetError(
            f"method fold: outputs would differ by {off:.1e} of the largest value: layers do not follow each "
            "other as they seem to; leave out some with --skip"
        )


def _outputs(network: Network, module: nn.Module) -> list[Any]:
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        network.calibration.first(module)
    finally:
        handle.remove()
    return seen
