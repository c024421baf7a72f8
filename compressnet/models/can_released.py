"""Names and layout of the weights that the authors of CAN released (TensorFlow variables).

Source: the public repository CQFIO/FastImageProcessing. BGR images there, RGB here. The layer of dilation
128 is called g_conv8 and does not exist in CAN24, whose eighth layer is g_conv9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressnet.errors import CompressnetError, short

Arrays = Mapping[str, NDArray[Any]]

_PREFIX = "weights/"
_OPTIMISER = re.compile(r"(^|/)(Adam(_\d+)?|beta\d_power(_\d+)?|global_step)$")
_NETS = {(24, False): "can24", (32, True): "can32"}  # (width, has g_conv8)
_MOST = 10  # problems of one message
OPERATORS = (  # of the ten planes, in the authors' order
    *("non_local", "dark_channel", "wls_tone", "local_laplacian", "l0"),
    *("pencil", "rof", "rtv", "style", "tv_l1"),
)
DIAL = {"lambda": [0.0001, 0.01]}  # of L0 smoothing, of the one plane: as the authors show it
_IN_CHANNELS = (3, 4, 3 + len(OPERATORS))


def released_kind(arrays: Arrays) -> tuple[str, dict[str, Any]]:
    """Which registered model these variables are, and its arguments, as in ("can24", {}) and
    ("can32", {"condition": "planes", "conditions": 10}).

    Raises:
        CompressnetError: they are of none of the released networks.
    """
    variables = _variables(arrays)
    first = variables.get("g_conv1/weights")
    if first is None:
        raise CompressnetError(
            "released weights: no variable g_conv1/weights; these are not weights of the fast image "
            f"processing networks (found: {_some(variables)})"
        )
    if first.ndim != 4 or first.shape[2] not in _IN_CHANNELS:
        raise CompressnetError(
            f"released weights: g_conv1/weights has shape {first.shape}; expected (3, 3, in, out) with "
            "3, 4 or 13 input channels"
        )
    deep = "g_conv8/weights" in variables
    name = _NETS.get((first.shape[3], deep))
    if name is None:
        raise CompressnetError(
            f"released weights: {first.shape[3]} feature maps {'with' if deep else 'without'} g_conv8; the "
            "released networks have 24 without or 32 with it"
        )
    planes = int(first.shape[2]) - 3
    return name, {"condition": "planes", "conditions": planes} if planes else {}


def released_state(arrays: Arrays, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The variables as a state dict with the names, shapes and types of `like`, for RGB images.

    Raises:
        CompressnetError: missing, unknown, misshapen or non-finite variables, all named.
    """
    variables = _variables(arrays)
    names = {key: _variable_name(key, deep="g_conv8/weights" in variables) for key in like}
    known = set(names.values())
    extra = [n for n in variables if n not in known and not n.endswith(("moving_mean", "moving_variance"))]
    problems = [f"missing {name}" for name in names.values() if name not in variables]
    problems += [f"unknown {short(name)}" for name in extra]
    state: dict[str, Tensor] = {}
    for key, name in names.items():
        if name not in variables:
            continue
        if variables[name].dtype.kind != "f":
            problems.append(f"{name} holds {variables[name].dtype}, not floats")
            continue
        value = _to_torch(name, np.asarray(variables[name]))
        if value.shape != tuple(like[key].shape):
            problems.append(f"{name} has shape {variables[name].shape}")
        elif not np.isfinite(value).all():
            problems.append(f"{name} holds NaN or infinite values")
        state[key] = torch.from_numpy(value)
    if problems:
        more = [f"and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
        raise CompressnetError(f"released weights: {'; '.join(problems[:_MOST] + more)}")
    return state


def _variables(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Without the optimiser's slots, and without the prefix and what lies beside it, if there is one."""
    if any(name.startswith(f"{_PREFIX}g_conv") for name in arrays):
        arrays = {n.removeprefix(_PREFIX): array for n, array in arrays.items() if n.startswith(_PREFIX)}
    return {name: array for name, array in arrays.items() if not _OPTIMISER.search(name)}


def _variable_name(key: str, deep: bool) -> str:
    """`blocks.0.conv.weight` -> `g_conv1/weights`."""
    if key.startswith("last."):
        return "g_conv_last/" + {"last.weight": "weights", "last.bias": "biases"}[key]
    _, block, module, parameter = key.split(".")
    layer = int(block) + 1
    if not deep and layer == 8:
        layer = 9
    if module == "conv":
        return f"g_conv{layer}/weights"
    inside = "" if parameter in ("w0", "w1") else "BatchNorm/"
    return f"g_conv{layer}/{inside}{parameter}"


def _to_torch(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """(kh, kw, in, out) to (out, in, kh, kw), and BGR to RGB at both ends of the network."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, and told as that
        value = np.array(array, dtype=np.float32, order="C")
    if name.endswith("/weights") and value.ndim == 4:
        value = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
    if name == "g_conv1/weights" and value.ndim == 4:
        value[:, :3] = value[:, 2::-1].copy()
    elif name.startswith("g_conv_last/"):
        value = np.ascontiguousarray(value[::-1])
    return value


def _some(variables: Mapping[str, Any]) -> str:
    names = [short(name) for name in sorted(variables)]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "nothing"
