"""compressnet: train, evaluate, compress, count and time the systems that made neural networks small.

import compressnet

network = compressnet.load("zoo:rof")             # or a run, a weights file, operator:l0
for source, image in network.apply(["photo.jpg"]):
    ...
fresh = compressnet.create("can24", variant="paper")

Of any torch.nn.Module:

compressnet.count(module, torch.rand(1, 3, 224, 224)).macs
compressnet.compare({"mine": lambda: mine(x), "theirs": lambda: theirs(x)}).timings[1].ratio
compressnet.export(module, "net.onnx")            # a module with example(batch, size)
compressnet.compress(module, inputs, ["tucker:ratio=0.5"])   # a smaller copy, and a report of it
compressnet.fold(module)                          # a copy for inference without batch normalisation
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressnet.analysis.count import count
    from compressnet.analysis.fold import fold
    from compressnet.analysis.timing import compare
    from compressnet.compression import compress
    from compressnet.export import export
    from compressnet.subject import create, load

__all__ = ["compare", "compress", "count", "create", "export", "fold", "load"]
_ROOMS = {
    "compare": "compressnet.analysis.timing",
    "compress": "compressnet.compression",
    "count": "compressnet.analysis.count",
    "create": "compressnet.subject",
    "fold": "compressnet.analysis.fold",
    "load": "compressnet.subject",
}


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    # Imported when used, so that the command line's help need not wait for it.
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    if name == "export":  # a room of that name, which is its function too
        return import_module("compressnet.export")
    raise AttributeError(f"module 'compressnet' has no attribute '{name}'")
