"""Ways to run a module that holds layers with a C kernel: all in torch, or in C and nothing else.

By itself such a layer takes the kernel where it can and torch's operations elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressnet.errors import UsageError
from compressnet.kernels import cross_entropy, log_mel, lstm, lstm_1997, sru, svdf
from compressnet.layers.features import LogMel
from compressnet.layers.lstm_1997 import LSTM1997
from compressnet.layers.lstm_cell import LSTMCell
from compressnet.layers.softmax import ClassSoftmax, FactoredSoftmax, FullSoftmax
from compressnet.layers.sru import SRU
from compressnet.layers.svdf import SVDF

# A layer and its kernel: NAME.py with `available()` and `reference()`, operations `compressnet::NAME_...`.
_KERNELS: tuple[tuple[type[nn.Module], ModuleType], ...] = (
    (LSTMCell, lstm),
    (LSTM1997, lstm_1997),
    (SRU, sru),
)
# Of a frame of a stream: windows and whole sequences are products, in torch.
_OF_STEPS: tuple[tuple[type[nn.Module], ModuleType], ...] = ((SVDF, svdf),)
# Of what only a loss has, and of a few frames of sound: nobody can be sure to see it used in an inference.
_OF_SOME: tuple[tuple[type[nn.Module], ModuleType], ...] = (
    (LogMel, log_mel),
    (FullSoftmax, cross_entropy),
    (FactoredSoftmax, cross_entropy),
    (ClassSoftmax, cross_entropy),
)

_Call = Callable[..., Any]  # of a function and its arguments


def in_torch(module: nn.Module) -> nn.Module | None:
    """The module with the kernels' torch references in their place; None where it holds no such layer."""
    kernels = _kernels(module, _KERNELS + _OF_STEPS + _OF_SOME).values()

    def call(function: _Call, *arguments: Any) -> Any:
        with ExitStack() as stack:
            for kernel in kernels:
                stack.enter_context(kernel.reference())
            return function(*arguments)

    return _Around(module, call) if kernels else None


def in_c(module: nn.Module) -> nn.Module | None:
    """The module with its C kernels and nothing in their place; None where it holds no layer that has one.

    Raises:
        UsageError: of the first call: a kernel was not built, does not compute these tensors or was not used.
    """
    whole, steps = _kernels(module, _KERNELS), _kernels(module, _KERNELS + _OF_STEPS)
    return _Around(module, _InC(module, whole), _InC(module, steps)) if steps else None


class _Around(nn.Module):
    """A module of which forward goes through `call` and step through `call_step`; it shares its parameters.

    It streams where the module does: it has `init_state` and `step` then, and only then.
    """

    def __init__(self, module: nn.Module, call: _Call, call_step: _Call | None = None) -> None:
        super().__init__()
        self.module = module
        self._call = call
        if hasattr(module, "init_state") and hasattr(module, "step"):
            self.init_state = module.init_state
            self.step = partial(call_step or call, module.step)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self._call(partial(self.module, **named), *inputs)


class _InC:
    """Calls, and makes sure once, in the first call, that C is what computes."""

    def __init__(self, module: nn.Module, kernels: Mapping[str, ModuleType]) -> None:
        self.module, self.kernels = module, kernels
        self.sure = False

    def __call__(self, function: _Call, *arguments: Any) -> Any:
        if self.sure:
            return function(*arguments)
        self._check(arguments)
        with _Operations() as operations:
            result = function(*arguments)
        for name in self.kernels:
            if not any(re.match(rf"compressnet\.{name}_[a-z]", seen) for seen in operations.seen):
                raise UsageError(f"--backend c: the C kernel '{name}' has not all switches of this layer")
        self.sure = True
        return result

    def _check(self, arguments: Sequence[Any]) -> None:
        if not self.kernels:
            raise UsageError("--backend c: what C computes here are single frames: --mode stream-step only")
        for name, kernel in self.kernels.items():
            if not kernel.available():
                raise UsageError(
                    f"--backend c: the C kernel '{name}' was not built: reinstall where a C compiler is"
                )
        tensors = [*self.module.parameters(), *(x for x in arguments if isinstance(x, Tensor))]
        plain = all(x.dtype == torch.float32 for x in tensors if x.is_floating_point())
        if not plain or any(x.device.type != "cpu" for x in tensors) or torch.is_autocast_enabled("cpu"):
            raise UsageError("--backend c: the C kernel computes float32 on the CPU only")


class _Operations(TorchFunctionMode):
    """The names of the operations called within it (`TorchDispatchMode` would import half of torch)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
    ) -> Any:
        self.seen.add(str(function))
        return function(*arguments, **(keywords or {}))


def _kernels(module: nn.Module, known: Sequence[tuple[type[nn.Module], ModuleType]]) -> dict[str, ModuleType]:
    """The kernels of the layers in it, by name."""
    parts = list(module.modules())
    return {
        kernel.__name__.rpartition(".")[2]: kernel
        for kind, kernel in known
        if any(isinstance(part, kind) for part in parts)
    }
