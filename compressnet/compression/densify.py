"""`densify`: what other methods split becomes one layer again, with the same outputs but for rounding.

    chain of linear layers, or of convolutions     ->     one, of the geometry that they have together
    factored_softmax, factored_embedding, svdf     ->     full_softmax, embedding, linear

Convolutions in a row are one where along each axis at most one of them has taps, a stride or a padding: the
pieces of all methods are such. Not where a bias comes before a padding: what is padded has none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.compression.change import Change, Replaced
from compressnet.compression.network import Kept, Network
from compressnet.compression.part import KINDS, Part, Piece
from compressnet.compression.ranks import KeptLayer
from compressnet.layers.chain import Chain
from compressnet.layers.described import described
from compressnet.layers.factored_embedding import FactoredEmbedding
from compressnet.layers.fold_plan import Alone
from compressnet.layers.lstm import LSTM
from compressnet.layers.softmax import FactoredSoftmax
from compressnet.layers.svdf import SVDF


class Densify:
    """Every layer that is in factors, as one; tied factors become matrices of their own."""

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        alone = Alone(network.module)
        done: list[str] = []
        for path, layer in network.module.named_modules():
            inside = any(path.startswith(f"{outer}.") for outer in done)
            if type(layer) not in _KINDS or path not in network.selection or inside:
                continue
            kind = type(layer).__name__
            try:
                change = _densified(path, layer, alone)
            except KeptLayer as error:
                yield Kept(path, kind, str(error))
                continue  # what is in it may still be one
            if change is not None:
                done.append(path)
                yield Replaced((path,), kind, "one layer", change)


def _densified(path: str, layer: Any, alone: Alone) -> Change | None:
    """One layer in the place of factors; None: it is none.

    Raises:
        KeptLayer: it cannot be one layer.
    """
    if isinstance(layer, Chain):
        return _of_chain(path, layer, alone)
    if isinstance(layer, LSTM):
        if layer.first.proj_size:
            raise KeptLayer("a projected cell: its readers are as narrow as it is")
        return None
    if isinstance(layer, SVDF):
        if layer.activation != "none":
            raise KeptLayer(f"its outputs go through {layer.activation}, which no linear layer has")
        return _single(path, "linear", _linear(layer), layer.weight, layer.bias)
    args = described(layer)["args"]
    del args["rank"]
    name = "full_softmax" if isinstance(layer, FactoredSoftmax) else "embedding"
    weight = _wide(layer.table) @ _wide(layer.projection)
    return _single(path, name, args, weight, getattr(layer, "bias", None))


def _single(path: str, name: str, args: dict[str, Any], weight: Tensor, bias: Tensor | None) -> Change:
    tensors = {f"{path}.weight": weight} | ({} if bias is None else {f"{path}.bias": bias})
    return Change({"modules": {path: {"layer": name, "args": args}}}, tensors)


def _linear(layer: SVDF) -> dict[str, Any]:
    width, units = layer.memory * layer.features, layer.units
    return {"in_features": width, "out_features": units, "bias": layer.bias is not None}


def _of_chain(path: str, chain: Chain, alone: Alone) -> Change:
    layers = list(_flat(path, chain))
    parts = [Part(place, layer, (), ()) for place, layer in layers]
    kinds = {KINDS.get(type(part.layer)) for part in parts}
    if len(kinds) > 1 or None in kinds:
        names = ", ".join(sorted({type(part.layer).__name__ for part in parts}))
        raise KeptLayer(f"{names} in a row are no one layer")
    for part in parts:
        if reason := part.refusal():
            raise KeptLayer(f"'{part.path}': {reason}")
        if not alone(part.path):
            raise KeptLayer(f"'{part.path}' shares its weights, or stands in two places")
    whole = parts[0].spread(parts[0].weight, parts[0].bias)
    for part in parts[1:]:
        whole = _composed(whole, part.spread(part.weight, part.bias))
    return Part(path, parts[0].layer, (), ()).replaced([whole])


def _composed(first: Piece, second: Piece) -> Piece:
    """Two layers in a row as one.

    Raises:
        KeptLayer: they are none.
    """
    axes = first.weight.ndim - 2
    mine, theirs = ([_geometry(piece, axis) for axis in range(axes)] for piece in (first, second))
    plain = (1, 1, 0, 1)
    for one, other in zip(mine, theirs, strict=True):
        if plain not in (one, other):
            raise KeptLayer("two of its layers have taps, a stride or a padding along one axis")
    if first.bias is not None and any(second.padding):
        raise KeptLayer("a layer with a bias before one with a padding, which has none of it")
    weight = torch.einsum("nr...,rm...->nm...", second.weight, first.weight)
    bias = second.bias
    if first.bias is not None:
        bias = second.weight.flatten(2).sum(2) @ first.bias if axes else second.weight @ first.bias
        bias = bias if second.bias is None else bias + second.bias
    both = [other if one == plain else one for one, other in zip(mine, theirs, strict=True)]
    stride, padding, dilation = (tuple(axis[number] for axis in both) for number in (1, 2, 3))
    return Piece(weight, bias, stride, padding, dilation)


def _geometry(piece: Piece, axis: int) -> tuple[int, int, int, int]:
    taps = piece.weight.shape[2 + axis]
    dilation = piece.dilation[axis] if taps > 1 else 1  # of one tap it means nothing
    return taps, piece.stride[axis], piece.padding[axis], dilation


def _flat(path: str, chain: Chain) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in chain.named_children():
        if isinstance(layer, Chain):
            yield from _flat(f"{path}.{name}", layer)
        else:
            yield f"{path}.{name}", layer


def _wide(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


_KINDS = (Chain, FactoredEmbedding, FactoredSoftmax, LSTM, SVDF)
