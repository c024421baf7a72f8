"""Count what a module stores and does: every layer by formula, by trace, and where the two disagree.

A layer with a formula answers for all that is in it. What torch is seen to multiply and add outside of those
has no formula; it is counted all the same, and reported. One multiply-add (MAC) is two FLOPs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves

from compressnet import cost
from compressnet.analysis.formulas import terms_of
from compressnet.analysis.given import inputs_of, module_of
from compressnet.analysis.stored import Size, Stored
from compressnet.analysis.trace import Visits, Work, trace
from compressnet.cost import Term
from compressnet.subject import Loaded

_ONCE = ("parameters", "bytes", "state")  # however often a module is called
_SUMS = (
    "parameters",
    "bytes",
    "buffers",
    "buffer_bytes",
    "macs",
    "macs_untraced",
    "macs_trace",
    "elementwise",
    "lookups",
    "activations",
)


@dataclass(frozen=True)
class Layer:
    """What one module stores and does; modules in it have rows of their own, unless it has a formula.

    Attributes:
        path: its name in the whole; "" is the whole itself.
        type: the name of its class.
        terms: its formula over all calls; None if it has none.
        parameters: numbers that no row before this one has (tied weights are in the first), `bytes` of them.
        buffers: the same of buffers.
        macs: by formula where there is one: it knows products that a trace cannot (peepholes).
        macs_formula: None if there is none; `macs_untraced` of them are elementwise to torch.
        macs_trace: as torch was seen to do them.
        elementwise: elementwise operations and reductions, as traced.
        lookups: indices that were looked up, as traced.
        activations: elements that it put out; 0 if modules in it have rows and were called.
        calls: 0 is a module that evaluation does not use.
    """

    path: str
    type: str
    terms: tuple[Term, ...] | None = None
    parameters: int = 0
    bytes: int = 0
    buffers: int = 0
    buffer_bytes: int = 0
    macs: int = 0
    macs_formula: int | None = None
    macs_untraced: int = 0
    macs_trace: int = 0
    elementwise: int = 0
    lookups: int = 0
    activations: int = 0
    calls: int = 0

    @property
    def depth(self) -> int:
        """Levels below the whole."""
        return self.path.count(".") + 1 if self.path else 0

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def agrees(self) -> bool:
        """Whether formula and trace say the same; without a formula, whether nothing was traced."""
        return (self.macs_formula or 0) - self.macs_untraced == self.macs_trace

    @property
    def biases(self) -> int:
        """Of the parameters: those that the formula calls a bias."""
        terms = [term for term in self.terms or () if term.kind == "parameters" and term.is_bias]
        return min(sum(term.value for term in terms), self.parameters)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        terms = None if self.terms is None else [_term_as_dict(term) for term in self.terms]
        return {**vars(self), "depth": self.depth, "flops": self.flops, "agrees": self.agrees, "terms": terms}


@dataclass(frozen=True)
class Count:
    """All layers and their sums.

    Attributes:
        layers: in the order of `named_modules`.
        dtypes: bytes of parameters and buffers by type of number ("float32").
        ties: (kept, alias): names of parameters that share memory; counted under the first.
        problems: where formula and trace disagree, and what has no formula or is unknown; one line each.
        unit, amount: what the inputs are: 0.25 "megapixel", 700 "token" ... (`rate_of`).
        device: where it was traced: "meta", or that of the module, because of `reason`.
    """

    layers: tuple[Layer, ...]
    dtypes: dict[str, int]
    ties: list[tuple[str, str]]
    problems: list[str]
    unit: str
    amount: float
    device: str
    reason: str = ""

    def total(self, column: str) -> int:
        """The sum of a column ("buffers", "lookups", ...) over all layers."""
        return sum(getattr(layer, column) for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Numbers; what is tied counts once."""
        return self.total("parameters")

    @property
    def bytes(self) -> int:
        """Of the parameters."""
        return self.total("bytes")

    @property
    def macs(self) -> int:
        return self.total("macs")

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def folded(self, depth: int) -> list[Layer]:
        """Rows of at most `depth` levels; each holds the sums of what is below the last level."""
        rows: dict[str, Layer] = {}
        for layer in self.layers:
            path = ".".join(layer.path.split(".")[:depth])
            rows[path] = _joined(rows[path], layer) if path in rows else replace(layer, path=path)
        return list(rows.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        sums = {column: self.total(column) for column in (*_SUMS, "flops", "biases")}
        per_unit = self.macs / self.amount if self.amount else None
        layers = [layer.as_dict() for layer in self.layers]
        return {**sums, "macs_per_unit": per_unit, **vars(self), "layers": layers}


def count(module: nn.Module | Loaded, inputs: Tensor | Sequence[Any]) -> Count:
    """Count `module(*inputs)` in evaluation mode; `module` is left as it was.

    Nothing is allocated or computed unless the module needs values to run (`Count.reason`).

    Args:
        module: of any class, or what `compressnet.load` returned.
        inputs: the arguments of a call; a tensor is the only one.

    Raises:
        UsageError: the module cannot be looked into, or is none.
        CompressnetError: it cannot be run with these inputs.
    """
    module, inputs = module_of(module, "count"), inputs_of(inputs, "count")
    done = trace(module, inputs, terms_of)
    modules = dict(module.named_modules())
    called = [path for path, child in modules.items() if child in done.visits]
    outer = {around for path in called for around in _around(path)}
    ledger = _Ledger()
    for path, child in modules.items():
        visits = done.visits.get(child)
        if visits is None and _is_covered(path, modules, done.visits):
            continue
        ledger.add(path, child, visits or Visits(), innermost=path not in outer)
    unit, amount = rate_of(module, inputs)
    return Count(
        tuple(ledger.layers),
        dict(ledger.dtypes),
        ties_of(module),
        ledger.problems,
        unit,
        amount,
        done.device,
        done.reason,
    )


class _Ledger:
    """Rows, one after the other: what an earlier one holds is not counted again."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.problems: list[str] = []
        self.dtypes: Counter[str] = Counter()
        self._stored = Stored()

    def add(self, path: str, module: nn.Module, visits: Visits, *, innermost: bool) -> None:
        terms = None if visits.terms is None else _over_all_calls(visits.terms)
        whole = terms is not None
        parameters = self._take(module.parameters(recurse=whole))
        buffers = self._take(module.buffers(recurse=whole))
        traced = visits.work.macs.total()
        by_formula = None if terms is None else cost.total(terms, "macs")
        row = Layer(
            path,
            type(module).__name__,
            None if terms is None else tuple(terms),
            *parameters,
            *buffers,
            macs=traced if by_formula is None else by_formula,
            macs_formula=by_formula,
            macs_untraced=cost.total([term for term in terms or [] if not term.traced], "macs"),
            macs_trace=traced,
            elementwise=visits.work.elementwise,
            lookups=visits.work.lookups,
            activations=visits.activations if innermost or whole else 0,
            calls=visits.calls,
        )
        self.layers.append(row)
        self.problems += [f"{path or row.type}: {problem}" for problem in _problems(row, module, visits.work)]

    def _take(self, tensors: Iterable[Tensor]) -> Size:
        elements = taken = 0
        for tensor in tensors:
            size = self._stored.add(tensor)
            self.dtypes[str(tensor.dtype).removeprefix("torch.")] += size.bytes
            elements, taken = elements + size.elements, taken + size.bytes
        return Size(elements, taken)


def _problems(row: Layer, module: nn.Module, work: Work) -> list[str]:
    found = [f"operation {name} is unknown: it may hide MACs" for name in work.unknown]
    if row.terms is None:
        return found + [
            f"{macs:,} MACs in {name} have no formula" for name, macs in work.macs.items() if macs
        ]
    if not row.agrees:
        by_formula = (row.macs_formula or 0) - row.macs_untraced
        found.append(f"formula {by_formula:,} MACs, trace {row.macs_trace:,}")
    stored = Stored()
    kept = sum(stored.add(parameter).elements for parameter in module.parameters())
    parameters = cost.total(row.terms, "parameters")
    if parameters != kept:
        found.append(f"formula {parameters:,} parameters, stored {kept:,}")
    return found


def ties_of(module: nn.Module) -> list[tuple[str, str]]:
    """(kept, alias): names of parameters that share memory with an earlier one."""
    stored, ties = Stored(), []
    for name, parameter in module.named_parameters(remove_duplicate=False):
        kept = stored.sharer(parameter)
        if kept is not None:
            ties.append((kept, name))
        stored.add(parameter, name)
    return ties


def rate_of(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[str, float]:
    """What the first input is, and how much of it: the unit in which costs and speeds are told.

    Images (B, C, H, W) are B·H·W / 10^6 of "megapixel"; integers are each a "token"; samples (B, N) of a
    module that has a `sample_rate` are B·N / sample_rate of "second of audio"; sequences (T, B, C) and
    packed ones are "step", one a sequence; all else is B of "sample".
    """
    leaves = tree_leaves(inputs, is_leaf=_is_packed)
    x = next((leaf for leaf in leaves if isinstance(leaf, Tensor | PackedSequence)), None)
    if x is None:
        return "sample", 1
    if isinstance(x, PackedSequence):
        return "step", x.data.shape[0]
    if not x.is_floating_point():
        return "token", x.numel()
    rate = getattr(module, "sample_rate", None)
    if x.ndim == 2 and isinstance(rate, int | float):
        return "second of audio", x.numel() / rate
    if x.ndim == 4:
        return "megapixel", x.shape[0] * x.shape[2] * x.shape[3] / 1e6
    if x.ndim == 3 and not isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        return "step", x.shape[0] * x.shape[1]
    return "sample", x.shape[0] if x.ndim > 1 else 1


def _over_all_calls(groups: list[tuple[list[Term], int]]) -> list[Term]:
    terms = [term for term in groups[0][0] if term.kind in _ONCE]
    for group, calls in groups:
        for term in group:
            if term.kind not in _ONCE:
                again = {"calls": calls} if calls > 1 else {}
                terms.append(term.times(again, term.kind, traced=term.traced))
    return terms


def _is_covered(path: str, modules: dict[str, nn.Module], visits: dict[nn.Module, Visits]) -> bool:
    """Whether a module around it has a formula."""
    around = [visits.get(modules[outer]) for outer in _around(path)]
    return any(visit is not None and visit.terms is not None for visit in around)


def _around(path: str) -> list[str]:
    """Paths of all modules around it: "" and "a" for "a.b"."""
    parts = path.split(".") if path else []
    return [".".join(parts[:depth]) for depth in range(len(parts))]


def _joined(row: Layer, other: Layer) -> Layer:
    formulas = [layer.macs_formula for layer in (row, other) if layer.macs_formula is not None]
    sums = {column: getattr(row, column) + getattr(other, column) for column in _SUMS}
    return replace(row, **sums, terms=None, macs_formula=sum(formulas) if formulas else None)


def _term_as_dict(term: Term) -> dict[str, Any]:
    names = ("kind", "name", "formula", "substituted", "value")
    return {name: getattr(term, name) for name in names}


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)
