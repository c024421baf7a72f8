"""Layers as the registry names them: what an edit says of a module, so that it can be built again or changed.

    described(module) -> {layer: NAME, args: {...}} -> signature.build -> a module of its kind and sizes

Weights are no part of it, and neither is what they start from, nor which of them are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from compressnet import registry, signature
from compressnet.architecture import Layer
from compressnet.errors import CompressnetError
from compressnet.kernels import product
from compressnet.layers.adaptive_norm import AdaptiveNorm
from compressnet.layers.chain import Chain
from compressnet.layers.dilated_conv import DilatedConv2d
from compressnet.layers.factored_embedding import FactoredEmbedding
from compressnet.layers.features import MFCC, LogMel
from compressnet.layers.guided_upsample import GuidedUpsample
from compressnet.layers.lstm import LSTM
from compressnet.layers.lstm_1997 import LSTM1997
from compressnet.layers.recurrent_stack import RecurrentStack
from compressnet.layers.shuffle import ShuffleUnit
from compressnet.layers.softmax import FactoredSoftmax, FullSoftmax
from compressnet.layers.sru import SRU
from compressnet.layers.svdf import SVDF
from compressnet.layers.torch_lstm import TorchLSTM

_INPUTS = ("in_features", "in_channels", "input_size", "hidden_size")  # the first that a layer takes


def described(module: nn.Module) -> Layer:
    """A module by its name in the registry and its arguments, all of them written out.

    Raises:
        CompressnetError: the registry has nothing of its kind (exactly: a subclass may compute something
            else), or not with its arguments.
    """
    kind = type(module)
    if kind not in _KINDS:
        raise _not_written(module, "the registry has no layer of this kind")
    name, arguments_of = _KINDS[kind]
    arguments = arguments_of(module)
    if problems := signature.check(registry.find("layer", name), arguments)[1]:
        raise _not_written(module, problems[0].message)
    return {"layer": name, "args": arguments}


def can_be_described(module: nn.Module) -> bool:
    """Whether `described` says what it is."""
    try:
        described(module)
    except CompressnetError:
        return False
    return True


def with_input(layer: Layer, width: int) -> Layer:
    """The same layer for inputs of another width: features, channels, or of output layers hidden units.

    An SRU may have other matrices then: a highway of its own only where its inputs are not as wide as it is.

    Raises:
        CompressnetError: no argument says alone how wide its inputs are.
    """
    arguments = layer["args"]
    if layer["layer"] == "chain":
        first, *others = arguments["layers"]
        return {"layer": "chain", "args": {"layers": [with_input(first, width), *others]}}
    known = signature.parameters(registry.find("layer", layer["layer"]))
    key = next((key for key in _INPUTS if key in known), None)
    if key is None:
        raise CompressnetError(f"layer {layer['layer']}: no argument says alone how wide its inputs are")
    return {"layer": layer["layer"], "args": {**arguments, key: width}}


def paddings(module: Any) -> tuple[int, ...] | None:
    """Of a convolution, in numbers; None: "same" that is not the same on both sides."""
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    pairs = list(zip(module.kernel_size, module.dilation, strict=True))
    if module.padding == "valid":
        return (0,) * len(pairs)
    whole = [dilation * (kernel - 1) for kernel, dilation in pairs]
    return None if any(number % 2 for number in whole) else tuple(number // 2 for number in whole)


def _not_written(module: nn.Module, reason: str) -> CompressnetError:
    kind = type(module).__name__
    return CompressnetError(f"a {kind} cannot be written as a layer of the registry: {reason}")


def _only(module: nn.Module, **usual: Any) -> None:
    """Refuse options that the registry does not have."""
    for name, value in usual.items():
        if (has := getattr(module, name)) != value:
            raise _not_written(module, f"its {name} is {has}")


def _linear(module: Any) -> dict[str, Any]:
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias is not None,
    }


def _convolution(module: Any) -> dict[str, Any]:
    _only(module, padding_mode="zeros")
    padding = paddings(module)
    if padding is None:
        raise _not_written(module, "its padding is not the same on both sides")
    arguments = {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "kernel_size": _short(module.kernel_size),
        "stride": _short(module.stride),
        "padding": _short(padding),
        "dilation": _short(module.dilation),
        "groups": module.groups,
        "bias": module.bias is not None,
    }
    if module.transposed:
        arguments["output_padding"] = _short(module.output_padding)
    return arguments


def _short(sizes: Sequence[int]) -> int | list[int]:
    return sizes[0] if len(set(sizes)) == 1 else list(sizes)


def _dilated(module: DilatedConv2d) -> dict[str, Any]:
    _only(module, padding_mode="zeros", padding=module.dilation, kernel_size=(3, 3), stride=(1, 1), groups=1)
    return {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "dilation": module.dilation[0],
        "bias": module.bias is not None,
    }


def _batch_norm(module: nn.BatchNorm2d) -> dict[str, Any]:
    _only(module, track_running_stats=True)
    return {
        "num_features": module.num_features,
        "eps": module.eps,
        "momentum": module.momentum,
        "affine": module.affine,
    }


def _layer_norm(module: nn.LayerNorm) -> dict[str, Any]:
    return {
        "normalized_shape": _shape(module.normalized_shape),
        "eps": module.eps,
        "elementwise_affine": module.elementwise_affine,
        "bias": not module.elementwise_affine or module.bias is not None,
    }


def _shape(sizes: Sequence[int]) -> int | list[int]:
    return sizes[0] if len(sizes) == 1 else list(sizes)


def _adaptive_norm(module: AdaptiveNorm) -> dict[str, Any]:
    return {
        "channels": module.channels,
        "beta": module.beta is not None,
        "eps": module.eps,
        "stats": module.stats,
    }


def _guided_upsample(module: GuidedUpsample) -> dict[str, Any]:
    return {"factor": module.factor, "radius": module.radius, "eps": module.eps}


def _embedding(module: nn.Embedding) -> dict[str, Any]:
    _only(module, padding_idx=None, max_norm=None, scale_grad_by_freq=False, sparse=False)
    return {"num_embeddings": module.num_embeddings, "embedding_dim": module.embedding_dim}


def _factored_embedding(module: FactoredEmbedding) -> dict[str, Any]:
    return {
        "num_embeddings": module.num_embeddings,
        "embedding_dim": module.embedding_dim,
        "rank": module.projection.shape[0],
    }


def _full_softmax(module: FullSoftmax) -> dict[str, Any]:
    vocab_size, hidden_size = module.weight.shape
    return {"hidden_size": hidden_size, "vocab_size": vocab_size}


def _factored_softmax(module: FactoredSoftmax) -> dict[str, Any]:
    rank, hidden_size = module.projection.shape
    return {"hidden_size": hidden_size, "vocab_size": len(module.bias), "rank": rank}


def _svdf(module: SVDF) -> dict[str, Any]:
    names = ("features", "units", "memory", "rank", "activation", "form")
    return {**{name: getattr(module, name) for name in names}, "bias": module.bias is not None}


def _chain(module: Chain) -> dict[str, Any]:
    return {"layers": [described(layer) for layer in module]}


def _lstm(module: LSTM) -> dict[str, Any]:
    cell, output = module.first, module.output
    if output is not None and (type(output) is not nn.Linear or output.bias is None):
        raise _not_written(module, "its output layer was replaced")
    return {
        "input_size": cell.input_size,
        "hidden_size": cell.hidden_size,
        "num_layers": module.num_layers,
        "proj_size": cell.proj_size,
        "nonrecurrent_proj_size": cell.nonrecurrent_proj_size,
        "output_size": 0 if output is None else output.out_features,
        "peepholes": cell.weight_peephole is not None,
        "layer_norm": cell.weight_norm is not None,
        "coupled_gates": cell.gates == 3,
        "cell_clip": float(cell.cell_clip),
        "proj_clip": float(cell.proj_clip),
        "biases": sum(bias is not None for bias in (cell.bias_ih, cell.bias_hh)),
        "forget_bias": float(cell.forget_bias),
        "bidirectional": module.directions == 2,
    }


def _torch_lstm(module: nn.LSTM) -> dict[str, Any]:
    _only(module, batch_first=False, dropout=0.0)
    names = ("input_size", "hidden_size", "num_layers", "proj_size", "bias", "bidirectional")
    return {name: getattr(module, name) for name in names}


def _sru(module: SRU) -> dict[str, Any]:
    if any(type(part) is Chain for part in module.modules()):
        raise _not_written(module, "a matrix in it was replaced")
    return {name: getattr(module, name) for name in signature.parameters(SRU)}


def _lstm_1997(module: LSTM1997) -> dict[str, Any]:
    if type(module.output) is not nn.Linear:
        raise _not_written(module, "its output layer was replaced")
    return {**module.sizes._asdict(), "biases": module.biases, "truncated": module.truncated}


def _shuffle_unit(module: ShuffleUnit) -> dict[str, Any]:
    convolutions = module.reduce, module.depthwise, module.expand
    norms = module.reduce_norm, module.depthwise_norm, module.expand_norm
    kinds = {type(part) for part in convolutions}, {type(part) for part in norms}
    biases = {part.bias is not None for part in convolutions}
    if kinds != ({nn.Conv2d}, {nn.BatchNorm2d}) or len(biases) > 1:
        raise _not_written(module, "a part of it was replaced")
    inputs, own = module.reduce.in_channels, module.expand.out_channels
    return {
        "in_channels": inputs,
        "out_channels": own if module.adds else inputs + own,
        "groups": module.groups,
        "stride": module.stride,
        "bottleneck": module.reduce.out_channels,
        "dilation": module.depthwise.dilation[0],
        "whole_input": module.whole_input,
        "bias": biases.pop(),
        "eps": module.depthwise_norm.eps,
        "momentum": module.depthwise_norm.momentum,
    }


def _stack(module: RecurrentStack) -> dict[str, Any]:
    """Of cells that are alike but for their sizes."""
    cells = [described(cell) for cell in module]
    others = [
        (cell["layer"], {key: value for key, value in cell["args"].items() if key not in _SIZES})
        for cell in cells
    ]
    sizes = [cell["args"].get("hidden_size") for cell in cells]
    name, arguments = others[0]
    alike = all(other == others[0] for other in others) and len({*sizes[:-1]}) <= 1
    narrows = sizes[-1] != sizes[0] and bool(arguments.get("proj_size")) and name != "sru"
    if not alike or narrows or name == "recurrent_stack":
        raise _not_written(module, "its cells differ, or are stacks: describe each of them")
    return {
        "cell": signature.write_named(name, arguments),
        "input_size": module.input_size,
        "hidden_size": sizes[0],
        "num_layers": len(cells),
        "last_size": 0 if sizes[-1] == sizes[0] else sizes[-1],
    }


_SIZES = ("input_size", "hidden_size")


def _features(module: LogMel) -> dict[str, Any]:
    mean, scale = module.statistics
    known = signature.parameters(type(module))
    return {name: getattr(module, name) for name in known} | {"mean": mean, "scale": scale}


_KINDS: Mapping[type[nn.Module], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    nn.Identity: ("identity", lambda module: {}),
    nn.Linear: ("linear", _linear),
    product.Linear: ("product_linear", _linear),
    nn.Conv1d: ("conv1d", _convolution),
    nn.Conv2d: ("conv2d", _convolution),
    DilatedConv2d: ("dilated_conv2d", _dilated),
    nn.ConvTranspose2d: ("conv_transpose2d", _convolution),
    nn.BatchNorm2d: ("batch_norm2d", _batch_norm),
    nn.LayerNorm: ("layer_norm", _layer_norm),
    AdaptiveNorm: ("adaptive_norm", _adaptive_norm),
    GuidedUpsample: ("guided_upsample", _guided_upsample),
    nn.Embedding: ("embedding", _embedding),
    FactoredEmbedding: ("factored_embedding", _factored_embedding),
    FullSoftmax: ("full_softmax", _full_softmax),
    FactoredSoftmax: ("factored_softmax", _factored_softmax),
    Chain: ("chain", _chain),
    LSTM: ("lstm_full", _lstm),
    TorchLSTM: ("torch_lstm", _torch_lstm),
    SRU: ("sru", _sru),
    SVDF: ("svdf", _svdf),
    LogMel: ("log_mel", _features),
    MFCC: ("mfcc", _features),
    LSTM1997: ("lstm_1997", _lstm_1997),
    RecurrentStack: ("recurrent_stack", _stack),
    ShuffleUnit: ("shuffle_unit", _shuffle_unit),
}
