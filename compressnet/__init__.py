"""compressnet: train, evaluate, compress, count and time the systems that made neural networks small.

import compressnet

network = compressnet.load("zoo:rof")             # or a run, a weights file, operator:l0
for source, image in network.apply(["photo.jpg"]):
    ...
fresh = compressnet.create("can24", variant="paper")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressnet.subject import create, load

__all__ = ["create", "load"]


def __getattr__(name: str) -> Any:
    # Imported when used, so that the command line's help need not wait for it.
    if name in __all__:
        from compressnet import subject

        return getattr(subject, name)
    raise AttributeError(f"module 'compressnet' has no attribute '{name}'")
