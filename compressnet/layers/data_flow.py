"""Which modules follow each other in evaluation, with nothing between them.

A model says it itself: `foldable() -> list[list[str]]`, paths of its modules in the order of the data flow.
Every module of a list is called once in a pass (and in a step); the output of each goes to the next as its
only argument, and nowhere else. It names what is there now, after edits too. (CAN's AdaptiveNorm is given a
leaky ReLU as well, which CAN applies to whatever else stands in its place.)

A module without `foldable` is traced by torch.fx, as it is called with the arguments that it must have; what
else its forward or its other methods may do is not seen. Where tracing fails, neighbours within
`nn.Sequential` are taken to follow each other, which only running it can tell (`is_guess`).
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from compressnet.errors import UsageError, named
from compressnet.layers.chain import Chain

Wanted = Callable[[nn.Module], bool]
_ROWS = (nn.Sequential, Chain)  # each module in them takes what the one before it returns


def chains(module: nn.Module, is_wanted: Wanted) -> Iterator[list[str]]:
    """Paths of modules that follow each other; in the place of an `nn.Sequential` or a `Chain` those in it.

    Args:
        is_wanted: whether a module may be one of them; what holds none is not looked into.

    Raises:
        UsageError: a `foldable()` names what its model has not.
    """
    if callable(getattr(module, "foldable", None)):
        yield from _declared("", module)
        return
    if type(module) is Chain:  # what else it is called with keeps it from being traced
        yield [path.removeprefix(".") for path in _within("", module)]
        return
    outer: list[str] = []
    for path, child in module.named_modules():
        if callable(getattr(child, "foldable", None)) and not any(path.startswith(f"{o}.") for o in outer):
            outer.append(path)
            yield from _declared(f"{path}.", child)
    if _count(module, is_wanted) > 1:
        yield from _found(module, is_wanted)


def chains_of_parts(module: nn.Module) -> list[list[str]]:
    """What the parts of a module say in their own `foldable()`: for that of the whole."""
    named = [(path, part) for path, part in module.named_modules() if path]
    outer = [(path, part) for path, part in named if callable(getattr(part, "foldable", None))]
    return [
        [f"{path}.{name}" for name in chain]
        for path, part in outer
        if not any(path.startswith(f"{around}.") for around, _ in outer)
        for chain in part.foldable()
    ]


def _declared(prefix: str, module: nn.Module) -> Iterator[list[str]]:
    for chain in module.foldable():  # type: ignore[operator]
        paths = []
        for path in chain:
            try:
                part = module.get_submodule(path)
            except AttributeError:
                name = type(module).__name__
                raise UsageError(f"{name}: its foldable() names '{named(path)}', which it has not") from None
            paths += _within(f"{prefix}{path}", part)
        yield paths


def _within(path: str, part: nn.Module) -> list[str]:
    if type(part) not in _ROWS:
        return [path]
    return [inner for name, child in part.named_children() for inner in _within(f"{path}.{name}", child)]


def is_guess(module: nn.Module, is_wanted: Wanted) -> bool:
    """Whether `chains` knows no more than what stands in an `nn.Sequential`."""
    is_known = callable(getattr(module, "foldable", None)) or type(module) is Chain
    return not is_known and _count(module, is_wanted) > 1 and _traced_safely(module, is_wanted) is None


def _count(module: nn.Module, is_wanted: Wanted) -> int:
    return sum(map(is_wanted, module.modules()))


def _found(module: nn.Module, is_wanted: Wanted) -> list[list[str]]:
    """By tracing, else within `nn.Sequential`."""
    if (traced := _traced_safely(module, is_wanted)) is not None:
        return traced
    rows = [(path, part) for path, part in module.named_modules() if type(part) in _ROWS]
    return [[f"{path}.{name}".removeprefix(".") for name, _ in part.named_children()] for path, part in rows]


def _traced_safely(module: nn.Module, is_wanted: Wanted) -> list[list[str]] | None:
    """None: its own code cannot be run with stand-ins for tensors."""
    # Structure alone is copied, not the tensors: what is run with stand-ins may leave them in its attributes.
    tensors = [*module.parameters(), *module.buffers()]
    try:
        lone = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors}).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _traced(lone, is_wanted)
    except Exception:
        return None


class _Tracer(fx.Tracer):
    """Looks into modules that hold some that are wanted, and into no others."""

    proxy_buffer_attributes = True  # who reads a buffer of a module needs the module

    def __init__(self, is_wanted: Wanted) -> None:
        super().__init__()
        self._is_wanted = is_wanted

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return (
            self._is_wanted(module)
            or callable(getattr(module, "foldable", None))
            or not _count(module, self._is_wanted)
            or super().is_leaf_module(module, name)
        )


def _traced(module: nn.Module, is_wanted: Wanted) -> list[list[str]]:
    """Modules of which each is called once and alone takes the output of the one before it."""
    graph = _Tracer(is_wanted).trace(module, _defaults(module.forward))
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    rows: dict[fx.Node, list[str]] = {}
    for node in graph.nodes:
        if node.op != "call_module" or calls[node.target] > 1 or node.target in read or node.kwargs:
            continue
        before = node.args[0] if len(node.args) == 1 else None
        follows = isinstance(before, fx.Node) and before in rows and len(before.users) == 1
        rows[node] = rows[before] if follows else []  # type: ignore[index]
        rows[node].append(str(node.target))
    return list({id(row): row for row in rows.values()}.values())


def _defaults(forward: Callable[..., Any]) -> dict[str, Any] | None:
    """Arguments that need not be given, so that what is traced is a call without them."""
    known = inspect.signature(forward).parameters.items()
    return {name: p.default for name, p in known if p.default is not inspect.Parameter.empty} or None
