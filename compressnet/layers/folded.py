"""The back end `folded`: a copy of a module with all folded that can be."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.errors import UsageError
from compressnet.layers.fold import difference, folding, rounding
from compressnet.layers.fold_plan import groups

_ROUGH = 1e-2  # what is wrong is further off; devices that round float32 products are not, in a deep network


class Folded(nn.Module):
    """A folded copy of a module, made in the first call and compared with it there.

    It streams where the module does: it has `init_state` and `step` then, and only then.
    """

    inference_only = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._copy: Any = None
        if hasattr(module, "init_state") and hasattr(module, "step"):
            self.init_state = module.init_state
            self.step = partial(self._call, "step")

    def forward(self, *inputs: Any) -> Any:
        return self._call("forward", *inputs)

    def _call(self, method: str, *inputs: Any) -> Any:
        if self._copy is None:
            self._copy = self._checked(method, inputs)
        return self._copy(*inputs) if method == "forward" else self._copy.step(*inputs)

    @torch.inference_mode(False)
    @torch.no_grad()
    def what_runs(self) -> nn.Module:
        """A folded copy, not compared with the module.

        Raises:
            UsageError: what is folded would not be finite.
        """
        made = copy.deepcopy(self.module).eval()
        found = folding(made)
        if found is None:
            raise UsageError("--backend folded: what could be folded would not be finite")
        found.apply(made)
        return made

    @torch.inference_mode(False)
    @torch.no_grad()
    def _checked(self, method: str, inputs: Sequence[Any]) -> nn.Module:
        made = self.what_runs()
        wanted = getattr(self.module.eval(), method)(*inputs)
        off = difference(getattr(made, method)(*inputs), wanted)
        if off > max(_ROUGH, rounding(made)):
            raise UsageError(f"--backend folded: its outputs differ by {off:.1e} of the largest value")
        return made


def backend(module: nn.Module) -> Folded | None:
    """The module with all folded that can be; None where nothing can."""
    return Folded(module) if next(groups(module), None) is not None else None


@torch.inference_mode(False)
@torch.no_grad()
def in_channels_last(module: nn.Module) -> nn.Module:
    """A copy of an image network in evaluation, folded and channels-last: what is fastest on a CPU."""
    made = copy.deepcopy(module).eval().requires_grad_(False)
    found = folding(made)
    if found is not None:
        found.apply(made)
    made.requires_grad_(False)
    for part in made.modules():
        if type(part) is nn.Conv2d and part.padding_mode == "zeros" and not isinstance(part.padding, str):
            part.__class__ = _OneDnnConv2d
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _OneDnnConv2d(nn.Conv2d):
    """By oneDNN whatever its size: with one thread torch takes a loop of its own for small 1x1 convolutions,
    which is slower, the more so in groups."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        here = x.is_cpu and x.dtype == weight.dtype == torch.float32 and x.ndim == 4 and x.numel() > 0
        if not here or not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        place = self.padding, self.stride, self.dilation, self.groups
        return torch.ops.aten.mkldnn_convolution(x, weight, self.bias, *place)
