"""What layers cost by formula: those of ours say it themselves, torch's are in a table here.

Costs are those of one call with one input. Layers without weights and without MACs (activations, pooling,
dropout, padding, resizing) have an empty list; containers and unknown modules have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv
from torch.nn.utils.rnn import PackedSequence

from compressnet import cost
from compressnet.analysis.operations import REAL_PRODUCTS
from compressnet.cost import Term

Inputs = tuple[Any, ...]
_WEIGHTLESS = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        *("activation", "channelshuffle", "dropout", "flatten", "fold"),
        *("padding", "pixelshuffle", "pooling", "upsampling"),
    )
)
_GATES: dict[type[nn.Module], int] = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
_CELL_GATES: dict[type[nn.Module], int] = {nn.LSTMCell: 4, nn.GRUCell: 3, nn.RNNCell: 1}


def terms_of(module: nn.Module, inputs: Inputs, output: Any) -> list[Term] | None:
    """The cost of one call of `module`, or None if it has no formula.

    Args:
        inputs: the arguments of the call.
        output: what it returned.
    """
    terms = _terms_of(module, inputs, output)
    if terms is None or not any(parameter.is_complex() for parameter in module.parameters()):
        return terms
    return [
        term.times({"real": REAL_PRODUCTS}, "macs", traced=term.traced) if term.kind == "macs" else term
        for term in terms
    ]


def _terms_of(module: nn.Module, inputs: Inputs, output: Any) -> list[Term] | None:
    """Its cost, where a MAC is of numbers of whatever type."""
    if callable(getattr(type(module), "cost", None)):
        terms: list[Term] = module.cost(_shape(inputs[0]))  # type: ignore[operator]
        return terms
    for kind, formula in _FORMULAS.items():
        if isinstance(module, kind):
            return formula(module, inputs, output)
    weightless = isinstance(module, nn.Identity) or any(
        kind.__module__ in _WEIGHTLESS for kind in type(module).__mro__
    )
    return [] if weightless else None


def _shape(value: Any) -> tuple[int, ...]:
    """Of a tensor; packed sequences are (steps of all, C)."""
    return tuple((value.data if isinstance(value, PackedSequence) else value).shape)


def _convolution(module: Any, inputs: Inputs, output: Tensor) -> list[Term]:
    axes = len(module.kernel_size)
    put_down = inputs[0] if module.transposed else output
    return cost.convolution(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        put_down.shape[-axes:],
        batch=output.shape[0] if output.ndim > axes + 1 else 1,
        groups=module.groups,
        bias=module.bias is not None,
    )


def _linear(module: Any, inputs: Inputs, output: Tensor) -> list[Term]:
    rows, bias = output.shape[:-1].numel(), module.bias is not None
    return cost.linear(module.in_features, module.out_features, rows=rows, bias=bias)


def _bilinear(module: Any, inputs: Inputs, output: Tensor) -> list[Term]:
    """x W y: a MAC for each triple."""
    symbols = {"n_i": module.in1_features, "n_j": module.in2_features, "n_o": module.out_features}
    weights = Term("parameters", "weights", "n_i·n_j·n_o", symbols)
    biases = [] if module.bias is None else [Term("parameters", "bias", "n_o", symbols)]
    return [weights, *biases, weights.times({"N": output.shape[:-1].numel()}, "macs")]


def _embedding(module: Any, inputs: Inputs, output: Tensor) -> list[Term]:
    return cost.embedding(module.num_embeddings, module.embedding_dim, rows=inputs[0].numel())


def _recurrent(module: Any, inputs: Inputs, output: Any) -> list[Term]:
    """Packed sequences count as one of all their steps."""
    shape = _shape(inputs[0])
    if isinstance(inputs[0], PackedSequence) or len(shape) == 2:
        steps, batch = shape[0], 1
    else:
        batch, steps = shape[:2] if module.batch_first else (shape[1], shape[0])
    return cost.recurrent(
        next(gates for kind, gates in _GATES.items() if isinstance(module, kind)),
        module.input_size,
        module.hidden_size,
        module.num_layers,
        proj_size=module.proj_size,
        bias=bool(module.bias),
        bidirectional=module.bidirectional,
        steps=steps,
        batch=batch,
    )


def _cell(module: Any, inputs: Inputs, output: Any) -> list[Term]:
    gates = next(gates for kind, gates in _CELL_GATES.items() if isinstance(module, kind))
    batch = inputs[0].shape[0] if inputs[0].ndim > 1 else 1
    bias = module.bias_ih is not None
    return cost.recurrent(gates, module.input_size, module.hidden_size, bias=bias, batch=batch)


def _attention(module: Any, inputs: Inputs, output: Any) -> list[Term]:
    """Three projections, scores, their weighted sum and the output projection; masks take nothing away."""
    query, key = inputs[0], inputs[1]
    length, keys = (query.shape[-2], key.shape[-2]) if module.batch_first else (query.shape[0], key.shape[0])
    symbols = {"E": module.embed_dim, "n_k": int(module.kdim), "n_v": int(module.vdim)}
    sizes = {"B": query.numel() // (length * module.embed_dim), "L": length, "S": keys}
    attended = {**symbols, **sizes, "S": keys + (module.bias_k is not None) + module.add_zero_attn}
    weights = {"query": "E·E", "key": "n_k·E", "value": "n_v·E", "output": "E·E"}
    parameters = [Term("parameters", name, text, symbols) for name, text in weights.items()]
    rows = {"query": "L", "key": "S", "value": "S", "output": "L"}
    macs = [
        term.times({"B": sizes["B"], rows[term.name]: sizes[rows[term.name]]}, "macs") for term in parameters
    ]
    macs += [Term("macs", name, "B·L·S·E", attended) for name in ("scores", "weighted sum")]
    biases = [("biases", "4·E")] if module.in_proj_bias is not None else []
    biases += [("key and value biases", "2·E")] if module.bias_k is not None else []
    return [*parameters, *(Term("parameters", name, text, symbols) for name, text in biases), *macs]


def _normalisation(module: Any, inputs: Inputs, output: Any) -> list[Term]:
    """Scale and shift; what it computes is elementwise."""
    named = (("scale", module.weight), ("bias", getattr(module, "bias", None)))
    present = [(name, tensor) for name, tensor in named if tensor is not None]
    return [Term("parameters", name, "n", {"n": tensor.numel()}) for name, tensor in present]


def _prelu(module: Any, inputs: Inputs, output: Any) -> list[Term]:
    return [Term("parameters", "slopes", "n", {"n": module.num_parameters})]


_FORMULAS: dict[type[nn.Module], Callable[[Any, Inputs, Any], list[Term]]] = {
    conv._ConvNd: _convolution,
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    **dict.fromkeys(_GATES, _recurrent),
    **dict.fromkeys(_CELL_GATES, _cell),
    nn.MultiheadAttention: _attention,
    **dict.fromkeys((batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), _normalisation),
    nn.PReLU: _prelu,
}
