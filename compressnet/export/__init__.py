"""Networks as ONNX files: `compressnet.export("zoo:rof", "rof.onnx")`."""

import sys
from types import ModuleType
from typing import Any

from compressnet.export.onnx_file import DEFAULT_OPSET, OPSETS, Exported, export

__all__ = ["DEFAULT_OPSET", "OPSETS", "Exported", "export"]


class _Room(ModuleType):
    """`compressnet.export` is this package, and by being called its function."""

    def __call__(self, *positional: Any, **named: Any) -> Exported:
        return export(*positional, **named)


sys.modules[__name__].__class__ = _Room
