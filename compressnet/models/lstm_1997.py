"""The networks of the first paper on LSTM: memory blocks between input and output units, sized by problem.

    x (T, B, n_i) -> b blocks of S cells, all fed back -> sums of the output units (T, B, n_o)

S. Hochreiter, J. Schmidhuber: Long Short-Term Memory. Neural Computation 9(8):1735-1780, 1997, section 5.
The layer is `layers/lstm_1997.py`. Starts of gate biases are the paper's for adding and for three of the four
blocks of reber; all others are of the same kind and found by trial. recipes/lstm_1997_tasks.yaml has a larger
network for reber, which learns it more often.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from compressnet.bounds import OptionalSize, Real, Size
from compressnet.layers.lstm_1997 import LSTM1997, Biases
from compressnet.signature import DERIVED


class Network(NamedTuple):
    """Sizes and starts for a problem; the arguments of `LSTM1997` of these names."""

    blocks: int
    block_size: int
    biases: Biases
    input_gate_biases: list[float] | None = None
    output_gate_biases: list[float] | None = None


NETWORKS = {
    "reber": Network(4, 1, "gates", output_gate_biases=[-1.0, -2.0, -3.0, -4.0]),
    "two_sequence": Network(3, 1, "hidden", [-1.0, -3.0, -5.0], [-2.0, -4.0, -6.0]),
    "adding": Network(2, 2, "all", [-3.0, -6.0]),
    "multiplication": Network(2, 2, "all", [-3.0, -6.0]),
    "temporal_order_6a": Network(2, 2, "all", [-2.0, -4.0]),
    "temporal_order_6b": Network(3, 2, "all", [-2.0, -4.0, -6.0]),
}


def lstm_1997_network(
    input_size: Annotated[Size, DERIVED] = 2,
    output_size: Annotated[Size, DERIVED] = 1,
    problem: Annotated[str, DERIVED] = "adding",
    blocks: OptionalSize = 0,
    block_size: OptionalSize = 0,
    biases: Biases | None = None,
    input_gate_biases: list[Real] | None = None,
    output_gate_biases: list[Real] | None = None,
    truncated: bool = True,
) -> LSTM1997:
    """Sequences (T, B, n_i) to the sums of output units (T, B, n_o).

    Args:
        input_size, output_size, problem: follow from the data.
        blocks, block_size: 0: as the paper has them for the problem.
        biases: which units have one: none, gates, hidden or all; None: as for the problem.
        input_gate_biases, output_gate_biases: at the start, one a block; None: as for the problem, zeros
            with another number of blocks.
        truncated: the paper's gradient; False: the whole one.

    Raises:
        ValueError: no such problem, or arguments that do not fit each other.
    """
    if problem not in NETWORKS:
        raise ValueError(f"problem '{problem}': there are networks for {', '.join(NETWORKS)}")
    known = NETWORKS[problem]
    if blocks not in (0, known.blocks) or biases == "none":
        known = known._replace(input_gate_biases=None, output_gate_biases=None)
    return LSTM1997(
        input_size,
        blocks or known.blocks,
        block_size or known.block_size,
        output_size,
        biases or known.biases,
        truncated,
        input_gate_biases or known.input_gate_biases,
        output_gate_biases or known.output_gate_biases,
    )
