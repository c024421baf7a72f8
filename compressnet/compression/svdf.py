"""`svdf`: the first linear layer, over T frames of F features, as one whose nodes have filters of rank R.

    W (n, T·F)     ->     alpha (n·R, T), beta (n·R, F)      a stream: R n (F + T) MACs a frame, not n F T

P. Nakkiran, R. Alvarez, R. Prabhavalkar, C. Parada: Compressing Deep Neural Networks using a Rank-Constrained
Topology. Interspeech 2015, pp. 1473-1477

Each node's filter (T, F) is cut to its largest singular values. With data they are those of L_T W_n L_F, the
roots of how frames and how features go together: the covariance of windows summed over the other one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from compressnet.bounds import Kernel
from compressnet.compression.change import Change, Replaced
from compressnet.compression.factors import Moments, input_bias
from compressnet.compression.moments import root
from compressnet.compression.network import Kept, Network
from compressnet.compression.part import Part
from compressnet.compression.ranks import Energy, HowLarge, KeptLayer, Ratio


class ToSVDF:
    """An SVDF in the place of the first linear layer.

    Args:
        frames: T; its inputs are so many frames, oldest first.
        ratio: the largest share of the layer's MACs a frame of a stream (default: 0.5).
        rank: R instead; T and F are the most.
        energy: the least share of the energy of the filters that stays, instead.
    """

    def __init__(
        self,
        frames: Kernel,
        ratio: Ratio | None = None,
        rank: Kernel | None = None,
        energy: Energy | None = None,
    ) -> None:
        self.size = HowLarge(ratio, rank, energy)
        self.frames = frames

    def changes(self, network: Network) -> Iterator[Replaced | Kept]:
        first: Part | None = None
        for part in network.parts:
            kind = type(part.layer).__name__
            if part.kernel or first is not None:
                yield Kept(part.path, kind, "not the first linear layer")
            elif part.inputs % self.frames:
                reason = f"its {part.inputs} inputs are not {self.frames} frames of as many features each"
                yield Kept(part.path, kind, reason)
            else:
                first = part
        if first is None:
            return
        found = network.moments({first.path: ("inputs",)})
        moments: Moments = {"inputs": found[first.path, "inputs"]} if found else {}
        try:
            yield self._replaced(first, moments)
        except KeptLayer as error:
            yield Kept(first.path, type(first.layer).__name__, str(error))

    def _replaced(self, part: Part, moments: Moments) -> Replaced:
        frames, features = self.frames, part.inputs // self.frames
        filters = part.weight.unflatten(1, (frames, features))  # (n, T, F)
        (times, untimes), (bands, unbands) = _roots(frames, features, moments)
        left, values, right = torch.linalg.svd(times @ filters @ bands, full_matrices=False)
        (rank,) = self.size.choose(
            part.path,
            part.outputs * part.inputs,
            (min(frames, features),),
            lambda ranks: part.outputs * ranks[0] * (frames + features),
            lambda: (values.square().sum(0),),
        )
        scale = values[:, :rank].sqrt()[..., None]  # (n, R, 1)
        time = (untimes @ left[:, :, :rank]).transpose(1, 2) * scale  # (n, R, T)
        feature = (right[:, :rank] @ unbands) * scale  # (n, R, F)
        whole = (time.transpose(1, 2) @ feature).flatten(1)
        bias = input_bias(part, moments, whole)
        args = {"features": features, "units": part.outputs, "memory": frames, "rank": rank}
        tensors = {"weight_time": time.flatten(0, 1), "weight_feature": feature.flatten(0, 1)}
        if bias is not None:
            tensors["bias"] = bias
        change = Change(
            {"modules": {part.path: {"layer": "svdf", "args": {**args, "bias": bias is not None}}}},
            {f"{part.path}.{name}": value for name, value in tensors.items()},
        )
        thin = any(second.is_thin for second in moments.values())
        return Replaced((part.path,), type(part.layer).__name__, f"rank {rank}", change, thin)


def _roots(
    frames: int, features: int, moments: Moments
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Roots and their inverses, over frames and over features; identities without data."""
    if "inputs" not in moments:
        one, other = (torch.eye(size, dtype=torch.float64) for size in (frames, features))
        return (one, one), (other, other)
    whole = moments["inputs"].covariance.view(frames, features, frames, features)
    return root(torch.einsum("sfuf->su", whole)), root(torch.einsum("tftg->fg", whole))
