"""An ONNX file against the network that it was made from, in ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from compressnet.errors import CompressnetError
from compressnet.export.interface import Interface, Tensors

_FEWEST = 2  # sizes other than the exported one
_SILENT = 4  # of ONNX Runtime's log: what is fatal is raised as well
_LONGEST = 160  # characters of somebody else's message
# Where float32 itself is this far from float64 in torch, ONNX Runtime may be as far and as much again.
_SHARE_OF_ROUNDING, _MOST_ROUNDING = 3.0, 1e-3


class Checked(NamedTuple):
    """One comparison.

    Attributes:
        inputs: shapes.
        difference: the largest, over the outputs, of |ours - torch's|, relative to the largest value that
            this output of torch has at any of the sizes.
    """

    inputs: tuple[tuple[int, ...], ...]
    difference: float


def check(name: str, file: bytes, given: Interface, tolerance: float) -> tuple[Checked, ...]:
    """Compare on the inputs of the trace and on all others that the network itself takes.

    Args:
        name: what to call the network in messages.
        file: the ONNX file.
        tolerance: of `Checked.difference`.

    Raises:
        CompressnetError: the file is not valid, ONNX Runtime refuses it, or it computes something else: it is
            further from torch than `tolerance` and than what float32 costs torch itself.
    """
    session = open_session(name, file)
    pairs = []
    for inputs in (given.example, *given.others):
        try:
            with torch.no_grad():
                wanted = [x.numpy() for x in given.network(*inputs)]
        except (RuntimeError, ValueError):  # too small an image for its kernels
            continue
        pairs.append((inputs, _run(name, session, given, inputs), wanted))
    if len(pairs) <= _FEWEST:
        raise CompressnetError(f"{name}: it takes too few of the sizes that an export is checked with")
    scales = [max(map(_largest, column)) for column in zip(*(pair[2] for pair in pairs), strict=True)]
    checks = tuple(
        Checked(tuple(tuple(x.shape) for x in inputs), difference(got, wanted, scales))
        for inputs, got, wanted in pairs
    )
    worst = max(checks, key=lambda checked: checked.difference)
    if worst.difference > tolerance:
        rounding = max(_rounding(given, inputs, wanted, scales) for inputs, _, wanted in pairs)
        if worst.difference > min(_SHARE_OF_ROUNDING * rounding, _MOST_ROUNDING):
            why = (
                f"; in torch itself float32 is {rounding:.1e} off float64: its results hang on the last digit"
            )
            raise CompressnetError(
                f"{name}: at {_text(worst.inputs[0])} ONNX Runtime differs from torch by "
                f"{worst.difference:.1e} of the largest value; at most {tolerance:.0e} is allowed"
                f"{why if rounding > _MOST_ROUNDING else ''}"
            )
    return checks


def _rounding(
    given: Interface, inputs: Tensors, single: Sequence[NDArray[Any]], scales: Sequence[float]
) -> float:
    """How far torch's own result in float32 is from that in float64; 0 where there is none in float64."""
    wide = (x.double() if x.is_floating_point() else x for x in inputs)
    try:
        with torch.no_grad():
            double = [x.numpy() for x in copy.deepcopy(given.network).double()(*wide)]
    except (RuntimeError, ValueError, TypeError):  # it insists on float32
        return 0.0
    return difference([x.astype(y.dtype) for x, y in zip(single, double, strict=True)], double, scales)


def open_session(name: str, file: bytes) -> Any:
    """An ONNX file in ONNX Runtime, with torch's number of threads.

    Raises:
        CompressnetError: it is not valid, or refused.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Its idle threads would go on looking for work, and slow down whatever is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        onnx.checker.check_model(file, full_check=True)
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CompressnetError(f"{name}: what torch writes for it is refused: {_line(error)}") from error


def difference(got: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]], scales: Sequence[float]) -> float:
    """The largest |got - wanted| / scale of all outputs; infinite where shapes or types differ or NaN is."""
    worst = 0.0
    for ours, theirs, scale in zip(got, wanted, scales, strict=True):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return float("inf")
        off = _largest(ours.astype(np.float64) - theirs)
        if np.isinf(off):
            return off
        worst = max(worst, off / scale if scale else off)
    return worst


def _largest(values: NDArray[Any]) -> float:
    """The largest magnitude; infinite if something is not finite."""
    if not np.isfinite(values).all():
        return float("inf")
    return float(np.abs(values).max()) if values.size else 0.0


def _run(name: str, session: Any, given: Interface, inputs: Tensors) -> list[NDArray[Any]]:
    feed = dict(zip(given.input_names, (x.numpy() for x in inputs), strict=True))
    try:
        results: list[NDArray[Any]] = session.run(None, feed)
    except Exception as error:  # ONNX Runtime has a class of its own for each status
        here, traced = _text(inputs[0].shape), _text(given.example[0].shape)
        raise CompressnetError(
            f"{name}: its file works at {traced} and not at {here}: torch's own RNN and GRU, and loops in "
            f"Python, freeze a size ({_line(error)})"
        ) from error
    return results


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
