"""A network as an ONNX file that says what it is, written only after ONNX Runtime agreed with torch on it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from compressnet import files, registry, signature, weights
from compressnet.analysis.given import module_of
from compressnet.errors import CompressnetError, UsageError
from compressnet.export.check import Checked, check
from compressnet.export.graph import onnx_graph
from compressnet.export.interface import interface
from compressnet.export.quiet import quiet
from compressnet.recipe import Recipe
from compressnet.reporter import Reporter, Silent
from compressnet.side import Side, read_sides
from compressnet.subject import Loaded, read_weights, task_of
from compressnet.user_module import Shapes, read_shape

DEFAULT_OPSET = 18  # the oldest one that torch writes: the most runtimes read it
OPSETS = range(18, 24)
TOLERANCE = 1e-5
KEY = "compressnet"  # of the metadata, as in a weights file
SUFFIX = ".onnx"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Port(NamedTuple):
    """An input or output of the file; open axes have names."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        name: of the network, with its arguments.
        weights: their digest; "random" of a bare name, "given" of a module.
        values: what the numbers of input and output mean, where the network says so.
        assumed: sizes of a recipe's model that follow from data that is not there, and are defaults.
        checks: the first on the inputs of the trace, the others on other sizes.
        runtime: the version of ONNX Runtime.
    """

    output: Path
    name: str
    model: str
    arguments: Mapping[str, Any]
    weights: str
    parameters: int
    bytes: int
    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    values: str
    assumed: Mapping[str, Any]
    checks: tuple[Checked, ...]
    tolerance: float
    runtime: str

    @property
    def difference(self) -> float:
        """The largest difference to torch, relative to the largest value."""
        return max(checked.difference for checked in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        ports = {
            key: [port._asdict() for port in getattr(self, key)] for key in ("inputs", "outputs", "checks")
        }
        return {**asdict(self), **ports, "output": str(self.output), "difference": self.difference}


class _Source(NamedTuple):
    """The network to export and what is known of it."""

    module: nn.Module
    name: str
    model: str
    arguments: dict[str, Any]
    weights: str
    assumed: dict[str, Any]
    assets: Mapping[str, Any] = {}
    told: str = ""  # what its task says of inputs beside the first


def export(
    subject: str | nn.Module | Loaded,
    path: Path | str,
    *,
    settings: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    opset: int = DEFAULT_OPSET,
    state: bool = False,
    force: bool = False,
    tolerance: float = TOLERANCE,
    reporter: Reporter | None = None,
) -> Exported:
    """Write a network as an ONNX file with named inputs and outputs and open axes.

    The network is that of inference, in float32; batch, height and width, or time are open. Only the outputs
    of a recurrent layer are in the file, and its first state is zero; `lengths` are not in it. What is stored
    with weights, as names of classes, is in the metadata `compressnet`, in JSON.

    Args:
        subject: as the command line takes it, what `compressnet.load` returned, or any module with
            `example(batch, size)`.
        path: NAME.onnx.
        settings: arguments of the subject, as `--set` has them.
        inputs: shapes of the inputs of a module or `py:` subject without `example`, as `--input` has them.
        opset: one of `OPSETS`.
        state: for streams: the state is an input `state_0`, `state_1`, ... and an output `next_state_0`, ...,
            in the order of `init_state`.
        force: overwrite.
        tolerance: how far ONNX Runtime may be from torch, relative to the largest value.

    Raises:
        UsageError: the path, the opset or the subject is not one for this.
        CompressnetError: packages are missing, or the network cannot be exported, or not faithfully: then
            nothing is written.
    """
    path = Path(path)
    _check_target(path, force)
    if opset not in OPSETS:
        raise UsageError(f"opset {opset}: torch writes {OPSETS[0]} to {OPSETS[-1]}")
    if isinstance(subject, str):
        source = _named(subject, settings or {}, inputs)
    else:
        source = _given(_with_inputs(module_of(subject, "export"), inputs), settings)
        told = getattr(getattr(subject, "task", None), "told_as", "")
        source = source._replace(assets=getattr(subject, "assets", {}), told=told)
    _check_floats(source)
    (reporter or Silent()).note(
        "info", f"exporting {source.name}; ONNX Runtime checks the file, some seconds"
    )
    return _write(source, path, opset, state, tolerance, force)


def _with_inputs(module: nn.Module, inputs: Sequence[str]) -> nn.Module:
    if not inputs:
        return module
    module = copy.copy(module)  # only its example is another
    module.example = Shapes([read_shape(text) for text in inputs])  # type: ignore[assignment]
    return module


def checked_file(name: str, module: nn.Module, *, state: bool = False) -> bytes:
    """A module in evaluation as an ONNX file that was checked against torch.

    Args:
        name: what to call it in messages.
        state: as of `export`.

    Raises:
        UsageError, CompressnetError: as of `export`.
    """
    source = _Source(module, name, type(module).__name__, {}, "given", {})
    return _made(source, DEFAULT_OPSET, state, TOLERANCE)[1]


def missing_packages() -> str:
    """What is not installed and how to install it: "onnx: pip install ..."; "": nothing is missing."""
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if not missing:
        return ""
    return f"{', '.join(missing)}: pip install 'compressnet[export]' (the extra `export`)"


def _write(source: _Source, path: Path, opset: int, state: bool, tolerance: float, force: bool) -> Exported:
    with quiet():
        graph, file, checks = _made(source, opset, state, tolerance)
    files.write_bytes(path, file, replace=force)
    return Exported(
        path,
        source.name,
        source.model,
        source.arguments,
        source.weights,
        sum(parameter.numel() for parameter in source.module.parameters()),
        len(file),
        opset,
        _ports(graph.graph.inputs),
        _ports(graph.graph.outputs),
        _values(source),
        source.assumed,
        checks,
        tolerance,
        version("onnxruntime"),
    )


def _made(
    source: _Source, opset: int, state: bool, tolerance: float
) -> tuple[Any, bytes, tuple[Checked, ...]]:
    """The graph, its file, and how far that is from torch."""
    given = interface(source.module, state)
    graph = onnx_graph(source.name, given, opset)
    _describe(graph, source, opset)
    file = _serialised(graph)
    return graph, file, check(source.name, file, given, tolerance)


def _values(source: _Source) -> str:
    """What `apply` does around a network is not in the file: who uses it has to know."""
    return "; ".join(filter(None, (getattr(source.module, "values", ""), source.told)))


def _check_target(path: Path, force: bool) -> None:
    """Refuse what could not be done or written, before the seconds that an export takes."""
    if missing := missing_packages():
        raise CompressnetError(f"export needs {missing}")
    if files.is_stream(path):
        return
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: name the file to write NAME{SUFFIX}")
    if os.path.isdir(path):
        raise UsageError(f"{path}: a folder; name a file in it")
    files.refuse_to_overwrite(path, force)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CompressnetError(f"{path}: {path.parent} is no folder")
    if not os.access(folder, os.W_OK):
        raise CompressnetError(f"{path}: the folder {path.parent} cannot be written to")


def _named(text: str, settings: Mapping[str, Any], inputs: Sequence[str]) -> _Source:
    (side,) = read_sides([text], settings, inputs)
    kind, name = side.subject.kind, side.subject.name
    if "operator" in (kind, name):
        raise UsageError(f"{side.text}: a classical operator is not a network: nothing to export")
    module = side.module(with_weights=True).eval()
    if not side.is_stored:
        values = "given" if kind == "py" else "random"
        return _Source(module, side.text, _model(side), _arguments(side), values, side.assumed())
    architecture, tensors, _ = read_weights(text)
    digest = weights.digest(tensors, architecture)
    known = architecture.model, architecture.model_args, digest
    told = getattr(task_of(architecture, side.text), "told_as", "")
    return _Source(module, side.text, *known, {}, architecture.assets, told)


def _model(side: Side) -> str:
    """The name of the model or layer; of a recipe that of its model: no path."""
    subject = side.subject
    if subject.kind == "py":
        return subject.name.rpartition(":")[2]
    if subject.kind == "recipe" and subject.path is not None:
        return Recipe.load(subject.path).model.name
    return subject.name


def _arguments(side: Side) -> dict[str, Any]:
    """Those that a model or layer is built with; of a layer not those of its formulas."""
    subject = side.subject
    if subject.kind in ("recipe", "py"):
        return side.arguments()
    known = signature.parameters(registry.find(subject.kind, subject.name))
    defaults = {key: p.default for key, p in known.items() if not p.required}
    return {**defaults, **subject.arguments, **side.settings}


def _given(module: nn.Module, settings: Mapping[str, Any] | None) -> _Source:
    if settings:
        raise UsageError(f"settings {', '.join(settings)}: a module is as it was built")
    name = type(module).__name__
    return _Source(copy.deepcopy(module).cpu().eval(), name, name, {}, "given", {})


def _check_floats(source: _Source) -> None:
    tensors = [*source.module.parameters(), *source.module.buffers()]
    others = {x.dtype for x in tensors if x.is_floating_point()} - {torch.float32}
    if others:
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
        raise CompressnetError(
            f"{source.name}: it is {kinds}; an export is float32: convert it with .float()"
        )


def _describe(graph: Any, source: _Source, opset: int) -> None:
    """Write into the graph what it is: no paths, no times."""
    facts = {
        "version": version("compressnet"),
        "model": source.model,
        "arguments": source.arguments,
        "weights": source.weights,
        "opset": opset,
        "values": _values(source),
        "assets": dict(source.assets),
    }
    graph.metadata_props[KEY] = json.dumps(facts, sort_keys=True)
    graph.producer_name, graph.producer_version = "compressnet", version("compressnet")


def _serialised(graph: Any) -> bytes:
    import onnx_ir

    file: bytes = onnx_ir.serde.serialize_model(graph).SerializeToString(deterministic=True)
    return file


def _ports(values: Any) -> tuple[Port, ...]:
    return tuple(
        Port(
            value.name,
            value.dtype.numpy().name,
            tuple(size if isinstance(size, int) else str(size.value) for size in value.shape),
        )
        for value in values
    )
