"""The back end `onnxruntime`: a network as `export` writes it, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressnet.errors import CompressnetError, UsageError
from compressnet.export.check import open_session
from compressnet.export.onnx_file import checked_file, missing_packages
from compressnet.export.quiet import quiet


class InOnnxRuntime(nn.Module):
    """A module whose outputs ONNX Runtime computes, of a copy that is exported and checked in the first call.

    Its threads are torch's at that time. Of what a network with a state returns, `forward` has the outputs
    alone. It streams where the module does: it has `init_state` and `step` then, and only then.
    """

    inference_only = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._session: Any = None
        if hasattr(module, "init_state") and hasattr(module, "step"):
            self.init_state = module.init_state
            self.step = self._step

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs for inputs as its `example` makes them, of any size."""
        return _one_or_all(self._run(inputs, state=False))

    def _step(self, *inputs: Any) -> tuple[Any, Any]:
        *given, state = inputs
        leaves, structure = pytree.tree_flatten(state)
        results = self._run((*given, *leaves), state=True)
        count = len(results) - len(leaves)
        return _one_or_all(results[:count]), pytree.tree_unflatten(results[count:], structure)

    def _run(self, inputs: Sequence[Tensor], state: bool) -> list[Tensor]:
        if self._session is None:
            self._session = self._made(inputs, state)
        session, names = self._session
        arrays = session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))
        return [torch.from_numpy(array) for array in arrays]

    @torch.inference_mode(False)
    def _made(self, inputs: Sequence[Tensor], state: bool) -> tuple[Any, list[str]]:
        if missing := missing_packages():
            raise CompressnetError(f"--backend onnxruntime needs {missing}")
        tensors = [*self.module.parameters(), *self.module.buffers(), *inputs]
        plain = all(x.dtype == torch.float32 for x in tensors if x.is_floating_point())
        if not plain or any(x.device.type != "cpu" for x in tensors):
            raise UsageError("--backend onnxruntime: it computes float32 on the CPU only")
        name = type(self.module).__name__
        with quiet():
            file = checked_file(name, self.module.eval(), state=state)
        session = open_session(name, file)
        return session, [port.name for port in session.get_inputs()]


def backend(module: nn.Module) -> InOnnxRuntime | None:
    """The module in ONNX Runtime; None where it has no weights: what it computes may be no network."""
    return InOnnxRuntime(module) if any(True for _ in module.parameters()) else None


def _one_or_all(results: list[Tensor]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)
