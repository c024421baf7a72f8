"""What a layer costs, as formulas that are shown, evaluated and checked against a trace. No torch here.

A formula is a text in symbols, `n_c·n_r·4`, with the numbers that its symbols stand for. The text is the only
source: its value, and the text with numbers in it, come from it.

What counts as a MAC: a multiply-add of a convolution, a matrix product, a recurrence or a peephole. One MAC
is two FLOPs. Activations and normalisation are `elementwise`. A zero that padding adds counts as any other.

Here are the layers that all networks share; the cells of the LSTM family are in `cost_cells.py`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["parameters", "bytes", "macs", "elementwise", "lookups", "state"]

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
}
_AXES = {1: ("l",), 2: ("h", "w"), 3: ("d", "h", "w")}


@dataclass(frozen=True)
class Term:
    """One summand of a cost.

    Attributes:
        kind: what is counted. "state": numbers carried from step to step.
        name: what it belongs to ("recurrent", "output", ...); biases end in "bias" or "biases".
        formula: in symbols, with + - · / ** and brackets; a division must leave no rest.
        symbols: the number that each symbol stands for.
        traced: of MACs: whether torch does them as a matrix product or convolution, which a trace sees.
            Diagonal products, such as those of peepholes, are elementwise to torch.
    """

    kind: Kind
    name: str
    formula: str
    symbols: Mapping[str, int]
    traced: bool = True

    @property
    def value(self) -> int:
        return evaluate(self.formula, self.symbols)

    @property
    def substituted(self) -> str:
        """The formula with numbers in the place of its symbols."""
        return re.sub(r"[^\W\d]\w*", lambda symbol: str(self.symbols[symbol[0]]), self.formula)

    @property
    def is_bias(self) -> bool:
        return self.name.endswith(("bias", "biases"))

    def times(self, factors: Mapping[str, int], kind: Kind, *, traced: bool = True) -> Term:
        """The term repeated, as another kind: `N·(formula)`.

        Raises:
            ValueError: a factor has the name of a symbol of another value.
        """
        if any(self.symbols.get(name, count) != count for name, count in factors.items()):
            raise ValueError(f"formula: {dict(factors)} clashes with {dict(self.symbols)}")
        top = _parse(self.formula)
        is_sum = isinstance(top, ast.BinOp) and isinstance(top.op, ast.Add | ast.Sub)
        inner = f"({self.formula})" if factors and is_sum else self.formula
        formula = "·".join([*factors, inner])
        return Term(kind, self.name, formula, {**self.symbols, **factors}, traced)


def evaluate(formula: str, symbols: Mapping[str, int]) -> int:
    """The value of a formula.

    Raises:
        ValueError: it cannot be read, uses an unknown symbol or operation, or a division leaves a rest.
    """
    return _evaluate(_parse(formula), symbols)


def _parse(formula: str) -> ast.expr:
    try:
        return ast.parse(formula.replace("·", "*"), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"formula: cannot read '{formula}'") from error


def _evaluate(node: ast.expr, symbols: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name) and node.id in symbols:
        return symbols[node.id]
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left, symbols), _evaluate(node.right, symbols)
        if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](left, right)
        if isinstance(node.op, ast.Div) and left % right == 0:
            return left // right
    raise ValueError(f"formula: cannot evaluate '{ast.unparse(node)}' with {dict(symbols)}")


def total(terms: Iterable[Term], kind: Kind, *, biases: bool = True) -> int:
    """The sum of one kind.

    Args:
        biases: count biases too; papers usually do not.
    """
    return sum(term.value for term in terms if term.kind == kind and (biases or not term.is_bias))


def recurrent(
    gates: int,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    proj_size: int = 0,
    bias: bool = True,
    bidirectional: bool = False,
    steps: int = 1,
    batch: int = 1,
) -> list[Term]:
    """torch.nn.LSTM (4 gates), GRU (3) and RNN (1): two biases a gate, no peepholes.

    Costs are those of `steps` steps of `batch` sequences.
    """
    symbols = {"n_i": input_size, "n_c": hidden_size, "n_r": proj_size, "L": num_layers, "g": gates}
    symbols["D"] = 2 if bidirectional else 1
    each = ("L·" if num_layers > 1 else "") + ("D·" if bidirectional else "")
    out = "n_r" if proj_size else "n_c"
    sides = "D·" if bidirectional else ""
    weights = [
        Term("parameters", "recurrent", f"{each}{out}·n_c·g", symbols),
        Term("parameters", "input", f"{sides}n_i·n_c·g", symbols),
    ]
    if num_layers > 1:
        upper = f"(L-1)·{sides}{sides}{out}·n_c·g"
        weights.append(Term("parameters", "input of upper layers", upper, symbols))
    if proj_size:
        weights.append(Term("parameters", "projection", f"{each}n_c·n_r", symbols))
    rows = {"T": steps, "B": batch}
    macs = [term.times(rows, "macs") for term in weights]
    biases = [Term("parameters", "biases", f"{each}2·n_c·g", symbols)] if bias else []
    state = f"{each}(n_c+{out})" if gates == 4 else f"{each}n_c"
    return [*weights, *biases, *macs, Term("state", "state", f"B·{state}", {**symbols, **rows})]


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    positions: Sequence[int],
    *,
    batch: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> list[Term]:
    """A convolution with one to three spatial axes.

    Args:
        positions: how often the kernel is put down along each axis: the size of the output, of a transposed
            convolution that of the input.
    """
    axes = _AXES[len(kernel)]
    taps = {f"k_{axis}": size for axis, size in zip(axes, kernel, strict=True)}
    places = {axis.upper(): size for axis, size in zip(axes, positions, strict=True)}
    symbols = {"c_i": in_channels, "c_o": out_channels, "g": groups, **taps}
    divided = "/g" if groups > 1 else ""
    weights = Term("parameters", "weights", "·".join([f"c_i·c_o{divided}", *taps]), symbols)
    biases = [Term("parameters", "bias", "c_o", symbols)] if bias else []
    return [weights, *biases, weights.times({"B": batch, **places}, "macs")]


def linear(in_features: int, out_features: int, *, rows: int = 1, bias: bool = True) -> list[Term]:
    """A fully connected layer on `rows` vectors."""
    symbols = {"n_i": in_features, "n_o": out_features}
    weights = Term("parameters", "weights", "n_i·n_o", symbols)
    biases = [Term("parameters", "bias", "n_o", symbols)] if bias else []
    return [weights, *biases, weights.times({"N": rows}, "macs")]


def embedding(num_embeddings: int, embedding_dim: int, *, rows: int = 1) -> list[Term]:
    """A table of vectors, of which `rows` are looked up."""
    symbols = {"V": num_embeddings, "n_e": embedding_dim, "N": rows}
    return [
        Term("parameters", "weights", "V·n_e", symbols),
        Term("lookups", "rows", "N", symbols),
    ]
