"""How `count-params` shows a network: a row a layer, and what formula and trace say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compressnet.errors import CompressnetError, UsageError

from .. import console, options

if TYPE_CHECKING:
    from torch import nn

    from compressnet.analysis.count import Count, Layer
    from compressnet.analysis.streamed import Streamed
    from compressnet.side import Side

_RATES = {"megapixel": "a megapixel", "token": "a token", "step": "a step", "sample": "a sample"}


_OPTIONAL = ("FLOPs", "bytes", "by trace", "activations", "type", "elementwise")  # gone first when narrow


class Counted:
    """A network and its count.

    Attributes:
        inputs: shapes of the inputs it was counted for.
    """

    def __init__(self, side: Side, input_size: str | None) -> None:
        from compressnet.analysis.count import count
        from compressnet.analysis.example import example
        from compressnet.analysis.trace import NeedsValues

        if side.subject.kind == "operator":
            raise UsageError(f"{side.text} is no network: it has nothing to count")
        size = options.parse_size(input_size)
        module = side.module("meta")
        inputs = example(module, 1, size)
        self.inputs = [list(x.shape) for x in inputs]
        try:
            self.count: Count = count(module, inputs)
        except NeedsValues:
            module = side.module("cpu", with_weights=True)
            self.count = count(module, example(module, 1, size))
        self.streamed = _streamed(side, module)


def _streamed(side: Side, module: nn.Module) -> Streamed | None:
    """What a step costs; a note where a network of the user's own has one that is not ours."""
    from compressnet.analysis.streamed import streamed
    from compressnet.analysis.trace import NeedsValues

    try:
        try:
            return streamed(module)
        except NeedsValues:
            return streamed(side.module("cpu", with_weights=True))
    except CompressnetError as error:
        console.note(f"streamed step: not counted: {error}")
        return None


def report(side: Side, counted: Counted) -> dict[str, Any]:
    """The figures of a network, for JSON. What is per pass and what per unit says its name."""
    count = counted.count
    rate = _RATES.get(count.unit, f"a {count.unit}")
    per_unit = round(count.macs / count.amount)
    details = count.as_dict()
    terms = [
        {**term, "name": f"{layer['path']} {term['name']}".strip()}
        for layer in details["layers"]
        for term in layer["terms"] or []
        if term["kind"] == "parameters"
    ]
    for term in terms:
        del term["kind"]
    return {
        "name": side.subject.name,
        "args": side.arguments(),
        "counted": f"formula and trace on {count.device}",
        "inputs": counted.inputs,
        "terms": terms,
        "params": count.parameters,
        "params_without_biases": count.parameters - details["biases"],
        "params_torch": None,
        "macs": per_unit,
        "flops": 2 * per_unit,
        "rate": rate,
        "macs_pass": count.macs,
        "flops_pass": count.flops,
        "elementwise_pass": details["elementwise"],
        "activations_pass": details["activations"],
        "lookups_pass": details["lookups"],
        "state": _state(count) or None,
        "bytes": count.bytes,
        "file_bytes": side.weights_path().stat().st_size if side.is_stored else None,
        "assumed": side.assumed(),
        "buffers": details["buffers"],
        "buffer_bytes": details["buffer_bytes"],
        "ties": details["ties"],
        "layers": details["layers"],
        "problems": count.problems,
        "streamed_step": counted.streamed.as_dict() if counted.streamed else None,
    }


def show(side: Side, counted: Counted, depth: int | None, show_table: Callable[..., None]) -> None:
    """The table of a network, its totals last."""
    count = counted.count
    layers = count.folded(depth) if depth else list(count.layers)
    layers = [layer for layer in layers if _says_something(layer)]
    lookups = any(layer.lookups for layer in layers)
    columns = [
        "layer",
        "type",
        "parameters",
        "bytes",
        "MACs",
        "by trace",
        "FLOPs",
        "elementwise",
        "activations",
    ]
    columns += ["look-ups"] if lookups else []
    rows = [_row(layer, lookups) for layer in layers]
    rows.append(_totals(count, lookups))
    rate = _RATES.get(count.unit, f"a {count.unit}")
    rows.append(_per_unit(count, rate, lookups))
    shapes = " + ".join("x".join(map(str, shape)) for shape in counted.inputs)
    show_table(f"{side.text}, input {shapes} (1 MAC = 2 FLOPs)", columns, rows, numeric=2, optional=_OPTIONAL)
    for kept, alias in count.ties:
        console.print_text(f"tied: {alias} = {kept}, counted once")
    if count.total("buffers"):
        console.print_text(
            f"buffers beside them: {count.total('buffers'):,} ({count.total('buffer_bytes'):,} bytes)"
        )
    if counted.streamed:
        console.print_text(_of_step(counted.streamed))
    if count.device != "meta":
        console.print_text(f"traced on {count.device}: {count.reason}")


def _of_step(step: Streamed) -> str:
    often = f" ({console.short(step.macs * step.per_second)} a second)" if step.per_second else ""
    return (
        f"streamed step: {console.short(step.macs)} MACs{often}, state {step.state:,} numbers "
        f"({step.state_bytes:,} bytes)"
    )


def _state(count: Count) -> int:
    """Numbers that layers carry from step to step."""
    terms = [term for layer in count.layers for term in layer.terms or () if term.kind == "state"]
    return sum(term.value for term in terms)


def show_formulas(counted: Counted, show_table: Callable[..., None]) -> None:
    """What each layer declares, term by term."""
    rows = [
        [layer.path or "(itself)", term.kind, term.name, term.formula, term.substituted, f"{term.value:,}"]
        for layer in counted.count.layers
        for term in layer.terms or ()
    ]
    show_table("", ["layer", "counts", "term", "formula", "numbers", "value"], rows, numeric=5)


def _says_something(layer: Layer) -> bool:
    """Whether it is more than a box around others."""
    figures = (
        layer.parameters,
        layer.macs,
        layer.macs_trace,
        layer.elementwise,
        layer.activations,
        layer.lookups,
    )
    return any(figures)


def _row(layer: Layer, lookups: bool) -> list[Any]:
    again = f" x{layer.calls}" if layer.calls > 1 else ""
    by_formula = (
        console.short(layer.macs) if layer.macs_formula is not None or not layer.macs else "no formula"
    )
    work = [layer.elementwise, layer.activations, *([layer.lookups] if lookups else [])]
    return [
        layer.path or "(itself)",
        layer.type + again,
        f"{layer.parameters:,}",
        console.short(layer.bytes, "B"),
        by_formula,
        console.short(layer.macs_trace) + ("" if layer.agrees else " (!)"),
        console.short(layer.flops),
        *map(console.short, work),
    ]


def _totals(count: Count, lookups: bool) -> list[Any]:
    return ["total", "", f"{count.parameters:,}", console.short(count.bytes, "B"), *_work(count, 1, lookups)]


def _per_unit(count: Count, rate: str, lookups: bool) -> list[Any]:
    return [rate, "", "", "", *_work(count, count.amount, lookups)]


def _work(count: Count, amount: float, lookups: bool) -> list[str]:
    """What a pass does, over `amount`."""
    names = ["macs", "macs_trace", "flops", "elementwise", "activations", *(["lookups"] if lookups else [])]
    return [console.short(count.total(name) / amount) for name in names]
