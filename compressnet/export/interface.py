"""What a network takes and gives as ONNX has it: a flat list of named tensors, some of their axes open.

    input    (time, batch, 8)  ->  [ network ]  ->  output        (time, batch, 16)
    state_0  (1, batch, 16)    ->  [         ]  ->  next_state_0  (1, batch, 16)      ... with a state

Which axes are open is seen from what `example` returns for other batches and sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressnet.analysis.example import example, example_step
from compressnet.errors import UsageError

Size = int | tuple[int, ...] | None
Tensors = tuple[Tensor, ...]
Axes = dict[int, str]  # the names of the open axes of a tensor

# Sizes of a trace: no two axes alike and none of them 1, or torch takes that for a rule.
_BATCH = 2
_TRACED: tuple[Size, ...] = ((64, 48), (20, 16, 12), 35)
_NAMES = {1: ("time",), 2: ("height", "width"), 3: ("depth", "height", "width")}
# By the number of sizes: batches and sizes to check with.
_OTHERS: dict[int, tuple[tuple[int, Size], ...]] = {
    0: ((1, None), (3, None), (7, None)),
    1: ((1, 1), (3, 7), (1, 50), (3, 50)),
    2: ((1, (33, 47)), (3, (96, 80)), (1, (9, 150)), (1, (200, 300))),
    3: ((1, (9, 20, 15)), (3, (22, 11, 17))),
}
_SEED = 0


@dataclass(frozen=True)
class Interface:
    """A network that takes and returns tensors alone, and what its file says of them.

    Attributes:
        network: in inference, around the module.
        example: inputs of the trace.
        axes: the open axes of each input.
        output_axes: those axes of each output that are always as long as one of these.
        others: inputs of other batches and sizes, to check with.
    """

    network: nn.Module
    example: Tensors
    axes: tuple[Axes, ...]
    output_axes: tuple[Axes, ...]
    others: tuple[Tensors, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def interface(module: nn.Module, state: bool = False) -> Interface:
    """How `module` is called, by its `example` and, with `state`, its `init_state` and `step`.

    Random numbers are always the same ones, and the caller's are left alone.

    Raises:
        UsageError: its inputs are unknown, it does not take it, or it has no state.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        structure = _structure(module) if state else None
        network = Whole(module) if structure is None else Streaming(module, structure)
        size = _traced_size(module, state)
        make = partial(_inputs, module, state)
        traced, *others = (make(*how) for how in ((_BATCH, size), *_OTHERS[_count(size)]))
        results = _try(network, traced)
        count = 0 if structure is None else structure.num_leaves
        axes = _axes(make, size)
        return Interface(
            network,
            traced,
            axes,
            _output_axes(network, axes, traced, results, others),
            tuple(others),
            _input_names(module, len(traced) - count) + tuple(f"state_{i}" for i in range(count)),
            _names("output", len(results) - count) + tuple(f"next_state_{i}" for i in range(count)),
        )


class Whole(nn.Module):
    """Inputs to outputs. Of what a module with a state returns, the state is left away."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self._with_state = module, hasattr(module, "init_state")

    def forward(self, *inputs: Tensor) -> Tensors:
        result = self.module(*inputs)
        return _tensors(result[0] if self._with_state and isinstance(result, tuple) else result)


class Streaming(nn.Module):
    """Inputs and state to outputs and the next state, each a flat list.

    Args:
        structure: how the state of `module` is built up.
    """

    def __init__(self, module: nn.Module, structure: pytree.TreeSpec) -> None:
        super().__init__()
        self.module, self._structure = module, structure

    def forward(self, *inputs: Tensor) -> Tensors:
        count = len(inputs) - self._structure.num_leaves
        state = pytree.tree_unflatten(inputs[count:], self._structure)
        output, state = self.module.step(*inputs[:count], state)  # type: ignore[operator]
        return *_tensors(output), *_tensors(state)


def _inputs(module: nn.Module, state: bool, batch: int, size: Size) -> Tensors:
    """Of one call. The state is not zero: one that is left away would show."""
    if state and hasattr(module, "example_step"):
        if size is not None:
            raise UsageError(f"{type(module).__name__}: a step has one size")
        inputs = example_step(module, batch)
    else:
        inputs = example(module, batch, size)  # type: ignore[arg-type]  # volumes have three sizes
    if not state:
        return inputs
    leaves = pytree.tree_leaves(module.init_state(batch))  # type: ignore[operator]
    return *inputs, *(torch.randn_like(x) / 2 if x.is_floating_point() else x for x in leaves)


def _tensors(value: Any) -> Tensors:
    return tuple(leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))


def _try(network: nn.Module, inputs: Tensors) -> Tensors:
    """Its outputs; what it says against such inputs in one line."""
    try:
        outputs: Tensors = network(*inputs)
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        reason = str(error).splitlines()[0]
        raise UsageError(f"{type(network.module).__name__}: for {shapes} it says: {reason}") from error
    return outputs


def _input_names(module: nn.Module, count: int) -> tuple[str, ...]:
    """Those that the module gives its inputs (`input_names`), where it gives them."""
    own = tuple(getattr(module, "input_names", ()))[:count]
    return own if len(own) == count else _names("input", count)


def _names(word: str, count: int) -> tuple[str, ...]:
    return (word,) if count == 1 else tuple(f"{word}_{index}" for index in range(count))


def _count(size: Size) -> int:
    """Of how many numbers a size is."""
    return 0 if size is None else 1 if isinstance(size, int) else len(size)


def _traced_size(module: nn.Module, state: bool) -> Size:
    """A size that the module has and that decides no more than lengths; None: it has none."""
    usual = _inputs(module, state, _BATCH, None)
    for size in _TRACED:
        try:
            inputs = _inputs(module, state, _BATCH, size)
        except UsageError:
            continue
        if [x.ndim for x in inputs] == [x.ndim for x in usual]:
            return size
    return None


def _axes(make: Callable[[int, Any], Tensors], size: Size) -> tuple[Axes, ...]:
    """Which axes of the tensors that `make` returns follow the batch, and which the sizes."""
    base = make(_BATCH, size)
    found: tuple[Axes, ...] = tuple({} for _ in base)
    for names, other in _variants(make, size):
        for axes, one, two in zip(found, base, other, strict=True):
            changed = [axis for axis, length in enumerate(one.shape) if two.shape[axis] != length]
            axes.update(zip(changed, names or _NAMES.get(len(changed), ()), strict=False))
    return found


def _output_axes(
    network: nn.Module, axes: tuple[Axes, ...], traced: Tensors, results: Tensors, others: Sequence[Tensors]
) -> tuple[Axes, ...]:
    """Which axes of the outputs are as long as an open axis of an input, whatever goes in."""
    sizes = [(_lengths(axes, traced), results)]
    for inputs in others:
        with suppress(RuntimeError, ValueError):  # too small an image for its kernels
            sizes.append((_lengths(axes, inputs), network(*inputs)))
    return tuple(
        {
            axis: name
            for axis in range(result.ndim)
            for name in sizes[0][0]
            if all(known[name] == outputs[place].shape[axis] for known, outputs in sizes)
        }
        for place, result in enumerate(results)
    )


def _lengths(axes: tuple[Axes, ...], inputs: Tensors) -> dict[str, int]:
    return {name: x.shape[axis] for own, x in zip(axes, inputs, strict=True) for axis, name in own.items()}


def _variants(make: Callable[[int, Any], Tensors], size: Size) -> Iterator[tuple[tuple[str, ...], Tensors]]:
    """What `make` returns if one thing is changed, and its name; no name: that of a size for all axes."""
    yield ("batch",), make(_BATCH + 1, size)
    if isinstance(size, int):
        yield (), make(_BATCH, size + 1)
    elif size is not None:
        for index, name in enumerate(_NAMES[len(size)]):
            yield (name,), make(_BATCH, (*size[:index], size[index] + 1, *size[index + 1 :]))


def _structure(module: nn.Module) -> pytree.TreeSpec:
    """How the state of `module` is built up, if it streams."""
    name = type(module).__name__
    if not all(callable(getattr(module, method, None)) for method in ("init_state", "step")):
        raise UsageError(f"--state: {name} carries no state from step to step: leave it out")
    state = module.init_state(_BATCH)  # type: ignore[operator]
    try:
        module.step(*example_step(module, _BATCH), state)  # type: ignore[operator]
    except ValueError as error:  # it reads the sequence backwards too
        raise UsageError(str(error)) from error
    return pytree.tree_structure(state)
