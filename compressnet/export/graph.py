"""A network as an ONNX graph, by torch's exporter."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.errors import CompressnetError
from compressnet.export.interface import Interface
from compressnet.layers.lstm_convert import from_torch
from compressnet.layers.torch_lstm import TorchLSTM

_LARGEST = 2**31 - 1  # bytes of a protobuf message, and so of an ONNX file in one piece


def onnx_graph(name: str, given: Interface, opset: int) -> Any:
    """The graph as an `onnx_ir.Model` that the tensors of the network are in.

    Args:
        name: what to call the network in messages.

    Raises:
        CompressnetError: torch cannot export it, or it is too large for one file.
    """
    if sum(tensor.nbytes for tensor in given.network.state_dict().values()) >= _LARGEST:
        raise CompressnetError(f"{name}: its weights are over 2 GB, the most that one ONNX file can hold")
    try:
        with torch.no_grad():  # with gradients torch's pass over Scan fails
            program = torch.onnx.export(
                with_our_lstm(given.network),
                given.example,
                dynamo=True,
                dynamic_shapes=(given.axes,),  # of *inputs
                input_names=given.input_names,
                output_names=given.output_names,
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # it raises whatever the exporter, the decompositions and onnx raise
        raise CompressnetError(f"{name}: {_reason(error)}") from error
    assert program is not None
    for value, axes in zip(program.model.graph.outputs, given.output_axes, strict=True):
        assert value.shape is not None
        for axis, name in axes.items():  # which torch writes as what it has traced: Min(height, 8*(...))
            if not isinstance(value.shape[axis], int):
                value.shape[axis] = name
    return _tidy(program.model)


def with_our_lstm(network: nn.Module) -> nn.Module:
    """A copy in which `LSTM`s of this project stand for torch's: the same function with an open time axis.

    torch 2.13 freezes the steps of its own (pytorch issue 191855), and with `proj_size` what it writes is
    refused by ONNX Runtime.
    """
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for key, child in parent.named_children():
            if isinstance(child, nn.LSTM) and type(child) in (nn.LSTM, TorchLSTM):
                setattr(parent, key, _OurLSTM(child))
    return network


class _OurLSTM(nn.Module):
    """Called as the `nn.LSTM` or `TorchLSTM` that it is made from."""

    def __init__(self, source: nn.LSTM) -> None:
        super().__init__()
        self._batch_first, self._outputs_only = source.batch_first, isinstance(source, TorchLSTM)
        source.batch_first, source.dropout = False, 0.0  # a copy, and in inference
        self.lstm = from_torch(source).eval()

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> Any:
        y, state = self.lstm(x.transpose(0, 1) if self._batch_first else x, state)
        y = y.transpose(0, 1) if self._batch_first else y
        return y if self._outputs_only else (y, state)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.lstm.step(x, state)

    def init_state(self, *how: Any) -> tuple[Tensor, Tensor]:
        return self.lstm.init_state(*how)


def _tidy(model: Any) -> Any:
    """Without what nothing uses, and without the exporter's notes: they hold paths of this machine."""
    from onnx_ir.passes import common

    _split_means(model.graph)
    for tidy in (common.RemoveUnusedNodesPass(), common.ClearMetadataAndDocStringPass()):
        model = tidy(model).model
    return model


def _split_means(graph: Any) -> None:
    """Means over several axes as means of means: the same value, and much nearer to it.

    ONNX Runtime 1.32 adds up in one row whatever it is given. A CAN24 with random adaptive normalisation was
    off by 1e-4 at 300x200 pixels (torch: 9e-7), and by 2e-6 with its rows first; the time is the same.
    """
    import onnx_ir

    for node in list(graph):
        if node.op_type != "ReduceMean" or len(node.inputs) < 2 or node.inputs[1].const_value is None:
            continue
        first, *others = node.inputs[1].const_value.numpy().tolist()
        if not others or not node.attributes.get_int("keepdims", 1):
            continue
        x = node.inputs[0]
        for axis in reversed(others):
            rows = onnx_ir.node("ReduceMean", [x, _constant(graph, axis)], {"keepdims": 1})
            graph.insert_before(node, rows)
            x = rows.outputs[0]
        node.replace_input_with(0, x)
        node.replace_input_with(1, _constant(graph, first))


def _constant(graph: Any, axis: int) -> Any:
    """The initializer [axis] of the graph."""
    import onnx_ir

    name = f"axis_{axis}"
    if name not in graph.initializers:
        graph.register_initializer(
            onnx_ir.val(name, const_value=onnx_ir.tensor([axis], dtype=onnx_ir.DataType.INT64, name=name))
        )
    return graph.initializers[name]


def _reason(error: BaseException) -> str:
    """The cause of an exporter's error in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    if "inferred a static shape" in text:
        return (
            "a size that must stay open is frozen in what torch traces: by a loop over it in Python, or by "
            "torch's own GRU or RNN"
        )
    line = next(iter(text.splitlines()), type(error).__name__)
    return f"torch cannot export it to ONNX: {line}"
