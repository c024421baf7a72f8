"""Weights of the authors' package to `SRU`: matrices are laid out otherwise there.

Source: asappresearch/sru 2.6.0, sru/modules.py. The matrices of a layer are one (d, D·H·k), k innermost: z,
forget, reset and, where k is 4, the highway; `weight_c` and `bias` are (2, D, H); `scale_x` is alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressnet.layers.sru import SRU, SRULayer


def from_asapp(arrays: Mapping[str, Any], prefix: str = "", **form: Any) -> SRU:
    """The same function with the same numbers: sizes and alpha are read off the arrays.

    Args:
        arrays: a state dict of the package `sru`, of tensors or arrays; names outside `<prefix>rnn_lst.` are
            left alone.
        form: what the arrays do not tell: `version`, `bidirectional`, `activation`, `dropout`, `rnn_dropout`.

    Raises:
        ValueError: not such weights, or a form that `SRU` does not have: layer normalisation, no skip term,
            with both directions a projection not narrower than one of them.
    """
    parts = _layers(arrays, prefix)
    first, directions = parts[0], 2 if form.get("bidirectional") else 1
    hidden = first["bias"].numel() // 2 // directions
    proj = next((part["weight_proj"].shape[1] for part in parts if "weight_proj" in part), 0)
    alpha = float(first["scale_x"]) if "scale_x" in first else 1.0
    if alpha < 1:
        raise ValueError(f"{prefix}rnn_lst.0.scale_x must be at least 1, got {alpha}")
    if alpha > 1:
        form = {**form, "rescale": True, "highway_bias": math.log((alpha**2 - 1) / 2)}
    width = first.get("weight_proj", first["weight"]).shape[0]
    made = SRU(width, hidden, len(parts), proj, **form).to(first["weight"].dtype)
    for number, (layer, part) in enumerate(zip(made.layers, parts, strict=True)):
        name = f"{prefix}rnn_lst.{number}"
        _check(layer, part, name)
        _copy(layer, part, name)
    return made


def _layers(arrays: Mapping[str, Any], prefix: str) -> list[dict[str, Tensor]]:
    """The tensors of each layer by their name in it."""
    parts: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        number, _, key = name.removeprefix(f"{prefix}rnn_lst.").partition(".")
        if name.startswith(f"{prefix}rnn_lst.") and number.isdigit():
            tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
            parts.setdefault(int(number), {})[key] = tensor.detach()
    whole = all({"weight", "bias", "weight_c"} <= set(part) for part in parts.values())
    if not parts or sorted(parts) != list(range(len(parts))) or not whole:
        name = f"{prefix}rnn_lst.0"
        raise ValueError(f"not weights of the package sru: it has '{name}.weight', '.weight_c', '.bias', ...")
    return [parts[number] for number in sorted(parts)]


def _check(layer: SRULayer, part: Mapping[str, Tensor], name: str) -> None:
    cell, pair = layer.cells[0], (2 * len(layer.cells) * layer.cells[0].bias.shape[1],)
    columns = pair[0] // 2 * (3 + (cell.highway is not None))
    wanted: dict[str, tuple[int, ...]] = {
        "weight": (cell.transform.in_features, columns),
        "bias": pair,
        "weight_c": pair,
    }
    if layer.project is not None:
        wanted["weight_proj"] = (layer.project.in_features, layer.project.out_features)
    for key in sorted({*wanted, *part} - {"scale_x"}):
        got = tuple(part[key].shape) if key in part else "none"
        if wanted.get(key, "none") != got:
            raise ValueError(f"{name}.{key}: {got}, wanted {wanted.get(key, 'none')}")


@torch.no_grad()
def _copy(layer: SRULayer, part: Mapping[str, Tensor], name: str) -> None:
    cells, hidden = layer.cells, layer.cells[0].bias.shape[1]
    if layer.project is not None:
        layer.project.weight.copy_(part["weight_proj"].T)
    planes = part["weight"].unflatten(1, (len(cells), hidden, -1)).permute(1, 3, 2, 0)  # (D, k, H, d)
    pairs = {key: part[key].view(2, len(cells), hidden).unbind(1) for key in ("bias", "weight_c")}
    for number, cell in enumerate(cells):
        cell.transform.weight.copy_(planes[number, :3].flatten(0, 1))
        if cell.highway is not None:
            cell.highway.weight.copy_(planes[number, 3])
        cell.bias.copy_(pairs["bias"][number])
        if cell.v is not None:
            cell.v.copy_(pairs["weight_c"][number])
        elif pairs["weight_c"][number].any():
            raise ValueError(f"{name}.weight_c: not zero: these are weights of version 2")
