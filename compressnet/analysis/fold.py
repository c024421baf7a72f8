"""Networks folded for inference, and checked: what `layers.fold` changes must not change their outputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressnet.analysis.count import Count, count
from compressnet.analysis.example import Size, example, example_step
from compressnet.analysis.given import inputs_of, module_of
from compressnet.errors import CompressnetError, UsageError, told
from compressnet.layers.data_flow import is_guess
from compressnet.layers.fold import Folding, difference, folding, rounding
from compressnet.layers.fold_plan import is_wanted
from compressnet.subject import Loaded

TOLERANCE = 1e-5  # of a difference, relative to the largest value
# Batch and size; what a network does not take is left out.
_INPUTS: tuple[tuple[int, Size], ...] = ((1, None), (3, None), (2, (40, 56)), (2, 48), (1, 19))
_SEED = 0
_NOTHING = (
    "no batch normalisation, frozen adaptive normalisation, linear layer or 1x1 convolution comes right "
    "behind a layer that could take it up (what is shared, hooked, parametrised or not finite stays as it is)"
)


class Checked(NamedTuple):
    """One comparison: shapes of the inputs, and how far the outputs are apart (`layers.fold.difference`)."""

    inputs: tuple[tuple[int, ...], ...]
    difference: float


@dataclass(frozen=True)
class Folded:
    """A folded network beside what it was made of.

    Attributes:
        module: a copy, in evaluation.
        folding: what was done.
        before, after: their counts.
        checks: on several inputs.
        is_guess: its data flow could not be traced (`data_flow.is_guess`): the checks are all that is known.
    """

    module: nn.Module
    folding: Folding
    before: Count
    after: Count
    checks: tuple[Checked, ...]
    is_guess: bool = False

    @property
    def difference(self) -> float:
        """The largest, relative to the largest value of that output."""
        return max(checked.difference for checked in self.checks)


def fold(module: nn.Module | Loaded, inputs: Tensor | Sequence[Any] | None = None) -> nn.Module:
    """A copy for inference with batch normalisation, and linear layers in a row, folded away.

    What is folded into what: `compressnet.layers.fold`. The copy is in evaluation, and so is what it must
    agree with. It is for calls with the arguments that the module must have; what optional arguments or other
    methods do may differ.

    Args:
        module: of any class, or what `compressnet.load` returned; it is left as it is.
        inputs: the arguments of a call on which the two are compared, a tensor is the only one; default: what
            its `example` makes, in several sizes.

    Raises:
        CompressnetError: there is nothing to fold, or outputs differ by more than 1e-5 of the largest value.
        UsageError: its inputs are unknown, or it is no module.
    """
    module = module_of(module, "fold")
    given = None if inputs is None else inputs_of(inputs, "fold")
    return folded(module, type(module).__name__, given).module


def folded(module: nn.Module, name: str, inputs: tuple[Any, ...] | None = None) -> Folded:
    """`fold` with all that is known of it.

    Args:
        name: what to call the module in messages.

    Raises:
        CompressnetError, UsageError: as of `fold`.
    """
    check_weights(module, name)
    with told(name):
        whole = copy.deepcopy(module).eval()
        found = folding(whole)
        if found is None:
            raise CompressnetError(f"{name}: nothing to fold: {_NOTHING}")
        made = copy.deepcopy(whole)
        found.apply(made)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_SEED)
            usual = example(whole) if inputs is None else inputs
            checks = tuple(_check(name, whole, made, inputs))
        counted = count(whole, usual), count(made, usual)
    return Folded(made, found, *counted, checks, is_guess(whole, is_wanted))


def check_weights(module: nn.Module, name: str) -> None:
    """Refuse a module that has no weights yet.

    Raises:
        CompressnetError: its weights are on `meta`, or are made in its first call.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if nn.parameter.is_lazy(tensor):
            raise CompressnetError(f"{name}: it has lazy modules: run it once first, so that they have sizes")
        if tensor.is_meta:
            raise CompressnetError(f"{name}: its weights are on the device 'meta': load them first")


def _check(name: str, whole: nn.Module, made: nn.Module, inputs: tuple[Any, ...] | None) -> Iterator[Checked]:
    allowed = max(TOLERANCE, rounding(whole))
    for number, (method, given) in enumerate(_calls(whole, inputs)):
        try:
            wanted = getattr(whole, method)(*given)
        except (RuntimeError, ValueError, TypeError) as error:
            if number == 0:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise CompressnetError(f"{name}: it does not take its inputs: {reason}") from error
            continue  # a size that is none of its
        if difference(getattr(whole, method)(*given), wanted) > allowed:
            raise CompressnetError(f"{name}: its own outputs are random or not finite: nothing to compare")
        off = difference(getattr(made, method)(*given), wanted)
        if off > allowed:
            raise CompressnetError(
                f"{name}: folded, its outputs would differ by {off:.1e} of the largest value; at most "
                f"{allowed:.0e} is allowed"
            )
        yield Checked(tuple(tuple(x.shape) for x in given if isinstance(x, Tensor)), off)


def _calls(module: nn.Module, inputs: tuple[Any, ...] | None) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Methods and their arguments; of a stream also a step."""
    if inputs is not None:
        yield "forward", inputs
        return
    for batch, size in _INPUTS:
        try:
            yield "forward", example(module, batch, size)
        except UsageError:
            if size is None:
                raise
    if hasattr(module, "init_state") and hasattr(module, "step"):
        yield "step", (*example_step(module, 2), module.init_state(2))  # type: ignore[operator]
