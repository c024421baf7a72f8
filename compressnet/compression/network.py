"""A network on its calibration data: which layers it calls, on which grids, in which order.

module + Calibration -> Network -> parts (in the order of their first calls), moments of any layer
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressnet.analysis.given import inputs_of
from compressnet.compression.moments import Second, Side, collect
from compressnet.compression.part import KINDS, Part
from compressnet.errors import UsageError, named
from compressnet.layers.chain import Chain
from compressnet.layers.data_flow import chains
from compressnet.layers.fold_plan import NORMS, Alone
from compressnet.training.evaluate import evaluating

Call = Callable[[nn.Module], object]
"""Runs a network on one batch."""

_NO_DATA = "there is no calibration data: give inputs, or None to look at the weights alone"
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Calibration:
    """What a network is run on, as often as it takes.

    Args:
        batches: makes calls, one a batch, anew each time.
        about: what a report says of it: which data, how many samples.
        is_data: False: the batches are random, and good for shapes alone (`--data-free`).
    """

    def __init__(
        self, batches: Callable[[], Iterable[Call]], about: Mapping[str, Any], is_data: bool = True
    ) -> None:
        self._batches, self.about, self.is_data = batches, dict(about), is_data

    @classmethod
    def of(cls, inputs: Sequence[Any] | None, module: nn.Module) -> Calibration:
        """Of the arguments of calls: a tensor or a tuple each; None: of random inputs, for shapes."""
        from compressnet.analysis.example import example

        calls = [example(module)] if inputs is None else [inputs_of(given, "compress") for given in inputs]
        if not calls:
            raise UsageError(_NO_DATA)
        count = sum(len(call[0]) if isinstance(call[0], Tensor) and call[0].ndim else 1 for call in calls)
        if not count:
            raise UsageError(_NO_DATA)

        def batches() -> Iterator[Call]:
            yield from (partial(_called_with, call) for call in calls)

        return cls(batches, {"samples": count}, inputs is not None)

    def __call__(self, module: nn.Module) -> None:
        """Run over everything."""
        with evaluating(module), torch.no_grad():
            for call in self._batches():
                call(module)

    @cached_property
    def batches(self) -> int:
        """How many calls there are."""
        return sum(1 for _ in self._batches())

    def up_to(self, module: nn.Module, path: str) -> Iterator[tuple[Tensor, Tensor]]:
        """What a layer is given and returns in its first call of each batch; what follows it is not run.

        A batch that does not reach it is left out. No batch has the state of the one before it.
        """
        reached: list[tuple[Tensor, Tensor]] = []

        def seen(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            reached.append((inputs[0].detach(), output.detach()))
            raise _Reached

        for call in self._batches():
            handle = module.get_submodule(path).register_forward_hook(seen)
            try:
                with evaluating(module), torch.no_grad(), suppress(_Reached):
                    call(module)
            finally:
                handle.remove()
            if reached:
                yield reached.pop()

    def first(self, module: nn.Module) -> None:
        """Run the first batch."""
        with evaluating(module), torch.no_grad():
            next(iter(self._batches()))(module)

    def train(self, module: nn.Module) -> None:
        """Run over everything with the modes of its modules as they are."""
        with torch.no_grad():
            for call in self._batches():
                call(module)


class _Reached(Exception):
    """A layer was called: enough of this batch."""


class Kept(NamedTuple):
    """A layer that stays as it is, and why."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """Which layers may be changed: paths by shell patterns.

    Attributes:
        only: none but these; empty: all.
        skip: not these.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def __contains__(self, path: str) -> bool:
        wanted = not self.only or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.only)
        return wanted and not self.skips(path)

    def skips(self, path: str) -> bool:
        """Whether a layer was named as one that stays."""
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.skip)

    def check(self, module: nn.Module) -> None:
        """See that every pattern means something.

        Raises:
            UsageError: one matches no layer.
        """
        paths = [path for path, _ in module.named_modules() if path]
        for flag, patterns in (("only", self.only), ("skip", self.skip)):
            for pattern in patterns:
                if not fnmatch.filter(paths, pattern):
                    some = ", ".join(path for path in paths if "." not in path)
                    raise UsageError(
                        f"--{flag} {named(pattern)}: no layer has such a path (there are {some})"
                    )


class Network:
    """A module with what it is run on.

    Args:
        module: looked at and run, never changed.
    """

    def __init__(self, module: nn.Module, calibration: Calibration, selection: Selection) -> None:
        self.module, self.calibration, self.selection = module, calibration, selection

    @cached_property
    def parts(self) -> list[Part]:
        """Linear layers and convolutions that can be replaced, in the order of their first calls."""
        alone = Alone(self.module)
        seen = self._calls
        return [
            Part(path, layer, *seen[path], path in self.norms)
            for path, layer in self._called
            if type(layer) in KINDS and path in self.selection and alone(path) and not self._refusal(path)
        ]

    @cached_property
    def kept(self) -> list[Kept]:
        """Layers with matrices that no transform of weights can look at, and why."""
        alone = Alone(self.module)
        called = {path for path, _ in self._called}
        kept: list[Kept] = []
        for path, layer in self.module.named_modules():
            if path not in self.selection or not _has_matrix(layer):
                continue
            if type(layer) not in KINDS:
                reason = _reason(layer)
            elif refusal := self._refusal(path):
                reason = refusal
            elif path not in called:
                reason = "it is not called with its input alone: what comes in its place might not be found"
            elif not alone(path):
                reason = "it shares its weights, stands in two places, or has hooks"
            else:
                continue
            kept.append(Kept(path, type(layer).__name__, reason))
        return kept

    def moments(self, wanted: Mapping[str, Iterable[Side]]) -> dict[tuple[str, Side], Second]:
        """Moments of layers over the calibration data; nothing where there is none.

        Raises:
            NotFinite: a value on the way is not finite.
        """
        return collect(self.module, wanted, self.calibration) if self.calibration.is_data else {}

    def _refusal(self, path: str) -> str:
        """Why a layer is nothing to be split, for what it stands in; "": there is no reason."""
        if not path:
            return "it is all there is: put it into a torch.nn.Sequential"
        outer = self.module.get_submodule(path.rpartition(".")[0])
        if isinstance(outer, Chain):  # to split it again has little to gain
            return "a factor of a layer that was split: densify makes it one again"
        if isinstance(outer, nn.TransformerEncoderLayer) and outer.activation_relu_or_gelu:
            return "torch's fused encoder layer reads its weight (not with activation_relu_or_gelu = 0)"
        return ""

    @property
    def _called(self) -> list[tuple[str, nn.Module]]:
        return [(path, self.module.get_submodule(path)) for path in self._calls]

    @cached_property
    def _calls(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Grids in and out of every layer, in the order of the first calls."""
        found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

        def seen(path: str, layer: Any, inputs: Any, output: Any) -> None:
            if not inputs:  # it is given by name: what comes in its place takes it by place
                return
            axes = layer.weight.ndim - 2
            inside, outside = (tuple(x.shape[-axes:]) if axes else () for x in (inputs[0], output))
            found.setdefault(path, (inside, outside))

        with _watched(self.module, lambda layer: type(layer) in KINDS, seen):
            self.calibration.first(self.module)
        return found

    @cached_property
    def norms(self) -> dict[str, str]:
        """Layers whose outputs go to a batch norm and nowhere else, and that norm."""
        rows = chains(self.module, lambda part: type(part) in KINDS or type(part) in NORMS)
        pairs = [pair for row in rows for pair in pairwise(row)]
        return {path: n for path, n in pairs if type(self.module.get_submodule(n)) in _BATCH_NORMS}


@contextmanager
def _watched(
    module: nn.Module, is_wanted: Callable[[nn.Module], bool], seen: Callable[..., None]
) -> Iterator[None]:
    """Call `seen(path, layer, inputs, output)` after each call of a layer."""
    handles = []
    for path, layer in module.named_modules():
        if is_wanted(layer):
            handles.append(layer.register_forward_hook(_hook(path, seen)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(path: str, seen: Callable[..., None]) -> Callable[..., None]:
    def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
        seen(path, layer, inputs, output)

    return hook


def _called_with(call: tuple[Any, ...], module: nn.Module) -> object:
    return module(*call)


def _reason(layer: nn.Module) -> str:
    if isinstance(layer, nn.LSTM):
        return _REASONS["TorchLSTM"]
    return _REASONS.get(type(layer).__name__, "no transform is for this kind of layer")


def _has_matrix(layer: nn.Module) -> bool:
    own = [p for p in layer._parameters.values() if p is not None]
    return any(p.ndim > 1 for p in own) or type(layer).__name__ in _REASONS


_REASONS = {
    "AdaptiveNorm": "its statistics are those of each image",
    "AdaptiveSoftmax": "its matrix is used in slices, a cluster of words each",
    "ClassSoftmax": "its matrix is used in slices, a class of words each",
    "Embedding": "an embedding: use softmax",
    "FactoredEmbedding": "it is in factors already",
    "FactoredSoftmax": "it is in factors already",
    "FullSoftmax": "an output layer of words: use softmax",
    "LSTMCell": "a recurrent cell: use lstmp",
    "SRUCell": "beside its matrices it has vectors alone",
    "SVDF": "it is in factors already",
    "TorchLSTM": "a recurrent cell: use lstmp",
}
