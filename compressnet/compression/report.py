"""What compression cost and gained: a row for every layer, both networks timed, nothing left out.

    dense network, Compressed, inputs -> Report: parameters, bytes, MACs, error of each layer, milliseconds

A layer that computes less is not faster by that: both forms of each are timed, interleaved, on what the layer
is given within the network, and what is slower is called slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressnet import registry
from compressnet.analysis.count import Count, count
from compressnet.analysis.rounds import Effort
from compressnet.analysis.timing import Clock, Comparison, compare
from compressnet.architecture import Edit
from compressnet.compression.methods import Compressed
from compressnet.compression.network import Calibration, Kept
from compressnet.compression.part import KINDS
from compressnet.errors import UsageError
from compressnet.layers.chain import Chain
from compressnet.layers.recurrent_stack import RecurrentStack
from compressnet.tasks.image_apply import fast_forms

OF_LAYERS = Effort(warmup_rounds=5, warmup_seconds=0.3, min_rounds=10, max_rounds=60, min_seconds=0.2)
OF_NETWORKS = Effort(warmup_rounds=5, warmup_seconds=1.0, min_rounds=10, max_rounds=100, min_seconds=1.0)
_BEFORE, _AFTER = "before", "after"


@dataclass(frozen=True)
class Figures:
    """Of a layer or a network."""

    parameters: int
    bytes: int
    macs: int


@dataclass(frozen=True)
class Row:
    """A layer that was replaced.

    Attributes:
        path, kind: of the layer as it was.
        methods: what was done to it, in order, with the rank that was chosen.
        error: of its outputs on the calibration data, given what it was given before: the root of the mean
            square of the difference over that of the outputs about their mean; of a recurrent cell that of
            all that reads it; None: it cannot be compared.
        timing: of both forms on the layer's own input; None: it was not timed.
    """

    path: str
    kind: str
    methods: tuple[tuple[str, str], ...]
    before: Figures
    after: Figures
    error: float | None = None
    timing: Comparison | None = None

    @property
    def verdict(self) -> str:
        return verdict(self.timing)

    @property
    def size(self) -> str:
        return ", ".join(size for _, size in self.methods)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; of times what follows from them, not every one."""
        methods = [{"method": method, "size": size} for method, size in self.methods]
        timing = None if self.timing is None else _without_seconds(self.timing)
        return {**_figures(self), "error": self.error, "methods": methods, "timing": timing}


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        inputs: shapes of what both networks were counted and timed with.
        kept: layers that stay, and why.
        rows: those that do not.
        timing: of the networks, each as `apply` runs it: "before" and "after", and by ONNX Runtime where that
            is installed; None: they were not timed.
        calibration: which data, how much; `data_free` where there was none.
        ways: how the networks "before" and "after" run: a back end such as "winograd" or "eager".
        edits: what was done, for `compressnet.compression.apply` and weights files.
    """

    inputs: tuple[tuple[int, ...], ...]
    before: Figures
    after: Figures
    rows: tuple[Row, ...]
    kept: tuple[Kept, ...]
    timing: Comparison | None
    calibration: Mapping[str, Any]
    reestimated: bool
    warnings: tuple[str, ...]
    ways: Mapping[str, str]
    edits: tuple[Edit, ...] = ()

    @property
    def verdict(self) -> str:
        return verdict(self.timing)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "inputs": [list(shape) for shape in self.inputs],
            "before": asdict(self.before),
            "after": asdict(self.after),
            "layers": [row.as_dict() for row in self.rows],
            "kept": [one._asdict() for one in self.kept],
            "timing": None if self.timing is None else _without_seconds(self.timing),
            "calibration": dict(self.calibration),
            "reestimated": self.reestimated,
            "warnings": list(self.warnings),
            "ways": dict(self.ways),
            "edits": list(self.edits),
        }

    def __str__(self) -> str:
        """A line for each layer, the network last."""
        whole = ("network", "", self.before, self.after, self.verdict, None)
        sizes = [(row.path, row.size, row.before, row.after, row.verdict, row.error) for row in self.rows]
        lines = ["layer | size | parameters | MACs | times as fast [95 %] | error"]
        for name, size, before, after, fast, error in (*sizes, whole):
            parameters = f"{before.parameters:,} > {after.parameters:,}"
            off = "-" if error is None else f"{error:.3f}"
            macs = f"{before.macs:,} > {after.macs:,}"
            lines.append(" | ".join((name, size, parameters, macs, fast, off)))
        return "\n".join((*lines, *(f"kept: {one.path}: {one.reason}" for one in self.kept), *self.warnings))


def verdict(timing: Comparison | None) -> str:
    """`1.62x [1.55, 1.70]`; with `slower` or `no difference` where it is that; `-` of what was not timed."""
    if timing is None:
        return "-"
    ratio = timing[_AFTER].ratio
    if not ratio.shows_difference:
        return f"{ratio} no difference"
    return f"{ratio}" if ratio.value > 1 else f"{ratio} slower"


def report(
    dense: nn.Module,
    result: Compressed,
    calibration: Calibration,
    inputs: tuple[Any, ...],
    clock: Clock = "wall",
    timed: bool = True,
) -> Report:
    """Compare a network with what was made of it.

    Args:
        inputs: of one call, of the size that counts and times are wanted for.
        timed: False leaves all times away.
    """
    before, after = count(dense, inputs), count(result.module, inputs)
    paths = [path for path, layer in dense.named_modules() if _is_unit(dense, path, layer)]
    changed = [path for path in paths if result.method_of(path)]
    errors = _errors(dense, result, changed, calibration) if calibration.is_data else {}
    times = _times_of_layers(dense, result.module, changed, inputs, clock) if timed else {}
    rows = tuple(
        Row(
            path,
            type(dense.get_submodule(path)).__name__,
            _sizes(result, path),
            _below(before, path),
            _below(after, path),
            errors.get(path, _own_error(result, path)),
            times.get(path),
        )
        for path in changed
    )
    return Report(
        tuple(tuple(x.shape) for x in inputs if isinstance(x, Tensor)),
        _below(before, ""),
        _below(after, ""),
        rows,
        tuple(result.kept),
        _times_of_networks(dense, result.module, inputs, clock) if timed else None,
        {**calibration.about, "data_free": not calibration.is_data},
        result.reestimated,
        tuple(result.warnings),
        {name: _way(module)[1] for name, module in ((_BEFORE, dense), (_AFTER, result.module))},
        tuple(result.edits),
    )


def _without_seconds(timing: Comparison) -> dict[str, Any]:
    whole = timing.as_dict()
    return {**whole, "timings": [_without(row, "seconds") for row in whole["timings"]]}


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _figures(row: Row) -> dict[str, Any]:
    names = {"path": row.path, "kind": row.kind}
    return {**names, "before": asdict(row.before), "after": asdict(row.after), "verdict": row.verdict}


def _is_unit(module: nn.Module, path: str, layer: nn.Module) -> bool:
    """Whether a layer is one that methods name: the outermost that none of its kind holds."""
    outer = path.rpartition(".")[0]
    while outer:
        if _is_layer(module.get_submodule(outer)):
            return False
        outer = outer.rpartition(".")[0]
    return bool(path) and _is_layer(layer)


def _is_layer(layer: nn.Module) -> bool:
    streams = hasattr(layer, "init_state") and hasattr(layer, "step")
    if isinstance(layer, RecurrentStack):
        return False  # its cells are
    own = any(p is not None and p.ndim > 1 for p in layer._parameters.values())
    return (
        isinstance(layer, Chain)
        or own
        or (streams and type(layer).__module__.startswith("compressnet.layers."))
    )


def _below(counted: Count, path: str) -> Figures:
    rows = [r for r in counted.layers if not path or r.path == path or r.path.startswith(f"{path}.")]
    return Figures(*(sum(getattr(row, name) for row in rows) for name in ("parameters", "bytes", "macs")))


def _sizes(result: Compressed, path: str) -> tuple[tuple[str, str], ...]:
    """What was done to a layer; of one that only reads what was changed, that."""
    done = result.method_of(path)
    own = [
        (method, one) for method, one in done if one.paths[0] == path or one.paths[0].startswith(f"{path}.")
    ]
    return tuple((method, one.text) for method, one in own or done)


def _own_error(result: Compressed, path: str) -> float | None:
    """What a transform itself says of a layer that it alone changed."""
    done = result.method_of(path)
    own = [one.error for _, one in done if one.paths[0] == path]
    return own[0] if len(own) == 1 and len({method for method, _ in done}) == 1 else None


def _errors(
    dense: nn.Module, result: Compressed, paths: Sequence[str], calibration: Calibration
) -> dict[str, float]:
    """How far the outputs of new layers are from those of old ones on the same inputs."""
    folds = [done.paths for method, done in result.replaced if method.startswith("fold")]
    last = {
        first: others[-1] for first, *others in folds if others
    }  # what a folded layer puts out, comes there
    inside = {path for _, *others in folds for path in others}
    sums: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}
    handles = []

    def keep(path: str) -> Callable[..., None]:
        def seen(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            given[path] = inputs[0]

        return seen

    def hook(path: str, new: nn.Module) -> Callable[..., None]:
        def seen(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            wanted = output.double()
            off = new(given[path]).double() - wanted
            total = torch.stack([off.square().sum(), wanted.square().sum(), wanted.sum()]).cpu()
            more = torch.cat([total, torch.tensor([float(wanted.numel())], dtype=torch.float64)])
            sums[path] = sums.get(path, torch.zeros(4, dtype=torch.float64)) + more

        return seen

    try:
        for path in paths:
            layer, new = dense.get_submodule(path), result.module.get_submodule(path)
            if type(layer) in KINDS and path not in inside:
                end = dense.get_submodule(last.get(path, path))
                handles.append(layer.register_forward_pre_hook(keep(path)))
                handles.append(end.register_forward_hook(hook(path, new)))
        if handles:
            calibration(dense)
    finally:
        for handle in handles:
            handle.remove()
    errors = {}
    for path, values in sums.items():
        off, square, plain, number = values.tolist()
        spread = square - plain**2 / number
        if spread > 0 or off == 0:  # of a constant nothing is a share
            errors[path] = (off / spread) ** 0.5 if spread > 0 else 0.0
    return errors


@torch.no_grad()
def _times_of_layers(
    dense: nn.Module, made: nn.Module, paths: Sequence[str], inputs: tuple[Any, ...], clock: Clock
) -> dict[str, Comparison]:
    """Both forms of each layer on what it is given in a call of the network."""
    old, new = (_given(module, paths, inputs) for module in (dense, made))
    times = {}
    for path in (path for path in old if path in new):
        forms = {
            _BEFORE: _call(dense.get_submodule(path), (old[path],)),
            _AFTER: _call(made.get_submodule(path), (new[path],)),
        }
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # it takes more than one input
            times[path] = compare(forms, OF_LAYERS, old[path].device, clock)
    return times


def _given(module: nn.Module, paths: Sequence[str], inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """What each layer is given first in a call of its network: a reader of projected outputs has less."""
    given: dict[str, Tensor] = {}

    def hook(path: str) -> Callable[..., None]:
        def seen(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and path not in given:
                given[path] = args[0].detach().clone()

        return seen

    handles = [module.get_submodule(path).register_forward_hook(hook(path)) for path in paths]
    try:
        module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return given


@torch.no_grad()
def _times_of_networks(
    dense: nn.Module, made: nn.Module, inputs: tuple[Any, ...], clock: Clock
) -> Comparison:
    """Both networks, each as `apply` runs it; and by ONNX Runtime, where it is installed and takes them."""
    forms = {}
    for name, module in ((_BEFORE, dense), (_AFTER, made)):
        forms[name] = _call(_way(module)[0], inputs)
    for name, module in ((_BEFORE, dense), (_AFTER, made)):
        if (form := _in_onnxruntime(module, inputs)) is not None:
            forms[f"{name}, ONNX Runtime"] = form
    if len(forms) == 3:  # one alone says nothing
        forms = dict(list(forms.items())[:2])
    return compare(forms, OF_NETWORKS, inputs[0].device, clock)


def _way(module: nn.Module) -> tuple[nn.Module, str]:
    """A network as `apply` runs it on the CPU, and the name of that back end."""
    return next(((form, name) for name, form in fast_forms(module).items()), (module, "eager"))


def _in_onnxruntime(module: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], object] | None:
    run = registry.find("backend", "onnxruntime")(module)
    if run is None:
        return None
    form = _call(run, inputs)
    try:
        form()
    except (UsageError, ImportError, RuntimeError):
        return None
    return form


def _call(module: Any, inputs: tuple[Any, ...]) -> Callable[[], object]:
    def form() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return form
