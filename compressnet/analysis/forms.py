"""What `bench` times: a module as a callable, one for every mode of use and every way to run it.

module + inputs + mode + backend + dtype -> form()    (one pass; keeps nothing but the state of a stream)

Other ways to the same result that the project has for some modules are in `registry.BACKENDS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from compressnet import registry
from compressnet.errors import CompressnetError, UsageError

Mode = Literal["forward", "forward+backward", "train-step", "stream-step"]
MODES: tuple[str, ...] = get_args(Mode)
TRAINING = ("forward+backward", "train-step")
INFERENCE = ("forward", "stream-step")
DTYPES = ("float32", "bfloat16", "float16")
GENERAL_BACKENDS = ("eager", "compile")

Form = Callable[[], object]


def backends_of(module: nn.Module) -> tuple[str, ...]:
    """The ways to run a module: those of torch, and those that the project has for it."""
    return (*GENERAL_BACKENDS, *(name for name in registry.BACKENDS if has_backend(module, name)))


def has_backend(module: nn.Module, name: str) -> bool:
    """Whether the project has this way (of `registry.BACKENDS`) to run it."""
    return _own_backend(module, name) is not None


def what_runs(module: nn.Module, backend: str) -> nn.Module:
    """The module whose parameters a back end uses: itself, or the copy that the back end makes of it."""
    run = None if backend in GENERAL_BACKENDS else _own_backend(module, backend)
    made: nn.Module = run.what_runs() if hasattr(run, "what_runs") else module  # type: ignore[union-attr, operator]
    return made


def runs_as(module: nn.Module, backend: str) -> str:
    """The back end that runs: `backend`, or what one that chooses has chosen."""
    run = None if backend in GENERAL_BACKENDS else _own_backend(module, backend)
    return getattr(run, "runs_as", backend)


def make_form(
    module: nn.Module,
    inputs: Sequence[Tensor],
    mode: str = "forward",
    backend: str = "eager",
    dtype: str = "float32",
    name: str = "",
    batch: int | None = None,
) -> Form:
    """A callable that runs `module` once on `inputs`. The module is changed: give each form its own.

    Args:
        module: on the device of `inputs`.
        inputs: of its forward pass; for "stream-step" those of one step.
        mode: "forward": evaluation, no gradients; "forward+backward": gradients with respect to all
            parameters of the mean square of all outputs, or, where the network takes `targets`, of the mean
            of its losses; "train-step": also a step of Adam; "stream-step": one step with carried state.
        backend: "eager", "compile" or one of the module's own.
        dtype: the weights' and inputs' type; in modes with gradients that of torch's autocast, as in
            training.
        name: what to call the module in messages; default: its class.
        batch: of "stream-step": how many streams; default: the second axis of the first input, (T, B, ...).

    Raises:
        UsageError: unknown, or the module cannot do it; of the first call: the back end cannot.
    """
    name = name or type(module).__name__
    module.train(mode in TRAINING)
    _check(module, mode, dtype, name)
    run = _in_backend(module, mode, backend, name)
    kind = getattr(torch, dtype)
    compiled = backend == "compile"
    if mode == "forward":
        return _forward(run.to(kind), _cast(inputs, kind), compiled)
    if mode == "stream-step":
        return _stream(run.to(kind), _cast(inputs, kind), kind, batch or inputs[0].shape[1], compiled)
    device = inputs[0].device.type
    cast = torch.autocast(device, dtype=kind) if dtype != "float32" else nullcontext()
    return _with_gradients(_loss_of(module, run, inputs, compiled), run, cast, mode == "train-step")


def _check(module: nn.Module, mode: str, dtype: str, name: str) -> None:
    for what, value, known in (("--mode", mode, MODES), ("--dtype", dtype, DTYPES)):
        if value not in known:
            raise UsageError(f"{what} {value}: choose from {', '.join(known)}")
    if mode == "stream-step" and not _streams(module):
        raise UsageError(f"--mode stream-step: {name} has no streaming form (init_state and step)")
    if dtype != "float32" and not any(p.is_floating_point() for p in module.parameters()):
        raise UsageError(f"--dtype {dtype}: {name} has no parameters, it computes as it likes")
    if any(p.is_complex() for p in module.parameters()):
        raise UsageError(f"--dtype {dtype}: {name} has complex parameters, which lose their imaginary parts")
    if mode in TRAINING and not any(p.requires_grad for p in module.parameters()):
        raise UsageError(f"--mode {mode}: {name} has no parameters to train")


def _in_backend(module: nn.Module, mode: str, backend: str, name: str) -> nn.Module:
    """The module as a back end runs it.

    Raises:
        UsageError: the module has no such back end, or has it for other modes only.
    """
    if backend in GENERAL_BACKENDS:
        return module
    run = _own_backend(module, backend)
    if run is None:
        raise UsageError(f"--backend {backend}: {name} has {', '.join(backends_of(module))}")
    if getattr(run, "inference_only", False):
        possible = INFERENCE if _streams(run) else INFERENCE[:1]
        if mode not in possible:
            raise UsageError(
                f"--backend {backend}: {name} has it for --mode {' and '.join(possible)} only, not for {mode}"
            )
    return run


def _own_backend(module: nn.Module, name: str) -> nn.Module | None:
    if name not in registry.BACKENDS:
        return None
    found: nn.Module | None = registry.find("backend", name)(module)
    return found


def _streams(module: nn.Module) -> bool:
    return hasattr(module, "init_state") and hasattr(module, "step")


def _forward(module: nn.Module, inputs: tuple[Tensor, ...], compiled: bool) -> Form:
    run: Callable[..., Any] = _compiled(module) if compiled else module

    def form() -> object:
        with torch.inference_mode():
            return run(*inputs)

    return form


def _stream(module: Any, inputs: tuple[Tensor, ...], kind: torch.dtype, batch: int, compiled: bool) -> Form:
    step = _compiled(module.step) if compiled else module.step
    state = module.init_state(batch, inputs[0].device, kind)  # the inputs may be words, whole numbers

    def form() -> object:
        nonlocal state
        with torch.inference_mode():
            y, state = step(*inputs, state)
        return y

    return form


def _with_gradients(
    loss: Callable[[], Tensor], module: nn.Module, cast: AbstractContextManager[Any], optimise: bool
) -> Form:
    # A rate of zero: the same work, and weights that stay where timing found them.
    optimizer = torch.optim.Adam(module.parameters(), lr=0.0)

    def form() -> object:
        optimizer.zero_grad(set_to_none=True)
        with cast:
            value = loss()
        value.backward()
        if optimise:
            optimizer.step()
        return None

    return form


def _loss_of(
    module: nn.Module, run: nn.Module, inputs: Sequence[Tensor], compiled: bool
) -> Callable[[], Tensor]:
    """What is differentiated. Language models are told what to predict: they never make all probabilities."""
    call: Callable[..., Any] = _compiled(run) if compiled else run
    if "targets" not in inspect.signature(module.forward).parameters:
        return lambda: _mean_square(call(*inputs))
    targets = inputs[0].roll(-1, 0)  # words are numbers below V, as targets are
    return lambda: call(*inputs, targets=targets)[0].mean()


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile`, whose failures become one line.

    Raises:
        CompressnetError: of a call: no C++ compiler, or something that torch cannot compile.
    """
    compiled = torch.compile(function)

    def run(*inputs: Any, **named: Any) -> Any:
        try:
            return compiled(*inputs, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise CompressnetError(
                "--backend compile: torch cannot compile it here (on a CPU that takes a C++ compiler, g++ or "
                f"clang++): {reason}"
            ) from error

    return run


def _mean_square(output: Any) -> Tensor:
    parts = [tensor for tensor in _tensors(output) if tensor.is_floating_point()]
    if not parts:
        raise UsageError("--mode with gradients: the network's output is no floating-point tensor")
    return torch.stack([tensor.float().square().mean() for tensor in parts]).sum()


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return (
        [tensor for part in output for tensor in _tensors(part)] if isinstance(output, list | tuple) else []
    )


def _cast(inputs: Sequence[Tensor], kind: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(x.to(kind) if x.is_floating_point() else x for x in inputs)
