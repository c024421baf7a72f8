"""The papers' formulas of the LSTM family: what `count-params lstm vs lstmp` shows. No torch here.

H. Sak, A. Senior, F. Beaufays: Long Short-Term Memory Based Recurrent Neural Network Architectures for Large
Vocabulary Speech Recognition. 2014, arXiv 1402.1128 (`lstm`, `lstmp`: n_c cells, n_r units of the recurrent
projection, n_p of the non-recurrent one, n_i inputs, n_o outputs, one bias a gate);
S. Hochreiter, J. Schmidhuber: Long Short-Term Memory. Neural Computation 9(8), 1997 (`lstm_1997`);
T. Lei et al.: Training RNNs as Fast as CNNs / Simple Recurrent Units for Highly Parallelizable Recurrence.
2017/2018, arXiv 1709.02755 (`sru`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from compressnet.bounds import Layers, OneOrTwo, OptionalSize, Size
from compressnet.cost import Term


def lstm(
    input_size: Size = 40,
    hidden_size: Size = 2048,
    output_size: OptionalSize = 14247,
    num_layers: Layers = 1,
    peepholes: bool = True,
    biases: OneOrTwo = 1,
) -> list[Term]:
    """LSTM with peepholes and one bias a gate: W = n_c·n_c·4 + n_i·n_c·4 + n_c·n_o + n_c·3 without biases.

    The defaults are the sizes that Sak et al. (2014) compare. Costs are those of one step of one sequence.

    Args:
        output_size: of the layer behind the last one; 0: none.
        num_layers: the upper ones take n_c inputs.
        biases: of each gate; many libraries have two.
    """
    symbols = {"n_i": input_size, "n_c": hidden_size, "n_o": output_size, "L": num_layers}
    each = "L·" if num_layers > 1 else ""
    formulas = {
        "recurrent": f"{each}n_c·n_c·4",
        "input": "n_i·n_c·4",
        "input of upper layers": "(L-1)·n_c·n_c·4" if num_layers > 1 else "",
        "output": "n_c·n_o" if output_size else "",
    }
    terms = _peephole_cell(formulas, symbols, each, peepholes, state=f"{each}n_c·2")
    second = [Term("parameters", "second biases", f"{each}n_c·4", symbols)] if biases == 2 else []
    return terms + second


def lstmp(
    input_size: Size = 40,
    hidden_size: Size = 2048,
    proj_size: Size = 512,
    nonrecurrent_proj_size: OptionalSize = 0,
    output_size: OptionalSize = 14247,
    num_layers: Layers = 1,
    peepholes: bool = True,
) -> list[Term]:
    """LSTM with projections: W = n_c·n_r·4 + n_i·n_c·4 + n_r·n_o + n_c·n_r + n_c·3 without biases.

    A non-recurrent projection adds n_c·n_p + n_p·n_o. The defaults are Sak's. Costs are those of one step of
    one sequence.

    Args:
        proj_size: n_r, smaller than n_c.
        nonrecurrent_proj_size: n_p; 0: none.
        output_size: of the layer behind the last one; 0: none.
        num_layers: the upper ones take n_r + n_p inputs.

    Raises:
        ValueError: a projection as wide as the cells or wider.
    """
    for key, size in (("proj_size", proj_size), ("nonrecurrent_proj_size", nonrecurrent_proj_size)):
        if size >= hidden_size:
            raise ValueError(f"'{key}' {size} must be smaller than 'hidden_size' {hidden_size}")
    symbols = {
        "n_i": input_size,
        "n_c": hidden_size,
        "n_r": proj_size,
        "n_p": nonrecurrent_proj_size,
        "n_o": output_size,
        "L": num_layers,
    }
    two = nonrecurrent_proj_size > 0
    each = "L·" if num_layers > 1 else ""
    width = "(n_r+n_p)" if two else "n_r"
    formulas = {
        "recurrent": f"{each}n_c·n_r·4",
        "input": "n_i·n_c·4",
        "input of upper layers": f"(L-1)·{width}·n_c·4" if num_layers > 1 else "",
        "output": "n_r·n_o" if output_size else "",
        "projection": f"{each}n_c·n_r",
        "non-recurrent projection": f"{each}n_c·n_p" if two else "",
        "output of the non-recurrent projection": "n_p·n_o" if two and output_size else "",
    }
    return _peephole_cell(formulas, symbols, each, peepholes, state=f"{each}(n_c+n_r)")


def _peephole_cell(
    formulas: Mapping[str, str], symbols: Mapping[str, int], each: str, peepholes: bool, state: str
) -> list[Term]:
    """Weights, biases, MACs, activations and state of the two cells of Sak et al."""
    parameters = [Term("parameters", name, text, symbols) for name, text in formulas.items() if text]
    if peepholes:
        parameters.append(Term("parameters", "peepholes", f"{each}n_c·3", symbols))
    macs = [term.times({}, "macs", traced=term.name != "peepholes") for term in parameters]
    biases = [Term("parameters", "biases", f"{each}n_c·4", symbols)]
    if symbols["n_o"]:
        biases.append(Term("parameters", "output bias", "n_o", symbols))
    others = [
        Term("elementwise", "sigmoid and tanh", f"{each}n_c·5", symbols),
        Term("elementwise", "i·g, f·c, their sum, o·h", f"{each}n_c·4", symbols),
        Term("state", "cells and outputs", state, symbols),
    ]
    return [*parameters, *biases, *macs, *others]


def lstm_1997(
    input_size: Size = 8,
    blocks: Size = 2,
    block_size: Size = 2,
    output_size: Size = 4,
    biases: Literal["none", "gates", "hidden", "all"] = "all",
) -> list[Term]:
    """The first LSTM: no forget gate, gate outputs fed back. W = n_h·(n_i + n_h) + n_o·b·S, n_h = b·S + 2·b.

    The defaults are the paper's net for temporal order 6a, 156 weights. Costs are those of one step.

    Args:
        blocks, block_size: b memory blocks of S cells with one input and one output gate each.
        biases: which units have one; the paper's experiments differ.
    """
    symbols = {"n_i": input_size, "b": blocks, "S": block_size, "n_o": output_size}
    hidden = "(b·S+2·b)"
    weights = [
        Term("parameters", "recurrent", f"{hidden}·{hidden}", symbols),
        Term("parameters", "input", f"n_i·{hidden}", symbols),
        Term("parameters", "output", "n_o·b·S", symbols),
    ]
    count = {"none": "", "gates": "2·b", "hidden": hidden, "all": f"{hidden}+n_o"}[biases]
    added = [Term("parameters", "biases", count, symbols)] if count else []
    macs = [term.times({}, "macs") for term in weights]
    return [*weights, *added, *macs, Term("state", "cells and hidden units", f"b·S+{hidden}", symbols)]


def sru(
    input_size: Size = 40,
    hidden_size: Size = 2048,
    proj_size: OptionalSize = 0,
    output_size: OptionalSize = 14247,
    num_layers: Layers = 1,
    version: OneOrTwo = 2,
    bidirectional: bool = False,
) -> list[Term]:
    """Simple recurrent unit: three matrices a layer, a fourth where its input is not n_c wide.

    Costs are those of one step of one sequence.

    Args:
        proj_size: inner width p of the matrices, d_in x p and p x 3·n_c, smaller than n_c; used in layers
            whose input is wider than p. 0: none.
        output_size: of the layer behind the last one; 0: none.
        version: 2 has the diagonal weights v, by which the gates see the cell before; 1 has none.
        bidirectional: two cells a layer; the output is 2·n_c wide.

    Raises:
        ValueError: a projection as wide as the cells or wider.
    """
    if proj_size >= hidden_size:
        raise ValueError(f"'proj_size' {proj_size} must be smaller than 'hidden_size' {hidden_size}")
    directions = 2 if bidirectional else 1
    symbols = {"n_i": input_size, "n_c": hidden_size, "p": proj_size, "n_o": output_size, "L": num_layers}
    width = "(2·n_c)" if bidirectional else "n_c"
    weights = _sru_matrices("n_i", input_size, "first layer", "", symbols, directions)
    if num_layers > 1:
        inner = directions * hidden_size
        weights += _sru_matrices(width, inner, "upper layers", "(L-1)·", symbols, directions)
    if output_size:
        weights.append(Term("parameters", "output", f"{width}·n_o", symbols))
    each = "L·" if num_layers > 1 else ""
    if version == 2:
        weights.append(Term("parameters", "gate weights v", f"{each}2·{width}", symbols))
    macs = [term.times({}, "macs", traced=term.name != "gate weights v") for term in weights]
    biases = [Term("parameters", "biases", f"{each}2·{width}", symbols)]
    if output_size:
        biases.append(Term("parameters", "output bias", "n_o", symbols))
    others = [
        Term("elementwise", "sigmoid", f"{each}2·{width}", symbols),
        Term("elementwise", "z + f·(c-z), x + r·(c-x)", f"{each}6·{width}", symbols),
        Term("state", "cells", f"{each}{width}", symbols),
    ]
    return [*weights, *biases, *macs, *others]


def _sru_matrices(
    symbol: str, in_size: int, place: str, times: str, symbols: Mapping[str, int], directions: int
) -> list[Term]:
    """The matrices of one layer (or of all upper ones) whose input has `in_size` numbers."""
    hidden, proj = symbols["n_c"], symbols["p"]
    count = 3 if in_size == directions * hidden else 4
    out = f"{directions}·n_c·{count}" if directions > 1 else f"n_c·{count}"
    if not 0 < proj < in_size:
        return [Term("parameters", f"matrices, {place}", f"{times}{symbol}·{out}", symbols)]
    return [
        Term("parameters", f"projection, {place}", f"{times}{symbol}·p", symbols),
        Term("parameters", f"matrices, {place}", f"{times}p·{out}", symbols),
    ]
