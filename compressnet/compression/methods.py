"""A trained network made smaller: methods one after the other, each one edit, and what became of every layer.

network, calibration data -> [method -> edit and values -> batch norms re-estimated] x methods -> network
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compressnet import registry, signature
from compressnet.analysis.fold import check_weights
from compressnet.architecture import Edit
from compressnet.compression.change import Change, Replaced, together
from compressnet.compression.network import Calibration, Kept, Network, Selection
from compressnet.errors import CompressnetError, NotFinite, UsageError
from compressnet.reporter import Reporter, Silent
from compressnet.training.evaluate import evaluating

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Transform(Protocol):
    """A method, constructed with its arguments."""

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        """What becomes of the layers that the network's selection names, and why others stay."""


@dataclass
class Compressed:
    """A network, and what was done to it.

    Attributes:
        module: a copy; the one that was given is as it was.
        edits: one a method, in order: `apply_edit` repeats them on a fresh network.
        replaced: by each method.
        kept: layers that no method changed, with what the last one said of them.
        reestimated: whether statistics of batch norms were made anew.
        warnings: one line each.
    """

    module: nn.Module
    edits: list[Edit] = field(default_factory=list)
    replaced: list[tuple[str, Replaced]] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    reestimated: bool = False
    warnings: list[str] = field(default_factory=list)

    def method_of(self, path: str) -> list[tuple[str, Replaced]]:
        """What was done to a layer, and to what came in its place."""
        return [
            (method, done)
            for method, done in self.replaced
            if any(p == path or p.startswith(f"{path}.") for p in done.paths)
        ]


def compressed(
    module: nn.Module,
    calibration: Calibration,
    methods: Sequence[str],
    selection: Selection | None = None,
    reporter: Reporter | None = None,
    seen: Callable[[str, nn.Module], None] | None = None,
) -> Compressed:
    """Apply methods to a copy of a network.

    Args:
        methods: names with arguments, `tucker:ratio=0.5`.
        seen: called with the network after the last method, "converted", and once more, "re-estimated", where
            batch norms were.

    Raises:
        UsageError: an unknown method or argument, a pattern that matches nothing, or a method that fits no
            layer: the message says why, for each.
        CompressnetError: the network's code looks into a layer that would be replaced.
        NotFinite: weights, or what the network computes of the calibration data, are not finite.
    """
    selection, reporter = selection or Selection(), reporter or Silent()
    transforms = [(method, build(method)) for method in methods]
    if not transforms:
        raise UsageError("there is no method: name one, tucker:ratio=0.5")
    selection.check(module)
    _check_weights(module)
    whole = _copy(module).eval()
    result = Compressed(whole)
    for method, transform in transforms:
        reporter.stage(method, 1, "methods")
        network = Network(whole, calibration, selection)
        outcomes, others = list(transform.changes(network)), network.kept
        replaced = [outcome for outcome in outcomes if isinstance(outcome, Replaced)]
        kept = [outcome for outcome in outcomes if isinstance(outcome, Kept)]
        if not replaced:
            raise UsageError(_fits_nothing(method, [*kept, *others]))
        change = together(done.change for done in replaced)
        _apply(whole, change, calibration, method)
        result.edits.append(change.edit)
        result.replaced += [(method, done._replace(change=Change(done.change.edit))) for done in replaced]
        touched = {path for _, done in result.replaced for path in done.paths}
        result.kept = [one for one in (*kept, *others) if not _is_in(one.path, touched)]
        if thin := [done.paths[0] for done in replaced if done.is_thin]:
            result.warnings.append(
                f"{method}: fewer than ten rows of calibration data a dimension for {_some(thin)}: more "
                "samples make better factors"
            )
        is_last = len(result.edits) == len(transforms)
        if seen is not None and is_last:
            seen("converted", whole)
        if calibration.is_data and reestimate(whole, calibration):
            result.reestimated = True
            if seen is not None and is_last:
                seen("re-estimated", whole)
        reporter.advance(1)
    return result


def _copy(module: nn.Module) -> nn.Module:
    """A copy.

    Raises:
        CompressnetError: it has tensors that torch does not copy.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        computed = [
            f"{path}.{name}".lstrip(".")
            for path, layer in module.named_modules()
            for name, value in vars(layer).items()
            if isinstance(value, Tensor) and value.requires_grad and not value.is_leaf
        ]
        raise CompressnetError(
            f"{_some(computed)}: computed of other weights, which torch does not copy: remove_weight_norm or "
            "prune.remove makes a parameter of it"
        ) from error


def _check_weights(module: nn.Module) -> None:
    check_weights(module, type(module).__name__)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_complex():
            raise UsageError(f"{name}: complex numbers: compress takes real ones")
        if not bool(torch.isfinite(tensor).all()):
            raise NotFinite(f"{name}: its values are not finite: nothing can be made of it")


def build(method: str) -> Transform:
    """The transform that a text names.

    Raises:
        UsageError: unknown, or an argument is.
    """
    name, arguments = signature.read_named(method)
    if name not in registry.TRANSFORMS:
        known = registry.suggestion(name, registry.TRANSFORMS)
        raise UsageError(f"there is no method '{name[:80]}'{known}")
    transform: Transform = signature.build("method", name, arguments)
    return transform


def reestimate(module: nn.Module, calibration: Calibration) -> bool:
    """Make the statistics of batch norms anew: the mean over the calibration batches, each counting alike.

    What was put in the place of a layer does not put out the same mean and variance. Other modules stay in
    evaluation: nothing is dropped out.

    Returns:
        whether there were any.
    """
    norms: list[Any] = [part for part in module.modules() if _has_statistics(part)]
    if not norms:
        return False
    with evaluating(module):
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
            norm.train()
        try:
            calibration.train(module)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
    return True


def _has_statistics(part: nn.Module) -> bool:
    return isinstance(part, _NORMS) and part.running_mean is not None


def _apply(module: nn.Module, change: Change, calibration: Calibration, method: str) -> None:
    """Apply a change, and see that the network still runs.

    Raises:
        CompressnetError: it does not: its code reads something of a layer that its replacement has not.
    """
    change.apply(module)
    try:
        calibration.first(module)
    except (AttributeError, TypeError, RuntimeError) as error:
        layers = _some(list(change.edit["modules"]))
        reason = " ".join(str(error).split())[:200]
        raise CompressnetError(
            f"{method}: with {layers} replaced the network does not run ({reason}); leave out what its code "
            "looks into with --skip"
        ) from error


def _fits_nothing(method: str, kept: Sequence[Kept]) -> str:
    if not kept:
        return f"method {method}: the network has no layer for it"
    by_reason: dict[str, list[str]] = {}
    for one in kept:
        by_reason.setdefault(one.reason, []).append(one.path)
    reasons = "; ".join(f"{_some(paths)}: {reason}" for reason, paths in list(by_reason.items())[:4])
    return f"method {method}: it fits no layer ({reasons})"


def _is_in(path: str, touched: Iterable[str]) -> bool:
    """Whether a layer is one of these, or a part of one."""
    return any(path == other or path.startswith(f"{other}.") for other in touched)


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more
