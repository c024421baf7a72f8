"""How `count-params` shows formulas: term by term, the recurrent one blue, output and projection red."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressnet import cost

from .. import console

if TYPE_CHECKING:
    from rich.text import Text

    from compressnet.cost import Term
    from compressnet.side import Side

ShowTable = Callable[..., None]

# Colour, and brackets that say the same without it.
_MARKS = {"recurrent": ("bold blue", "[", "]"), "output": ("bold red", "{", "}")}
_OUTPUTS = ("output", "projection", "non-recurrent projection", "output of the non-recurrent projection")
_BYTES = 4  # of a float32
_SUMMARY = (
    ("parameters without biases (papers' count)", "params_without_biases"),
    ("parameters", "params"),
    ("torch's module: two biases, no peepholes", "params_torch"),
    ("MACs {rate}", "macs"),
    ("FLOPs {rate} (1 MAC = 2 FLOPs)", "flops"),
    ("bytes of parameters", "bytes"),
    ("state, numbers", "state"),
)


def report(side: Side) -> dict[str, Any]:
    """The figures of a cell, for JSON."""
    terms = side.terms()
    macs = cost.total(terms, "macs")
    params = cost.total(terms, "parameters")
    return {
        "name": side.subject.name,
        "args": side.arguments(),
        "counted": "formula",
        "terms": [_term(term) for term in terms if term.kind == "parameters"],
        "costs": [{"kind": term.kind, **_term(term)} for term in terms if term.kind != "parameters"],
        "params": params,
        "params_without_biases": cost.total(terms, "parameters", biases=False),
        "params_torch": _torch_parameters(side),
        "macs": macs,
        "flops": 2 * macs,
        "elementwise": cost.total(terms, "elementwise"),
        "state": cost.total(terms, "state"),
        "bytes": _BYTES * params,
        "rate": "a step",
        "problems": [],
    }


def ratios(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """How many times the first side has what each of the others has; the second side's comes first."""
    keys = ("params", "params_without_biases", "macs", "bytes")
    first = reports[0]
    return [
        {
            key: first[key] / other[key]
            for key in keys
            if first[key] and other[key] and (key != "macs" or first["rate"] == other["rate"])
        }
        for other in reports[1:]
    ]


def show(side: Side, show_table: ShowTable, *, colour: bool) -> None:
    """The formula as the paper writes it, then a row a term."""
    from rich.text import Text

    terms = [term for term in side.terms() if term.kind == "parameters"]
    weights = [term for term in terms if not term.is_bias]
    whole = cost.total(weights, "parameters")
    equation = Text(" + ").join(_marked(term, term.formula) for term in weights)
    console.print_styled(Text(f"{side.text}   W = ") + equation)
    rows: list[Sequence[Any]] = [
        [
            term.name,
            _marked(term, term.formula),
            term.substituted,
            f"{term.value:,}",
            f"{term.value / whole:.1%}",
        ]
        for term in weights
    ]
    rows += [
        [term.name, term.formula, term.substituted, f"{term.value:,}", "-"] for term in terms if term.is_bias
    ]
    if not colour:
        rows = [[str(cell) for cell in row] for row in rows]
    show_table("", ["term", "formula", "numbers", "value", "share of W"], rows, numeric=3)


def show_summary(
    reports: Sequence[Mapping[str, Any]], ratios: Sequence[Mapping[str, float]], show_table: ShowTable
) -> None:
    """Totals beside each other, and in a sentence how they compare."""
    names = _headings(reports)
    rows: list[list[Any]] = []
    rates = {report["rate"] for report in reports}
    rate = rates.pop() if len(rates) == 1 else ", ".join(report["rate"] for report in reports)
    for label, key in _SUMMARY:
        cells = [report.get(key) for report in reports]
        if all(cell is None for cell in cells):
            continue
        row = [label.format(rate=rate), *("-" if cell is None else f"{cell:,}" for cell in cells)]
        rows.append([*row, *(_times(other[key]) if key in other else "" for other in ratios)])
    against = [f"{names[0]} : {name}" for name in names[1:]]
    show_table("", ["", *names, *against], rows)
    papers = all(report["counted"] == "formula" for report in reports)
    if papers:
        console.print_text("[ ] recurrent   { } output and projection")
    key, which = ("params_without_biases", " without biases") if papers else ("params", "")
    for name, other, ratio in zip(names[1:], reports[1:], ratios, strict=True):
        if key in ratio:
            console.print_text(
                f"{name} has {_comparison(ratio[key], names[0])}: "
                f"{other[key]:,} against {reports[0][key]:,}{which} (ratio {ratio[key]:.4f})"
            )


def _term(term: Term) -> dict[str, Any]:
    return {
        "name": term.name,
        "formula": term.formula,
        "substituted": term.substituted,
        "value": term.value,
    }


def _marked(term: Term, text: str) -> Text:
    from rich.text import Text

    group = "output" if term.name in _OUTPUTS else term.name
    if group not in _MARKS:
        return Text(text)
    style, left, right = _MARKS[group]
    return Text(f"{left}{text}{right}", style=style)


def _headings(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of sides; numbered where they are the same."""
    names = [str(report["name"]) for report in reports]
    return [f"{name} ({index + 1})" if names.count(name) > 1 else name for index, name in enumerate(names)]


def _torch_parameters(side: Side) -> int | None:
    """What torch.nn.LSTM and a Linear layer of these sizes hold; None where torch has no such cell."""
    sizes = side.arguments()
    if side.subject.name not in ("lstm", "lstmp") or sizes.get("nonrecurrent_proj_size"):
        return None
    proj_size = sizes.get("proj_size", 0)
    terms = cost.recurrent(
        4, sizes["input_size"], sizes["hidden_size"], sizes["num_layers"], proj_size=proj_size
    )
    if sizes["output_size"]:
        terms += cost.linear(proj_size or sizes["hidden_size"], sizes["output_size"])
    return cost.total(terms, "parameters")


def _times(ratio: float) -> str:
    return f"{ratio:,.2f}x"


def _comparison(ratio: float, other: str) -> str:
    """`3.60x fewer parameters than lstm`: how the second compares with the first."""
    if round(ratio, 2) == 1:
        return f"about as many parameters as {other}"
    return f"{_times(max(ratio, 1 / ratio))} {'fewer' if ratio > 1 else 'more'} parameters than {other}"
