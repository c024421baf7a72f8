"""What an LSTM with switches costs: the papers' formulas where they apply, else their general form."""

from __future__ import annotations

from compressnet import cost_cells
from compressnet.cost import Kind, Term
from compressnet.layers.lstm_cell import LSTMCell


def cost_of(
    cell: LSTMCell, num_layers: int, directions: int, output_size: int, steps: int, batch: int
) -> list[Term]:
    """Of `steps` steps of `batch` sequences.

    Args:
        cell: the first of `num_layers` · `directions`, all with its sizes but the upper ones' inputs.
        output_size: of the layer on top; 0: none.
    """
    if cell.gates == 4 and directions == 1 and cell.bias_ih is not None:
        terms = _of_papers(cell, num_layers, output_size)
    else:
        terms = _general(cell, num_layers, directions, output_size)
    terms += _beyond_papers(cell, num_layers, directions)
    return [_of_sequences(term, steps, batch) for term in terms]


def _of_sequences(term: Term, steps: int, batch: int) -> Term:
    rows: dict[Kind, dict[str, int]] = {"parameters": {}, "state": {"B": batch}}
    return term.times(rows.get(term.kind, {"T": steps, "B": batch}), term.kind, traced=term.traced)


def _of_papers(cell: LSTMCell, num_layers: int, output_size: int) -> list[Term]:
    peepholes = cell.weight_peephole is not None
    if not cell.proj_size:
        return cost_cells.lstm(cell.input_size, cell.hidden_size, output_size, num_layers, peepholes)
    return cost_cells.lstmp(
        cell.input_size,
        cell.hidden_size,
        cell.proj_size,
        cell.nonrecurrent_proj_size,
        output_size,
        num_layers,
        peepholes,
    )


def _general(cell: LSTMCell, num_layers: int, directions: int, output_size: int) -> list[Term]:
    """With g sums a cell (3: coupled gates) and D directions."""
    symbols = _symbols(cell, num_layers, directions) | {"n_o": output_size}
    state = "n_r" if cell.proj_size else "n_c"
    width = f"({state}+n_p)" if cell.nonrecurrent_proj_size else state
    formulas = {
        "recurrent": f"L·D·n_c·{state}·g",
        "input": "D·n_i·n_c·g",
        "input of upper layers": f"(L-1)·D·D·{width}·n_c·g" if num_layers > 1 else "",
        "output": f"D·{width}·n_o" if output_size else "",
        "projection": "L·D·n_c·n_r" if cell.proj_size else "",
        "non-recurrent projection": "L·D·n_c·n_p" if cell.nonrecurrent_proj_size else "",
        "peepholes": "L·D·n_c·(g-1)" if cell.weight_peephole is not None else "",
    }
    weights = [Term("parameters", name, text, symbols) for name, text in formulas.items() if text]
    macs = [term.times({}, "macs", traced=term.name != "peepholes") for term in weights]
    biases = [Term("parameters", "biases", "L·D·n_c·g", symbols)] if cell.bias_ih is not None else []
    if output_size:
        biases.append(Term("parameters", "output bias", "n_o", symbols))
    others = [
        Term("elementwise", "sigmoid and tanh", "L·D·n_c·(g+1)", symbols),
        Term("elementwise", "i·g, f·c, their sum, o·h", "L·D·n_c·4", symbols),
        Term("state", "cells and outputs", f"L·D·(n_c+{state})", symbols),
    ]
    return [*weights, *biases, *macs, *others]


def _beyond_papers(cell: LSTMCell, num_layers: int, directions: int) -> list[Term]:
    symbols, terms = _symbols(cell, num_layers, directions), []
    if cell.bias_hh is not None:
        terms.append(Term("parameters", "second biases", "L·D·n_c·g", symbols))
    if cell.weight_norm is not None:
        terms.append(Term("parameters", "gains of the normalisation", "L·D·n_c·g", symbols))
        terms.append(Term("elementwise", "normalisation", "L·D·n_c·g", symbols))
    return terms


def _symbols(cell: LSTMCell, num_layers: int, directions: int) -> dict[str, int]:
    return {
        "n_i": cell.input_size,
        "n_c": cell.hidden_size,
        "n_r": cell.proj_size,
        "n_p": cell.nonrecurrent_proj_size,
        "L": num_layers,
        "D": directions,
        "g": cell.gates,
    }
