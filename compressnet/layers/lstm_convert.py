"""`nn.LSTM` to `LSTM` and back: the gates have one order in both (i, f, g, o), so weights are copied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressnet.layers.lstm import LSTM
from compressnet.layers.lstm_cell import LSTMCell


def from_torch(source: nn.LSTM, merge_biases: bool = False) -> LSTM:
    """The same function with the same numbers; on (T, B, C), as `source` itself.

    Args:
        merge_biases: one bias a gate, the sum of torch's two, as in papers.

    Raises:
        ValueError: `source` takes (B, T, C) or has dropout, which `LSTM` has not.
    """
    if source.batch_first or source.dropout:
        raise ValueError(
            f"from_torch: LSTM has no batch_first ({source.batch_first}) and no dropout ({source.dropout}): "
            "set them to False and 0"
        )
    weight = source.weight_ih_l0
    assert isinstance(weight, Tensor)
    made = LSTM(
        source.input_size,
        source.hidden_size,
        source.num_layers,
        proj_size=source.proj_size,
        biases=0 if not source.bias else 1 if merge_biases else 2,
        bidirectional=source.bidirectional,
    ).to(weight)
    for cell, ending in _pairs(made):
        _copy(source, cell, ending, to_torch=False)
    return made.train(source.training)


def to_torch(source: LSTM) -> nn.LSTM:
    """The same function with the same numbers; of a single bias torch's second one is 0.

    Raises:
        ValueError: `source` has what `nn.LSTM` has not; all of it is listed.
    """
    cell = source.first
    there = {
        "peepholes": cell.weight_peephole is not None,
        "layer_norm": cell.weight_norm is not None,
        "coupled_gates": cell.gates == 3,
        "cell_clip": bool(cell.cell_clip),
        "proj_clip": bool(cell.proj_clip),
        "nonrecurrent_proj_size": bool(cell.nonrecurrent_proj_size),
        "output_size": source.output is not None,
    }
    if any(there.values()):
        raise ValueError(
            f"to_torch: nn.LSTM has no {', '.join(name for name, is_in in there.items() if is_in)}"
        )
    made = nn.LSTM(
        cell.input_size,
        cell.hidden_size,
        source.num_layers,
        bias=cell.bias_ih is not None,
        bidirectional=source.directions == 2,
        proj_size=cell.proj_size,
        device=cell.weight_ih.device,
        dtype=cell.weight_ih.dtype,
    )
    for cell, ending in _pairs(source):
        _copy(made, cell, ending, to_torch=True)
    return made.train(source.training)


def _pairs(ours: LSTM) -> list[tuple[LSTMCell, str]]:
    """Each cell with the ending of torch's names for its weights: "l0", "l0_reverse", "l1" ..."""
    found = []
    for index, cell in enumerate(ours.cells):
        layer, direction = divmod(index, ours.directions)
        assert isinstance(cell, LSTMCell)
        found.append((cell, f"l{layer}" + ("_reverse" if direction else "")))
    return found


@torch.no_grad()
def _copy(theirs: nn.LSTM, cell: LSTMCell, ending: str, *, to_torch: bool) -> None:
    for name in ("weight_ih", "weight_hh", "weight_hr"):
        own: Tensor | None = getattr(cell, name)
        if own is not None:
            other: Tensor = getattr(theirs, f"{name}_{ending}")
            (other if to_torch else own).copy_(own if to_torch else other)
    if cell.bias_ih is None:
        return
    first: Tensor = getattr(theirs, f"bias_ih_{ending}")
    second: Tensor = getattr(theirs, f"bias_hh_{ending}")
    if to_torch:
        first.copy_(cell.bias_ih)
        second.zero_() if cell.bias_hh is None else second.copy_(cell.bias_hh)
    else:
        cell.bias_ih.copy_(first if cell.bias_hh is not None else first + second)
        if cell.bias_hh is not None:
            cell.bias_hh.copy_(second)
