"""`lstmp`: the outputs of recurrent cells projected, and all that reads them made narrower with them.

    h (H) -> W_hh, readers' matrices     ->     P h (p) -> W_hh A, readers' matrices A      A (H, p), P (p, H)

R. Prabhavalkar, O. Alsharif, A. Bruguier, I. McGraw: On the Compression of Recurrent Neural Networks with an
Application to LVCSR Acoustic Modeling for Embedded Speech Recognition. ICASSP 2016, arXiv 1603.08042 (joint
over the recurrent and the inter-layer matrices)

All that is done with h is M h, M = [W_hh; readers' matrices]. With data E|M h - M A P h|² is smallest: the
singular vectors are those of M L, L the root of E[h hᵀ], about zero, for h starts there and W_hh has no bias
of its own; P = Vᵀ L⁻¹ and M A = M L V. M is higher than it is wide, so Lᵀ Mᵀ M L is decomposed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressnet import signature
from compressnet.architecture import Layer
from compressnet.compression.change import Change, Replaced, shared_ties
from compressnet.compression.matrices import balanced, directions, lost
from compressnet.compression.moments import Second, collect, root
from compressnet.compression.network import Kept, Network
from compressnet.compression.ranks import HowLarge, KeptLayer
from compressnet.errors import CompressnetError
from compressnet.layers.described import described, with_input
from compressnet.layers.fold_plan import Alone
from compressnet.layers.lstm import LSTM
from compressnet.layers.lstm_convert import from_torch
from compressnet.layers.readers import Readers, input_matrices, readers_of
from compressnet.layers.torch_lstm import TorchLSTM


@dataclass(frozen=True)
class _Narrow:
    """A cell with a projection.

    Attributes:
        project: P (p, H).
        recurrent: W_hh A.
        read: the matrices of each reader, times A.
        error: of all that is done with h, M h, relative to its size; None: without data.
    """

    project: Tensor
    recurrent: Tensor
    read: Mapping[str, Mapping[str, Tensor]]
    is_thin: bool
    error: float | None

    @property
    def width(self) -> int:
        return len(self.project)


class LSTMP(HowLarge):
    """A projection in every LSTM whose readers can be made narrower with it.

    What reads a cell changes although it was not asked for; where `skip` names it, the cell stays. A ratio is
    of the MACs of the cell and of the matrices that read it.
    """

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        whole, said = network.module, readers_of(network.module)
        cells: dict[str, LSTM] = {}
        for path, layer in whole.named_modules():
            if not isinstance(layer, LSTM | nn.LSTM) or path not in network.selection:
                continue
            if reason := _refusal(network, path, layer, said):
                yield Kept(path, type(layer).__name__, reason)
            else:
                cells[path] = from_torch(layer) if isinstance(layer, nn.LSTM) else layer
        layers = {reader.path: whole.get_submodule(reader.path) for p in cells for reader in said[p].readers}
        layers |= cells
        found = _moments(network, cells)
        narrow: dict[str, _Narrow] = {}
        for path, cell in cells.items():
            readers = {reader.path: layers[reader.path] for reader in said[path].readers}
            try:
                narrow[path] = self._narrow(path, cell, readers, found.get(path))
            except KeptLayer as error:
                yield Kept(path, type(whole.get_submodule(path)).__name__, str(error))
        yield from _replaced(whole, layers, narrow)

    def _narrow(
        self, path: str, cell: LSTM, readers: Mapping[str, nn.Module], second: Second | None
    ) -> _Narrow:
        recurrent = _wide(cell.first.weight_hh)
        names = [(reader, name) for reader, layer in readers.items() for name in input_matrices(layer)]
        stack = [recurrent, *(_wide(readers[reader].get_parameter(name)) for reader, name in names)]
        matrix = torch.cat(stack)  # (rows, H)
        rows, hidden = matrix.shape
        before = len(recurrent) * cell.first.input_size
        identity = torch.eye(hidden, dtype=torch.float64)
        wide, inverse = (identity, identity) if second is None else root(second.uncentred)
        weighted = matrix @ wide
        energies, basis = directions(weighted.T @ weighted)
        (rank,) = self.choose(
            path,
            before + rows * hidden,
            (hidden,),
            lambda ranks: before + (rows + hidden) * ranks[0],
            lambda: (energies,),
        )
        basis = basis[:, :rank]
        project, read = balanced(basis.T @ inverse, weighted @ basis)
        first, *others = read.split([len(part) for part in stack])
        by_reader: dict[str, dict[str, Tensor]] = {reader: {} for reader in readers}
        for (reader, name), part in zip(names, others, strict=True):
            by_reader[reader][name] = part
        for reader, layer in readers.items():
            _check_matrices(reader, layer, rank)
        if second is None:
            return _Narrow(project, first, by_reader, False, None)
        return _Narrow(project, first, by_reader, second.is_thin, lost(energies, rank))


def _refusal(network: Network, path: str, layer: Any, said: Mapping[str, Readers]) -> str:
    """Why a cell cannot be projected; "": it can."""
    if layer.bidirectional if isinstance(layer, nn.LSTM) else layer.directions == 2:
        return "it is bidirectional"
    if layer.num_layers > 1:
        return f"it has {layer.num_layers} layers, which read each other"
    if (layer.proj_size if isinstance(layer, nn.LSTM) else layer.first.proj_size) > 0:
        return "its outputs are projected already"
    if isinstance(layer, LSTM) and layer.output is not None:
        return "an output layer within it reads it"
    if path not in said:
        return "the model does not say who reads its outputs (it has no readers())"
    if type(layer) not in (LSTM, TorchLSTM):
        return f"a {type(layer).__name__} is no layer of the registry"
    if said[path].reason:
        return said[path].reason
    alone = Alone(network.module)
    if not all(alone(f"{path}.{name}".rstrip(".")) for name, _ in layer.named_modules()):
        return "it shares its weights, or stands in two places"
    for reader in said[path].readers:
        if network.selection.skips(reader.path):
            return f"'{reader.path}' reads it, which --skip leaves as it is"
    return ""


def _moments(network: Network, cells: Mapping[str, LSTM]) -> dict[str, Second]:
    """Of the outputs of cells. torch's LSTM takes steps without a call: a copy has ours in its place."""
    if not network.calibration.is_data or not cells:
        return {}
    module = network.module
    ours = {path: cell for path, cell in cells.items() if module.get_submodule(path) is not cell}
    if ours:
        module = copy.deepcopy(module)
        for path, cell in ours.items():
            module.set_submodule(path, cell)
    found = collect(module, dict.fromkeys(cells, ("outputs",)), network.calibration)
    return {path: second for (path, _), second in found.items()}


def _replaced(
    whole: nn.Module, layers: Mapping[str, nn.Module], narrow: Mapping[str, _Narrow]
) -> Iterator[Replaced]:
    """Every cell with the readers that are no such cells themselves."""
    inputs = {reader: one.read[reader] for one in narrow.values() for reader in one.read}
    widths = {reader: one.width for one in narrow.values() for reader in one.read}
    for path, one in narrow.items():
        new: dict[str, Layer] = {}
        tensors: dict[str, Tensor] = {}
        ties: list[list[str]] = []
        for changed in (path, *(reader for reader in one.read if reader not in narrow)):
            layer = described(layers[changed])
            if changed in widths:
                layer = with_input(layer, widths[changed])
            values = {**layers[changed].state_dict(), **inputs.get(changed, {})}
            if changed == path:
                layer = {"layer": layer["layer"], "args": {**layer["args"], "proj_size": one.width}}
                values |= {"cells.0.weight_hh": one.recurrent, "cells.0.weight_hr": one.project}
            new[changed] = layer
            tensors |= {f"{changed}.{name}": value for name, value in values.items()}
            ties += shared_ties(whole, changed)
        change = Change({"modules": new, "ties": ties} if ties else {"modules": new}, tensors)
        kind = type(whole.get_submodule(path)).__name__
        yield Replaced((path, *one.read), kind, f"rank {one.width}", change, one.is_thin, one.error)


def _check_matrices(path: str, layer: nn.Module, width: int) -> None:
    """Refuse a width at which a reader is of another form: an SRU with a highway of its own or without.

    Raises:
        KeptLayer: it is.
    """
    try:
        narrow = with_input(described(layer), width)
        with torch.device("meta"):
            made: nn.Module = signature.build("layer", narrow["layer"], narrow["args"])
    except CompressnetError as error:
        raise KeptLayer(f"'{path}' reads it and cannot be of width {width}: {error}") from error
    if made.state_dict().keys() != layer.state_dict().keys():
        raise KeptLayer(f"'{path}' reads it and has other matrices at width {width}: give another rank")


def _wide(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)
