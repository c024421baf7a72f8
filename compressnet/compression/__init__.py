"""Trained networks made smaller: one file a transform, and what applies, checks and reports them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressnet.architecture import Edit
    from compressnet.compression.report import Report


def compress(
    module: nn.Module,
    inputs: Tensor | Iterable[Any] | None,
    methods: str | Sequence[str],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    timed: bool = True,
) -> tuple[nn.Module, Report]:
    """A smaller copy of a trained network, and a report of what that cost and gained.

    Args:
        module: of any class; it is left as it is.
        inputs: calibration data, a list of calls: of each a tensor or a tuple of arguments, such as the
            network will see. A tensor alone is one call. None: the weights alone are looked at.
        methods: names of `registry.TRANSFORMS` with their arguments, one after the other:
            `["fold", "tucker:ratio=0.5"]`.
        only, skip: paths of layers by shell patterns: change these alone; leave these as they are.
        timed: time every layer and both networks on the first of the inputs.

    Raises:
        UsageError: an unknown method, a pattern that matches nothing, or a method that fits no layer.
        NotFinite: what the network computes of the inputs is not finite.
    """
    from torch import Tensor

    from compressnet.analysis.example import example
    from compressnet.analysis.given import calls_of, inputs_of, module_of
    from compressnet.compression.methods import compressed
    from compressnet.compression.network import Calibration, Selection
    from compressnet.compression.report import report
    from compressnet.training.evaluate import evaluating

    module = module_of(module, "compress")
    if inputs is not None:
        inputs = [inputs] if isinstance(inputs, Tensor) else calls_of(inputs)
    calibration = Calibration.of(inputs, module)
    names = [methods] if isinstance(methods, str) else list(methods)
    result = compressed(module, calibration, names, Selection(tuple(only), tuple(skip)))
    first = example(module) if inputs is None else inputs_of(inputs[0], "compress")
    with evaluating(module):
        return result.module, report(module, result, calibration, first, timed=timed)


def apply(module: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Repeat the edits of a compressed network on a fresh one of the same kind, in place; returns it.

    The new layers have the weights that such layers start with: load those of the compressed network.

    Raises:
        UsageError: an edit does not fit.
    """
    from compressnet.architecture import apply_edit

    for edit in edits:
        apply_edit(module, edit)
    return module
