"""`softmax`: output layers over words, and embeddings, of low rank.

    hidden (d) -> W (V, d)                ->     hidden (d) -> projection (r, d) -> table (V, r)
    words -> E (V, d)                     ->     words -> table (V, r) -> projection (r, d)
    words -> W, hidden -> W, tied         ->     one table, and a projection for either

With data the error of the scores W h about their mean is smallest (the bias takes the rest), of embeddings
that of the vectors, each word as often as the data has it and once more. Only d x d matrices are decomposed.

Tied, the directions are those of W R, R² the sum of what both want (the covariance of h, and the identity for
the vectors), each divided by the energy of W so weighted; the embedding's projection is by least squares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressnet.architecture import Edit, Layer
from compressnet.bounds import Size
from compressnet.compression.change import Change, Replaced
from compressnet.compression.matrices import balanced, directions, lost
from compressnet.compression.moments import Second, root
from compressnet.compression.network import Kept, Network
from compressnet.compression.ranks import Energy, HowLarge, KeptLayer, Ratio
from compressnet.errors import CompressnetError
from compressnet.layers.described import described
from compressnet.layers.softmax import FullSoftmax


class _Group(NamedTuple):
    """Layers that share one matrix.

    Attributes:
        weight: (V, d), float64.
    """

    outputs: tuple[str, ...]
    embeddings: tuple[str, ...]
    weight: Tensor

    @property
    def paths(self) -> tuple[str, ...]:
        return self.outputs + self.embeddings


class Softmax:
    """Output layers and embeddings in two factors; tied ones stay tied in the larger one.

    Args:
        ratio: the largest share of the layer's MACs, of embeddings and tied ones of the parameters of the
            matrix, that the factors may have (default: 0.5).
        rank: r instead.
        energy: the least share of the energy that stays, instead.
        embedding: take embeddings of their own too.
    """

    def __init__(
        self,
        ratio: Ratio | None = None,
        rank: Size | None = None,
        energy: Energy | None = None,
        embedding: bool = True,
    ) -> None:
        self.size = HowLarge(ratio, rank, energy)
        self.embedding = embedding

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        groups = []
        for group in _groups(network):
            if reason := self._refusal(network, group):
                yield from (_kept(network, path, reason) for path in group.paths if path in network.selection)
            else:
                groups.append(group)
        moments = network.moments({path: ("inputs",) for group in groups for path in group.outputs})
        counts = _counts(network, [path for group in groups for path in group.embeddings])
        for group in groups:
            hidden = {path: moments[path, "inputs"] for path in group.outputs if moments}
            try:
                yield self._replaced(network, group, hidden, counts)
            except KeptLayer as error:
                yield from (_kept(network, path, str(error)) for path in group.paths)

    def _refusal(self, network: Network, group: _Group) -> str:
        places = Counter(id(part) for _, part in network.module.named_modules(remove_duplicate=False))
        layers = [network.module.get_submodule(path) for path in group.paths]
        if any(places[id(layer)] > 1 for layer in layers):
            return "it stands in two places"
        owners = sum(own is layers[0].weight for own in _own_parameters(network.module))
        if owners > len(layers):
            return "it shares its weights with a layer of another kind"
        if not self.embedding and group.embeddings:
            return (
                "it is tied to an embedding: leave embedding=false out"
                if group.outputs
                else "embedding=false"
            )
        for path in group.paths:
            if path not in network.selection:
                return f"it is tied to '{path}', which stays"
        try:
            for layer in layers:
                described(layer)
        except CompressnetError as error:
            return str(error)
        return ""

    def _replaced(
        self,
        network: Network,
        group: _Group,
        hidden: Mapping[str, Second],
        counts: Mapping[str, Tensor],
    ) -> Replaced:
        weight, (words, width) = group.weight, group.weight.shape
        basis, energies, inverse, table_of = _directions(group, hidden, counts)
        (rank,) = self.size.choose(
            group.paths[0],
            words * width,
            (min(words, width),),
            lambda ranks: ranks[0] * (words + width * len(group.paths)),
            lambda: (energies[: min(words, width)],),
        )
        basis = basis[:, :rank]
        table, projection = table_of(basis), basis.T @ inverse
        projection, table = balanced(projection, table)
        is_tied = len(group.paths) > 1
        edit: Edit = {"modules": {}}
        tensors: dict[str, Tensor] = {f"{group.paths[0]}.table": table}
        if is_tied:
            edit["ties"] = [[f"{group.paths[0]}.table", f"{path}.table"] for path in group.paths[1:]]
        for path in group.outputs:
            edit["modules"][path] = _layer("factored_softmax", network.module.get_submodule(path), rank)
            bias = network.module.get_parameter(f"{path}.bias").detach().to("cpu", torch.float64)
            if path in hidden:
                bias = bias + (weight - table @ projection) @ hidden[path].mean
            tensors |= {f"{path}.projection": projection, f"{path}.bias": bias}
        for path in group.embeddings:
            edit["modules"][path] = _layer("factored_embedding", network.module.get_submodule(path), rank)
            own = projection if not is_tied else _least_squares(table, weight, counts.get(path))
            tensors[f"{path}.projection"] = own
        kind = type(network.module.get_submodule(group.paths[0])).__name__
        is_thin = any(second.is_thin for second in hidden.values())
        error = lost(energies, rank) if group.paths[0] in hidden and not is_tied else None
        return Replaced(
            group.paths,
            kind,
            f"rank {rank}{', tied' if is_tied else ''}",
            Change(edit, tensors),
            is_thin,
            error,
        )


def _groups(network: Network) -> list[_Group]:
    """Output layers and embeddings of the selection, with all that share their matrix."""
    by_matrix: dict[int, tuple[list[str], list[str]]] = {}
    for path, layer in network.module.named_modules():
        if type(layer) in (FullSoftmax, nn.Embedding):
            outputs, embeddings = by_matrix.setdefault(id(layer.weight), ([], []))
            (outputs if type(layer) is FullSoftmax else embeddings).append(path)
    groups = []
    for outputs, embeddings in by_matrix.values():
        paths = (*outputs, *embeddings)
        if any(path in network.selection for path in paths):
            weight = network.module.get_parameter(f"{paths[0]}.weight")
            wide = weight.detach().to("cpu", torch.float64)
            groups.append(_Group(tuple(outputs), tuple(embeddings), wide))
    return groups


def _directions(
    group: _Group, hidden: Mapping[str, Second], counts: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Directions as columns (d, d) and their energies, R⁻¹, and what makes a table of some of them.

    The product of the table and `directions.T @ R⁻¹` is the matrix, where all directions are kept.
    """
    weight = group.weight
    identity = torch.eye(weight.shape[1], dtype=torch.float64)
    if not group.outputs and len(group.embeddings) == 1:
        count = counts.get(group.embeddings[0])
        rows = weight if count is None else weight * count.sqrt()[:, None]
        energies, basis = directions(rows.T @ rows)
        return basis, energies, identity, lambda basis: weight @ basis
    gram = weight.T @ weight
    wanted = [hidden[path].covariance if path in hidden else identity for path in group.outputs]
    wanted += [identity for _ in group.embeddings]
    energy = [float((gram * one).sum()) for one in wanted]
    parts = [one / scale for one, scale in zip(wanted, energy, strict=True) if scale > 0]
    wide, inverse = root(torch.stack(parts).sum(0)) if hidden and parts else (identity, identity)
    energies, basis = directions(wide @ gram @ wide)
    return basis, energies, inverse, lambda basis: weight @ (wide @ basis)


def _least_squares(table: Tensor, weight: Tensor, count: Tensor | None) -> Tensor:
    """The projection (r, d) with which the vectors of words are nearest to what they were."""
    rows = table if count is None else table * count[:, None]
    return torch.linalg.pinv(rows.T @ table, hermitian=True) @ (rows.T @ weight)


def _counts(network: Network, paths: Sequence[str]) -> dict[str, Tensor]:
    """How often each word goes into embeddings, and once more: (V,) shares of 1."""
    if not network.calibration.is_data or not paths:
        return {}
    counts = {}
    handles = []
    for path in paths:
        layer: Any = network.module.get_submodule(path)
        counts[path] = torch.ones(layer.num_embeddings, dtype=torch.float64)

        def seen(layer: nn.Module, inputs: tuple[Any, ...], output: Any, path: str = path) -> None:
            words = inputs[0].flatten().cpu()
            counts[path] += torch.bincount(words, minlength=len(counts[path]))

        handles.append(layer.register_forward_hook(seen))
    try:
        network.calibration(network.module)
    finally:
        for handle in handles:
            handle.remove()
    return {path: count / count.sum() for path, count in counts.items()}


def _layer(name: str, layer: nn.Module, rank: int) -> Layer:
    return {"layer": name, "args": {**described(layer)["args"], "rank": rank}}


def _kept(network: Network, path: str, reason: str) -> Kept:
    return Kept(path, type(network.module.get_submodule(path)).__name__, reason)


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter | None]:
    for part in module.modules():
        yield from part._parameters.values()
